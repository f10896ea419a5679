"""Speech engines (text-to-speech) by name, and the voice banks that recipes choose from.

To add an engine: a module beside this one that can speak, an entry in ENGINES, and an extra in pyproject.toml. A recipe
then names one of its banks as `voice_bank`; synthesis, manifest and resuming need no change.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rba_bench.audio import espeak, piper


@dataclass(frozen=True)
class SpeechEngine:
    """A speech synthesiser.

    Attributes:
        name: As manifests show it.
        version: Gives the version; raises MissingPrerequisite where the engine is not installed.
        speak: `speak(text, language, voice)` gives float32 mono samples at 16 kHz, [n], equal for equal arguments;
            it is called from several threads.
        banks: Voices by bank. A voice is a frozen dataclass with a `name`; its fields decide whether a finished shard
            is kept. Bank names are unique among all engines.
    """

    name: str
    version: Callable[[], str]
    speak: Callable[[str, str, Any], np.ndarray]
    banks: Mapping[str, Sequence[Any]]


ENGINES = (
    SpeechEngine("espeak-ng", espeak.espeak_version, espeak.speak, espeak.BANKS),
    SpeechEngine("piper", piper.piper_version, piper.speak, piper.BANKS),
)
VOICE_BANKS = {bank: voices for engine in ENGINES for bank, voices in engine.banks.items()}


def engine_of_bank(bank: str) -> SpeechEngine:
    """The engine that has a voice bank (a key of VOICE_BANKS)."""
    return next(engine for engine in ENGINES if bank in engine.banks)

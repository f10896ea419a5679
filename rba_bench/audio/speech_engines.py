"""Speech engines (text-to-speech) by name, and the voice banks that recipes choose from.

To add an engine: a module beside this one that can speak, an entry in ENGINES, and an extra in pyproject.toml. A recipe
then names one of its banks as `voice_bank`; synthesis, manifest and resuming need no change.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.audio import espeak, piper
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import sha256_once
from rba_bench.recipes import suggest


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


ONNX = ".onnx"
ENGINES = (
    SpeechEngine("espeak-ng", espeak.espeak_version, espeak.speak, espeak.BANKS),
    SpeechEngine("piper", piper.piper_version, piper.speak, piper.BANKS),
)
VOICE_BANKS = {bank: voices for engine in ENGINES for bank, voices in engine.banks.items()}


def engine_of_bank(bank: str) -> SpeechEngine:
    """The engine that has a voice bank (a key of VOICE_BANKS)."""
    return next(engine for engine in ENGINES if bank in engine.banks)


@dataclass(frozen=True)
class Speaker:
    """A voice with the engine that has it."""

    engine: SpeechEngine
    voice: Any

    @property
    def name(self) -> str:
        """Of the voice, as data sets show it."""
        return str(self.voice.name)

    def facts(self) -> dict[str, Any]:
        """What decides how the voice sounds, as JSON values; a hash stands for the files of a voice of the user's."""
        facts = asdict(self.voice)
        model = Path(str(facts.get("model", "")))
        if model.suffix == ONNX:
            facts["model"] = sha256_once(model)
        return {"engine": self.engine.name, **facts, "name": self.name}


def find_speakers(names: Sequence[str]) -> list[Speaker]:
    """Speakers by name, each once, in the order of the names.

    Args:
        names: Each a voice bank (`natural`), one voice of a bank (`clear-test/en-us+linda`), or the `.onnx` file of a
            Piper voice; several may be joined by commas.

    Raises:
        UserError: No such bank or voice, none at all, or two voices of one name.
        MissingPrerequisite: No such file.
    """
    speakers: dict[str, Speaker] = {}
    for text in (part.strip() for name in names for part in name.split(",")):
        for speaker in _speakers_of(text) if text else ():
            if speakers.setdefault(speaker.name, speaker).voice != speaker.voice:
                raise UserError(f"--voices holds two voices of the name {speaker.name!r}: leave one out")
    if not speakers:
        raise UserError(f"no voice is named; banks of voices: {', '.join(VOICE_BANKS)}")
    return list(speakers.values())


def _speakers_of(name: str) -> list[Speaker]:
    if name.endswith(ONNX):
        file = Path(name)
        if not (file.is_file() and file.with_name(f"{file.name}.json").is_file()):
            raise MissingPrerequisite(
                f"no Piper voice at {name}: it is an {ONNX} file with its {ONNX}.json beside"
            )
        engine = next(engine for engine in ENGINES if engine.name == "piper")
        return [Speaker(engine, piper.PiperVoice(file.stem, str(file)))]
    bank, _, wanted = name.partition("/")
    if bank not in VOICE_BANKS:
        raise UserError(f"unknown bank of voices {bank!r}{suggest(bank, VOICE_BANKS)}")
    voices = {voice.name: Speaker(engine_of_bank(bank), voice) for voice in VOICE_BANKS[bank]}
    if wanted and wanted not in voices:
        raise UserError(f"the bank {bank} has no voice {wanted!r}{suggest(wanted, voices)}")
    return [voices[wanted]] if wanted else list(voices.values())

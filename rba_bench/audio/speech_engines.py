"""Speech engines (text-to-speech) by name, their banks of voices, and voices by the names that users write.

To add an engine: a module beside this one that can speak, an entry in ENGINES, and an extra in pyproject.toml. A recipe
then names one of its banks as `voice_bank`; synthesis, manifest and resuming need no change. An engine whose voices are
not known beforehand has an entry in SCHEMES instead, and its module a function `find(spec)`.

    natural, clear-test                  a bank
    clear-test/en-us+linda               one voice of a bank
    x.onnx, x.onnx#3, x.onnx#p225        a Piper voice; of several speakers the first, or one by number or name
    x.onnx#all                           all speakers of a Piper model
    FOLDER                               every Piper voice below the folder, with all speakers
    hf:FOLDER-OR-HUB-ID[?OPTIONS]        a model of transformers; see `rba_bench.audio.transformers_speech`
    server:BASE-URL#MODEL[?OPTIONS]      a server; see `rba_bench.textlm.endpoints.speech`
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import import_module
from math import gcd
from typing import Any

import numpy as np

from rba_bench.audio import espeak, piper
from rba_bench.errors import AudioError, MissingPrerequisite, UserError
from rba_bench.recipes import suggest
from rba_bench.seeding import stable_seed

SpeakBatch = Callable[[Sequence[str], str, Sequence[Any]], list[np.ndarray | AudioError]]


@dataclass(frozen=True)
class SpeechEngine:
    """A speech synthesiser.

    Attributes:
        name: As manifests show it.
        version: Gives the version; raises MissingPrerequisite where the engine is not installed.
        speak: `speak(text, language, voice)` gives float32 mono samples at 16 kHz, [n]. It is called from several
            threads, and loads what it needs in the process that calls it. Engines on this machine give equal samples
            for equal arguments. AudioError says that this one text cannot be said; other errors end the run.
        banks: Voices by bank. A voice is a frozen dataclass with a `name`; its fields decide whether a finished shard
            is kept. Bank names are unique among all engines.
        facts: What decides how a voice sounds, as JSON values without paths of this machine.
        speak_batch: `speak_batch(texts, language, voices)` says each text with the voice at its position, faster than
            one after the other; an AudioError stands where a text cannot be said.
    """

    name: str
    version: Callable[[], str]
    speak: Callable[[str, str, Any], np.ndarray]
    banks: Mapping[str, Sequence[Any]]
    facts: Callable[[Any], dict[str, Any]] = asdict
    speak_batch: SpeakBatch | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A speaker that is sent to another process takes the name of its engine along, not all banks of it."""
        if any(engine is self for engine in ENGINES):
            return engine_of_name, (self.name,)
        return super().__reduce_ex__(protocol)


ONNX = piper.ONNX
ENGINES = (
    SpeechEngine("espeak-ng", espeak.espeak_version, espeak.speak, espeak.BANKS),
    SpeechEngine("piper", piper.piper_version, piper.speak, piper.BANKS, piper.voice_facts),
)
VOICE_BANKS = {bank: voices for engine in ENGINES for bank, voices in engine.banks.items()}
# By name, because the client of servers stands above this part of the package, and torch takes seconds to load.
SCHEMES = {"hf:": "rba_bench.audio.transformers_speech", "server:": "rba_bench.textlm.endpoints.speech"}


def engine_of_bank(bank: str) -> SpeechEngine:
    """The engine that has a voice bank (a key of VOICE_BANKS)."""
    return next(engine for engine in ENGINES if bank in engine.banks)


def engine_of_name(name: str) -> SpeechEngine:
    """The engine of ENGINES with a name."""
    return next(engine for engine in ENGINES if engine.name == name)


@dataclass(frozen=True)
class Speaker:
    """A voice with the engine that has it. It can be pickled, and holds neither models nor samples."""

    engine: SpeechEngine
    voice: Any

    @property
    def name(self) -> str:
        """Of the voice, as data sets show it."""
        return str(self.voice.name)

    def facts(self) -> dict[str, Any]:
        """What decides how the voice sounds, as JSON values; a hash stands for the files of a voice of the user's."""
        return {"engine": self.engine.name, **self.engine.facts(self.voice), "name": self.name}


def speak_all(
    texts: Sequence[str], language: str, speakers: Sequence[Speaker]
) -> list[np.ndarray | AudioError]:
    """Say each text with the speaker at its position; engines that can say many at once do so.

    Returns:
        Per text float32 mono samples at 16 kHz, [n], or why this text cannot be said.

    Raises:
        RbaError: An engine does not work, is not there, or does not know the language.
    """
    results: dict[int, np.ndarray | AudioError] = {}
    batches: dict[SpeakBatch, list[int]] = {}
    for place, (text, speaker) in enumerate(zip(texts, speakers, strict=True)):
        if speaker.engine.speak_batch is None:
            results[place] = _speak_or_error(speaker.engine, text, language, speaker.voice)
        else:
            batches.setdefault(speaker.engine.speak_batch, []).append(place)
    for speak_batch, places in batches.items():
        voices = [speakers[place].voice for place in places]
        waves = speak_batch([texts[place] for place in places], language, voices)
        results |= zip(places, waves, strict=True)
    return [results[place] for place in range(len(texts))]


def _speak_or_error(engine: SpeechEngine, text: str, language: str, voice: Any) -> np.ndarray | AudioError:
    try:
        return engine.speak(text, language, voice)
    except AudioError as error:
        return error


def draw_speakers(speakers: Sequence[Speaker], k: int, seed: int, key: int | str) -> list[Speaker]:
    """`k` different speakers for one item, the same in whatever order the items are made.

    Every so many items the speakers are shuffled anew, and dealt out in turn. So over any items 0 to n all speakers
    speak equally often, within one, and do not always come in the same company.

    Args:
        speakers: All of them, in an order that does not change.
        k: How many, at most `len(speakers)`.
        seed: Of the set.
        key: Number of the item in its set, from 0. A name stands for a number that its hash gives: then speakers are
            only used equally often on average.

    Raises:
        UserError: There are fewer than `k` speakers.
    """
    n = len(speakers)
    if not 1 <= k <= n:
        raise UserError(f"{k} voices an item were asked for, and there are {n}: name as many voices or more")
    number = key if isinstance(key, int) else stable_seed("speakers", key)
    items = n // gcd(n, k)  # after so many the last speaker has had a turn, and no turn is cut
    order = _shuffled(n, seed, number // items)
    start = number % items * k
    return [speakers[order[(start + i) % n]] for i in range(k)]


@lru_cache(maxsize=4)
def _shuffled(n: int, seed: int, turn: int) -> list[int]:
    return random.Random(stable_seed("turn of speakers", seed, turn)).sample(range(n), n)


def find_speakers(names: Sequence[str]) -> list[Speaker]:
    """Speakers by name, each once, in the order of the names.

    Args:
        names: As in the table at the top of this module. Several may be joined by commas; what begins with a scheme
            (`hf:`, `server:`) goes to the end of its string, because its options hold commas.

    Raises:
        UserError: No such bank or voice, none at all, or two voices of one name.
        MissingPrerequisite: No such file.
        RbaError: A server that must be asked for its voices does not answer.
    """
    speakers: dict[str, Speaker] = {}
    for text in (part for name in names for part in _parts(name)):
        for speaker in _speakers_of(text):
            if speakers.setdefault(speaker.name, speaker).voice != speaker.voice:
                raise UserError(f"--voices holds two voices of the name {speaker.name!r}: leave one out")
    if not speakers:
        raise UserError(f"no voice is named; banks of voices: {', '.join(VOICE_BANKS)}")
    return list(speakers.values())


def _parts(name: str) -> list[str]:
    parts: list[str] = []
    rest = name.strip()
    while rest:
        if rest.startswith(tuple(SCHEMES)):
            return [*parts, rest]
        part, _, rest = (piece.strip() for piece in rest.partition(","))
        parts += [part] if part else []
    return parts


def _speakers_of(name: str) -> list[Speaker]:
    for scheme, module in SCHEMES.items():
        if name.startswith(scheme):
            found: list[Speaker] = import_module(module).find(name.removeprefix(scheme))
            return found
    bank, _, wanted = name.partition("/")
    if bank not in VOICE_BANKS:
        if voices := piper.find_voices(name):
            return [Speaker(engine_of_name("piper"), voice) for voice in voices]
        if not bank or name.startswith((".", "~")):
            raise MissingPrerequisite(f"no folder {name}: it should hold Piper voices")
        raise UserError(f"unknown bank of voices {bank!r}{suggest(bank, VOICE_BANKS)}")
    known = {voice.name: Speaker(engine_of_bank(bank), voice) for voice in VOICE_BANKS[bank]}
    if wanted and wanted not in known:
        raise UserError(f"the bank {bank} has no voice {wanted!r}{suggest(wanted, known)}")
    return [known[wanted]] if wanted else list(known.values())

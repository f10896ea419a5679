"""Controls that take the speech away: the same task, but the clips tell the model nothing of what was said.

    silence     zeros of the clip's length
    shuffle     the clip of another item
    first=1s    the first second of the clip; any number of seconds from SHORTEST to LONGEST

What a model still scores under a control it owes to the prompt, to habits of the test set and to luck. A control is
part of the protocol, so a control run shares no table with real runs; boards show its score as a share of the full one.

`shuffle` is a function of the test set alone, so it is the same for every model, in every process and with any limit.
No item keeps its clip, or gets one of the same content, words or cluster; the language stays where that is possible.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rba_bench.audio.clips import SAMPLING_RATE
from rba_bench.errors import UserError
from rba_bench.evaluation.documents import same_words
from rba_bench.files import canonical_json
from rba_bench.seeding import stable_seed

VERSION = 1  # raise it whenever a control gives other samples or other clips
SILENCE, SHUFFLE, FIRST = "silence", "shuffle", "first"
USAGES = {SILENCE: SILENCE, SHUFFLE: SHUFFLE, FIRST: "first=<seconds>"}
SHORTEST, LONGEST = 0.1, 3600.0  # seconds of `first`: less is shorter than what encoders take in at once
_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})\s*s?")


@dataclass(frozen=True)
class AudioControl:
    """What the model gets instead of the clip.

    Attributes:
        kind: `silence`, `shuffle` or `first`.
        seconds: Of `first`, else 0.
    """

    kind: str
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """Canonical form, which goes into records; `parse_audio_control` reads it back."""
        return f"{FIRST}={self.seconds:.10g}s" if self.kind == FIRST else self.kind

    @property
    def exchanges(self) -> bool:
        """Whether each item gets the clip of another one, so that the whole test set is needed."""
        return self.kind == SHUFFLE

    def identity(self) -> dict[str, Any]:
        """JSON facts for the protocol: the control and the version of what its name means."""
        return {"text": self.text, "version": VERSION}

    def apply(self, wave: np.ndarray) -> np.ndarray:
        """The samples that the model gets: float32 at 16 kHz, shape [n] -> [n], of `first` at most `seconds` of it."""
        if self.kind == SILENCE:
            return np.zeros_like(wave)
        return wave[: round(self.seconds * SAMPLING_RATE)] if self.kind == FIRST else wave

    def length(self, seconds: float) -> float:
        """Seconds that are left of a clip of `seconds`."""
        return min(seconds, self.seconds) if self.kind == FIRST else seconds

    def key_suffix(self) -> str:
        """What the content key of a clip ends with; nothing of an exchanged clip, which is whole."""
        return "" if self.exchanges else "|" + canonical_json(self.identity()).decode()


def parse_audio_control(text: str) -> AudioControl:
    """The control that `text` names; see the module.

    Raises:
        UserError: an unknown control, or no usable number of seconds.
    """
    name, equals, value = (part.strip().lower() for part in text.partition("="))
    if name not in USAGES:
        near = difflib.get_close_matches(name, USAGES, n=1, cutoff=0.5)
        hint = f"did you mean {USAGES[near[0]]}? " if near else ""
        raise UserError(f"unknown audio control {text!r}; {hint}known: {', '.join(USAGES.values())}")
    if name != FIRST:
        if equals:
            raise UserError(f"{name} takes no value, found {text!r}")
        return AudioControl(name)
    match = _SECONDS.fullmatch(value)
    if not match:
        raise UserError(f"cannot read {text!r}: want first=<seconds>, for example first=1s")
    seconds = float(f"{float(match[1]):.10g}")
    if not SHORTEST <= seconds <= LONGEST:
        raise UserError(f"{text!r} is out of range: first goes from {SHORTEST:g} to {LONGEST:g} seconds")
    return AudioControl(FIRST, seconds)


def requested_control(audio: str, perturb: str = "") -> AudioControl | None:
    """The control that a run asks for, None where `audio` is empty.

    Raises:
        UserError: an unknown control, or one that leaves nothing to perturb.
    """
    if not audio:
        return None
    control = parse_audio_control(audio)
    if perturb and control.kind == SILENCE:
        raise UserError(
            f"silence has no sound that could be changed by {perturb!r}: leave out the perturbation, or choose the "
            "control shuffle or first=<seconds>"
        )
    return control


def recorded_control(protocol: Mapping[str, Any]) -> AudioControl | None:
    """The control in the protocol of a record, None where it has none.

    Raises:
        UserError: it is not one that this version would write.
    """
    entry = protocol.get("audio")
    if not entry:
        return None
    control = parse_audio_control(str(entry.get("text"))) if isinstance(entry, Mapping) else None
    if control is None or control.identity() != entry:
        raise UserError("the record has an audio control that this version of rba-bench does not know")
    return control


def refuse_reader(control: AudioControl | None, model: str) -> None:
    """Raises UserError: a control is asked for although `model` reads the transcript and gets no audio."""
    if control is not None:
        raise UserError(
            f"{model} reads the transcript and gets no audio, so the control {control.text} changes nothing: "
            "name a model that takes audio"
        )


class ClipFacts(NamedTuple):
    """What tells whether two items may exchange their clips.

    Attributes:
        clip: Hash of the clip.
        cluster: Of the item.
        words: What is spoken, as letters alone; "" where it is not known.
        language: That is spoken.
    """

    clip: str
    cluster: str
    words: str
    language: str

    @classmethod
    def of(cls, clip: str, cluster: str, instruction: str, language: str) -> "ClipFacts":
        """Of an item, with what is spoken as the test set writes it."""
        return cls(clip, cluster, same_words(instruction), language)


def facts_of(documents: Iterable[Mapping[str, Any]]) -> list[ClipFacts]:
    """The facts of documents."""
    return [
        ClipFacts.of(doc["audio"]["sha256"], doc["cluster"], doc["instruction"], doc["source_lang"])
        for doc in documents
    ]


def exchanged_audio(documents: Sequence[Mapping[str, Any]], name: str) -> dict[int, Any]:
    """By position in a test set the `audio` of the item whose clip is played; see `exchange_clips`."""
    donors = exchange_clips(facts_of(documents), name)
    return {position: dict(documents[donor]["audio"]) for position, donor in enumerate(donors)}


def exchange_clips(items: Sequence[ClipFacts], name: str) -> list[int]:
    """For each item of a test set the position of the item whose clip it gets: a permutation that moves every clip.

    Items that share clip, words or cluster form a class. Each language is put in an order by hash in which classes stay
    together, and turned by the size of its largest class: so no clip stays in its class if that is at most half of all.
    Languages in which one class is larger are turned together, and if need be with the smallest of the others.

    Args:
        items: The whole test set, in order.
        name: Of the task, for the message.

    Raises:
        UserError: more than half of the items are of one class.
    """
    classes = _classes(items)
    parts: dict[str, list[int]] = {}
    for position, item in enumerate(items):
        parts.setdefault(item.language, []).append(position)
    most = _largest(range(len(items)), classes)
    if most > len(items) / 2:
        raise UserError(
            f"{name}: {most} of {len(items)} items say the same, so not every item can get another clip: use the "
            "control silence"
        )
    donors = [0] * len(items)
    for part in _exchanging(list(parts.values()), classes):
        for position, donor in _turn(part, items, classes):
            donors[position] = donor
    return donors


def _exchanging(parts: Sequence[Sequence[int]], classes: Sequence[int]) -> list[list[int]]:
    """Parts within which clips can be exchanged: languages, and those together that cannot be alone."""
    alone = [list(part) for part in parts if _largest(part, classes) <= len(part) / 2]
    together = [position for part in parts if list(part) not in alone for position in part]
    alone.sort(key=len, reverse=True)
    while _largest(together, classes) > len(together) / 2:
        together += alone.pop()
    return [*alone, sorted(together)]


def _turn(
    part: Sequence[int], items: Sequence[ClipFacts], classes: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Position and donor: an order by hash in which classes stay together, turned by the size of the largest one."""

    def place(position: int) -> tuple[int, ...]:
        first, item = items[classes[position]], items[position]
        seeds = [stable_seed("exchange", VERSION, each.clip, each.cluster) for each in (first, item)]
        return seeds[0], classes[position], seeds[1], position

    ordered, shift = sorted(part, key=place), _largest(part, classes)
    return zip(ordered, ordered[shift:] + ordered[:shift], strict=True)


def _largest(part: Sequence[int], classes: Sequence[int]) -> int:
    return max(Counter(classes[position] for position in part).values(), default=0)


def _classes(items: Sequence[ClipFacts]) -> list[int]:
    """Class of each item, named by its first item; who shares anything with a member belongs to it (union-find)."""
    parents = list(range(len(items)))

    def root(position: int) -> int:
        while parents[position] != position:
            parents[position] = parents[parents[position]]
            position = parents[position]
        return position

    holders: dict[tuple[int, str], int] = {}
    for position, item in enumerate(items):
        for mark in enumerate((item.clip, item.cluster, item.words)):
            if mark[1]:
                a, b = sorted((root(holders.setdefault(mark, position)), root(position)))
                parents[b] = a
    return [root(position) for position in range(len(items))]

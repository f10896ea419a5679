"""What goes to a model and what comes back, between lm-eval's instances and our samples."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rba_bench.errors import UserError
from rba_bench.evaluation import clip_input
from rba_bench.evaluation.decoding import Settings, cut, settings
from rba_bench.textlm.base import Generation, Status
from rba_bench.textlm.replies import ReplyParts, split

if TYPE_CHECKING:  # boards read this module where lm-eval is broken
    from lm_eval.api.instance import Instance


@dataclass(frozen=True)
class Answer:
    """Answer to the request at position `index`.

    Attributes:
        text: What is scored; the raw reply is that of the generation.
        complete: False if the model was still thinking when its reply ended.
    """

    index: int
    text: str
    generation: Generation
    seed: int
    complete: bool = True

    @property
    def status(self) -> Status:
        """The generation's; a reply that ends within its thinking was cut off, whatever a server says."""
        return self.generation.status if self.complete else "truncated"


@dataclass(frozen=True)
class Answered:
    """Answers that came together, and what they cost.

    Attributes:
        answers: In no particular order.
        wall_s: Time since the answers before them.
        io_s: The part of it spent waiting for clips to be read and decoded.
        stages: The parts that the model knows: `features`, `encoder`, `decoder`, ...
    """

    answers: list[Answer]
    wall_s: float
    io_s: float
    stages: dict[str, float]


@dataclass(slots=True)
class Planned:
    """A request as it will be sent; its seed and key depend on what it asks, not on where or when.

    Attributes:
        index: Position among the requests of this process.
        doc_id: Position of its document in the test set.
        prompt: Text beside the audio.
        audio: Clip, in any form that `clip_input` knows.
        settings: Decoding and stop strings.
        duration: Of the clip, in seconds.
        seed: Of its sampled answer.
        key: Content of the clip as it is heard.
    """

    index: int
    doc_id: int
    prompt: str
    audio: Any
    settings: Settings
    duration: float
    seed: int = 0
    key: str = ""

    @classmethod
    def of(cls, index: int, request: "Instance") -> "Planned":
        """Raises UserError if the item does not have exactly one clip; a clip that is null will not be heard."""
        prompt, kwargs, media = (*request.args, {})[:3]
        given = media.get("audio") if isinstance(media, dict) else None
        clips = given if isinstance(given, list) else [given]
        if len(clips) != 1 or given is None:
            raise UserError(f"{request.task_name}: expected one clip per item, found {len(clips)}")
        clip, doc_id = clips[0], -1 if request.doc_id is None else request.doc_id
        return cls(index, doc_id, prompt, clip, _shared_settings(kwargs), clip_input.duration(clip))

    def answer(self, generation: Generation) -> Answer:
        """What counts of what the model said."""
        parts = scored_part(generation.text, self.settings.until)
        return Answer(self.index, parts.answer, generation, self.seed, parts.complete)


def scored_part(response: str, until: Sequence[str]) -> ReplyParts:
    """What is scored of a raw response: the answer in it (see `textlm.replies`), cut at the task's stop strings."""
    parts = split(response)
    return replace(parts, answer=cut(parts.answer, until))


@lru_cache(maxsize=64)
def _settings_of(text: str) -> Settings:
    return settings(json.loads(text))


def _shared_settings(kwargs: Mapping[str, Any]) -> Settings:
    """One object for equal `generation_kwargs`, of which lm-eval makes a copy for every item."""
    return _settings_of(json.dumps(dict(kwargs), sort_keys=True))

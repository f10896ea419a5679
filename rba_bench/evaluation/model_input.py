"""What goes to a model and what comes back: clips, prompts, decoding, answers.

From lm-eval's `generation_kwargs` to a `Decoding`, a base seed and stop strings.

What an audio task may put beside a prompt, turned into samples at the model's rate.

Our own documents send a reference. It may name a `prefix`, another reference that is heard first (an instruction that
is spoken): its clip, `PAUSE` seconds of silence, then the clip itself, as one recording. Tasks written by others may
send decoded samples (`{"array", "sampling_rate"}`), encoded bytes (`{"bytes"}`), a path, or the decoder objects of
`datasets` >= 4.

What goes to a model and what comes back, between lm-eval's instances and our samples.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rba_bench.audio import clips, samples
from rba_bench.audio.decoding import CLIP_BYTES
from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes
from rba_bench.textlm.replies import ReplyParts, split_reply
from rba_bench.textlm.text_model import Decoding, Generation, Status

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


DEFAULT_SEED = 1234
PROTOCOLS = ("greedy", "sampled")
KEYS = ("protocol", "do_sample", "temperature", "top_p", "max_gen_toks", "seed", "until")


@dataclass(frozen=True)
class GenerationSettings:
    """How to answer.

    Attributes:
        protocol: `greedy`, `sampled` (T = 1, no truncation) or `custom`.
        decoding: What the model is told.
        seed: Base seed; an item's seed is derived from it, its prompt and its audio hash.
        until: Strings at whose first occurrence an answer is cut.
    """

    protocol: str
    decoding: Decoding
    seed: int
    until: tuple[str, ...]


def read_generation_settings(kwargs: Mapping[str, Any]) -> GenerationSettings:
    """Read `generation_kwargs`; unnamed decoding is greedy.

    Raises:
        UserError: an unknown key, or values that contradict the named protocol.
    """
    unknown = sorted(kwargs.keys() - set(KEYS))
    if unknown:
        raise UserError(f"unknown generation setting {', '.join(unknown)}; known: {', '.join(KEYS)}")
    named = str(kwargs.get("protocol", "custom"))
    if named not in (*PROTOCOLS, "custom"):
        raise UserError(f"unknown protocol {named!r}; known: greedy, sampled, custom")
    sampled = bool(kwargs.get("do_sample", named == "sampled"))
    temperature = float(kwargs.get("temperature", 1.0)) if sampled else 0.0
    decoding = Decoding(
        max_new_tokens=int(kwargs.get("max_gen_toks", Decoding().max_new_tokens)),
        temperature=temperature,
        top_p=float(kwargs.get("top_p", 1.0)) if temperature else 1.0,
    )
    protocol = _protocol(decoding)
    if named in PROTOCOLS and protocol != named:
        raise UserError(
            f"protocol {named} contradicts {dict(kwargs)}: name it `custom` or leave the rest out"
        )
    return GenerationSettings(
        protocol, decoding, int(kwargs.get("seed", DEFAULT_SEED)), _strings(kwargs.get("until"))
    )


def _protocol(decoding: Decoding) -> str:
    if decoding.temperature == 0:
        return "greedy"
    return "sampled" if decoding.temperature == 1 and decoding.top_p == 1 else "custom"


def _strings(until: str | Sequence[str] | None) -> tuple[str, ...]:
    if until is None:
        return ()
    return (until,) if isinstance(until, str) else tuple(until)


def cut_at_stops(text: str, until: Sequence[str]) -> str:
    """`text` up to the first of the stop strings."""
    ends = [text.find(stop) for stop in until if stop and stop in text]
    return text[: min(ends)] if ends else text


PAUSE = 0.5  # seconds between a prefix and the clip


def load_wave(value: Any) -> np.ndarray:
    """Float32 mono samples at 16 kHz.

    Raises:
        UserError: a form of audio that is not known, or a damaged file.
        AudioError: the clip holds no usable sound.
    """
    if isinstance(value, Mapping) and "sha256" in value:
        heard = clips.load_clip(clip_reference(value))
        return (
            heard
            if _prefix(value) is None
            else _joined(clips.load_clip(clip_reference(_prefix(value))), heard)
        )
    if isinstance(value, Mapping) and value.get("array") is not None:
        return wave_from_array(value["array"], value.get("sampling_rate"))
    if isinstance(value, Mapping) and value.get("bytes"):
        return clips.decode_clip(_bytes(value["bytes"]))
    if isinstance(value, Mapping) and value.get("path"):
        value = value["path"]
    if isinstance(value, str | os.PathLike):
        return clips.decode_clip(_file_bytes(os.fspath(value)))
    if hasattr(value, "get_all_samples"):
        try:
            decoded = value.get_all_samples()
        except (RuntimeError, ValueError, IndexError, OSError) as error:  # torchcodec's, on damaged audio
            raise clips.AudioError(f"damaged audio ({' '.join(str(error).split())[:120]})") from error
        return wave_from_array(decoded.data, decoded.sample_rate)
    raise UserError(f"cannot read audio from {type(value).__name__}: send a reference, array, bytes or path")


def clip_reference(value: Any) -> clips.AudioRef:
    """The clip that a document's audio entry points at, without its prefix."""
    known = {
        name: part
        for name, part in value.items()
        if name not in ("transcript", "prefix") and part is not None  # lm-eval fills absent keys with None
    }
    return clips.AudioRef.from_dict(known)


def spoken_text(value: Any) -> str:
    """What is spoken, prefix first, where the task knows it (for text oracles), else ""."""
    if not isinstance(value, Mapping):
        return ""
    before = spoken_text(_prefix(value)) if _prefix(value) else ""
    return f"{before} {value.get('transcript') or ''}".strip()


def clip_key(value: Any) -> str:
    """Hash of what is heard, for seeds: it must not depend on where the clip lies."""
    if isinstance(value, Mapping) and "sha256" in value:
        prefix = _prefix(value)
        own = str(value["sha256"])
        return own if prefix is None else sha256_bytes(f"{clip_key(prefix)}|{PAUSE}|{own}".encode())
    return sha256_bytes(load_wave(value).tobytes())


def clip_duration(value: Any) -> float:
    """Seconds, 0.0 where only decoding could tell; used to put clips of like length into one batch."""
    if not isinstance(value, Mapping):
        return 0.0
    prefix = _prefix(value)
    try:
        own = float(value.get("duration") or 0.0)
    except (TypeError, ValueError, OverflowError):  # of a task written by others, where it may be anything
        own = 0.0
    own = own if math.isfinite(own) else 0.0
    return own if prefix is None else clip_duration(prefix) + PAUSE + own


def _prefix(value: Mapping[str, Any]) -> Any:
    return value.get("prefix") or None


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    silence = np.zeros(round(PAUSE * clips.SAMPLING_RATE), dtype=np.float32)
    return np.concatenate([first, silence, second])


def wave_from_array(values: Any, rate: Any) -> np.ndarray:
    """Float32 mono samples at 16 kHz of decoded samples of any number type, shape [n], [channels, n] or [n, channels].

    Integers are scaled by their type's range to [-1, 1).

    Raises:
        AudioError: not such samples: empty, not numbers, not finite, of no plausible rate, or with no axis of channels.
    """
    rate = samples.check_rate(rate)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists, tensors that need a gradient
        raise clips.AudioError(f"audio samples that are no array ({str(error)[:80]})") from error
    if max(array.shape, default=0) > clips.max_clip_seconds() * rate:
        raise clips.AudioError(f"audio is longer than {clips.max_clip_seconds():g} s: split it")
    if array.ndim > 2:  # [1, channels, n] and its like
        array = array.reshape([n for n in array.shape if n != 1] or [1])
    if array.ndim not in (1, 2) or not array.size:
        raise clips.AudioError(f"audio samples of shape {np.shape(values)}: want [n] or [channels, n]")
    if array.ndim == 2 and min(array.shape) > samples.MOST_CHANNELS:
        raise clips.AudioError(f"audio samples of shape {array.shape}: neither axis is one of channels")
    floats = samples.as_floats(array)
    samples.check_samples(floats.ravel())
    if floats.ndim == 2:
        floats = samples.mono(floats if floats.shape[1] <= floats.shape[0] else floats.T)
    return samples.resample(floats, rate, clips.SAMPLING_RATE)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise clips.AudioError(f"audio bytes of type {type(value).__name__}: want bytes")
    return bytes(value)


def _file_bytes(path: str | bytes) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read(CLIP_BYTES + 1)  # what is longer the decoder refuses
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read audio file {str(path)[:300]}: {reason}") from error


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
class AnswerBatch:
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
class PlannedRequest:
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
    settings: GenerationSettings
    duration: float
    seed: int = 0
    key: str = ""

    @classmethod
    def of(cls, index: int, request: "Instance") -> "PlannedRequest":
        """Raises UserError if the item does not have exactly one clip; a clip that is null will not be heard."""
        prompt, kwargs, media = (*request.args, {})[:3]
        given = media.get("audio") if isinstance(media, dict) else None
        clips = given if isinstance(given, list) else [given]
        if len(clips) != 1 or given is None:
            raise UserError(f"{request.task_name}: expected one clip per item, found {len(clips)}")
        clip, doc_id = clips[0], -1 if request.doc_id is None else request.doc_id
        return cls(index, doc_id, prompt, clip, _shared_settings(kwargs), clip_duration(clip))

    def answer(self, generation: Generation) -> Answer:
        """What counts of what the model said."""
        parts = scored_part(generation.text, self.settings.until)
        return Answer(self.index, parts.answer, generation, self.seed, parts.complete)


def scored_part(response: str, until: Sequence[str]) -> ReplyParts:
    """What is scored of a raw response: the answer in it (see `textlm.replies`), cut at the task's stop strings."""
    parts = split_reply(response)
    return replace(parts, answer=cut_at_stops(parts.answer, until))


@lru_cache(maxsize=64)
def _settings_of(text: str) -> GenerationSettings:
    return read_generation_settings(json.loads(text))


def _shared_settings(kwargs: Mapping[str, Any]) -> GenerationSettings:
    """One object for equal `generation_kwargs`, of which lm-eval makes a copy for every item."""
    return _settings_of(json.dumps(dict(kwargs), sort_keys=True))

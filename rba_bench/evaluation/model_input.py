"""What goes to a model and what comes back: generation settings, clips, requests and answers.

The `generation_kwargs` of a task become a `Decoding`, a base seed and stop strings. The audio of an item becomes
samples at the model's rate. Our own documents send a reference; it may name a `prefix`, another reference that is
played first (an instruction that is spoken): the model gets the clip of the prefix, `PAUSE` seconds of silence, then
the clip itself, as one recording. Tasks written by others may send decoded samples (`{"array", "sampling_rate"}`),
encoded bytes (`{"bytes"}`), a path, or the decoder objects of `datasets` >= 4.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rba_bench.audio import clips, samples
from rba_bench.audio.decoding import CLIP_BYTES
from rba_bench.errors import UserError
from rba_bench.evaluation.audio_control import AudioControl
from rba_bench.files import canonical_json, sha256_bytes
from rba_bench.seeding import stable_seed
from rba_bench.textlm.replies import ReplyParts, split_reply
from rba_bench.textlm.text_model import Decoding, Generation, Status

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


DEFAULT_SEED = 1234
PROTOCOLS = ("greedy", "sampled")
KEYS = ("protocol", "do_sample", "temperature", "top_p", "max_gen_toks", "seed", "until")
PAUSE = 0.5  # seconds between a prefix and the clip
NO_CONTENT = "unheard"  # in place of the content hash of a clip that cannot be decoded; part of seeds


@dataclass(frozen=True)
class GenerationSettings:
    """How to answer.

    Attributes:
        protocol: `greedy`, `sampled` (T = 1, no truncation) or `custom`.
        decoding: Length, temperature and top-p.
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
    if unknown := sorted(kwargs.keys() - set(KEYS)):
        raise UserError(f"unknown generation setting {', '.join(unknown)}; known: {', '.join(KEYS)}")
    name = str(kwargs.get("protocol", "custom"))
    if name not in (*PROTOCOLS, "custom"):
        raise UserError(f"unknown protocol {name!r}; known: greedy, sampled, custom")
    sampled = bool(kwargs.get("do_sample", name == "sampled"))
    temperature = float(kwargs.get("temperature", 1.0)) if sampled else 0.0
    decoding = Decoding(
        max_new_tokens=int(kwargs.get("max_gen_toks", Decoding().max_new_tokens)),
        temperature=temperature,
        top_p=float(kwargs.get("top_p", 1.0)) if temperature else 1.0,
    )
    unchanged = temperature == 1 and decoding.top_p == 1
    protocol = "greedy" if temperature == 0 else "sampled" if unchanged else "custom"
    if name in PROTOCOLS and protocol != name:
        raise UserError(f"protocol {name} contradicts {dict(kwargs)}: name it `custom` or leave the rest out")
    until = kwargs.get("until")
    stops = (until,) if isinstance(until, str) else tuple(until or ())
    return GenerationSettings(protocol, decoding, int(kwargs.get("seed", DEFAULT_SEED)), stops)


def load_wave(value: Any) -> np.ndarray:
    """Float32 mono samples at 16 kHz of audio in any form that an item may send.

    Raises:
        UserError: a form of audio that is not known, or a damaged file.
        AudioError: the clip holds no usable sound.
    """
    if isinstance(value, Mapping):
        if "sha256" in value:
            wave = clips.load_clip(clip_reference(value))
            if not value.get("prefix"):
                return wave
            pause = np.zeros(round(PAUSE * clips.SAMPLING_RATE), dtype=np.float32)
            return np.concatenate([clips.load_clip(clip_reference(value["prefix"])), pause, wave])
        if value.get("array") is not None:
            return wave_from_array(value["array"], value.get("sampling_rate"))
        if data := value.get("bytes"):
            if not isinstance(data, bytes | bytearray | memoryview):
                raise clips.AudioError(f"audio bytes of type {type(data).__name__}: want bytes")
            return clips.decode_clip(bytes(data))
        value = value.get("path") or value
    if isinstance(value, str | os.PathLike):
        path = os.fspath(value)
        try:
            with open(path, "rb") as handle:
                data = handle.read(CLIP_BYTES + 1)  # the decoder refuses what is longer
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise UserError(f"cannot read audio file {str(path)[:300]}: {reason}") from error
        return clips.decode_clip(data)
    if hasattr(value, "get_all_samples"):
        try:
            decoded = value.get_all_samples()
        except (RuntimeError, ValueError, IndexError, OSError) as error:  # torchcodec's, on damaged audio
            raise clips.AudioError(f"damaged audio ({' '.join(str(error).split())[:120]})") from error
        return wave_from_array(decoded.data, decoded.sample_rate)
    raise UserError(f"cannot read audio from {type(value).__name__}: send a reference, array, bytes or path")


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


def clip_reference(value: Mapping[str, Any]) -> clips.AudioRef:
    """The clip that a document's audio entry points at, without its prefix."""
    stated = {name: part for name, part in value.items() if part is not None}  # lm-eval fills absent keys
    return clips.AudioRef.from_dict({name: stated[name] for name in stated.keys() - {"transcript", "prefix"}})


def spoken_text(value: Any) -> str:
    """What is spoken, prefix first, where the task knows it (for text oracles), else ""."""
    if not isinstance(value, Mapping):
        return ""
    before = spoken_text(value["prefix"]) if value.get("prefix") else ""
    return f"{before} {value.get('transcript') or ''}".strip()


def clip_key(value: Any) -> str:
    """Hash of the audio content, for seeds: it must not depend on where the clip lies."""
    if not (isinstance(value, Mapping) and "sha256" in value):
        return sha256_bytes(load_wave(value).tobytes())
    key = str(value["sha256"])
    prefix = value.get("prefix")
    return sha256_bytes(f"{clip_key(prefix)}|{PAUSE}|{key}".encode()) if prefix else key


def clip_duration(value: Any) -> float:
    """Seconds, 0.0 where only decoding could tell; used to put clips of like length into one batch."""
    if not isinstance(value, Mapping):
        return 0.0
    try:
        seconds = float(value.get("duration") or 0.0)
    except (TypeError, ValueError, OverflowError):  # of a task written by others, where it may be anything
        seconds = 0.0
    seconds = seconds if math.isfinite(seconds) else 0.0
    prefix = value.get("prefix")
    return clip_duration(prefix) + PAUSE + seconds if prefix else seconds


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
        stages: The parts that the model measures: `features`, `encoder`, `decoder`, ...
    """

    answers: list[Answer]
    wall_s: float
    io_s: float
    stages: dict[str, float]


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    """A request as it will be sent; its seed and key depend on what it asks, not on where or when.

    Attributes:
        index: Position among the requests of this process.
        doc_id: Position of its document in the test set.
        prompt: Text beside the audio.
        audio: Clip, in any form that `load_wave` knows.
        settings: Decoding and stop strings.
        duration: Of the clip, in seconds.
        seed: Of its sampled answer.
        key: Content of the clip, perturbations and controls included.
    """

    index: int
    doc_id: int
    prompt: str
    audio: Any
    settings: GenerationSettings
    duration: float
    seed: int
    key: str

    def answer(self, generation: Generation) -> Answer:
        """The part of a reply that counts as the answer."""
        parts = scored_part(generation.text, self.settings.until)
        return Answer(self.index, parts.answer, generation, self.seed, parts.complete)


def plan_requests(
    instances: Iterable["Instance"],
    perturbation: Mapping[str, Any] | None = None,
    control: AudioControl | None = None,
    played: Mapping[int, Any] | None = None,
) -> list[PlannedRequest]:
    """lm-eval's instances as the requests that will be sent. Instances are not kept.

    Args:
        instances: One for each item, or several for `repeats`: the same question again draws another sample.
        perturbation: Identity of what is done to every clip.
        control: What takes the speech away.
        played: By document the clip that is played instead of its own, where clips are exchanged.

    Raises:
        UserError: an item does not have exactly one clip. A clip that is null cannot be decoded, which is no error.
    """
    suffix = "|" + canonical_json(perturbation).decode() if perturbation else ""
    suffix += control.key_suffix() if control else ""
    repeats: Counter[tuple[str, str]] = Counter()
    planned = []
    for index, instance in enumerate(instances):
        prompt, kwargs, media = (*instance.args, {})[:3]
        audio = media.get("audio") if isinstance(media, dict) else None
        listed = audio if isinstance(audio, list) else [audio]
        if len(listed) != 1 or audio is None:
            raise UserError(f"{instance.task_name}: expected one clip per item, found {len(listed)}")
        [clip] = listed
        doc_id = -1 if instance.doc_id is None else instance.doc_id
        clip = clip if played is None else played[doc_id]
        # One object for equal settings, of which lm-eval makes a copy for every item
        settings = _parsed_settings(json.dumps(dict(kwargs), sort_keys=True))
        try:
            key = NO_CONTENT if clip is None else clip_key(clip)
        except clips.AudioError:
            key = NO_CONTENT
        key += suffix
        seed = stable_seed("eval", settings.seed, prompt, key, repeats[prompt, key])
        repeats[prompt, key] += 1
        duration = clip_duration(clip)
        duration = duration if control is None else control.length(duration)
        planned.append(PlannedRequest(index, doc_id, prompt, clip, settings, duration, seed, key))
    return planned


@lru_cache(maxsize=64)
def _parsed_settings(text: str) -> GenerationSettings:
    return read_generation_settings(json.loads(text))


def scored_part(response: str, until: Sequence[str]) -> ReplyParts:
    """What is scored of a raw response: the answer in it (see `textlm.replies`), cut at the task's stop strings."""
    parts = split_reply(response)
    return replace(parts, answer=cut_at_stops(parts.answer, until))


def cut_at_stops(text: str, until: Sequence[str]) -> str:
    """`text` up to the first of the stop strings."""
    ends = [text.find(stop) for stop in until if stop and stop in text]
    return text[: min(ends)] if ends else text

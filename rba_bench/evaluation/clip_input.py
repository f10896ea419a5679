"""What an audio task may put beside a prompt, turned into samples at the model's rate.

Our own documents send a reference. It may name a `prefix`, another reference that is heard first (an instruction that
is spoken): its clip, `PAUSE` seconds of silence, then the clip itself, as one recording. Tasks written by others may
send decoded samples (`{"array", "sampling_rate"}`), encoded bytes (`{"bytes"}`), a path, or the decoder objects of
`datasets` >= 4.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from rba_bench.audio import clips, samples
from rba_bench.audio.decoding import CLIP_BYTES
from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes

PAUSE = 0.5  # seconds between a prefix and the clip


def wave(value: Any) -> np.ndarray:
    """Float32 mono samples at 16 kHz.

    Raises:
        UserError: a form of audio that is not known, or a damaged file.
        AudioError: the clip holds no usable sound.
    """
    if isinstance(value, Mapping) and "sha256" in value:
        heard = clips.load(reference(value))
        return heard if _prefix(value) is None else _joined(clips.load(reference(_prefix(value))), heard)
    if isinstance(value, Mapping) and value.get("array") is not None:
        return of_array(value["array"], value.get("sampling_rate"))
    if isinstance(value, Mapping) and value.get("bytes"):
        return clips.decode(_bytes(value["bytes"]))
    if isinstance(value, Mapping) and value.get("path"):
        value = value["path"]
    if isinstance(value, str | os.PathLike):
        return clips.decode(_file_bytes(os.fspath(value)))
    if hasattr(value, "get_all_samples"):
        try:
            decoded = value.get_all_samples()
        except (RuntimeError, ValueError, IndexError, OSError) as error:  # torchcodec's, on damaged audio
            raise clips.AudioError(f"damaged audio ({' '.join(str(error).split())[:120]})") from error
        return of_array(decoded.data, decoded.sample_rate)
    raise UserError(f"cannot read audio from {type(value).__name__}: send a reference, array, bytes or path")


def reference(value: Any) -> clips.AudioRef:
    """The clip that a document's audio entry points at, without its prefix."""
    known = {
        name: part
        for name, part in value.items()
        if name not in ("transcript", "prefix") and part is not None  # lm-eval fills absent keys with None
    }
    return clips.AudioRef.from_dict(known)


def transcript(value: Any) -> str:
    """What is spoken, prefix first, where the task knows it (for text oracles), else ""."""
    if not isinstance(value, Mapping):
        return ""
    before = transcript(_prefix(value)) if _prefix(value) else ""
    return f"{before} {value.get('transcript') or ''}".strip()


def content_key(value: Any) -> str:
    """Hash of what is heard, for seeds: it must not depend on where the clip lies."""
    if isinstance(value, Mapping) and "sha256" in value:
        prefix = _prefix(value)
        own = str(value["sha256"])
        return own if prefix is None else sha256_bytes(f"{content_key(prefix)}|{PAUSE}|{own}".encode())
    return sha256_bytes(wave(value).tobytes())


def duration(value: Any) -> float:
    """Seconds, 0.0 where only decoding could tell; used to put clips of like length into one batch."""
    if not isinstance(value, Mapping):
        return 0.0
    prefix = _prefix(value)
    try:
        own = float(value.get("duration") or 0.0)
    except (TypeError, ValueError, OverflowError):  # of a task written by others, where it may be anything
        own = 0.0
    own = own if math.isfinite(own) else 0.0
    return own if prefix is None else duration(prefix) + PAUSE + own


def _prefix(value: Mapping[str, Any]) -> Any:
    return value.get("prefix") or None


def _joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    silence = np.zeros(round(PAUSE * clips.SAMPLING_RATE), dtype=np.float32)
    return np.concatenate([first, silence, second])


def of_array(values: Any, rate: Any) -> np.ndarray:
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
    if max(array.shape, default=0) > clips.longest() * rate:
        raise clips.AudioError(f"audio is longer than {clips.longest():g} s: split it")
    if array.ndim > 2:  # [1, channels, n] and its like
        array = array.reshape([n for n in array.shape if n != 1] or [1])
    if array.ndim not in (1, 2) or not array.size:
        raise clips.AudioError(f"audio samples of shape {np.shape(values)}: want [n] or [channels, n]")
    if array.ndim == 2 and min(array.shape) > samples.MOST_CHANNELS:
        raise clips.AudioError(f"audio samples of shape {array.shape}: neither axis is one of channels")
    floats = samples.as_floats(array)
    samples.check(floats.ravel())
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

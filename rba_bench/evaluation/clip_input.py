"""What an audio task may put beside a prompt, turned into samples at the model's rate.

Our own documents send a reference. Tasks written by others may send decoded samples (`{"array", "sampling_rate"}`),
encoded bytes (`{"bytes"}`), a path, or the decoder objects of `datasets` >= 4.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rba_bench.audio import clips
from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes


def wave(value: Any) -> np.ndarray:
    """Float32 mono samples at 16 kHz.

    Raises:
        UserError: a form of audio that is not known, or a damaged file.
        AudioError: the clip holds no usable sound.
    """
    if isinstance(value, Mapping) and "sha256" in value:
        return clips.load(reference(value))
    if isinstance(value, Mapping) and value.get("array") is not None:
        return _resampled(np.asarray(value["array"], dtype=np.float32), int(value["sampling_rate"]))
    if isinstance(value, Mapping) and value.get("bytes"):
        return clips.decode(value["bytes"])
    if isinstance(value, Mapping) and value.get("path"):
        value = value["path"]
    if isinstance(value, str):
        return clips.decode(_file_bytes(value))
    if hasattr(value, "get_all_samples"):
        samples = value.get_all_samples()
        return _resampled(np.asarray(samples.data, dtype=np.float32), int(samples.sample_rate))
    raise UserError(f"cannot read audio from {type(value).__name__}: send a reference, array, bytes or path")


def reference(value: Mapping[str, Any]) -> clips.AudioRef:
    """The clip that a document's audio entry points at."""
    return clips.AudioRef.from_dict({name: part for name, part in value.items() if name != "transcript"})


def transcript(value: Any) -> str:
    """What is spoken, where the task knows it (for text oracles), else ""."""
    return str(value.get("transcript", "")) if isinstance(value, Mapping) else ""


def content_key(value: Any) -> str:
    """Hash of the clip's content, for seeds: it must not depend on where the clip lies."""
    if isinstance(value, Mapping) and "sha256" in value:
        return str(value["sha256"])
    return sha256_bytes(wave(value).tobytes())


def duration(value: Any) -> float:
    """Seconds, 0.0 where only decoding could tell; used to put clips of like length into one batch."""
    return float(value.get("duration", 0.0)) if isinstance(value, Mapping) else 0.0


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    mono = samples if samples.ndim == 1 else samples.mean(axis=int(np.argmin(samples.shape)))
    if rate == clips.SAMPLING_RATE:
        return mono
    import soxr

    return np.asarray(soxr.resample(mono, rate, clips.SAMPLING_RATE), dtype=np.float32)


def _file_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except OSError as error:
        raise UserError(f"cannot read audio file {path}: {error.strerror}") from error

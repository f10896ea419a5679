"""Piper: natural voices (VITS models in ONNX), by the optional package `piper-tts` (GPL-3, extra `tts`).

Piper draws the durations and the timbre of a sentence with random numbers that cannot be seeded; here both noises are
zero, so that equal arguments give equal samples. One thread computes, because sums over several depend on their number.
Processors with other vector instructions may differ in the last bits.

Source: rhasspy/piper; Kim et al. 2021, "Conditional variational autoencoder with adversarial learning for end-to-end
text-to-speech".
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.assets import is_asset
from rba_bench.assets.fetching import asset_path
from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.files import read_json
from rba_bench.installing import extra

SAMPLING_RATE = 16_000  # Hz of what `speak` returns
_lock = threading.Lock()  # the phonemiser has one state for the whole process


@dataclass(frozen=True)
class PiperVoice:
    """One speaker.

    Attributes:
        name: Stable identifier used in data sets and records.
        model: `asset:NAME`, or the path of an `.onnx` file with its `.onnx.json` beside.
        length_scale: Duration of everything said, relative to how the voice was trained.
        speaker: Number of the speaker, in models of several.
    """

    name: str
    model: str
    length_scale: float = 1.0
    speaker: int = 0


BANKS: dict[str, tuple[PiperVoice, ...]] = {
    "natural": (PiperVoice("piper-joe", "asset:piper-en_US-joe-medium"),),
}


def piper_version() -> str:
    """Version of piper-tts and of what computes it. Raises MissingPrerequisite without the extra `tts`."""
    _load_package()
    return f"{version('piper-tts')}, onnxruntime {version('onnxruntime')}"


def speak(text: str, language: str, voice: PiperVoice) -> np.ndarray:
    """Say `text` with `voice`; equal arguments give equal samples on one machine.

    Args:
        text: What to say.
        language: Such as `en`: must be that of the voice.
        voice: Who speaks.

    Returns:
        float32 mono samples at 16 kHz, shape [n].

    Raises:
        MissingPrerequisite: The extra `tts` is not installed, or the voice is not there.
        UserError: The voice speaks another language, or its files cannot be used.
    """
    import soxr

    package = _load_package()
    model, spoken = _load_voice(voice.model)
    if spoken != language:
        raise UserError(f"the Piper voice {voice.name} speaks {spoken}, not {language}: choose another voice")
    settings = package.SynthesisConfig(
        speaker_id=voice.speaker, length_scale=voice.length_scale, noise_scale=0.0, noise_w_scale=0.0
    )
    with _lock:
        chunks = [chunk.audio_float_array for chunk in model.synthesize(text, settings)]
    if not chunks:  # nothing to say: a tenth of a second of silence
        return np.zeros(SAMPLING_RATE // 10, dtype=np.float32)
    wave = soxr.resample(np.concatenate(chunks), model.config.sample_rate, SAMPLING_RATE)
    return np.asarray(wave, dtype=np.float32)


def _load_package() -> Any:
    try:
        import piper
    except ImportError as error:
        raise MissingPrerequisite(f"no Piper: install it with `{extra('tts')}`") from error
    return piper


@lru_cache(maxsize=4)
def _load_voice(model: str) -> tuple[Any, str]:
    """A voice that is ready to speak, and its language, such as `en`."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    damaged = tuple(
        getattr(failures, name) for name in ("Fail", "InvalidGraph", "InvalidProtobuf", "NotImplemented")
    )
    package = _load_package()
    path = asset_path(model) if is_asset(model) else Path(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        settings = read_json(path.with_name(f"{path.name}.json"))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        voice = package.PiperVoice(session=session, config=package.PiperConfig.from_dict(settings))
    except (OSError, ValueError, KeyError, RuntimeError, *damaged) as error:
        raise UserError(f"{path} is no usable Piper voice: {first_line(error)}") from error
    return voice, str(settings["espeak"]["voice"]).partition("-")[0]

"""Piper: natural voices (VITS models in ONNX), by the optional package `piper-tts` (GPL-3, extra `tts`).

Piper draws the durations and the timbre of a sentence with random numbers that cannot be seeded; here both noises are
zero, so that equal arguments give equal samples. One thread computes, because sums over several depend on their number.
Processors with other vector instructions may differ in the last bits.

Source: rhasspy/piper; Kim et al. 2021, "Conditional variational autoencoder with adversarial learning for end-to-end
text-to-speech".
"""

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.assets import is_asset
from rba_bench.assets.fetching import asset_path
from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.files import read_json, sha256_once
from rba_bench.installing import extra

SAMPLING_RATE = 16_000  # Hz of what `speak` returns
ONNX = ".onnx"
ALL = "all"  # x.onnx#all
MODELS_LOADED = 8  # at once in one process, about 150 MB each
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


def find_voices(name: str) -> list[PiperVoice]:
    """The voices that a user's name stands for; [] where it is neither an `.onnx` file nor a folder.

    Args:
        name: `x.onnx` (the first speaker), `x.onnx#3` or `x.onnx#p225` (one), `x.onnx#all`, or a folder, which stands
            for all speakers of all voices below it.

    Raises:
        MissingPrerequisite: No such voice, or no voice in the folder.
        UserError: The model has no such speaker, or its settings cannot be read.
    """
    if Path(name).is_dir():
        models = sorted(Path(name).rglob(f"*{ONNX}"))
        voices = [
            voice for model in models if _settings_file(model).is_file() for voice in _voices(model, ALL)
        ]
        if not voices:
            raise MissingPrerequisite(
                f"no Piper voice in {name}: a voice is an {ONNX} file with its {ONNX}.json beside"
            )
        return voices
    path, _, speaker = name.rpartition("#") if f"{ONNX}#" in name else (name, "", "")
    if not path.endswith(ONNX):
        return []
    if not (Path(path).is_file() and _settings_file(Path(path)).is_file()):
        raise MissingPrerequisite(
            f"no Piper voice at {path}: it is an {ONNX} file with its {ONNX}.json beside"
        )
    return _voices(Path(path), speaker)


def _voices(model: Path, speaker: str) -> list[PiperVoice]:
    """One voice for `speaker`, a number or a name ("" is the first), or all."""
    if not speaker:
        return [PiperVoice(model.stem, str(model))]
    settings = _read_settings(model)
    count = int(settings.get("num_speakers") or 1)
    if speaker == ALL:
        if count == 1:
            return [PiperVoice(model.stem, str(model))]
        return [PiperVoice(f"{model.stem}+{n}", str(model), speaker=n) for n in range(count)]
    numbers: Mapping[str, int] = settings.get("speaker_id_map") or {}
    number = int(speaker) if speaker.isdecimal() else numbers.get(speaker, -1)
    if not 0 <= number < count:
        raise UserError(f"{model.name} has no speaker {speaker!r}: it has {count}, from 0 to {count - 1}")
    return [PiperVoice(f"{model.stem}+{number}", str(model), speaker=number)]


def voice_facts(voice: PiperVoice) -> dict[str, Any]:
    """What decides how the voice sounds; a hash stands for a file of the user's."""
    model = voice.model if is_asset(voice.model) else Path(voice.model)
    return asdict(voice) | {"model": model if isinstance(model, str) else sha256_once(model)}


def _settings_file(model: Path) -> Path:
    return model.with_name(f"{model.name}.json")


def _read_settings(model: Path) -> dict[str, Any]:
    """The settings of a voice. Raises UserError if they cannot be read."""
    try:
        settings = read_json(_settings_file(model))
    except (OSError, ValueError) as error:
        raise UserError(f"{model} is no usable Piper voice: {first_line(error)}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{model} is no usable Piper voice: {_settings_file(model).name} holds no settings")
    return settings


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


@lru_cache(maxsize=MODELS_LOADED)
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
    settings = _read_settings(path)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        voice = package.PiperVoice(session=session, config=package.PiperConfig.from_dict(settings))
    except (OSError, ValueError, KeyError, RuntimeError, *damaged) as error:
        raise UserError(f"{path} is no usable Piper voice: {first_line(error)}") from error
    return voice, str(settings["espeak"]["voice"]).partition("-")[0]

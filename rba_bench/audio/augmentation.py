"""Augmentation of clips that are made for training: noise, rooms, speed, telephone, codecs, gain; each by chance.

    settings = Augmentation(noise=0.5, noise_folder="musan/noise", telephone=0.1)
    wave, record = augment(wave, settings, stable_seed("augment", seed, clip_id))

Background noise, recorded rooms and changes of tempo are the package `audiomentations` (MIT, extra `synth`); everything
else is `rba_bench.audio.perturbations` and libsndfile. The package draws from the global random numbers of Python. Here
every number is drawn from the clip's own seed and handed to a fresh transform, so threads do not disturb each other and
the same seed gives the same samples in every process.

`record` says what was done, with the numbers, as JSON values for a column; {} where nothing was. The order of steps is
that of a recording: who speaks, the room, the noise in it, the microphone, the line, the file.
"""

import io
import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from rba_bench.audio.decoding import SAMPLING_RATE, decode_clip
from rba_bench.audio.perturbations import (
    COLOURS,
    add_noise,
    change_speed,
    gain,
    reverberate,
    telephone,
)
from rba_bench.errors import AudioError, MissingPrerequisite, UserError, first_line
from rba_bench.files import sha256_json
from rba_bench.installing import extra
from rba_bench.machine import package_versions
from rba_bench.recipes import Recipe

VERSION = 1  # raise it whenever the samples of a step change
SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg"})
Range = tuple[float, float]
Chance = Annotated[float, Field(ge=0, le=1)]
# libsndfile's format, subtype, and compression levels; of speech these are 85 to 42 and about 45 to 16 kbit/s
_CODECS: dict[str, tuple[str, str, Range]] = {
    "mp3": ("MP3", "MPEG_LAYER_III", (0.5, 0.8)),
    "opus": ("OGG", "OPUS", (0.86, 0.96)),
    "mu_law": ("WAV", "ULAW", (0.0, 0.0)),
}
_RANGES: dict[str, Range] = {
    "snr_db": (-30.0, 80.0), "rt60": (0.05, 5.0), "drr_db": (-20.0, 40.0), "speed_range": (0.25, 4.0),
    "tempo_range": (0.25, 4.0), "gain_db": (-60.0, 60.0),
}  # fmt: skip


class Augmentation(Recipe):
    """Settings. A step with a chance of 0 never happens; by default none does."""

    speed: Chance = Field(0.0, description="chance of another speed; the pitch moves along")
    speed_range: Range = (0.9, 1.1)
    tempo: Chance = Field(0.0, description="chance of another tempo; the pitch stays")
    tempo_range: Range = (0.85, 1.2)
    room: Chance = Field(0.0, description="chance of a room")
    room_folder: str | None = Field(None, description="recorded impulse responses; null: synthetic rooms")
    rt60: Range = Field((0.15, 0.8), description="seconds in which a synthetic room loses 60 dB")
    drr_db: Range = Field((0.0, 12.0), description="direct sound over echo of a synthetic room, in dB")
    noise: Chance = Field(0.0, description="chance of noise")
    noise_folder: str | None = Field(None, description="recorded noise; null: white, pink or brown noise")
    snr_db: Range = Field((5.0, 30.0), description="speech over noise, in dB")
    gain: Chance = Field(0.0, description="chance of another loudness")
    gain_db: Range = (-12.0, 3.0)
    telephone: Chance = Field(0.0, description="chance of a telephone line: 300 to 3400 Hz, 8 kHz, mu-law")
    codec: Chance = Field(0.0, description="chance of a lossy file")
    codecs: tuple[Literal["mp3", "opus", "mu_law"], ...] = ("mp3", "opus", "mu_law")

    @model_validator(mode="after")
    def _ranges(self) -> "Augmentation":
        for name, (least, most) in _RANGES.items():
            low, high = getattr(self, name)
            if not least <= low <= high <= most:
                raise ValueError(
                    f"{name} must be two numbers from {least:g} to {most:g}, the smaller one first"
                )
        if self.codec and not self.codecs:
            raise ValueError("codecs names none: name one, or set codec to 0")
        return self

    def facts(self) -> dict[str, Any]:
        """Everything that decides the samples beside the seed; names and sizes stand for the files of folders.

        Raises:
            MissingPrerequisite: A folder is not there, or the package.
            UserError: A folder holds no sounds.
        """
        facts = self.resolved() | {"version": VERSION}
        for chance, folder in ((self.noise, "noise_folder"), (self.room, "room_folder")):
            place = facts[folder]
            if chance and place is not None:
                files = [(name, (Path(place) / name).stat().st_size) for name in sounds_in(place)]
                facts[folder] = sha256_json(files)
            elif place is not None:
                facts[folder] = None
        if self.tempo or (self.noise and self.noise_folder) or (self.room and self.room_folder):
            _package()
            facts["versions"] = package_versions(("audiomentations", "python-stretch"))
        return facts


def augment(wave: np.ndarray, settings: Augmentation, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """A clip with what chance does to it.

    Args:
        wave: Float mono samples at 16 kHz, [n].
        settings: What may happen.
        seed: Of this clip.

    Returns:
        float32 samples within [-1, 1], [about n / speed / tempo], and the record of what was done.

    Raises:
        MissingPrerequisite: The package or a folder is not there.
        UserError: A folder holds no sounds, or one that cannot be read.
    """
    rng = np.random.default_rng(seed)
    record: dict[str, Any] = {}
    for name, step in _STEPS.items():
        happens = rng.random() < getattr(settings, name)
        own = np.random.default_rng(
            rng.integers(2**63)
        )  # so that one step does not move the draws of the next
        if happens and len(wave):
            wave, done = step(wave, settings, own)
            record |= {name: done} if done is not None else {}
    peak = float(np.abs(wave).max(initial=0.0))
    return (wave / max(1.0, peak)).astype(np.float32), record


Done = tuple[np.ndarray, Any]


def _speed(wave: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> Done:
    factor = _draw(rng, settings.speed_range, 3)
    return change_speed(wave.astype(np.float32), factor), factor


def _tempo(wave: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> Done:
    factor = _draw(rng, settings.tempo_range, 3)
    transform = _package().TimeStretch(min_rate=factor, max_rate=factor, leave_length_unchanged=False, p=1.0)
    return _apply(transform, wave, {"rate": factor}), factor


def _room(wave: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> Done:
    if settings.room_folder is None:
        rt60, drr_db = _draw(rng, settings.rt60, 3), _draw(rng, settings.drr_db, 2)
        return reverberate(wave, rt60, drr_db, rng), {"rt60": rt60, "drr_db": drr_db}
    name, path = _choose(rng, settings.room_folder)
    _seconds(path)  # refuses what is no sound; the package would fail in the words of another decoder
    transform = _package().ApplyImpulseResponse(
        ir_path=[path], p=1.0, lru_cache_size=1, leave_length_unchanged=False
    )
    wet = _apply(transform, wave, {"ir_file_path": path})
    before, after = _power(wave), _power(wet[: len(wave)])
    # the package sets the peak to half of full scale; here a room leaves the loudness as it is
    return wet * math.sqrt(before / after) if after > 0 else wave, {"file": name}


def _noise(wave: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> Done:
    snr_db = _draw(rng, settings.snr_db, 2)
    if settings.noise_folder is None:
        colour = sorted(COLOURS)[rng.integers(len(COLOURS))]
        return add_noise(wave, snr_db, rng, colour), {"snr_db": snr_db, "colour": colour}
    name, path = _choose(rng, settings.noise_folder)
    seconds = len(wave) / SAMPLING_RATE
    offset = round(rng.random() * max(0.0, _seconds(path) - seconds), 3)
    transform = _package().AddBackgroundNoise(sounds_path=[path], min_snr_db=snr_db, max_snr_db=snr_db, p=1.0)
    numbers = {"snr_db": snr_db, "noise_file_path": path, "offset": offset, "duration": seconds}
    noisy = _apply(transform, wave, numbers)
    if np.array_equal(noisy, wave):  # silence in the noise, or in the clip
        return wave, None
    return noisy, {"snr_db": snr_db, "file": name, "offset": offset}


def _gain(wave: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> Done:
    decibels = _draw(rng, settings.gain_db, 2)
    return gain(wave, decibels), decibels


def _telephone(wave: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> Done:
    return telephone(wave), True


def _codec(wave: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> Done:
    import soundfile as sf

    name = settings.codecs[rng.integers(len(settings.codecs))]
    form, subtype, levels = _CODECS[name]
    level = _draw(rng, levels, 3)
    file = io.BytesIO()
    options: dict[str, Any] = {} if name == "mu_law" else {"compression_level": level}
    if name == "mp3":
        options["bitrate_mode"] = "CONSTANT"
    sf.write(file, np.clip(wave, -1.0, 1.0), SAMPLING_RATE, format=form, subtype=subtype, **options)
    try:
        decoded = decode_clip(file.getvalue(), SAMPLING_RATE)[: len(wave)]
    except AudioError:  # nothing is left of a very short or silent clip
        return wave, None
    kbps = round(len(file.getvalue()) * 8 / 1000 / (len(wave) / SAMPLING_RATE), 1)
    return np.pad(decoded, (0, len(wave) - len(decoded))), {"name": name, "level": level, "kbps": kbps}


_STEPS: dict[str, Callable[[np.ndarray, Augmentation, np.random.Generator], Done]] = {
    "speed": _speed,
    "tempo": _tempo,
    "room": _room,
    "noise": _noise,
    "gain": _gain,
    "telephone": _telephone,
    "codec": _codec,
}


def _draw(rng: np.random.Generator, limits: Range, digits: int) -> float:
    """A number as the record holds it: applied with the digits that are written."""
    return round(float(rng.uniform(*limits)), digits)


def _power(wave: np.ndarray) -> float:
    return float(np.mean(wave.astype(np.float64) ** 2)) if len(wave) else 0.0


def _choose(rng: np.random.Generator, folder: str) -> tuple[str, str]:
    """A sound of a folder: its name in there, and its path."""
    names = sounds_in(folder)
    name = names[rng.integers(len(names))]
    return name, str(Path(folder) / name)


@lru_cache(maxsize=16)
def sounds_in(folder: str) -> tuple[str, ...]:
    """Names of the sounds below a folder, sorted; remembered in this process.

    Raises:
        MissingPrerequisite: No such folder.
        UserError: It holds none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingPrerequisite(f"no folder {folder}: it should hold sounds for the augmentation")
    names = sorted(
        file.relative_to(root).as_posix() for file in root.rglob("*") if file.suffix.lower() in SUFFIXES
    )
    if not names:
        raise UserError(
            f"{folder} holds no sounds: the augmentation reads {', '.join(sorted(SUFFIXES))} files"
        )
    return tuple(names)


@lru_cache(maxsize=4096)
def _seconds(path: str) -> float:
    import soundfile as sf

    try:
        return float(sf.info(path).duration)
    except (sf.LibsndfileError, OSError) as error:
        raise UserError(f"{path} cannot be read as a sound: {first_line(error)}") from error


def _apply(transform: Any, wave: np.ndarray, numbers: dict[str, Any]) -> np.ndarray:
    """The samples after a transform of audiomentations that takes its numbers from us instead of drawing them."""
    import soundfile as sf

    transform.parameters = {"should_apply": True, **numbers}
    transform.freeze_parameters()
    try:
        return np.asarray(transform(np.ascontiguousarray(wave, np.float32), SAMPLING_RATE), np.float32)
    except (sf.LibsndfileError, OSError) as error:
        files = [value for value in numbers.values() if isinstance(value, str)]
        raise UserError(f"{' '.join(files)} cannot be read as a sound: {first_line(error)}") from error


@lru_cache
def _package() -> Any:
    try:
        import audiomentations
    except ImportError as error:
        raise MissingPrerequisite(f"no augmentation: install it with `{extra('synth')}`") from error
    # it says of each file of another rate that it was resampled
    warnings.filterwarnings("ignore", module=r"audiomentations\.")
    return audiomentations

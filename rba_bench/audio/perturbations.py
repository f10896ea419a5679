"""Seeded damage to a clip: noise of a colour at a signal-to-noise ratio, another speed, a room, a telephone.

Perturbations as the user writes them: `noise=10dB,reverb=small,speed=1.2,telephone`, applied from left to right.

    noise=<dB>[:white|pink|brown]   signal-to-noise ratio over the whole clip
    reverb=small|medium|large       a synthetic room; see ROOMS
    speed=<factor>                  played faster or slower, the pitch moves along
    telephone                       8 kHz, 300 to 3400 Hz, 8-bit mu-law
    gain=<dB>                       louder or softer, cut off at full scale
    clip=<dB>                       peaks cut off this far below the loudest sample

What is drawn (noise, echo) depends on the kind of step, its place in the chain and the clip's own hash. So a clip
sounds the same in every run and for every model, two clips get different noise, and another ratio scales the same one.
"""

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rba_bench.errors import UserError
from rba_bench.seeding import stable_seed

COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # exponent of 1/f^x in power
SAMPLING_RATE = 16_000  # Hz of all clips here
ECHO_GAP = 0.005  # seconds between the direct sound and the first echo
TELEPHONE_BAND = (300.0, 3400.0)  # Hz


def coloured_noise(n: int, rng: np.random.Generator, colour: str = "white") -> np.ndarray:
    """`n` samples of unit-power noise, float32; `colour` is a key of COLOURS."""
    if COLOURS[colour] == 0.0:
        wave = rng.standard_normal(n)
    else:  # shaped at a power of two, because an FFT of arbitrary length costs five times as much
        size = 1 << max(n - 1, 1).bit_length()
        spectrum = np.fft.rfft(rng.standard_normal(size))
        frequency = np.maximum(np.arange(len(spectrum)), 1.0)
        wave = np.fft.irfft(spectrum / frequency ** (COLOURS[colour] / 2), size)[:n]
    return (wave / max(float(np.sqrt(np.mean(wave**2))), 1e-12)).astype(np.float32)


def add_noise(wave: np.ndarray, snr_db: float, rng: np.random.Generator, colour: str = "white") -> np.ndarray:
    """Add noise so that speech / noise power over the whole clip is `snr_db` decibels; peak-limited to [-1, 1]."""
    power = float(np.mean(wave.astype(np.float64) ** 2))
    scale = np.sqrt(power / 10 ** (snr_db / 10))
    mixed = wave + scale * coloured_noise(len(wave), rng, colour)
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def change_speed(wave: np.ndarray, factor: float) -> np.ndarray:
    """Play `factor` times as fast (pitch moves along, as on a tape); shape [n] -> [about n / factor]."""
    import soxr

    if factor == 1.0:
        return wave
    return np.asarray(soxr.resample(wave, round(SAMPLING_RATE * factor), SAMPLING_RATE), dtype=np.float32)


def reverberate(wave: np.ndarray, rt60: float, drr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Put a clip into a synthetic room: the direct sound, then noise that decays exponentially.

    Args:
        wave: samples at 16 kHz, shape [n].
        rt60: seconds after which the echo has lost 60 decibels.
        drr_db: power of the direct sound over the power of the echo, in decibels.
        rng: draws the echo.

    Returns:
        Samples of the same power as `wave` (peak-limited), shape [n + the length of the echo].
    """
    heard = convolve(wave, room_impulse_response(rt60, drr_db, rng))
    power = np.mean(wave.astype(np.float64) ** 2) / max(float(np.mean(heard[: len(wave)] ** 2)), 1e-24)
    return _limited(heard * np.sqrt(power))


def room_impulse_response(rt60: float, drr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Impulse response of `reverberate` at 16 kHz: 1, a gap of `ECHO_GAP` seconds, then the decaying echo."""
    gap = round(ECHO_GAP * SAMPLING_RATE)
    times = np.arange(gap, round(rt60 * SAMPLING_RATE)) / SAMPLING_RATE
    echo = rng.standard_normal(len(times)) * 10.0 ** (-3.0 * times / rt60)
    echo *= np.sqrt(10 ** (-drr_db / 10) / np.sum(echo**2))
    return np.concatenate([[1.0], np.zeros(gap - 1), echo])


def telephone(wave: np.ndarray) -> np.ndarray:
    """A narrow-band call: 8 kHz, `TELEPHONE_BAND`, 8-bit mu-law; back at 16 kHz, shape [n] -> [n]."""
    import soxr

    low, high = (edge / 8_000 for edge in TELEPHONE_BAND)
    narrow = np.asarray(soxr.resample(wave, SAMPLING_RATE, 8_000), dtype=np.float64)
    taps = len(_band_pass(low, high))
    passed = convolve(narrow, _band_pass(low, high))[taps // 2 :][: len(narrow)]
    wide = np.asarray(soxr.resample(_mu_law(passed), 8_000, SAMPLING_RATE))[: len(wave)]
    return _limited(np.pad(wide, (0, len(wave) - len(wide))))


def gain(wave: np.ndarray, decibels: float) -> np.ndarray:
    """Louder or softer, cut off at full scale as a recorder does."""
    return np.clip(wave * 10 ** (decibels / 20), -1.0, 1.0).astype(np.float32)


def overdrive(wave: np.ndarray, decibels: float) -> np.ndarray:
    """Cut off everything less than `decibels` below the clip's own peak."""
    ceiling = float(np.abs(wave).max()) * 10 ** (-decibels / 20)
    return np.clip(wave, -ceiling, ceiling).astype(np.float32)


def convolve(wave: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Full convolution [n], [k] -> [n + k - 1] in float64, block by block: ten minutes fit into little memory."""
    size = max(1 << (4 * len(kernel)).bit_length(), 1 << 16)
    step = size - len(kernel) + 1
    spectrum = np.fft.rfft(kernel, size)
    heard = np.zeros(len(wave) + len(kernel) - 1)
    for start in range(0, len(wave), step):
        block = np.fft.irfft(np.fft.rfft(wave[start : start + step], size) * spectrum, size)
        end = min(start + size, len(heard))
        heard[start:end] += block[: end - start]
    return heard


def _band_pass(low: float, high: float, taps: int = 257) -> np.ndarray:
    """Windowed-sinc filter; `low` and `high` are shares of the sampling rate."""
    times = np.arange(taps) - taps // 2
    ideal = 2 * high * np.sinc(2 * high * times) - 2 * low * np.sinc(2 * low * times)
    return ideal * np.hamming(taps)


def _mu_law(wave: np.ndarray, mu: int = 255) -> np.ndarray:
    """Samples after coding to 8 bits and back."""
    clipped = np.clip(wave, -1.0, 1.0)
    levels = np.rint((np.sign(clipped) * np.log1p(mu * np.abs(clipped)) / np.log1p(mu) + 1) / 2 * mu)
    coded = 2 * levels / mu - 1
    return np.asarray(np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(mu)) / mu)


def _limited(wave: np.ndarray) -> np.ndarray:
    """Scaled down to [-1, 1] if it is louder than that."""
    return (wave / max(1.0, float(np.abs(wave).max(initial=0.0)))).astype(np.float32)


VERSION = 1  # raise it whenever the samples of a perturbation change
ROOMS = {"small": (0.3, 6.0), "medium": (0.6, 3.0), "large": (1.2, 0.0)}  # RT60 in s, direct to echo in dB
DEFAULT_COLOUR = "white"
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*(db)?")


@dataclass(frozen=True)
class PerturbationStep:
    """One link of the chain.

    Attributes:
        name: Key of KNOWN.
        value: Decibels or factor, 0.0 where there is none.
        choice: Colour of the noise or size of the room, "" where there is none.
    """

    name: str
    value: float = 0.0
    choice: str = ""

    @property
    def text(self) -> str:
        """The step in canonical form; `parse` reads it back."""
        if self.name == "telephone":
            return self.name
        if self.name == "reverb":
            return f"reverb={self.choice}"
        unit = "" if self.name == "speed" else "dB"
        colour = f":{self.choice}" if self.choice not in ("", DEFAULT_COLOUR) else ""
        return f"{self.name}={self.value:.10g}{unit}{colour}"

    def apply(self, wave: np.ndarray, position: int, key: str) -> np.ndarray:
        """The clip with content `key` after this step, which stands at `position` of the chain."""
        seed = stable_seed("perturb", VERSION, self.name, self.choice, position, key)
        return _APPLY[self.name](self, wave, np.random.default_rng(seed))


@dataclass(frozen=True)
class Perturbation:
    """A chain of steps, applied in order."""

    steps: tuple[PerturbationStep, ...]

    @property
    def text(self) -> str:
        """Canonical form, which goes into records and content keys; `parse(p.text) == p`."""
        return ",".join(step.text for step in self.steps)

    def identity(self) -> dict[str, Any]:
        """JSON facts for the protocol: the chain and the version of what its names mean."""
        return {"text": self.text, "version": VERSION}

    def apply(self, wave: np.ndarray, key: str) -> np.ndarray:
        """The clip as it will be heard.

        Args:
            wave: float32 samples at 16 kHz, shape [n].
            key: Hash of the clip's content.

        Returns:
            float32 samples in [-1, 1] at 16 kHz; `speed` and `reverb` change the length.
        """
        for position, step in enumerate(self.steps):
            wave = step.apply(wave, position, key)
        return np.ascontiguousarray(wave, dtype=np.float32)


def parse_perturbation(text: str) -> Perturbation:
    """The chain that `text` describes; see the module for the words.

    Raises:
        UserError: an unknown or ill-formed step, or none at all.
    """
    steps = tuple(_step(part.strip()) for part in text.split(",") if part.strip())
    if not steps:
        raise UserError(f"no perturbation named; known: {_known()}")
    return Perturbation(steps)


def _step(part: str) -> PerturbationStep:
    name, equals, value = (piece.strip().lower() for piece in part.partition("="))
    if name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.5)
        hint = f"did you mean {KNOWN[near[0]]}? " if near else ""
        raise UserError(f"unknown perturbation {part!r}; {hint}known: {_known()}")
    if name == "telephone":
        if equals:
            raise UserError(f"telephone takes no value, found {part!r}")
        return PerturbationStep(name)
    if name == "reverb":
        return PerturbationStep(name, choice=_choice(part, value, ROOMS))
    amount, _, colour = value.partition(":")
    if name == "noise":
        chosen = _choice(part, colour.strip() or DEFAULT_COLOUR, COLOURS)
        return PerturbationStep(name, _amount(part, name, amount), chosen)
    return PerturbationStep(name, _amount(part, name, value))


def _choice(part: str, value: str, known: dict[str, Any]) -> str:
    if value not in known:
        raise UserError(f"cannot read {part!r}: want one of {', '.join(known)}")
    return value


def _amount(part: str, name: str, value: str) -> float:
    low, high = LIMITS[name]
    match = _NUMBER.fullmatch(value.strip())
    if not match or (match[2] and name == "speed"):
        raise UserError(f"cannot read {part!r}: want {KNOWN[name]}, for example {EXAMPLES[name]}")
    number = float(match[1])
    if not low <= number <= high or not math.isfinite(number):
        raise UserError(f"{part!r} is out of range: {name} goes from {low:g} to {high:g}")
    return number + 0.0  # -0.0 would be written another way


def _known() -> str:
    return ", ".join(KNOWN.values())


KNOWN = {
    "noise": "noise=<dB>[:white|pink|brown]",
    "reverb": "reverb=small|medium|large",
    "speed": "speed=<factor>",
    "telephone": "telephone",
    "gain": "gain=<dB>",
    "clip": "clip=<dB>",
}
LIMITS = {"noise": (-30.0, 80.0), "speed": (0.25, 4.0), "gain": (-60.0, 60.0), "clip": (0.0, 60.0)}
EXAMPLES = {"noise": "noise=10dB:pink", "speed": "speed=1.2", "gain": "gain=-6dB", "clip": "clip=12dB"}
_APPLY: dict[str, Callable[[PerturbationStep, np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise": lambda step, wave, rng: add_noise(wave, step.value, rng, step.choice),
    "reverb": lambda step, wave, rng: reverberate(wave, *ROOMS[step.choice], rng),
    "speed": lambda step, wave, rng: change_speed(wave, step.value),
    "telephone": lambda step, wave, rng: telephone(wave),
    "gain": lambda step, wave, rng: gain(wave, step.value),
    "clip": lambda step, wave, rng: overdrive(wave, step.value),
}

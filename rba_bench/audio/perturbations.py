"""Perturbations of clips: seeded noise, rooms, speed and channels, and the text form in which a user names them.

`noise=10dB,reverb=small,speed=1.2,telephone` is applied from left to right:

    noise=<dB>[:white|pink|brown]   signal-to-noise ratio over the whole clip
    reverb=small|medium|large       a synthetic room; see ROOMS
    speed=<factor>                  played faster or slower; the pitch changes with it
    telephone                       8 kHz, 300 to 3400 Hz, 8-bit mu-law
    gain=<dB>                       louder or softer, clipped at full scale
    clip=<dB>                       peaks cut off this far below the loudest sample

The random numbers of a step (noise, echo) depend on its kind, its place in the chain and the clip's own hash. So a clip
sounds the same in every run and for every model, two clips get different noise, and another ratio scales it.

A new perturbation is a function on samples and an entry of PERTURBATIONS, both in this file.
"""

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    reverberant = convolve(wave, room_impulse_response(rt60, drr_db, rng))
    power = np.mean(wave.astype(np.float64) ** 2) / max(float(np.mean(reverberant[: len(wave)] ** 2)), 1e-24)
    return _limit_peak(reverberant * np.sqrt(power))


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
    times = np.arange(257) - 128
    ideal = 2 * high * np.sinc(2 * high * times) - 2 * low * np.sinc(2 * low * times)
    kernel = ideal * np.hamming(len(times))  # a windowed-sinc filter
    passed = convolve(narrow, kernel)[len(kernel) // 2 :][: len(narrow)]
    wide = np.asarray(soxr.resample(_mu_law(passed), 8_000, SAMPLING_RATE))[: len(wave)]
    return _limit_peak(np.pad(wide, (0, len(wave) - len(wide))))


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
    result = np.zeros(len(wave) + len(kernel) - 1)
    for start in range(0, len(wave), step):
        block = np.fft.irfft(np.fft.rfft(wave[start : start + step], size) * spectrum, size)
        end = min(start + size, len(result))
        result[start:end] += block[: end - start]
    return result


def _mu_law(wave: np.ndarray, mu: int = 255) -> np.ndarray:
    """Samples after coding to 8 bits and back."""
    clipped = np.clip(wave, -1.0, 1.0)
    levels = np.rint((np.sign(clipped) * np.log1p(mu * np.abs(clipped)) / np.log1p(mu) + 1) / 2 * mu)
    coded = 2 * levels / mu - 1
    return np.asarray(np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(mu)) / mu)


def _limit_peak(wave: np.ndarray) -> np.ndarray:
    """Scaled down to [-1, 1] if it is louder than that."""
    return (wave / max(1.0, float(np.abs(wave).max(initial=0.0)))).astype(np.float32)


VERSION = 1  # raise it whenever the samples of a perturbation change
ROOMS = {"small": (0.3, 6.0), "medium": (0.6, 3.0), "large": (1.2, 0.0)}  # RT60 in s, direct to echo in dB
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*(db)?")


class PerturbationKind(NamedTuple):
    """One kind of perturbation, as it is written and as it is computed.

    Attributes:
        usage: How it is written, for messages.
        apply: `(wave, value, choice, rng)` to the perturbed samples.
        limits: Least and greatest value; None where it takes no number.
        unit: Of the value in canonical form, "" for a factor.
        example: Of a value, for messages.
        choices: Words that it takes; with `limits` they stand behind a colon.
        default: The choice that may be left out.
    """

    usage: str
    apply: Callable[[np.ndarray, float, str, np.random.Generator], np.ndarray]
    limits: tuple[float, float] | None = None
    unit: str = "dB"
    example: str = ""
    choices: tuple[str, ...] = ()
    default: str = ""


PERTURBATIONS = {
    "noise": PerturbationKind(
        "noise=<dB>[:white|pink|brown]",
        lambda wave, value, choice, rng: add_noise(wave, value, rng, choice),
        limits=(-30.0, 80.0),
        example="noise=10dB:pink",
        choices=tuple(COLOURS),
        default="white",
    ),
    "reverb": PerturbationKind(
        "reverb=small|medium|large",
        lambda wave, value, choice, rng: reverberate(wave, *ROOMS[choice], rng),
        choices=tuple(ROOMS),
    ),
    "speed": PerturbationKind(
        "speed=<factor>",
        lambda wave, value, choice, rng: change_speed(wave, value),
        limits=(0.25, 4.0),
        unit="",
        example="speed=1.2",
    ),
    "telephone": PerturbationKind("telephone", lambda wave, value, choice, rng: telephone(wave)),
    "gain": PerturbationKind(
        "gain=<dB>",
        lambda wave, value, choice, rng: gain(wave, value),
        limits=(-60.0, 60.0),
        example="gain=-6dB",
    ),
    "clip": PerturbationKind(
        "clip=<dB>",
        lambda wave, value, choice, rng: overdrive(wave, value),
        limits=(0.0, 60.0),
        example="clip=12dB",
    ),
}
_USAGES = ", ".join(kind.usage for kind in PERTURBATIONS.values())


@dataclass(frozen=True)
class PerturbationStep:
    """One step of the chain.

    Attributes:
        name: Key of PERTURBATIONS.
        value: Decibels or factor, 0.0 where there is none.
        choice: Colour of the noise or size of the room, "" where there is none.
    """

    name: str
    value: float = 0.0
    choice: str = ""

    @property
    def text(self) -> str:
        """The step in canonical form; `parse_perturbation` reads it back."""
        kind = PERTURBATIONS[self.name]
        if kind.limits is None:
            return f"{self.name}={self.choice}" if self.choice else self.name
        choice = "" if self.choice == kind.default else f":{self.choice}"
        return f"{self.name}={self.value:.10g}{kind.unit}{choice}"


@dataclass(frozen=True)
class Perturbation:
    """A chain of steps, applied in order."""

    steps: tuple[PerturbationStep, ...]

    @property
    def text(self) -> str:
        """Canonical form, which goes into records and content keys; `parse_perturbation(p.text) == p`."""
        return ",".join(step.text for step in self.steps)

    def identity(self) -> dict[str, Any]:
        """JSON facts for the protocol: the chain and the version of what its names mean."""
        return {"text": self.text, "version": VERSION}

    def apply(self, wave: np.ndarray, key: str) -> np.ndarray:
        """The clip as the model gets it.

        Args:
            wave: float32 samples at 16 kHz, shape [n].
            key: Hash of the clip's content.

        Returns:
            float32 samples in [-1, 1] at 16 kHz; `speed` and `reverb` change the length.
        """
        for position, step in enumerate(self.steps):
            seed = stable_seed("perturb", VERSION, step.name, step.choice, position, key)
            kind, rng = PERTURBATIONS[step.name], np.random.default_rng(seed)
            wave = kind.apply(wave, step.value, step.choice, rng)
        return np.ascontiguousarray(wave, dtype=np.float32)


def parse_perturbation(text: str) -> Perturbation:
    """The chain that `text` describes; see the module for the syntax.

    Raises:
        UserError: an unknown or ill-formed step, or none at all.
    """
    steps = tuple(_parse_step(part.strip()) for part in text.split(",") if part.strip())
    if not steps:
        raise UserError(f"no perturbation named; known: {_USAGES}")
    return Perturbation(steps)


def _parse_step(part: str) -> PerturbationStep:
    name, equals, value = (piece.strip().lower() for piece in part.partition("="))
    if name not in PERTURBATIONS:
        near = difflib.get_close_matches(name, PERTURBATIONS, n=1, cutoff=0.5)
        hint = f"did you mean {PERTURBATIONS[near[0]].usage}? " if near else ""
        raise UserError(f"unknown perturbation {part!r}; {hint}known: {_USAGES}")
    kind = PERTURBATIONS[name]
    if kind.limits is None and not kind.choices:
        if equals:
            raise UserError(f"{name} takes no value, found {part!r}")
        return PerturbationStep(name)
    number, choice = value, ""
    if kind.choices:
        number, _, choice = value.partition(":") if kind.limits else ("", "", value)
        choice = choice.strip() or kind.default
        if choice not in kind.choices:
            raise UserError(f"cannot read {part!r}: want one of {', '.join(kind.choices)}")
    if kind.limits is None:
        return PerturbationStep(name, choice=choice)
    match, (low, high) = _NUMBER.fullmatch(number.strip()), kind.limits
    if not match or (match[2] and not kind.unit):
        raise UserError(f"cannot read {part!r}: want {kind.usage}, for example {kind.example}")
    amount = float(match[1])
    if not low <= amount <= high or not math.isfinite(amount):
        raise UserError(f"{part!r} is out of range: {name} goes from {low:g} to {high:g}")
    return PerturbationStep(name, amount + 0.0, choice)  # -0.0 would be written another way

"""Samples as numbers: integers to floats, channels to one, one rate to another, and refusal of unusable samples."""

from typing import Any

import numpy as np

from rba_bench.errors import AudioError

LOUDEST = 16.0  # 24 dB above full scale; what is louder are integers called floats
MOST_CHANNELS = 64
CANCELLED = 1e-3  # share of their power that the mean of channels keeps; uncorrelated ones keep 1 / channels
SILENT = 2**-13  # a clip whose samples stay so close to one value, four steps of 16 bits, is silent
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz; outside, the header is damaged


def as_floats(samples: np.ndarray) -> np.ndarray:
    """Samples of any number type as float32; integers are scaled so that their type's range becomes [-1, 1).

    Whole numbers of 64 bits, which is what lists of Python become, are taken for 16-bit samples where they fit.

    Raises:
        AudioError: not numbers, or integers of unknown scale.
    """
    kind, bits = samples.dtype.kind, samples.dtype.itemsize * 8
    if kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32, copy=False)
    if kind not in "iu":
        raise AudioError(f"audio samples of type {samples.dtype}: want numbers")
    if bits == 64:
        if samples.size and (samples.min() < -32768 or samples.max() > 32767):
            raise AudioError(
                "whole-number samples of unknown scale: scale them to [-1, 1), or give int16 or int32"
            )
        kind, bits = "i", 16
    middle = 2 ** (bits - 1)
    wide = np.float32 if bits <= 16 else np.float64
    shifted = samples.astype(wide) - (middle if kind == "u" else 0)
    return (shifted / middle).astype(np.float32)


def mono(samples: np.ndarray) -> np.ndarray:
    """One channel of samples [n, channels]: the mean, or the loudest channel where the mean cancels them.

    Recordings with one side inverted exist; their mean is silence.
    """
    if samples.shape[1] == 1:
        return samples[:, 0]
    mean: np.ndarray = samples.mean(axis=1)
    power = np.einsum("nc,nc->c", samples, samples)
    if cancelled(float(np.vdot(mean, mean)), power):
        return np.ascontiguousarray(samples[:, int(power.argmax())])
    return mean


def cancelled(of_mean: float, of_channels: np.ndarray) -> bool:
    """Whether channels of these powers [channels] cancel each other in a mean of this power."""
    return of_mean < CANCELLED * float(of_channels.mean())


def check_rate(rate: Any) -> int:
    """A sampling rate in Hz. Raises AudioError if it is none, or one that no recording has."""
    if getattr(rate, "shape", None) == ():  # an array or tensor of one number
        rate = rate.item()
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.integer | np.floating):
        raise AudioError(f"audio without a sampling rate ({rate!r})"[:120])
    if not LOWEST_RATE <= rate <= HIGHEST_RATE or rate != int(rate):
        shown = rate if -1e12 < rate < 1e12 or rate != rate else "of more than 12 digits,"
        raise AudioError(f"damaged audio (sampling rate {shown} Hz)")
    return int(rate)


def check_samples(wave: np.ndarray) -> None:
    """Raise AudioError where samples [n] are none, no finite numbers, or integers called floats."""
    if not len(wave):
        raise AudioError("audio holds no samples")
    peak = max(float(wave.max()), -float(wave.min()))
    if not np.isfinite(peak):
        raise AudioError("audio holds samples that are not finite numbers")
    if peak > LOUDEST or (peak > 2 and bool((wave == np.rint(wave)).all())):
        raise AudioError(
            f"samples reach {peak:.6g}, and floats lie in [-1, 1]: divide whole numbers by 32768"
        )


def resample(wave: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    """Samples [n] at another rate in Hz. Raises AudioError if nothing is left of them."""
    if rate == target_rate:
        return wave
    import soxr

    resampled = np.asarray(soxr.resample(wave, rate, target_rate), dtype=np.float32)
    if not len(resampled):
        raise AudioError(f"audio of {len(wave)} samples at {rate} Hz is too short")
    return resampled


def is_silent(wave: np.ndarray) -> bool:
    """Whether samples [n] stay so close to one value that nothing can be heard."""
    return bool(np.ptp(wave) <= 2 * SILENT)

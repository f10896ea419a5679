"""Seeded damage to a clip: noise of a colour at a signal-to-noise ratio, another speaking speed."""

import numpy as np

COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # exponent of 1/f^x in power


def noise(n: int, rng: np.random.Generator, colour: str = "white") -> np.ndarray:
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
    mixed = wave + scale * noise(len(wave), rng, colour)
    return (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)


def change_speed(wave: np.ndarray, factor: float) -> np.ndarray:
    """Play `factor` times as fast (pitch moves along, as on a tape); shape [n] -> [about n / factor]."""
    import soxr

    if factor == 1.0:
        return wave
    base = 16_000
    return np.asarray(soxr.resample(wave, round(base * factor), base), dtype=np.float32)

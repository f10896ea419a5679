"""Seeded damage to a clip: noise of a colour at a signal-to-noise ratio, another speed, a room, a telephone."""

import numpy as np

COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # exponent of 1/f^x in power
SAMPLING_RATE = 16_000  # Hz of all clips here
ECHO_GAP = 0.005  # seconds between the direct sound and the first echo
TELEPHONE_BAND = (300.0, 3400.0)  # Hz


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
    heard = convolve(wave, room(rt60, drr_db, rng))
    power = np.mean(wave.astype(np.float64) ** 2) / max(float(np.mean(heard[: len(wave)] ** 2)), 1e-24)
    return _limited(heard * np.sqrt(power))


def room(rt60: float, drr_db: float, rng: np.random.Generator) -> np.ndarray:
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

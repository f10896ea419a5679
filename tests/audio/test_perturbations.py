"""Perturbations by name: measured on real speech, seeded by the clip, read back from what is recorded."""

import hashlib

import numpy as np
import pytest

from rba_bench.audio import espeak, perturbations
from rba_bench.audio.espeak import BANKS
from rba_bench.audio.perturbations import parse_perturbation
from rba_bench.errors import UserError
from rba_bench.seeding import stable_seed

RATE = perturbations.SAMPLING_RATE


def key_of(wave: np.ndarray) -> str:
    return hashlib.sha256(wave.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    wave = espeak.speak("the quick brown fox jumps over the lazy dog near the river", "en", BANKS["test"][0])
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def band_power(wave: np.ndarray, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(wave)) ** 2
    frequency = np.fft.rfftfreq(len(wave), 1 / RATE)
    return float(power[(frequency >= low) & (frequency < high)].sum())


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("noise=10dB,reverb=small,speed=1.2,telephone", "noise=10dB,reverb=small,speed=1.2,telephone"),
        (" NOISE = 10 db : pink , speed=1.20", "noise=10dB:pink,speed=1.2"),
        ("noise=10:white", "noise=10dB"),
        ("gain=-6,clip=12dB", "gain=-6dB,clip=12dB"),
        ("gain=-0dB", "gain=0dB"),
        ("noise=0.5dB:brown,noise=20dB", "noise=0.5dB:brown,noise=20dB"),
    ],
)
def test_what_is_recorded_reads_back_as_the_same_chain(text: str, canonical: str) -> None:
    chain = parse_perturbation(text)
    assert chain.text == canonical
    assert parse_perturbation(chain.text) == chain
    assert chain.identity() == {"text": canonical, "version": perturbations.VERSION}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nois=10dB", "did you mean noise="),
        ("echo=small", "known: noise=<dB>"),
        ("reverb=tiny", "want one of small, medium, large"),
        ("noise=loud", "for example noise=10dB:pink"),
        ("noise=10dB:purple", "want one of white, pink, brown"),
        ("noise", "cannot read"),
        ("speed=1.2dB", "want speed=<factor>"),
        ("speed=0", "goes from 0.25 to 4"),
        ("noise=nan", "cannot read"),
        ("telephone=yes", "takes no value"),
        ("", "no perturbation named"),
        (" , ", "no perturbation named"),
    ],
)
def test_a_wrong_chain_is_one_line_that_names_the_fix(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_perturbation(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("colour", list(perturbations.COLOURS))
@pytest.mark.parametrize("snr_db", [-5.0, 10.0, 30.0])
def test_noise_stands_at_the_asked_ratio(speech: np.ndarray, snr_db: float, colour: str) -> None:
    heard = parse_perturbation(f"noise={snr_db}dB:{colour}").apply(speech, key_of(speech))
    clean = speech.astype(np.float64)
    seed = stable_seed("perturb", perturbations.VERSION, "noise", colour, 0, key_of(speech))
    reference = perturbations.coloured_noise(len(speech), np.random.default_rng(seed), colour)
    # both levels at once: the peak limit scales the sum, and noise is orthogonal to speech only on average
    scale, level = np.linalg.lstsq(np.stack([clean, reference], axis=1), heard, rcond=None)[0]
    ratio = 10 * np.log10(np.mean((scale * clean) ** 2) / np.mean((level * reference) ** 2))
    assert ratio == pytest.approx(snr_db, abs=0.05)


def test_another_ratio_scales_the_same_noise(speech: np.ndarray) -> None:
    key = key_of(speech)
    loud, soft = (parse_perturbation(f"noise={snr}dB").apply(speech, key) - speech for snr in (20, 40))
    assert np.corrcoef(loud, soft)[0, 1] > 0.999


@pytest.mark.parametrize(
    "text", ["noise=10dB", "noise=10dB:pink", "reverb=medium", "noise=5dB,reverb=large,speed=0.9,telephone"]
)
def test_equal_clips_sound_equal_and_different_clips_differ(speech: np.ndarray, text: str) -> None:
    chain = parse_perturbation(text)
    first = chain.apply(speech, "a" * 64)
    np.testing.assert_array_equal(first, chain.apply(speech.copy(), "a" * 64))
    assert not np.array_equal(first, chain.apply(speech, "b" * 64))
    assert first.dtype == np.float32 and first.flags.c_contiguous
    assert np.isfinite(first).all() and np.abs(first).max() <= 1.0


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.2, 2.0])
def test_speed_sets_the_length_and_moves_the_pitch(factor: float) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32) * 0.5
    heard = parse_perturbation(f"speed={factor}").apply(tone, "k")
    assert len(heard) == pytest.approx(RATE / factor, abs=2)
    peak = np.fft.rfftfreq(len(heard), 1 / RATE)[np.argmax(np.abs(np.fft.rfft(heard)))]
    assert peak == pytest.approx(440 * factor, rel=0.01)


def test_a_telephone_keeps_its_band_and_nothing_else() -> None:
    white = 0.1 * perturbations.coloured_noise(4 * RATE, np.random.default_rng(1))
    heard = parse_perturbation("telephone").apply(white, "k")
    assert len(heard) == len(white)
    kept = band_power(heard, 400, 3300) / band_power(white, 400, 3300)
    assert 10 * np.log10(kept) == pytest.approx(0, abs=0.5)
    for low, high in ((0, 150), (3700, 8000)):
        lost = band_power(heard, low, high) / band_power(white, low, high)
        assert 10 * np.log10(lost) < -25


def test_a_telephone_does_not_shift_the_speech(speech: np.ndarray) -> None:
    heard = parse_perturbation("telephone").apply(speech, "k")
    lags = np.arange(-40, 41)
    match = [float(np.dot(np.roll(speech, lag), heard)) for lag in lags]
    assert lags[int(np.argmax(match))] == 0


def test_mu_law_leaves_256_levels() -> None:
    ramp = np.linspace(-1, 1, 100_001)
    coded = perturbations._mu_law(ramp)
    assert len(np.unique(coded)) == 256
    assert np.abs(coded - ramp).max() < 0.03
    small = np.abs(ramp) < 0.01  # companding: soft samples are coded finely
    assert np.abs(coded - ramp)[small].max() < 0.001


@pytest.mark.parametrize("size", list(perturbations.ROOMS))
def test_a_room_decays_as_its_size_says(size: str) -> None:
    rt60, drr_db = perturbations.ROOMS[size]
    response = perturbations.room_impulse_response(rt60, drr_db, np.random.default_rng(7))
    echo = response[1:]
    assert response[0] == 1.0
    assert -10 * np.log10(np.sum(echo**2)) == pytest.approx(drr_db, abs=1e-6)
    remaining = 10 * np.log10(np.cumsum(echo[::-1] ** 2)[::-1] / np.sum(echo**2))
    times = np.arange(1, len(response)) / RATE
    fit = (remaining < -5) & (remaining > -25)
    slope = np.polyfit(times[fit], remaining[fit], 1)[0]
    assert -60 / slope == pytest.approx(rt60, rel=0.15)


def test_reverberation_keeps_the_power_and_adds_a_tail(speech: np.ndarray) -> None:
    heard = parse_perturbation("reverb=large").apply(speech, "k")
    tail = heard[len(speech) :]
    assert len(tail) == pytest.approx(1.2 * RATE, abs=2)
    assert np.mean(heard[: len(speech)] ** 2) == pytest.approx(np.mean(speech**2), rel=1e-3)
    assert np.mean(tail[:1600] ** 2) > 100 * np.mean(tail[-1600:] ** 2)


def test_convolution_in_blocks_is_the_plain_one() -> None:
    rng = np.random.default_rng(2)
    wave, kernel = rng.standard_normal(150_000), rng.standard_normal(900)
    np.testing.assert_allclose(perturbations.convolve(wave, kernel), np.convolve(wave, kernel), atol=1e-8)


def test_gain_and_clipping(speech: np.ndarray) -> None:
    np.testing.assert_allclose(
        parse_perturbation("gain=-6dB").apply(speech, "k"), speech * 10**-0.3, atol=1e-6
    )
    assert np.abs(parse_perturbation("gain=40dB").apply(speech, "k")).max() == 1.0
    cut = parse_perturbation("clip=12dB").apply(speech, "k")
    assert np.abs(cut).max() == pytest.approx(np.abs(speech).max() * 10**-0.6, rel=1e-5)
    inside = np.abs(speech) < np.abs(cut).max()
    np.testing.assert_array_equal(cut[inside], speech[inside])


def test_the_order_of_the_chain_counts(speech: np.ndarray) -> None:
    outside_band = [
        band_power(parse_perturbation(text).apply(speech, "k"), 4500, 8000)
        for text in ("noise=5dB,telephone", "telephone,noise=5dB")
    ]
    assert outside_band[0] < outside_band[1] / 1000


@pytest.mark.parametrize(
    "text", ["noise=10dB", "reverb=large", "speed=2", "telephone", "gain=6dB", "clip=3dB"]
)
@pytest.mark.parametrize("length", [1, 320])
def test_very_short_and_silent_clips_survive(text: str, length: int) -> None:
    for wave in (np.zeros(length, np.float32), np.full(length, 0.1, np.float32)):
        heard = parse_perturbation(text).apply(wave, "k")
        assert np.isfinite(heard).all()

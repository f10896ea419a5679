"""Noise at the asked ratio and colour; speed as asked."""

import numpy as np
import pytest

from rba_bench.audio import perturbations

TONE = (0.3 * np.sin(np.arange(32_000) * 0.05)).astype(np.float32)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
@pytest.mark.parametrize("colour", list(perturbations.COLOURS))
def test_the_ratio_is_the_asked_one(snr_db: float, colour: str) -> None:
    mixed = perturbations.add_noise(TONE, snr_db, np.random.default_rng(1), colour)
    scale = float(np.dot(mixed, TONE) / np.dot(TONE, TONE))  # undoes the peak limit
    residue = mixed / scale - TONE
    assert 10 * np.log10(np.mean(TONE**2) / np.mean(residue**2)) == pytest.approx(snr_db, abs=0.3)
    assert np.abs(mixed).max() <= 1.0


def test_colours_put_their_power_lower() -> None:
    def share_below(colour: str) -> float:
        power = (
            np.abs(np.fft.rfft(perturbations.coloured_noise(16_000, np.random.default_rng(2), colour))) ** 2
        )
        return float(power[:800].sum() / power.sum())

    assert share_below("white") < share_below("pink") < share_below("brown")


def test_noise_is_seeded() -> None:
    first, second, other = (perturbations.add_noise(TONE, 5.0, np.random.default_rng(s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_speed_changes_length() -> None:
    assert len(perturbations.change_speed(TONE, 1.25)) == pytest.approx(len(TONE) / 1.25, rel=1e-3)
    assert perturbations.change_speed(TONE, 1.0) is TONE

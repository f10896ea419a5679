"""Intervals over items and seeds, on invented scores with known answers."""

import math

import numpy as np
import pytest

from rba_bench.metrics.bootstrap import mean_rows, mean_score, paired_difference
from rba_bench.metrics.paired import SeedVariance, pooled_error
from rba_bench.study.seed_estimates import (
    ResampledSystem,
    difference_over_seeds,
    pool_seeds,
    resample_systems,
)

N, SEEDS = 60, 3


def simulate(
    rng: np.random.Generator, effect: float, between_seeds: float
) -> tuple[list[ResampledSystem], list[ResampledSystem]]:
    """Ours and theirs: items of varying difficulty, shared by all; seeds that differ; answers that differ at random."""
    difficulty = rng.normal(0, 0.3, N)
    values = [
        mean + difficulty + rng.normal(0, between_seeds) + rng.normal(0, 0.5, N)
        for mean in (effect, 0.0)
        for _ in range(SEEDS)
    ]
    found = resample_systems([mean_rows(value) for value in values], mean_score, range(N))
    return found[:SEEDS], found[SEEDS:]


def marks(effect: float, between_seeds: float, studies: int) -> tuple[float, float]:
    """Shares of studies that mark an effect as better and as worse."""
    rng = np.random.default_rng(5)
    found = [difference_over_seeds(*simulate(rng, effect, between_seeds)).mark for _ in range(studies)]
    return found.count(1) / studies, found.count(-1) / studies


def test_no_effect_is_not_marked_more_often_than_nominal() -> None:
    better, worse = marks(0.0, between_seeds=0.02, studies=200)
    assert better + worse <= 0.05


def test_an_effect_of_known_size_is_found_with_its_sign() -> None:
    better, worse = marks(0.25, between_seeds=0.02, studies=40)
    assert better >= 0.9 and worse == 0
    assert marks(-0.35, between_seeds=0.02, studies=10) == (0.0, 1.0)


def test_one_seed_gives_the_paired_interval_of_the_board() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.random(60), rng.random(60)
    clusters = [index // 3 for index in range(60)]
    a, b = resample_systems([mean_rows(ours), mean_rows(theirs)], mean_score, clusters)
    found, board = difference_over_seeds([a], [b]), paired_difference(ours, theirs, clusters=clusters)
    assert (found.value, found.low, found.high) == pytest.approx((board.value, board.low, board.high))
    assert math.isnan(found.spread)


def test_seeds_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    items = rng.random(N)
    alike = [mean_rows(items + shift) for shift in (0.1, 0.1, 0.1)]
    apart = [mean_rows(items + shift) for shift in (-0.2, 0.1, 0.4)]
    base = resample_systems([mean_rows(items)] * 3, mean_score, range(N))
    same = difference_over_seeds(resample_systems(alike, mean_score, range(N)), base)
    torn = difference_over_seeds(resample_systems(apart, mean_score, range(N)), base)
    assert same.value == pytest.approx(torn.value) == pytest.approx(0.1)
    assert same.mark == 1 and same.spread == pytest.approx(0)
    assert torn.mark == 0 and torn.spread == pytest.approx(0.3)
    assert torn.by_seed == pytest.approx((-0.2, 0.1, 0.4))


def test_seeds_alone_give_the_degrees_of_seeds_and_items_alone_those_of_items() -> None:
    assert pooled_error(0.0, 59.0, SeedVariance(0.04, 2.0)) == pytest.approx((0.2, 2.0))
    assert pooled_error(0.1, 59.0, SeedVariance(0.0, 2.0)) == pytest.approx((0.1, 59.0))
    error, degrees = pooled_error(0.1, 59.0, SeedVariance(0.01, 2.0))
    assert error == pytest.approx(0.1 * math.sqrt(2)) and degrees == pytest.approx(4 / (1 / 59 + 1 / 2))


def test_straying_seeds_are_not_marked_more_often_than_nominal() -> None:
    """Seeds that stray four times as far as the items' standard error: 12 % with a bootstrap of three seeds."""
    better, worse = marks(0.0, between_seeds=0.3, studies=200)
    assert better + worse <= 0.09


def test_systems_are_drawn_with_equal_items() -> None:
    rng = np.random.default_rng(3)
    rows = [mean_rows(rng.random(40)) for _ in range(35)]  # more than one pass
    found = resample_systems([*rows, rows[0]], mean_score, range(40))
    assert np.array_equal(found[0].resampled, found[-1].resampled)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        resample_systems([np.ones((4, 2)), np.ones((5, 2))], mean_score, range(4))
    with pytest.raises(ValueError, match="one seed"):
        pool_seeds([])
    [one] = resample_systems([np.ones((4, 2))], mean_score, range(4))
    with pytest.raises(ValueError, match="longer"):
        difference_over_seeds([one], [one] * 2)

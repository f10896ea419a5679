"""Closed forms of the intervals against published formulas and independent computations."""

import math

import pytest
from scipy import stats

from rba_bench.metrics.interval import (
    Clusters,
    Difference,
    Interval,
    adjusted_difference,
    share_ends,
    sign_test,
)


@pytest.mark.parametrize(("wins", "losses", "p"), [(1, 0, 1.0), (4, 0, 0.125), (5, 0, 0.0625), (6, 0, 0.03125),
                                                   (9, 1, 22 / 1024), (3, 3, 1.0), (0, 0, 1.0)])  # fmt: skip
def test_the_sign_test_is_the_exact_one_of_mcnemar(wins, losses, p):
    assert sign_test(wins, losses) == sign_test(losses, wins) == pytest.approx(p)
    if wins + losses:
        assert sign_test(wins, losses) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)


@pytest.mark.parametrize(("right", "n"), [(7, 10), (1, 20), (19, 20), (300, 1000)])
def test_at_the_ends_of_a_share_the_mid_p_tails_hold_two_and_a_half_percent(right, n):
    low, high = share_ends(right, n)
    half = [stats.binom.pmf(right, n, share) / 2 for share in (low, high)]
    assert stats.binom.sf(right, n, low) + half[0] == pytest.approx(0.025)
    assert stats.binom.cdf(right - 1, n, high) + half[1] == pytest.approx(0.025)
    assert low < right / n < high and share_ends(n - right, n) == pytest.approx((1 - high, 1 - low))


def test_all_right_leaves_wilsons_room():
    wilson = stats.binomtest(20, 20).proportion_ci(0.95, method="wilson")
    assert share_ends(20, 20) == pytest.approx((wilson.low, wilson.high), abs=1e-9)
    assert share_ends(0, 20) == pytest.approx((0.0, 0.161125), abs=1e-6)


def test_one_more_for_each_side_is_bonett_and_prices_adjustment():
    b, c, n = 9, 3, 50
    error = math.sqrt(((b + c) / n - ((b - c) / n) ** 2) / n)
    p, q = (b + 1) / (n + 2), (c + 1) / (n + 2)
    by_hand = (p - q, math.sqrt((p + q - (p - q) ** 2) / (n + 2)))
    assert adjusted_difference((b - c) / n, error, n, 1.0) == pytest.approx(by_hand)
    assert adjusted_difference(100 * (b - c) / n, 100 * error, n, 100.0) == pytest.approx(
        [100 * each for each in by_hand]
    )


def test_unequal_clusters_are_worth_fewer():
    import numpy as np

    equal, unequal = Clusters.of(np.full(5, 8.0)), Clusters.of(np.array([36.0, 1, 1, 1, 1]))
    assert (equal.count, equal.worth, equal.n) == (5, 5.0, 40)
    assert unequal.count == 5 and unequal.worth == pytest.approx(40**2 / 1300) and unequal.degrees == 1.0
    assert equal.few and not Clusters.of(np.ones(6)).few


def test_an_interval_without_a_p_value_has_the_one_of_its_width():
    assert Interval(0.5, 0.1, 0.9, 10, "").p_zero == pytest.approx(
        2 * stats.norm.sf(1.96 * 0.5 / 0.4), abs=1e-4
    )
    assert Interval(-0.5, -0.9, -0.1, 10, "").p_zero == pytest.approx(0.0143, abs=1e-4)
    assert Interval(1.0, 1.0, 1.0, 1, "no width").p_zero == 1.0
    assert Difference(0.5, 0.1, 0.9, 10, "", 0.04).p_zero == 0.04

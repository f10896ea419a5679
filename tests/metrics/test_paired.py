"""Differences of two systems: right values by hand for almost nothing, and for what repeats itself."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rba_bench.metrics.aggregate import score_function
from rba_bench.metrics.bleu import CorpusBleu
from rba_bench.metrics.bootstrap import mean_score, paired_difference, paired_rows
from rba_bench.metrics.interval import FEWEST
from rba_bench.metrics.paired import swap_test


def bits(wins: int, losses: int, n: int, both: float = 1.0) -> tuple[list[float], list[float]]:
    """Two systems of which one alone is right on `wins` items and the other on `losses`."""
    rest = [both] * (n - wins - losses)
    return [1.0] * wins + [0.0] * losses + rest, [0.0] * wins + [1.0] * losses + rest


def bonett_price(b: int, c: int, n: int) -> tuple[float, float]:
    p, q = (b + 1) / (n + 2), (c + 1) / (n + 2)
    half = stats.norm.ppf(0.975) * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return p - q - half, p - q + half


def test_one_item_won_tells_nothing():
    found = paired_difference([1.0], [0.0])
    assert (found.value, found.low, found.high, found.p) == (1.0, -1.0, 1.0, 1.0)


@pytest.mark.parametrize("n", [4, 5, 6, 8, 10, 20, 50, 100, 1000, 10_000])
@pytest.mark.parametrize("wins", [1, 2, 3, 4, 5])
def test_five_items_won_and_none_lost_are_not_told_from_zero_whatever_n(n, wins):
    if wins <= n:
        found = paired_difference(*bits(wins, 0, n))
        assert not found.excludes(0.0) and found.p > 0.05 and found.high >= found.value > 0


@pytest.mark.parametrize("n", [6, 20, 100, 1000])
def test_six_items_won_and_none_lost_have_the_exact_p_value_and_can_be_told(n):
    found = paired_difference(*bits(6, 0, n))
    assert found.p >= 0.03125 and found.excludes(0.0) == (found.p <= 0.05)
    assert "6 against 0 differ" in found.method and "exact sign test" in found.method


@pytest.mark.parametrize(("b", "c", "n"), [(12, 3, 50), (0, 9, 40), (40, 25, 500), (3, 2, 10), (0, 0, 20)])
def test_right_and_wrong_items_have_the_interval_of_bonett_and_price(b, c, n):
    found = paired_difference(*bits(b, c, n))
    assert (found.low, found.high) == pytest.approx(bonett_price(b, c, n))
    assert found.value == pytest.approx((b - c) / n)
    assert found.p >= (stats.binomtest(b, b + c).pvalue if b + c else 1.0) - 1e-12


def test_twenty_of_twenty_against_twenty_of_twenty_is_not_certain():
    found = paired_difference(*bits(0, 0, 20))
    assert found.low == -found.high and found.high == pytest.approx(0.126, abs=1e-3)


@pytest.mark.parametrize("n", [10, 20, 50])
def test_the_interval_of_rare_faults_holds_the_truth(n):
    """0.95 against 0.98, independent: every outcome weighed by its probability."""
    right, wrong = 0.95 * 0.02, 0.05 * 0.98
    total = 0.0
    for b, c in itertools.product(range(n + 1), repeat=2):
        weight = (
            stats.multinomial.pmf([b, c, n - b - c], n, [right, wrong, 1 - right - wrong])
            if b + c <= n
            else 0
        )
        if weight > 1e-9:
            found = paired_difference(*bits(b, c, n))
            total += weight * (found.low <= right - wrong <= found.high)
    assert total >= 0.95


def test_below_a_stated_number_nothing_is_told_apart():
    rng = np.random.default_rng(1)
    for n in range(2, FEWEST):
        found = paired_difference(0.9 + rng.normal(0, 0.01, n), 0.1 + rng.normal(0, 0.01, n))
        assert not found.excludes(0.0) and f"too few clusters to tell anything apart: {n}" in found.method
    assert paired_difference(0.9 + rng.normal(0, 0.01, 6), 0.1 + rng.normal(0, 0.01, 6)).excludes(0.0)


def test_many_voices_of_few_texts_are_few():
    a, b = bits(30, 0, 60)
    assert paired_difference(a, b).excludes(0.0)
    assert not paired_difference(a, b, clusters=[item // 12 for item in range(60)]).excludes(0.0)


def test_ratings_one_step_apart_on_every_item_are_not_certain():
    found = paired_difference([0.75] * 20, [0.5] * 20)
    assert 0.15 < found.low < 0.2 and found.high > 0.27


def test_ties_of_win_rates_do_not_count_as_evidence():
    a, b = [1.0, 0.5, 1.0, 0.5] + [0.5] * 96, [0.5, 0.0, 0.5, 0.0] + [0.5] * 96
    found = paired_difference(a, b)
    assert found.p >= 0.125 and not found.excludes(0.0)
    a, b = [1.0, 0.5] * 5 + [0.5] * 90, [0.5, 0.0] * 5 + [0.5] * 90
    assert paired_difference(a, b).excludes(0.0)  # ten of ten: 2 / 1024


def test_swaps_of_items_are_the_sign_test_and_swaps_of_sentences_are_counted_one_by_one():
    rows = paired_rows(*(np.column_stack([side, np.ones(30)]) for side in bits(7, 2, 30)), mean_score, None)
    assert swap_test(rows, 5 / 30) == pytest.approx(stats.binomtest(7, 9).pvalue)
    metric, score = CorpusBleu("en"), score_function("bleu")
    reference = list("abcdefgh")
    rng = np.random.default_rng(4)
    sides = [
        np.array(
            [
                metric.statistics(" ".join(rng.permutation(reference)[:6]), [" ".join(reference)])
                for _ in range(5)
            ]
        )
        for _ in range(2)
    ]
    rows = paired_rows(*map(np.float64, sides), score, None)
    gaps = []
    for choice in itertools.product((0, 1), repeat=5):
        left = sum(sides[side][item] for item, side in enumerate(choice))
        right = sum(sides[1 - side][item] for item, side in enumerate(choice))
        gaps.append(abs(score(left.tolist()) - score(right.tolist())))
    assert swap_test(rows, rows.value) == pytest.approx(np.mean(np.array(gaps) >= abs(rows.value) - 1e-9))


def test_four_better_sentences_are_not_told_from_none():
    metric, reference = CorpusBleu("en"), "a b c d e f g h"
    same = [metric.statistics("a b c d e x g h", [reference])] * 46
    better = np.array([metric.statistics(reference, [reference])] * 4 + same, dtype=float)
    worse = np.array([metric.statistics("a b", [reference])] * 4 + same, dtype=float)
    found = paired_difference(better, worse, score_function("bleu"))
    assert found.value > 0 and found.p >= 0.125 and not found.excludes(0.0)


def test_the_interval_turns_with_the_sign():
    rng = np.random.default_rng(2)
    for a, b in (rng.random((2, 40)), (rng.random((2, 40)) < 0.8).astype(float)):
        found, reverse = paired_difference(a, b), paired_difference(b, a)
        assert (found.low, found.high) == pytest.approx(
            (-reverse.high, -reverse.low)
        ) and found.p == reverse.p

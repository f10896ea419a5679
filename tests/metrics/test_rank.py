"""Win rates and rank bands."""

import math

import numpy as np
import pytest

from rba_bench.metrics.bootstrap import bootstrap_mean, paired_difference
from rba_bench.metrics.interval import Difference, Interval
from rba_bench.metrics.paired import rank_bands, rank_bands_from_intervals, significant_pairs
from rba_bench.metrics.win_rate import preference


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 100, "by hand")


def test_preference():
    votes = [preference(1, 0), preference(0, 1), preference(0.5, 0.5), preference(0.1 + 0.2, 0.3)]
    assert votes == [1.0, 0.0, 0.5, 0.5]


def test_a_broken_judge_is_not_a_tie():
    with pytest.raises(ValueError, match="cannot compare"):
        preference(math.nan, 1.0)


def test_separated_systems_get_plain_ranks_and_ties_get_bands():
    systems = [interval(10, 20), interval(15, 25), interval(60, 70), interval(-20, -15)]
    assert [str(band) for band in rank_bands_from_intervals(systems)] == ["2-3", "2-3", "1", "4"]
    assert [str(band) for band in rank_bands_from_intervals(systems, higher_is_better=False)] == [
        "2-3",
        "2-3",
        "4",
        "1",
    ]


def test_ties_are_not_transitive():
    """A ties B, B ties C, A beats C: B may be anywhere from first to last."""
    bands = rank_bands_from_intervals([interval(20, 30), interval(12, 22), interval(5, 14)])
    assert [str(band) for band in bands] == ["1-2", "1-3", "2-3"]


def test_paired_differences_decide_where_own_intervals_overlap():
    bands = rank_bands(2, lambda i, j: interval(0.1, 0.9))
    assert [str(band) for band in bands] == ["1", "2"]
    assert [str(band) for band in rank_bands(2, lambda i, j: interval(-0.1, 0.9))] == ["1-2", "1-2"]
    assert [str(band) for band in rank_bands(1, lambda i, j: interval(0, 0))] == ["1"]


def test_the_more_pairs_the_surer_each_must_be():
    """Two systems with p = 0.02 are told apart alone, and not among ten."""
    alone = {(0, 1): 0.02}
    many = {(i, j): 0.02 if (i, j) == (0, 1) else 0.9 for i in range(10) for j in range(i + 1, 10)}
    assert significant_pairs(2, alone) == [(0, 1)] and significant_pairs(10, many) == []
    assert significant_pairs(10, {**many, (0, 1): 0.05 / 45 - 1e-9}) == [(0, 1)]


def test_after_one_pair_of_three_differs_at_most_one_other_can_be_equal():
    """Shaffer's step: the second smallest p-value is held against 0.05, where Holm has 0.025."""
    assert significant_pairs(3, {(0, 1): 0.01, (0, 2): 0.04, (1, 2): 0.6}) == [(0, 1), (0, 2)]
    assert (
        significant_pairs(3, {(0, 1): 0.02, (0, 2): 0.04, (1, 2): 0.6}) == []
    )  # the first is held against 0.05 / 3


def test_ten_perfect_pairs_of_few_items_order_nothing():
    gap = Difference(1.0, 0.2, 1.0, 6, "six of six", 0.03125)
    assert [str(band) for band in rank_bands(2, lambda i, j: gap)] == ["1", "2"]
    scores = [bootstrap_mean([value] * 5) for value in (1.0, 0.5, 0.0)]
    assert [str(band) for band in rank_bands_from_intervals(scores)] == ["1-3"] * 3


@pytest.mark.parametrize("kind", ["right or wrong", "ratings"])
def test_at_most_five_percent_of_boards_of_equal_systems_order_a_pair(kind):
    """Of such boards 60 to 75 % order a pair by pairwise intervals; here at most 6 of 60."""
    rng, systems, ordered = np.random.default_rng(3), 10, 0
    for _ in range(60):
        item = rng.beta(3, 1, 40)
        noise = rng.random((systems, 40))
        values = (noise < item).astype(float) if kind == "right or wrong" else np.clip(item + noise / 3, 0, 1)
        bands = rank_bands(systems, lambda i, j, v=values: paired_difference(v[i], v[j], resamples=60))
        ordered += any(str(band) != "1-10" for band in bands)
    assert ordered <= 6


def test_boards_of_own_intervals_of_equal_systems_order_nothing_either():
    rng, ordered = np.random.default_rng(4), 0
    for _ in range(60):
        scores = [bootstrap_mean(values) for values in (rng.random((10, 60)) < 0.7).astype(float)]
        ordered += any(str(band) != "1-10" for band in rank_bands_from_intervals(scores))
    assert ordered <= 6


def test_a_clear_difference_is_found_among_ten():
    rng = np.random.default_rng(5)
    item = rng.random(300)
    values = (
        rng.random((10, 300)) < np.clip(item * 0.6 + 0.25 * (np.arange(10) == 0)[:, None] + 0.1, 0, 1)
    ).astype(float)
    bands = rank_bands(10, lambda i, j: paired_difference(values[i], values[j]))
    assert str(bands[0]) == "1" and {band.best for band in bands[1:]} == {2}

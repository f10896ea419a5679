"""Win rates and rank bands."""

import math

import pytest

from rba_bench.metrics.bootstrap import Interval
from rba_bench.metrics.rank import rank_bands, rank_bands_from_intervals
from rba_bench.metrics.winrate import preference, win_rate


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 100, "by hand")


def test_preference_and_win_rate():
    votes = [preference(1, 0), preference(0, 1), preference(0.5, 0.5), preference(0.1 + 0.2, 0.3)]
    assert votes == [1.0, 0.0, 0.5, 0.5]
    assert win_rate(votes) == 0.5


@pytest.mark.parametrize("votes", [[], [1.5], [-0.1]])
def test_win_rate_refuses_what_is_not_a_vote(votes):
    with pytest.raises(ValueError):
        win_rate(votes)


def test_a_broken_judge_is_not_a_tie():
    with pytest.raises(ValueError, match="cannot compare"):
        preference(math.nan, 1.0)


def test_separated_systems_get_plain_ranks_and_ties_get_bands():
    systems = [interval(10, 20), interval(15, 25), interval(40, 50), interval(0, 5)]
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

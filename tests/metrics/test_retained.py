"""The share that one score keeps of another: values by hand, ends that keep their promise, error rates, no share."""

import numpy as np
import pytest

from rba_bench.metrics.aggregate import score_function
from rba_bench.metrics.bootstrap import (
    ScoreFn,
    cluster_sizes,
    mean_rows,
    mean_score,
    paired_difference,
    resampled_scores,
)
from rba_bench.metrics.interval import Clusters, Interval
from rba_bench.metrics.retained import retained_share


def share_of(
    part: np.ndarray,
    whole: np.ndarray,
    clusters: list[int] | None = None,
    score: ScoreFn = mean_score,
    error_scale: float | None = None,
    nothing: float = 0.0,
    scale: float | None = None,
) -> Interval | None:
    rows = [mean_rows(each) if each.ndim == 1 else each for each in (part, whole)]
    scores = [(score(each.sum(axis=0).tolist()), resampled_scores(each, score, clusters)) for each in rows]
    scale = scale or error_scale or 1.0
    difference = paired_difference(*rows, score_fn=score, clusters=clusters, scale=scale)
    groups = Clusters.of(cluster_sizes(len(part), clusters))
    return retained_share(*scores, groups, score.scale(rows[0], scale), difference, error_scale, nothing)


def right(count: int, n: int) -> np.ndarray:
    return (np.arange(n) < count).astype(float)


def test_the_share_is_the_ratio_and_its_interval_has_the_value_in_it() -> None:
    share = share_of(right(10, 100), right(40, 100))
    assert share is not None and share.value == pytest.approx(0.25) and share.n == 100
    assert 0 < share.low < 0.25 < share.high < 1


def test_nothing_retained_leaves_room_for_what_was_not_seen_and_none_below_zero() -> None:
    share = share_of(right(0, 100), right(50, 100))
    assert share is not None and (share.value, share.low) == (0, 0)
    # Wilson's bound of none in 100, over one half
    assert share.high == pytest.approx(2 * 1.96**2 / (100 + 1.96**2), rel=0.05)


def test_what_both_scores_share_cancels() -> None:
    """90 of the 100 right answers remain: two independent samples of that size would say 72 % to 112 %."""
    share = share_of(right(90, 200), right(100, 200))
    assert share is not None and share.value == pytest.approx(0.9)
    assert 0.8 < share.low < 0.87 and 0.93 < share.high < 0.98


def test_equal_answers_retain_all_and_may_not_be_told_from_it() -> None:
    share = share_of(right(50, 100), right(50, 100))
    assert share is not None and share.value == 1 and share.low < 1 < share.high


@pytest.mark.parametrize("part", [2, 20, 40, 48, 52, 60, 90])
def test_one_is_inside_exactly_where_the_difference_is_not_significant(part: int) -> None:
    whole = right(50, 100)
    share, difference = share_of(right(part, 100), whole), paired_difference(right(part, 100), whole)
    assert share is not None
    assert (share.low < 1 < share.high) == (not difference.excludes(0.0))


@pytest.mark.parametrize("whole", [np.zeros(50), right(2, 50)])
def test_of_a_score_that_is_nothing_or_may_be_drawn_as_nothing_there_is_no_share(whole: np.ndarray) -> None:
    assert share_of(right(1, 50), whole) is None


def test_few_clusters_tell_nothing_apart() -> None:
    share = share_of(right(0, 20), right(20, 20), clusters=[item // 5 for item in range(20)])
    assert share is not None and share.low == 0 and share.high >= 1


def test_of_an_error_rate_the_share_is_that_of_what_is_not_wrong() -> None:
    """WER of 10 % becomes 60 %: 40 of 90 remain; more than 100 % of errors is less than nothing."""
    score = score_function("error_rate")
    n = 40

    def words(wrong: int) -> np.ndarray:
        return np.tile([wrong, 10], (n, 1)).astype(float)

    share = share_of(words(6), words(1), score=score, error_scale=100.0)
    assert (
        share is not None and share.value == pytest.approx(40 / 90) and share.low <= share.value <= share.high
    )
    near = share_of(words(2), words(1), score=score, error_scale=100.0)
    apart = paired_difference(words(2), words(1), score_fn=score, scale=100.0)
    assert near is not None and near.value == pytest.approx(80 / 90)
    assert (near.low, near.high) == pytest.approx((1 - apart.high / 90, 1 - apart.low / 90)), (
        "more errors, less kept"
    )
    worse = share_of(words(13), words(1), score=score, error_scale=100.0)
    assert worse is not None and worse.value == pytest.approx(-30 / 90)
    assert share_of(words(1), words(11), score=score, error_scale=100.0) is None


def test_of_a_rating_the_share_is_that_of_what_is_above_the_lowest() -> None:
    """Ratings of 4 that become 1.75 keep a quarter, and ratings of 1 are worth nothing."""
    whole, part = np.full(40, 4.0), np.where(np.arange(40) < 10, 4.0, 1.0)
    share = share_of(part, whole, nothing=1.0, scale=100.0)
    assert share is not None and share.value == pytest.approx(0.25)
    assert 0 <= share.low < 0.25 < share.high < 1
    none = share_of(np.ones(40), whole, nothing=1.0, scale=100.0)
    assert none is not None and none.value == none.low == 0
    assert share_of(np.ones(40), np.ones(40), nothing=1.0, scale=100.0) is None


@pytest.mark.parametrize(("kept", "voices"), [(0.05, 1), (0.3, 1), (0.7, 4)])
def test_intervals_hold_the_true_share_as_often_as_they_say(kept: float, voices: int) -> None:
    rng, full, n, runs = np.random.default_rng(5), 0.6, 120, 200
    clusters = [item // voices for item in range(n)]
    within, beside = 0.8 * kept, 0.2 * kept * full / (1 - full)
    covered = 0
    for _ in range(runs):
        whole, draw = (np.repeat(rng.random(n // voices), voices) for _ in range(2))
        part = (draw < np.where(whole < full, within, beside)).astype(float)
        share = share_of(part, (whole < full).astype(float), clusters)
        assert share is not None
        covered += share.low <= kept <= share.high
    assert covered / runs >= 0.93

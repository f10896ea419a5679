"""Agreement of judges and of rankings, against values by hand and an independent implementation."""

import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr, spearmanr
from sklearn.metrics import cohen_kappa_score

from rba_bench.metrics.judge_agreement import (
    agreement,
    contrast,
    correlation,
    kendall_tau,
    rank_agreement,
    rank_correlation,
    slope,
    verdicts,
)

LOSS, TIE, WIN = 0.1, 0.5, 0.8


def table(counts: dict[tuple[float, float], int]) -> tuple[list[float], list[float], list[str]]:
    rows = [pair for pair, count in counts.items() for _ in range(count)]
    return [a for a, _ in rows], [b for _, b in rows], [str(number) for number in range(len(rows))]


def test_verdicts_lie_below_at_and_above_one_half() -> None:
    assert verdicts([0.0, 0.499, 0.5, 0.5 + 1e-12, 0.501, 1.0]).tolist() == [0, 0, 1, 1, 2, 2]


def test_kappa_and_ac1_by_hand() -> None:
    """45 wins and 25 losses in common, 15 each way: p = 0.7, shares 0.6 and 0.4 of both judges."""
    a, b, clusters = table({(WIN, WIN): 45, (LOSS, LOSS): 25, (WIN, LOSS): 15, (LOSS, WIN): 15})
    raw, kappa, ac1 = (agreement(a, b, clusters, form) for form in ("raw", "kappa", "ac1"))
    assert raw is not None and raw.value == pytest.approx(0.7)
    assert kappa is not None and kappa.value == pytest.approx((0.7 - 0.52) / 0.48)
    assert ac1 is not None and ac1.value == pytest.approx((0.7 - 0.48) / 0.52)
    assert kappa.low < 0.375 < kappa.high and kappa.low > 0.1 and kappa.high < 0.6


def test_ac1_holds_where_nearly_all_verdicts_are_alike_and_kappa_falls() -> None:
    a, b, clusters = table({(WIN, WIN): 118, (WIN, LOSS): 5, (LOSS, WIN): 2})
    kappa, ac1 = agreement(a, b, clusters, "kappa"), agreement(a, b, clusters, "ac1")
    assert kappa is not None and ac1 is not None
    assert kappa.value == pytest.approx(-0.0234, abs=5e-4) and ac1.value == pytest.approx(0.9406, abs=5e-4)


def test_three_verdicts_count_three_categories() -> None:
    a, b, clusters = table({(WIN, WIN): 10, (TIE, TIE): 10, (LOSS, LOSS): 10, (WIN, LOSS): 30})
    ac1 = agreement(a, b, clusters, "ac1")
    shares = np.array([25, 10, 25]) / 60
    chance = (shares * (1 - shares)).sum() / 2
    assert ac1 is not None and ac1.value == pytest.approx((0.5 - chance) / (1 - chance))


def test_one_verdict_alone_has_no_kappa() -> None:
    a, b, clusters = table({(WIN, WIN): 20})
    assert agreement(a, b, clusters, "kappa") is None
    raw = agreement(a, b, clusters)
    assert raw is not None and raw.value == 1.0 and raw.low < 1.0


def drawn_grades(n: int = 300) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(5)
    a = rng.integers(1, 6, n).astype(float)
    b = np.clip(a + rng.choice([-1, 0, 0, 1, 2], n), 1, 5)
    return a, b, [str(number) for number in range(n)]


def test_correlations_are_those_of_scipy_and_the_weighted_kappa_that_of_scikit_learn() -> None:
    a, b, clusters = drawn_grades()
    weighted, pearson = correlation(a, b, clusters, weighted=True), correlation(a, b, clusters)
    spearman = rank_correlation(a, b, clusters)
    assert weighted is not None and pearson is not None and spearman is not None
    assert weighted.value == pytest.approx(cohen_kappa_score(a, b, weights="quadratic"))
    assert pearson.value == pytest.approx(pearsonr(a, b).statistic)
    assert spearman.value == pytest.approx(spearmanr(a, b).statistic)
    unit = correlation((a - 1) / 4, (b - 1) / 4, clusters, weighted=True)
    assert unit is not None and unit.low == pytest.approx(weighted.low), (
        "grades may be written on another scale"
    )
    for found in (weighted, pearson, spearman):
        assert found.low < found.value < found.high < found.low + 0.15


def test_a_resample_is_ranked_anew() -> None:
    """The spread of Spearman's correlation over resamples is that of correlations computed one by one."""
    a, b, clusters = drawn_grades(60)
    rng = np.random.default_rng(1)
    draws = [spearmanr(a[rows], b[rows]).statistic for rows in rng.integers(60, size=(400, 60))]
    found = rank_correlation(a, b, clusters)
    assert found is not None and (found.high - found.low) / 3.96 == pytest.approx(np.std(draws), rel=0.2)


def test_a_generous_judge_loses_weighted_kappa_and_no_correlation() -> None:
    a, _, clusters = drawn_grades()
    pearson, weighted = correlation(a, a + 1, clusters), correlation(a, a + 1, clusters, weighted=True)
    assert pearson is not None and weighted is not None
    assert pearson.value == pytest.approx(1.0) and weighted.value < 0.9


def test_values_that_do_not_vary_have_no_correlation() -> None:
    a, _, clusters = drawn_grades(20)
    flat = np.full(20, 3.0)
    assert correlation(a, flat, clusters) is None and rank_correlation(a, flat, clusters) is None
    assert correlation(flat, flat, clusters, weighted=True) is None
    against = correlation(a, flat, clusters, weighted=True)
    assert against is not None and against.value == pytest.approx(0.0)
    assert correlation(a[:1], a[:1], clusters[:1]) is None, "one answer tells nothing"


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(5)
    a, b, singles = table({(WIN, WIN): 60, (LOSS, WIN): 40})
    order = rng.permutation(100)
    a, b = np.array(a)[order], np.array(b)[order]
    single = agreement(a, b, singles)
    whole = agreement(np.repeat(a, 5), np.repeat(b, 5), [f"{i // 5}" for i in range(500)])
    assert single is not None and whole is not None
    assert whole.high - whole.low == pytest.approx(single.high - single.low, rel=0.2)


def test_the_slope_is_that_of_least_squares_within_groups() -> None:
    rng = np.random.default_rng(1)
    x, group = rng.normal(size=300), np.repeat([0, 1, 2], 100)
    y = 0.07 * x + group + rng.normal(scale=0.05, size=300)
    found = slope(x + 5 * group, y, group, [str(i) for i in range(300)])
    assert found is not None and found.low < 0.07 < found.high and found.high - found.low < 0.03
    dummies = np.column_stack([x + 5 * group, *(group == g for g in range(3))]).astype(float)
    assert found.value == pytest.approx(np.linalg.lstsq(dummies, y, rcond=None)[0][0])
    assert slope(np.ones(300), y, group, [str(i) for i in range(300)]) is None


def test_a_contrast_is_a_difference_of_means() -> None:
    values, some = [0.4, 0.2, 0.0, -0.1, 0.1, 0.0] * 20, [True, True, False, False, False, False] * 20
    found = contrast(values, some, [str(i) for i in range(120)])
    assert found is not None and found.value == pytest.approx(0.3) and found.low > 0.2
    assert contrast(values, [False] * 120, [str(i) for i in range(120)]) is None


def test_tau_is_that_of_scipy_with_ties() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 6, size=(2, 50, 8)).astype(float)
    expected = [kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert kendall_tau(a, b) == pytest.approx(expected)
    assert np.isnan(kendall_tau(np.ones((1, 4)), np.arange(4.0)[None])).all()


def test_rank_agreement_is_sure_where_models_lie_apart_and_unsure_where_they_do_not() -> None:
    rng = np.random.default_rng(3)
    items, clusters = 200, [str(i) for i in range(200)]
    apart = np.clip(np.linspace(0.1, 0.9, 5) + rng.normal(scale=0.1, size=(items, 5)), 0, 1)
    sure = rank_agreement(apart, np.clip(apart + 0.05, 0, 1), clusters)
    assert sure is not None and (sure.value, sure.low, sure.high) == (1.0, 1.0, 1.0) and sure.n == items
    turned = rank_agreement(apart, 1 - apart, clusters)
    assert turned is not None and turned.value == -1.0
    a, b = rng.uniform(size=(2, items, 5))
    unsure = rank_agreement(a, b, clusters)
    assert unsure is not None and unsure.high - unsure.low > 0.8
    assert rank_agreement(a[:, :2], b[:, :2], clusters) is None

"""Intervals against closed forms, a slow bootstrap and simulated coverage; and their speed and memory."""

import math
import tracemalloc

import numpy as np
import pytest

from rba_bench.metrics.aggregate import MacroScore, macro_rows, score_function
from rba_bench.metrics.bleu import CorpusBleu
from rba_bench.metrics.bootstrap import (
    bootstrap_corpus,
    bootstrap_mean,
    mean_rows,
    mean_score,
    paired_difference,
    resampled_scores,
    resampled_sums,
)
from rba_bench.metrics.interval import Interval

RNG = np.random.default_rng(7)


def stats_t(degrees: float) -> float:
    """Two-sided 95 % quantile of Student's t."""
    from scipy import stats

    return float(stats.t.ppf(0.975, degrees))


def test_mean_interval_has_the_width_of_the_normal_approximation():
    values = RNG.beta(2, 5, 2000)
    interval = bootstrap_mean(values, resamples=4000)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.value == pytest.approx(half, rel=0.1)
    assert interval.value - interval.low == pytest.approx(half, rel=0.1)
    assert interval.n == 2000 and "4000 resamples" in interval.method


def test_ninety_five_percent_intervals_cover_about_ninety_five_percent():
    hits = 0
    for trial in range(200):
        values = np.random.default_rng(trial).normal(1.0, 2.0, size=80)
        interval = bootstrap_mean(values, seed=trial, resamples=400)
        hits += interval.low <= 1.0 <= interval.high
    assert 0.91 <= hits / 200 <= 0.98


def test_clusters_are_drawn_whole():
    """Twenty copies of each item carry the information of one: the interval must not shrink."""
    items = RNG.normal(size=60)
    copied, labels = np.repeat(items, 20), np.repeat(np.arange(60), 20).tolist()
    single, clustered, naive = (
        bootstrap_mean(items),
        bootstrap_mean(copied, clusters=labels),
        bootstrap_mean(copied),
    )
    assert clustered.low == pytest.approx(single.low) and clustered.high == pytest.approx(single.high)
    assert (naive.high - naive.low) * 3 < clustered.high - clustered.low
    assert clustered.n == 1200 and "60 clusters" in clustered.method


def test_resampled_bleu_equals_a_bootstrap_that_scores_every_resample_from_its_sentences():
    metric = CorpusBleu("en")
    words = ["a", "b", "c", "d", "e"]
    pairs = [(" ".join(RNG.choice(words, 8)), " ".join(RNG.choice(words, 8))) for _ in range(50)]
    stats = np.array([metric.statistics(h, [r]) for h, r in pairs])
    rng = np.random.default_rng(99)
    slow = [metric.score(stats[rng.integers(50, size=50)].sum(axis=0)) for _ in range(30)]
    assert [metric.score(total) for total in resampled_sums(stats, seed=99, resamples=30)] == slow


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    values = RNG.normal(size=101)
    whole = bootstrap_mean(values)
    monkeypatch.setattr("rba_bench.metrics.bootstrap._CHUNK_CELLS", 777)
    again = bootstrap_mean(values)
    assert (again.low, again.high) == pytest.approx((whole.low, whole.high), abs=1e-12)


def test_same_seed_same_interval_other_seed_other_interval():
    values = RNG.normal(size=100)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1).low != bootstrap_mean(values, seed=2).low


def test_pairing_removes_what_both_systems_share():
    shared = RNG.normal(scale=5.0, size=400)
    a, b = shared + 0.3 + RNG.normal(scale=0.2, size=400), shared + RNG.normal(scale=0.2, size=400)
    paired = paired_difference(a, b)
    assert paired.value == pytest.approx(a.mean() - b.mean())
    assert paired.excludes(0.0) and paired.value > 0
    apart_a, apart_b = bootstrap_mean(a), bootstrap_mean(b)
    assert apart_a.low < apart_b.high, "unpaired intervals cannot tell these two apart"
    reverse = paired_difference(b, a)
    assert reverse.value == pytest.approx(-paired.value) and reverse.low == pytest.approx(-paired.high)


def test_paired_difference_of_a_system_with_itself_is_zero_and_claims_no_certainty():
    stats = np.array([CorpusBleu("en").statistics("a b c d e", ["a b c x d e"])] * 60)
    same = paired_difference(stats, stats, score_function("bleu"))
    assert same.value == 0.0 and same.p == 1.0 and same.low == -same.high
    # 100 * t(59) * sqrt(2 / 62) / sqrt(62): one of 62 sentences may go either way
    assert same.high == pytest.approx(100 * stats_t(1 / (1 / 59 + 1 / 999)) * math.sqrt(2) / 62)


def test_paired_difference_false_alarm_rate_is_about_five_percent():
    alarms = 0
    for trial in range(150):
        rng = np.random.default_rng(trial)
        a, b = (rng.random((2, 120)) < 0.6).astype(float)
        alarms += paired_difference(a, b, seed=trial, resamples=300).excludes(0.0)
    assert alarms / 150 <= 0.09


def test_all_equal_scores_do_not_claim_certainty():
    perfect, none = bootstrap_mean([1.0] * 40), bootstrap_mean([0.0] * 40)
    assert perfect.high == 1.0 and perfect.low == pytest.approx(
        0.9124, abs=1e-4
    )  # Wilson: 40 / (40 + 1.96^2)
    assert none.low == 0.0 and none.high == pytest.approx(0.0876, abs=1e-4)
    assert "Wilson" in perfect.method
    assert bootstrap_mean([1.0] * 40, clusters=[0, 1] * 20).low < perfect.low
    ratings = bootstrap_mean([0.75] * 20)  # a share of 1.96^2 / (20 + 1.96^2) = 0.161 may be 0 or 1
    assert (ratings.low, ratings.high) == pytest.approx(
        (0.75 - 0.75 * 0.1611, 0.75 + 0.25 * 0.1611), abs=1e-4
    )
    percent = bootstrap_mean([100.0] * 20, scale=100.0)
    assert (percent.low, percent.high) == pytest.approx((83.887, 100.0), abs=1e-3)


def test_corpus_scores_without_a_fault_do_not_claim_certainty():
    exact = np.array([CorpusBleu("en").statistics("a b c d e", ["a b c d e"])] * 20)
    bleu = bootstrap_corpus(exact, score_function("bleu"))
    assert (bleu.value, bleu.high) == pytest.approx((100.0, 100.0)) and bleu.low == pytest.approx(
        83.887, abs=1e-3
    )
    wer = bootstrap_corpus(np.array([[0.0, 7.0]] * 20), score_function("error_rate"))
    assert (wer.value, wer.low) == (0.0, 0.0) and wer.high == pytest.approx(16.113, abs=1e-3)


def test_one_item_or_one_cluster_says_nothing():
    assert [(i.low, i.high) for i in (bootstrap_mean([0.7]), bootstrap_mean([1.0]))] == [(0.0, 1.0)] * 2
    voices = bootstrap_mean([0.7, 0.9, 0.8], clusters=["a"] * 3)
    assert (voices.low, voices.high) == (0.0, 1.0) and "too few clusters: 1" in voices.method
    wer = bootstrap_corpus(np.array([[12.0, 10.0]]), score_function("error_rate"))
    assert (wer.value, wer.low, wer.high) == (120.0, 0.0, 120.0)
    apart = paired_difference([0.9], [0.2])
    assert (apart.low, apart.high, apart.p) == (-1.0, 1.0, 1.0)


def test_no_interval_leaves_the_scale():
    for values in ([0.0] * 19 + [1.0], [0.98, 0.99, 1.0, 1.0, 0.97], [100.0, 99.0, 98.5] * 4):
        found = bootstrap_mean(values, scale=100.0 if max(values) > 1 else None)
        assert 0.0 <= found.low < found.value < found.high <= (100.0 if max(values) > 1 else 1.0)
    bad = bootstrap_corpus(np.array([[5.0, 4.0], [30.0, 10.0], [6.0, 7.0]] * 3), score_function("error_rate"))
    assert 0 < bad.low < bad.value < bad.high and bad.high > 200  # a rate of errors may be above 100


def test_few_clusters_get_students_t_with_unequal_sizes_counting_less():
    values = [0.2, 0.5, 0.3, 0.6, 0.4, 0.7, 0.1, 0.5]
    clusters = ["a", "a", "a", "b", "b", "c", "d", "e"]
    found = bootstrap_mean(values, clusters, resamples=4000)
    worth = 8**2 / (9 + 4 + 1 + 1 + 1)
    assert f"{worth - 1:.3g} degrees" in found.method and "5 clusters of 8 items" in found.method
    drawn = resampled_scores(mean_rows(values), mean_score, clusters, resamples=4000)
    error = drawn.std(ddof=1) * math.sqrt(5 / 4)
    # Wilson's form: both ends x solve (value - x)^2 = t^2 error^2 x (1 - x) / (value (1 - value))
    for end in (found.low, found.high):
        spread = end * (1 - end) / (found.value * (1 - found.value))
        assert abs(found.value - end) == pytest.approx(stats_t(worth - 1) * error * math.sqrt(spread))


@pytest.mark.parametrize(("count", "at_least"), [(5, 0.92), (10, 0.92), (27, 0.92)])
def test_intervals_of_few_clusters_hold_the_truth_as_often_as_they_say(count, at_least):
    """The percentile interval holds it in 84, 90 and 93 % of these."""
    rng, hits = np.random.default_rng(count), 0
    labels = np.repeat(np.arange(count), 8).tolist()
    for _ in range(400):
        values = np.repeat(rng.normal(0.5, 0.1, count), 8) + rng.normal(0, 0.1, count * 8)
        found = bootstrap_mean(values, labels, resamples=200)
        hits += found.low <= 0.5 <= found.high
    assert at_least <= hits / 400 <= 0.98


@pytest.mark.parametrize(("name", "width"), [("bleu", 10), ("chrf++", 24)])
@pytest.mark.parametrize("macro", [False, True])
def test_fifteen_thousand_pairs_a_thousand_resamples_stay_small(name, width, macro):
    rows = RNG.integers(0, 30, size=(15_531, width))
    score = score_function(name)
    bootstrap_corpus(rows[:10], score)  # imports
    clusters = [index // 3 for index in range(len(rows))] if macro else None
    groups = [index % 15 for index in range(len(rows))]
    tracemalloc.start()
    stats = macro_rows(rows, groups) if macro else rows
    interval = bootstrap_corpus(stats, MacroScore(score, width) if macro else score, clusters)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert interval.n == 15_531
    assert peak < (150e6 if macro else 60e6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean([]), "non-empty"),
        (lambda: bootstrap_mean([1.0, math.nan]), "finite"),
        (lambda: bootstrap_mean([1.0, 2.0], clusters=["a"]), "1 cluster labels for 2 items"),
        (lambda: bootstrap_mean([1.0, 2.0], resamples=0), "at least one"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "equal items"),
        (lambda: paired_difference([[1.0, 2.0]], [[1.0, 2.0]]), "need a score function"),
        (lambda: paired_difference([1.0], [1.0], score_function("bleu")), "needs statistics"),
        (lambda: resampled_sums([1.0, 2.0]), "matrix"),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_interval_round_trip():
    interval = Interval(0.5, 0.4, 0.6, 10, "by hand")
    assert Interval(**interval.to_dict()) == interval
    assert interval.excludes(0.39) and not interval.excludes(0.6)

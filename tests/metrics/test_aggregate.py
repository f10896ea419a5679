"""Aggregations of summed rows: error rates, rows without a score, single items."""

import math

import numpy as np
import pytest
import sacrebleu

from rba_bench.metrics.aggregate import (
    AGGREGATIONS,
    WIDTHS,
    MacroScore,
    item_scores,
    macro_rows,
    score_function,
)
from rba_bench.metrics.bleu import ChrfPP, CorpusBleu
from rba_bench.metrics.bootstrap import bootstrap_corpus, mean_score, paired_difference, resampled_scores

PAIRS = [
    ("the old red house is here", "the old red house was here"),
    ("a cat", "a cat sleeps"),
    ("one two three", "one two three"),
    ("nothing at all", "something else entirely today"),
    ("", "an answer is missing"),
    ("here", "here"),
]
RNG = np.random.default_rng(3)


def example_rows(aggregation: str, n: int = 40) -> np.ndarray:
    """Statistics of invented items."""
    if aggregation == "mean":
        return np.column_stack([RNG.random(n), np.ones(n)])
    if aggregation == "error_rate":
        return np.column_stack([RNG.integers(0, 9, n), RNG.integers(1, 12, n)]).astype(float)
    metric = CorpusBleu("en") if aggregation == "bleu" else ChrfPP("en")
    words = ["a", "b", "c", "d"]
    pairs = [(" ".join(RNG.choice(words, 7)), " ".join(RNG.choice(words, 7))) for _ in range(n)]
    return np.array([metric.statistics(h, [r]) for h, r in pairs], dtype=float)


def test_error_rate_is_errors_over_reference_length_pooled_not_averaged():
    rows = np.array([[1.0, 1.0], [1.0, 9.0]])
    score = score_function("error_rate")
    assert score(rows.sum(axis=0)) == 20.0  # the mean of the two rates is 55.6
    assert score([30.0, 20.0]) == 150.0  # insertions can exceed the reference


def test_error_rate_without_any_reference_word():
    score = score_function("error_rate")
    assert score([0.0, 0.0]) == 0.0 and score([3.0, 0.0]) == 100.0
    assert score([5.0, 10.0]) == score([2.0, 10.0]) + 30.0


def test_error_rates_have_intervals_and_paired_differences():
    good, bad = example_rows("error_rate", 200), example_rows("error_rate", 200)
    bad[:, 1] = good[:, 1]
    bad[:, 0] = good[:, 0] + 2
    score = score_function("error_rate")
    whole = bootstrap_corpus(good, score)
    assert whole.value == pytest.approx(100 * good[:, 0].sum() / good[:, 1].sum())
    assert whole.low < whole.value < whole.high
    worse = paired_difference(bad, good, score)
    assert worse.value == pytest.approx(100 * 400 / good[:, 1].sum()) and worse.low > 0


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_many_agrees_with_one_by_one_and_rows_have_the_stated_width(aggregation):
    rows = example_rows(aggregation)
    score = score_function(aggregation)
    totals = np.array([rows[:5].sum(axis=0), rows[5:9].sum(axis=0), rows.sum(axis=0)])
    assert rows.shape[1] == WIDTHS[aggregation]
    assert score.many(totals) == pytest.approx([score(total.tolist()) for total in totals], rel=1e-12)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_row_of_zeros_weighs_nothing(aggregation):
    rows = example_rows(aggregation)
    gaps = np.insert(rows, [0, 7, 7, 20], 0.0, axis=0)
    score = score_function(aggregation)
    assert score(gaps.sum(axis=0).tolist()) == score(rows.sum(axis=0).tolist())
    groups = ["x"] * 22 + ["y"] * 22
    width = WIDTHS[aggregation]
    spread = macro_rows(gaps, groups)
    parts = [score(gaps[:22].sum(axis=0).tolist()), score(gaps[22:].sum(axis=0).tolist())]
    assert MacroScore(score, width)(spread.sum(axis=0).tolist()) == pytest.approx(sum(parts) / 2)


def test_a_group_without_any_score_is_left_out_of_the_macro_average():
    rows = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    macro = MacroScore(mean_score, 2)
    spread = macro_rows(rows, ["x", "x", "y"])
    assert macro(spread.sum(axis=0).tolist()) == 0.5
    assert macro.many(spread.sum(axis=0)[None]).tolist() == [0.5]


def test_the_mean_of_nothing_is_no_number_and_such_resamples_are_left_out():
    assert math.isnan(mean_score([0.0, 0.0]))
    rows = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    drawn = resampled_scores(rows, mean_score, resamples=50)
    assert np.isnan(drawn).any() and set(drawn[~np.isnan(drawn)]) == {1.0}
    found = bootstrap_corpus(rows, mean_score, resamples=50)
    assert (found.value, found.high) == (1.0, 1.0) and 0.4 < found.low < 0.5  # three items, no certainty
    with pytest.raises(ValueError, match="no resample"):
        bootstrap_corpus(rows[1:], mean_score)


def test_items_alone_score_as_sacrebleus_sentences():
    bleu, chrf = CorpusBleu("en"), ChrfPP("en")
    found = item_scores("bleu", [bleu.statistics(h, [r]) for h, r in PAIRS])
    assert found == pytest.approx([sacrebleu.sentence_bleu(h, [r]).score for h, r in PAIRS])
    assert found[2] == pytest.approx(100.0)  # three words have no 4-gram and would score 0 as a corpus
    assert score_function("bleu")(bleu.statistics("one two three", ["one two three"])) == 0.0
    found = item_scores("chrf++", [chrf.statistics(h, [r]) for h, r in PAIRS])
    assert found == pytest.approx([sacrebleu.sentence_chrf(h, [r], word_order=2).score for h, r in PAIRS])


def test_items_alone_of_means_and_error_rates():
    assert item_scores("mean", [[0.25, 1.0], [1.0, 1.0]]).tolist() == [0.25, 1.0]
    assert item_scores("error_rate", [[1.0, 4.0], [0.0, 3.0], [2.0, 0.0]]).tolist() == [25.0, 0.0, 100.0]


def test_unknown_aggregations_are_refused():
    with pytest.raises(ValueError, match="unknown aggregation 'magic', known: mean, bleu"):
        score_function("magic")
    with pytest.raises(ValueError, match="magic"):
        item_scores("magic", [[1.0]])

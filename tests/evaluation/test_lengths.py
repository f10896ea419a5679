"""How long the answers behind a win rate are: by hand."""

import json

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation.lengths import is_win_rate, mean_lengths
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.scoring import summarise_metrics
from tests.leaderboard import board_records as made


def answers():
    """Two judged items, one of them unanswered, and one without a win rate."""
    extra = json.dumps({"baselines": {"sft": "x" * 30}})
    texts = (
        ("né", {"win_rate": 1.0, "win_rate_vs_sft": 0.0}),
        ("", {"win_rate": 0.0, "win_rate_vs_sft": 0.0}),
        ("y" * 900, {}),
    )
    return [
        made.sample(index, "chat", text, [], group="all").model_copy(
            update={"scores": scores, "baseline": "b" * (10 + index), "extra": extra}
        )
        for index, (text, scores) in enumerate(texts)
    ]


def test_characters_of_answers_and_baselines_over_the_items_that_have_a_rate():
    found = mean_lengths(answers(), "win_rate")
    assert (found.answer, found.baseline, found.n) == (1.0, 10.5, 2)
    assert str(found) == "1 (baseline 10)"


def test_a_named_baseline_has_its_own_length():
    found = mean_lengths(answers(), "win_rate_vs_sft")
    assert (found.answer, found.baseline) == (1.0, 30.0)
    with pytest.raises(UserError, match="no answer of 'base' to beat"):
        samples = [s.model_copy(update={"scores": {"lc_win_rate_vs_base": 0.5}}) for s in answers()]
        mean_lengths(samples, "lc_win_rate_vs_base")


def test_other_metrics_have_none():
    assert mean_lengths(answers(), "rating") is None and mean_lengths([], "win_rate") is None
    names = ("win_rate", "lc_win_rate", "lc_win_rate_vs_a_vs_b", "valid_rate", "win_rates", "win_rate_stderr")
    assert [is_win_rate(name) for name in names] == [True, True, True, False, False, False]


def test_the_record_states_them_beside_the_rate():
    samples = [s.model_copy(update={"scores": {**s.scores, "rating": 3.0}}) for s in answers()]
    found = summarise_metrics(samples, (Metric("win_rate"), Metric("rating")))
    assert (found["win_rate"].mean_length, found["win_rate"].baseline_mean_length) == (1.0, 10.5)
    assert found["win_rate"].n_missing == 1
    assert found["rating"].mean_length is None and found["rating"].baseline_mean_length is None

"""One table of metrics, from which hooks, scorers, rankings and the page for readers follow."""

import importlib.util
import re

import pytest

from rba_bench.evaluation import hooks, metric, scoring, task_registry
from rba_bench.evaluation.metric import KINDS, METRICS, RANKING, Metric, metrics_of
from rba_bench.evaluation.scorers.registry import SCORERS
from rba_bench.metrics.aggregate import AGGREGATIONS


def test_every_row_says_what_it_is_and_what_gives_it():
    for row in METRICS:
        assert row.description.endswith(".") and row.scorer in {*KINDS, *SCORERS}, row.name
        assert row.aggregation in AGGREGATIONS, row.name
        assert (row.score is None) == (row.scorer in {"instruct", *SCORERS}), row.name


def test_every_scorer_and_every_kind_but_chat_gives_a_metric():
    assert {row.scorer for row in METRICS} == {*SCORERS, *KINDS} - {"chat"}


def test_task_files_name_metrics_of_the_table_and_hooks_that_exist():
    names = {row.name for row in METRICS}
    for spec in task_registry.list_tasks():
        for entry in spec.config.get("metric_list") or []:
            base = re.sub(r"(_vs_\w+)?(_stderr)?$", "", entry["metric"])
            assert base in names, f"{spec.name}: {entry['metric']}"
            assert callable(getattr(hooks, entry["aggregation"].rpartition(".")[2])), spec.name


def test_ranking_metrics_are_ordered_by_rank():
    assert RANKING == (
        "lc_win_rate", "win_rate", "judge_accuracy", "asserted_match", "alias_match", "bleu", "wer", "if_rate",
        "answer_cosine", "answer_agreement",
    )  # fmt: skip


def test_a_new_metric_is_a_function_and_a_row(monkeypatch):
    """Scores, signature and aggregation of a metric that only the table knows."""
    row = Metric(
        "word_count",
        scorer="qa",
        score=lambda item, answer: len(answer.split()),
        signature="word_count|{langs}",
    )
    monkeypatch.setattr(metric, "METRICS", (*METRICS, row))
    item = {"id": "a", "kind": "qa", "references": ["paris"], "target_lang": "en"}
    assert scoring.score_item(item, "it is paris").scores["word_count"] == 3
    assert scoring.signatures("qa", ["en"])["word_count"] == "word_count|en"
    assert scoring.metric_value(row, [3, 5], ["", ""]) == 4.0


def test_a_metric_is_named_with_its_scale():
    assert metric.shown_decimals("rating", 100.0) == 2 and metric.shown_decimals("rating", 1.0) == 1
    assert [row.name for row in metrics_of("pairwise")] == ["win_rate", "lc_win_rate"]
    with pytest.raises(AttributeError):
        hooks.no_such_metric  # noqa: B018 - a name that the table does not know


def test_the_interval_of_ratings_ends_at_the_best_one():
    [rating] = metric.metrics_of("rating")
    found, _ = scoring.metric_interval(rating, [5.0] * 8, [""] * 8, [str(number) for number in range(8)])
    assert found.low < found.value == found.high == 5.0
    most_equal, _ = scoring.metric_interval(rating, [2.0] * 8, [""] * 8, [str(number) for number in range(8)])
    assert most_equal.high < 4.0
    largest = {each.name: metric.largest_value(each.name, each.scale) for each in metric.METRICS}
    assert (
        largest["rating"] == 5.0 and largest["bleu"] == largest["wer"] == 100.0 and largest["win_rate"] == 1.0
    )


def test_the_page_for_readers_is_that_of_the_table():
    script = task_registry.tasks_dir().parent / "dev" / "make_metrics_page.py"
    spec = importlib.util.spec_from_file_location("make_metrics_page", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.FILE.read_text(encoding="utf-8") == module.page(), "run dev/make_metrics_page.py"

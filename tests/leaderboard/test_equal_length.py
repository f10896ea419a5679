"""Win rates at equal length on a board: beside the raw ones, never in their place, and only where they can be told."""

import csv

import pytest

from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.scoring import summarise_metrics
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.board_files import EQUAL_LENGTH
from tests.leaderboard import board_records as made
from tests.metrics.test_lc_pooled import board

TASK = "alpacaeval_full"


def write(root, systems=12, items=150, same_length=False):
    wins, lengths, baseline, truth = board(systems=systems, items=items)
    for system in range(systems):
        samples = [
            made.sample(item, "chat", "x" * int(100 if same_length else lengths[system, item]), [], group="all")
            .model_copy(
                update={
                    "scores": {"win_rate": float(wins[system, item])} if (system, item) != (2, 5) else {},
                    "baseline": "y" * int(baseline[item]),
                }
            )
            for item in range(items)
        ]  # fmt: skip
        metrics = summarise_metrics(samples, (Metric("win_rate", signature="win_rate"),))
        made.write_run(root, f"system-{system:02d}", samples, TASK, metrics=metrics)
    return truth


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return root, write(root)


def test_rates_stand_beside_the_raw_ones_and_rank_nothing(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("rba_bench.leaderboard.equal_length.RESAMPLES", 20)
    root, truth = runs
    plain = build_board([root], tmp_path / "plain")
    result = build_board([root], tmp_path / "out", equal_length=True)
    with open(result.out / EQUAL_LENGTH, newline="") as handle:
        rows = {row["model"]: row for row in csv.DictReader(handle)}
    assert len(rows) == 12 and {row["n"] for row in rows.values()} == {"150", "149"}
    found = [float(rows[f"system-{system:02d}"]["at_equal_length"]) for system in range(12)]
    raw = [float(rows[f"system-{system:02d}"]["raw"]) for system in range(12)]
    assert sum(abs(a - b) for a, b in zip(found, truth, strict=True)) < 0.5 * sum(
        abs(a - b) for a, b in zip(raw, truth, strict=True)
    )
    assert all(
        float(row["low"]) <= float(row["at_equal_length"]) <= float(row["high"]) for row in rows.values()
    )
    assert [row.label for row in result.groups[0].rows] == [row.label for row in plain.groups[0].rows]
    assert result.groups[0].primary == "win_rate"
    page = (result.out / "index.md").read_text()
    assert "| model | win_rate % at equal length | win_rate % | mean length |" in page
    assert (
        "estimated from these 12 runs" in page
        and "at equal length" not in (plain.out / "index.md").read_text()
    )
    assert not (plain.out / EQUAL_LENGTH).exists()
    build_board([root], result.out)
    assert not (result.out / EQUAL_LENGTH).exists(), "a file of the earlier build"


def test_a_few_runs_or_runs_of_equal_length_are_told_apart_from_enough(tmp_path):
    write(tmp_path / "few", systems=5, items=40)
    told = build_board([tmp_path / "few"], tmp_path / "a", equal_length=True)
    assert any("5 runs, 12 are needed" in warning for warning in told.warnings)
    write(tmp_path / "alike", items=40, same_length=True)
    told = build_board([tmp_path / "alike"], tmp_path / "b", equal_length=True)
    assert any("too alike in length" in warning for warning in told.warnings)
    assert not (told.out / EQUAL_LENGTH).exists()


def test_boards_of_other_metrics_are_left_alone(tmp_path):
    made.write_run(tmp_path / "runs", "sft", made.qa_samples(0.5, n=30))
    told = build_board([tmp_path / "runs"], tmp_path / "out", equal_length=True)
    assert not any("equal length" in warning for warning in told.warnings)

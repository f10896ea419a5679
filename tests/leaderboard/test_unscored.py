"""Items that no judge could score: out of the means, counted, shown, and left out of both sides of a difference."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation.records import Sample
from rba_bench.leaderboard import loaded_runs
from rba_bench.leaderboard.board import build_board
from rba_bench.metrics.bootstrap import paired_difference
from tests.leaderboard import board_records as made

TASK = "micro_triviaqa_greedy"
FAILED = {"sft": (0, 1), "rba-single": (1, 2, 3), "rba-group": ()}
JUDGES = [
    {"name": "pairwise", "judge": {"kind": "endpoint", "model": "gpt-x"}, "votes": 2},
    {"name": "yesno", "judge": {"kind": "text", "weights_sha256": "fedcba9876543210"}},
    {"name": "consistency", "embedding": "x"},
]
BIAS = {"value": 0.04, "low": -0.0125, "high": 0.0911, "n": 117, "method": "bootstrap"}
REPORTS = {
    "sft": {"pairwise": {"agreement": 0.9123, "order_bias": BIAS, "calls": 80, "agreement_known": True}},
    "rba-single": {"pairwise": {"orders": {"agreement": 0.875}}},
    "rba-group": {},
}


def answers(name: str, skill: float) -> list[Sample]:
    update = {"scores": {}, "status": "judge_failed"}
    samples = made.qa_samples(skill, seed=len(name))
    return [s.model_copy(update=update) if s.doc_id in FAILED[name] else s for s in samples]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    spec = {"task": TASK, "finish": JUDGES}
    for name, skill in (("sft", 0.5), ("rba-single", 0.6), ("rba-group", 0.8)):
        made.write_run(root, name, answers(name, skill), protocol_spec=spec, finish=REPORTS[name])
    return root


@pytest.fixture(scope="module")
def board(runs, tmp_path_factory):
    return build_board([runs], tmp_path_factory.mktemp("board"))


def edited(runs: Path, tmp_path: Path, name: str, **changes: object) -> Path:
    """Copy of one run with its record of `alias_match` changed."""
    source = next((runs / name).glob(f"{TASK}*"))
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    record = json.loads((tmp_path / "run.json").read_text())
    record["metrics"]["alias_match"].update(changes)
    (tmp_path / "run.json").write_text(json.dumps(record))
    return tmp_path


def test_scores_run_over_the_items_that_have_one(board):
    rows = {row.label: row for row in board.groups[0].rows}
    for name, failed in FAILED.items():
        stated = rows[name].run.record.metrics["alias_match"]
        assert (stated.n, stated.n_missing) == (120 - len(failed), len(failed))
        kept = [s.scores["alias_match"] for s in rows[name].run.samples if s.doc_id not in failed]
        assert stated.value == pytest.approx(np.mean(kept))


def test_differences_and_ranks_leave_an_item_out_of_both_sides(board):
    group = board.groups[0]
    rows = {row.label: row for row in group.rows}
    kept = [index for index in range(120) if index not in (0, 1, 2, 3)]
    a, b = (rows[name].run.samples for name in ("rba-single", "sft"))
    values = [[side[index].scores["alias_match"] for index in kept] for side in (a, b)]
    expected = paired_difference(*values, clusters=[a[index].cluster for index in kept])
    found = rows["rba-single"].versus["alias_match"]
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert found.n == 116 and "4 of 120 items" in found.method
    assert rows["rba-group"].versus["alias_match"].n == 118
    assert rows["rba-group"].bands["alias_match"].worst == 1 and rows["sft"].bands["alias_match"].best > 1


def test_the_page_says_how_many_are_missing_and_how_judges_lean(board):
    page = (board.out / "index.md").read_text()
    assert "| 118 (-2) |" in page and "| 117 (-3) |" in page and "| 120 |" in page
    assert "2 (judge_failed 2)" in page and "(judge: " not in page, "no column of these records is judged"
    assert "an n\nof `97 (-3)` says that three items have no score" in page
    line = next(line for line in page.splitlines() if line.startswith("Judges: "))
    assert (
        "`sft` pairwise agreement 0.912, pairwise order bias +0.040 [-0.013, +0.091]" in line
        and "80" not in line
    )
    assert (
        "`rba-single` pairwise orders agreement 0.875" in line and "known" not in line and "group" not in line
    )
    with open(board.out / f"{TASK}.csv", newline="") as handle:
        counts = {row["model"]: (row["n"], row["n_missing"]) for row in csv.DictReader(handle)}
    assert counts == {"sft": ("118", "2"), "rba-single": ("117", "3"), "rba-group": ("120", "0")}


def test_where_nothing_is_missing_the_page_says_so(tmp_path):
    made.write_run(tmp_path, "sft", made.qa_samples(0.5, n=30))
    page = (build_board([tmp_path], tmp_path / "out").out / "index.md").read_text()
    assert "so all items are in every score." in page and "(-" not in page and "Judges:" not in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 120, "n_missing": 0}, "n 120 and 0 missing, its samples hold 118 and 2"),
        ({"n_missing": 1}, "n 118 and 1 missing"),
        ({"value": 0.5 * 118 / 120}, "alias_match is recorded as"),  # the missing ones counted as zeros
        ({"aggregation": "error_rate"}, "alias_match is recorded as"),
    ],
)
def test_a_record_that_miscounts_its_missing_scores_is_refused(runs, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        loaded_runs.load_checked_run(edited(runs, tmp_path, "sft", **changes))


def test_a_record_whose_samples_have_no_score_at_all_is_refused(tmp_path):
    samples = [s.model_copy(update={"scores": {"exact_match": 0.0}}) for s in made.qa_samples(0.5, n=10)]
    full = made.write_run(tmp_path / "full", "sft", made.qa_samples(0.5, n=10))
    metrics = json.loads((full / "run.json").read_text())["metrics"]
    metrics["exact_match"].update(value=0.0, breakdown={})
    metrics["alias_match"].update(n=0, n_missing=10)
    bare = made.write_run(tmp_path / "bare", "sft", samples, metrics=metrics)
    with pytest.raises(UserError, match="no sample has a alias_match"):
        loaded_runs.load_checked_run(bare)


def test_a_score_that_is_no_number_is_refused(runs, tmp_path):
    source = next((runs / "sft").glob(f"{TASK}*"))
    text = (source / "samples.jsonl").read_text().replace('"alias_match":1.0', '"alias_match":NaN', 1)
    assert "NaN" in text
    record = json.loads((source / "run.json").read_text())
    record["samples_sha256"] = loaded_runs.sha256_bytes(text.encode())
    (tmp_path / "samples.jsonl").write_text(text)
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="NaN is no number"):
        loaded_runs.load_checked_run(tmp_path)


def test_a_row_of_the_wrong_length_is_refused(tmp_path):
    samples = made.translation_samples(0.3, n=10)
    folder = made.write_run(tmp_path / "good", "sft", samples, "micro_covost2_greedy")
    metrics = json.loads((folder / "run.json").read_text())["metrics"]
    cut = {**samples[0].scores, "bleu": samples[0].scores["bleu"][:9]}
    short = [samples[0].model_copy(update={"scores": cut}), *samples[1:]]
    bad = made.write_run(tmp_path / "bad", "sft", short, "micro_covost2_greedy", metrics=metrics)
    with pytest.raises(UserError, match="a row of 9 statistics where 10 are needed"):
        loaded_runs.load_checked_run(bad)


def test_ratings_are_shown_to_the_second_digit(tmp_path):
    """From 1 to 5, in their own unit; not as a share."""
    for name, level in (("sft", 3.0), ("rba-single", 3.25)):
        samples = [
            s.model_copy(update={"scores": {"rating": level + s.doc_id % 2}})
            for s in made.qa_samples(0.5, n=30)
        ]
        interval = {"value": level + 0.5, "low": level + 0.3, "high": level + 0.7, "n": 30, "stderr": 0.1}
        about = {"method": "x", "aggregation": "mean", "macro": False, "scale": 100.0, "signature": "rating"}
        made.write_run(tmp_path, name, samples, metrics={"rating": interval | about})
    result = build_board([tmp_path], tmp_path / "out")
    page = (result.out / "index.md").read_text()
    found = next(row for row in result.groups[0].rows if row.label == "rba-single").versus["rating"]
    assert 0.1 < found.low < 0.25 < found.high < 0.4, "equal differences on thirty items are no certainty"
    assert f"| +0.25 [+{found.low:.2f}, +{found.high:.2f}] * |" in page
    assert "| 3.75 [3.55, 3.95] |" in page and "rating %" not in page

"""What a board ranks win rates by, and the lengths that stand beside them."""

import csv
import json
from pathlib import Path

import pytest

from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.scoring import summarise_metrics
from rba_bench.leaderboard.board import build_board
from tests.leaderboard import board_records as made

TASK = "alpacaeval_full"
# Raw and length-controlled rates: the terse system is the worst, and the best if length alone is controlled for.
SYSTEMS = {"terse": (0.04, 0.52, 68), "sft": (0.30, 0.33, 1100), "rba-single": (0.45, 0.44, 2049)}


def write(root: Path, signature: str, protocol_form: str | None, old: bool = False) -> None:
    """Three systems with a win rate and a length-controlled one that says `signature` of itself."""
    judged = (Metric("win_rate", signature="win_rate"), Metric("lc_win_rate", signature=signature))
    lc = {} if protocol_form is None else {"lc": {"form": protocol_form}}
    for name, (raw, controlled, length) in SYSTEMS.items():
        samples = [
            made.sample(index, "chat", "x" * (length + index % 3 - 1), [], group="all").model_copy(
                update={
                    "scores": {"win_rate": raw + 0.01 * (index % 2), "lc_win_rate": controlled},
                    "baseline": "y" * 2000,
                }
            )
            for index in range(60)
        ]
        metrics = {m: value.model_dump() for m, value in summarise_metrics(samples, judged).items()}
        if old:  # as written before lengths were part of a record
            for value in metrics.values():
                del value["mean_length"], value["baseline_mean_length"]
        spec = {"task": TASK, "finish": [{"name": "pairwise", **lc}, {"name": "rating"}]}
        made.write_run(root, name, samples, TASK, metrics=metrics, protocol_spec=spec, benchmark="alpacaeval")


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


MINIMAL = (
    "lc_win_rate|judged|both orders|against:stored baseline|lc:minimal|tanh(standardised length difference)"
)
DIFFICULTY = MINIMAL.replace("lc:minimal", "lc:difficulty")


@pytest.mark.parametrize(
    ("signature", "protocol_form", "primary", "order"),
    [
        (DIFFICULTY, "difficulty", "lc_win_rate", ["terse", "rba-single", "sft"]),
        (MINIMAL, "minimal", "win_rate", ["rba-single", "sft", "terse"]),
        (MINIMAL, None, "win_rate", ["rba-single", "sft", "terse"]),
        (DIFFICULTY, "minimal", "win_rate", ["rba-single", "sft", "terse"]),
        (DIFFICULTY + "_noreg", "difficulty_noreg", "win_rate", ["rba-single", "sft", "terse"]),
        (MINIMAL.replace("lc:minimal", "lc:difficulty_noreg"), None, "win_rate", ["rba-single", "sft", "terse"]),
        ("lc_win_rate", None, "win_rate", ["rba-single", "sft", "terse"]),
        ("", None, "win_rate", ["rba-single", "sft", "terse"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("old", [False, True])
def test_only_the_form_with_difficulties_ranks(tmp_path, signature, protocol_form, primary, order, old):
    write(tmp_path / "runs", signature, protocol_form, old)
    board = build_board([tmp_path / "runs"], tmp_path / "out")
    [group] = board.groups
    assert group.primary == primary and [row.label for row in group.rows] == order
    flagged = {row["metric"] for row in rows_of(board.out / f"{TASK}.csv") if row["primary"] == "True"}
    assert flagged == {primary}
    heading = f"alpacaeval {primary} %"
    assert board.tables[0].headings[1].startswith(heading)


def test_a_record_of_the_minimal_form_alone_is_still_shown(tmp_path):
    """Nothing else to rank by: it is shown, and its form stands in the heading."""
    write(tmp_path / "runs", MINIMAL, "minimal")
    for file in (tmp_path / "runs").rglob("run.json"):
        record = json.loads(file.read_text())
        del record["metrics"]["win_rate"]
        file.write_text(json.dumps(record))
    board = build_board([tmp_path / "runs"], tmp_path / "out")
    assert board.groups[0].primary == "lc_win_rate" and "(lc:minimal)" in board.tables[0].headings[1]


@pytest.mark.parametrize("old", [False, True])
def test_mean_lengths_stand_beside_a_win_rate(tmp_path, old):
    write(tmp_path / "runs", MINIMAL, "minimal", old)
    board = build_board([tmp_path / "runs"], tmp_path / "out")
    rows = {(row["model"], row["metric"]): row for row in rows_of(board.out / f"{TASK}.csv")}
    for (model, _), row in rows.items():
        assert (float(row["mean_length"]), float(row["baseline_mean_length"])) == (SYSTEMS[model][2], 2000.0)
    page = (board.out / "index.md").read_text()
    assert "| model | alpacaeval win_rate % (judge: unknown) | alpacaeval mean length |" in page
    assert "| rank | model | win_rate % (judge: unknown) | mean length | n |" in page
    assert (
        "| model | lc_win_rate % (lc:minimal) (judge: unknown) | vs sft |" in page
    )  # of the same answers: told once
    [line] = [line for line in page.splitlines() if line.startswith("| 3") and "| terse |" in line]
    assert "| 4.5 [" in line and "| 68 (baseline 2000) |" in line
    assert "*mean length*, beside a win rate, counts characters" in page


def test_a_second_baseline_brings_its_own_length(tmp_path):
    judged = (Metric("win_rate_vs_sft"), Metric("win_rate_vs_teacher"))
    extra = json.dumps({"baselines": {"sft": "s" * 300, "teacher": "t" * 900}})
    scores = {"win_rate_vs_sft": 0.5, "win_rate_vs_teacher": 0.25}
    samples = [
        made.sample(index, "chat", "x" * 100, [], group="all").model_copy(
            update={"scores": scores, "extra": extra}
        )
        for index in range(20)
    ]
    made.write_run(tmp_path / "runs", "sft", samples, TASK, metrics=summarise_metrics(samples, judged))
    page = (build_board([tmp_path / "runs"], tmp_path / "out").out / "index.md").read_text()
    assert "| 100 (baseline 300) | 20 |" in page and "| 100 (baseline 900) |" in page


def test_the_minimal_form_against_another_baseline_does_not_rank_either(tmp_path):
    extra = json.dumps({"baselines": {"sft": "s" * 300}})
    judged = (
        Metric("lc_win_rate_vs_sft", signature=MINIMAL),
        Metric("win_rate_vs_sft", signature="win_rate"),
    )
    samples = [
        made.sample(index, "chat", "x" * 100, [], group="all").model_copy(
            update={"scores": {"lc_win_rate_vs_sft": 0.52, "win_rate_vs_sft": 0.04}, "extra": extra}
        )
        for index in range(20)
    ]
    made.write_run(tmp_path / "runs", "sft", samples, TASK, metrics=summarise_metrics(samples, judged))
    [group] = build_board([tmp_path / "runs"], tmp_path / "out").groups
    assert group.primary == "win_rate_vs_sft"


def test_boards_without_win_rates_say_nothing_of_lengths(tmp_path):
    made.write_run(tmp_path / "runs", "sft", made.qa_samples(0.5, n=30))
    board = build_board([tmp_path / "runs"], tmp_path / "out")
    assert "mean length" not in (board.out / "index.md").read_text()
    assert {row["mean_length"] for row in rows_of(board.out / "micro_triviaqa_greedy.csv")} == {""}

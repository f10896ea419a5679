"""A board names the judge of every judged column, and never has two judges in one."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.plan import protocol_hash, recorded_run_id
from rba_bench.evaluation.records import RunRecord
from rba_bench.evaluation.scoring import summarise_metrics
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.board_files import board_differences
from rba_bench.leaderboard.compare_runs import compare_runs
from rba_bench.leaderboard.judges import judges_of
from rba_bench.leaderboard.loaded_runs import load_checked_run
from rba_bench.leaderboard.retained import retained_shares
from tests.leaderboard import board_records as made

TASK = "triviaqa_judged"
ENTRY = {
    "name": "yesno",
    "judge": {"kind": "endpoint", "model": "big-judge"},
    "prompt": {"version": 1, "sha256": "ab" * 32},
    "decoding": {"max_tokens": 4, "temperature": 0.5, "top_logprobs": 0},
}
LOCAL = {"kind": "text", "weights_sha256": "cd" * 32}


def judged_run(
    root: Path,
    name: str,
    skill: float = 0.5,
    answered_as: tuple[str, ...] = (),
    code: str = "ab",
    report: dict[str, Any] | None = None,
    **entry: Any,
) -> Path:
    """A run whose answers a judge found right; `entry` changes what the protocol says of it."""
    samples = [
        each.model_copy(update={"scores": {**each.scores, "judge_accuracy": each.scores["alias_match"]}})
        for each in made.qa_samples(skill, 40, len(name))
    ]
    metrics = summarise_metrics(samples, [Metric("judge_accuracy", signature="judge_accuracy|judged")])
    answered = {"answered_by": {"model": list(answered_as)}} if answered_as else {}
    return made.write_run(
        root, name, samples, TASK, protocol_hash=code * 32, metrics=metrics, benchmark="triviaqa",
        protocol_spec={"task": TASK, "finish": [{**ENTRY, **entry}]},
        finish={"yesno": {"n": 40, **answered, **(report or {})}},
    )  # fmt: skip


def tables_of(board: Any) -> list[list[dict[str, str]]]:
    files = sorted(file for file in board.out.glob("*.csv") if file.name != "breakdown.csv")
    return [list(csv.DictReader(file.read_text().splitlines())) for file in files]


def test_heading_legend_csv_and_json_name_the_judge(tmp_path):
    judged_run(tmp_path / "runs", "sft", answered_as=("big-judge-2026-08-06",))
    judged_run(tmp_path / "runs", "rba", 0.8, answered_as=("big-judge-2026-08-06",))
    board = build_board([tmp_path / "runs"], tmp_path / "out")
    page, label = (board.out / "index.md").read_text(), "big-judge, answered as big-judge-2026-08-06"
    assert (
        f"| judge_accuracy % (judge: {label}) |" in page
        and f"triviaqa judge_accuracy % (judge: {label})" in page
    )
    assert (
        f"Judged: `judge_accuracy` by {label} (served: its weights are not known), prompt 1 abababab" in page
    )
    [rows] = tables_of(board)
    judges = {row["metric"]: (row["judge"], len(row["judge_sha256"])) for row in rows}
    assert judges == {
        "judge_accuracy": (label, 64),
        "exact_match": ("", 0),
        "alias_match": ("", 0),
    }
    [section] = json.loads((board.out / "records.json").read_text())["sections"]
    assert set(section["judges"]) == {"judge_accuracy"} and section["judges"]["judge_accuracy"].startswith(
        label
    )


def test_an_alias_that_moved_gets_a_table_of_its_own(tmp_path):
    for name, version in (("sft", "big-judge-1"), ("rba", "big-judge-2"), ("old", "big-judge-1")):
        judged_run(tmp_path / "runs", name, answered_as=(version,))
    board = build_board([tmp_path / "runs"], tmp_path / "out")
    tables = tables_of(board)
    assert sorted(sorted({row["model"] for row in rows}) for rows in tables) == [["old", "sft"], ["rba"]]
    for rows in tables:
        assert len({row["judge"] for row in rows if row["metric"] == "judge_accuracy"}) == 1
    assert list(board_differences(board.out)) == []
    page = (board.out / "index.md").read_text()
    assert "answered as big-judge-1)" in page and "answered as big-judge-2)" in page


def test_a_record_that_does_not_say_who_answered_joins_one_judge_but_none_of_two(tmp_path):
    judged_run(tmp_path / "runs", "sft", answered_as=("big-judge-1",))
    judged_run(tmp_path / "runs", "silent")
    assert len(build_board([tmp_path / "runs"], tmp_path / "one").groups) == 1
    judged_run(tmp_path / "runs", "rba", answered_as=("big-judge-2",))
    groups = build_board([tmp_path / "runs"], tmp_path / "three").groups
    assert sorted([run.name for run in group.runs] for group in groups) == [["rba"], ["sft"], ["silent"]]


def test_a_run_that_two_models_judged_is_refused(tmp_path):
    judged_run(tmp_path / "runs", "sft", answered_as=("big-judge-1", "big-judge-2"))
    with pytest.raises(
        UserError, match=r"mixes judges, as big-judge answered as big-judge-1 and big-judge-2.*rescore"
    ):
        build_board([tmp_path / "runs"], tmp_path / "out")


def test_one_name_with_other_weights_or_another_prompt_is_another_judge(tmp_path):
    """These are in the protocol hash; the headings tell them apart."""
    for code, entry in (("ab", {"judge": LOCAL}), ("cd", {"judge": {**LOCAL, "weights_sha256": "ef" * 32}})):
        judged_run(tmp_path / "runs", f"sft{code}", code=code, report={"judge_name": "my-judge"}, **entry)
    page = (build_board([tmp_path / "runs"], tmp_path / "out").out / "index.md").read_text()
    assert "(judge: my-judge, weights cdcdcdcd)" in page and "(judge: my-judge, weights efefefef)" in page


def test_the_rules_of_the_micro_world_are_a_judge_with_a_version(tmp_path):
    folder = Path(__file__).parents[2] / "leaderboards" / "micro" / "records" / "sft"
    [run] = folder.glob("micro_alpacaeval-*")
    board = build_board([run], tmp_path / "out")
    assert {judge.label for judge in board.groups[0].judges.values()} == {"rba_bench.micro.world.grade 1"}
    page = (board.out / "index.md").read_text()
    assert "win_rate % (judge: rba_bench.micro.world.grade 1)" in page
    assert (
        "Judged: `win_rate`, `rating`, `valid_rate` by rba_bench.micro.world.grade 1: rules in the package."
        in page
    )


def test_runs_of_two_judges_are_not_compared_by_their_verdicts(tmp_path):
    first = judged_run(tmp_path / "a", "sft", answered_as=("big-judge-1",))
    second = judged_run(tmp_path / "b", "rba", 0.8, answered_as=("big-judge-2",))
    third = judged_run(tmp_path / "c", "new", 0.8, code="cd", judge={"kind": "endpoint", "model": "other"})
    for other, across in ((second, False), (third, True)):
        [pair] = compare_runs(first, other, across).comparisons
        assert {each.metric for each in pair.metrics} == {"exact_match", "alias_match"}
    same = judged_run(tmp_path / "d", "twin", answered_as=("big-judge-1",))
    [pair] = compare_runs(first, same).comparisons
    assert "judge_accuracy" in {each.metric for each in pair.metrics}


def controlled(root: Path, judges: dict[str, tuple[str, ...]]) -> list[Path]:
    """A full run and a control of it, each judged by what answered then, where `eval` puts them."""
    folders = []
    for audio, answered_as in judges.items():
        spec = {
            "task": TASK,
            "finish": [ENTRY],
            **({"audio": {"text": audio, "version": 1}} if audio else {}),
        }
        run = judged_run(root / (audio or "full"), "sft", 0.3 if audio else 0.9, answered_as)
        facts = json.loads((run / "run.json").read_text()) | {
            "protocol_spec": spec,
            "protocol_hash": protocol_hash(spec),
        }
        record = RunRecord.model_validate(facts)
        record = record.model_copy(update={"run_id": recorded_run_id(record, record.protocol_hash)})
        folder = root / "eval" / "sft" / record.run_id
        folder.parent.mkdir(parents=True, exist_ok=True)
        run.rename(folder)
        (folder / "run.json").write_text(record.model_dump_json())
        folders.append(folder)
    return folders


@pytest.mark.parametrize("same", [True, False])
def test_a_share_is_of_a_score_by_the_same_judge(tmp_path, same):
    judges = {"": ("big-judge-1",), "silence": ("big-judge-1" if same else "big-judge-2",)}
    full, silent = controlled(tmp_path, judges)
    expected = {"alias_match", "exact_match"} | ({"judge_accuracy"} if same else set())
    [shares] = retained_shares([load_checked_run(silent).record], tmp_path / "eval").values()
    assert shares.keys() == expected
    [comparison] = compare_runs(silent, full, across=True).comparisons
    assert comparison.retained.keys() == expected


HOSTILE: dict[str, Any] = {
    "markup": {
        "judge": {"kind": "endpoint", "model": "<script>alert(1)</script> [x](javascript:alert(1)) | a`b"}
    },
    "a list": {"judge": ["gpt"]},
    "nothing": {"judge": None},
    "other forms": {"prompt": "x", "decoding": ["y"], "report": {"answered_by": "z"}},
    "long": {"judge": {"kind": "text", "weights_sha256": "w" * 9999, "name": "n" * 9999}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_judge_is_shown_harmlessly_or_not_at_all(tmp_path, name):
    run = judged_run(tmp_path / "runs", "sft", **HOSTILE[name])
    judge = judges_of(load_checked_run(run).record)["judge_accuracy"]
    assert len(judge.label) < 400 and "\n" not in judge.legend
    page = (build_board([tmp_path / "runs"], tmp_path / "out").out / "index.md").read_text()
    assert "<script" not in page and "](javascript" not in page and "(judge: " in page

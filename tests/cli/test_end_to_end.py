"""A small run of every stage through the command line, each stage finding what the one before it left."""

import json
from pathlib import Path
from typing import Any

import pytest

from rba_bench.cli.main import main

SMALL_SET = ("--set", "n_instructions=12", "--set", "round_size=24", "--set", "shard_size=6")
SMALL_RUN = (
    "--steps",
    "2",
    "--set",
    "groups_per_step=2",
    "--set",
    "max_new_tokens=12",
    "--set",
    "warmup_steps=0",
)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[Any, str]:
    """Parsed stdout and stderr of a command that must succeed."""
    with pytest.raises(SystemExit) as end:
        main([*words, "--json"])
    out, err = capsys.readouterr()
    assert not end.value.code, err
    return json.loads(out), err


def test_from_teacher_to_leaderboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made, _ = run(capsys, "synth", *SMALL_SET, "--out", "set")
    assert made["counts"]["groups"] == 12

    trained, err = run(capsys, "train", *SMALL_RUN, "--set", "alignment_set=set")
    assert trained["method"] == "rba-single" and trained["steps"] == 2
    assert "runs/checkpoints/rba-single-" in err  # the folder it chose

    records, err = run(capsys, "eval", "--task", "covost2", "--task", "triviaqa", "--limit", "4")
    assert trained["path"] in err and "track: micro (recorded in" in err
    assert [record["task"] for record in records] == [
        *("micro_covost2", "micro_covost2_sampled", "micro_triviaqa", "micro_triviaqa_sampled"),
    ]
    assert all(record["partial"] and record["n"] == 4 for record in records)

    with pytest.raises(SystemExit) as end:
        main(["leaderboard", "build"])
    assert end.value.code == 2
    assert "--limit" in capsys.readouterr().err
    board, _ = run(capsys, "leaderboard", "build", "--allow-partial")
    assert Path(board["out"], "index.md").is_file()


def test_same_command_resumes_instead_of_repeating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("eval", "--model", "constant", "--task", "triviaqa", "--limit", "3")
    first, _ = run(capsys, *command)
    second, err = run(capsys, *command)
    assert second == first
    assert "already done" in err

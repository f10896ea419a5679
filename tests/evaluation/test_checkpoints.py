"""The newest checkpoint, its track, and what happens without one."""

import os

import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.plan import latest_checkpoint, training_note
from rba_bench.files import write_json


def test_newest_by_date_then_by_file_time(tmp_path):
    for name, created, time in (
        ("a", "2026-01-02", 10),
        ("b", "2026-01-03", 5),
        ("deep/er/c", "2026-01-03", 7),
    ):
        write_json(tmp_path / name / "rba_run.json", {"created": created, "track": "micro"})
        os.utime(tmp_path / name / "rba_run.json", (time, time))
    assert latest_checkpoint(tmp_path) == tmp_path / "deep/er/c"


def test_none_names_the_ways_out(tmp_path):
    with pytest.raises(MissingPrerequisite, match="rba-bench train"):
        latest_checkpoint(tmp_path / "absent")


def test_track_and_note(tmp_path):
    write_json(tmp_path / "x" / "rba_run.json", {"track": "full"})
    assert (training_note(tmp_path / "x") or {})["track"] == "full" and training_note(tmp_path) is None
    assert training_note(tmp_path) is None
    (tmp_path / "x" / "rba_run.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        training_note(tmp_path / "x")

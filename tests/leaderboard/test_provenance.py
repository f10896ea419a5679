"""Marks and attestations on boards: they stay with their record, byte for byte, and every table says what they say."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation.rescoring import rescore_folder
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.board_files import board_differences
from rba_bench.leaderboard.loaded_runs import find_runs, open_run, without_copies
from rba_bench.leaderboard.provenance import provenance_of
from rba_bench.leaderboard.verify import verify_records
from tests.leaderboard import board_records as made
from tests.leaderboard.attested import attest, mark
from tests.published import published_run

FACTS = "5 of 5 items answered again with the same answers, 2026-11-29"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Four models: run here, submitted, reproduced, submitted and reproduced."""
    root = tmp_path / "runs"
    folders = {
        name: made.write_run(root, name, made.qa_samples(0.5, 24, seed)) for seed, name in enumerate(NAMES)
    }
    mark(folders["sent"])
    attest(folders["again"], by="A | B")
    attest(mark(folders["both"]))
    return root


NAMES = ("sft", "sent", "again", "both")
LABELS = dict(zip(NAMES, ("measured here", "submitted", "reproduced", "reproduced"), strict=True))


def beside(root: Path) -> dict[str, bytes]:
    """All marks and attestations below a folder, by model and name."""
    names = ("submission.json", "attestation.json")
    files = [file for file in root.rglob("*.json") if file.name in names]
    return {f"{file.parent.parent.name}/{file.name}": file.read_bytes() for file in files}


def test_every_file_of_a_board_says_where_a_record_comes_from(runs: Path, tmp_path: Path) -> None:
    out = build_board([runs], tmp_path / "board").out
    data = json.loads((out / "records.json").read_text())
    assert {each["model"]["name"]: each["provenance"] for each in data["records"]} == LABELS
    with open(out / "micro_triviaqa_greedy.csv") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert {name: row["provenance"] for name, row in rows.items()} == LABELS
    assert (rows["both"]["origin"], rows["both"]["answered_again"], rows["both"]["answered_again_equal"]) == (
        "submitted", "5", "5",
    )  # fmt: skip
    assert rows["again"]["origin"] == "measured here" and rows["sent"]["answered_again"] == ""
    runs_table = (out / "index.md").read_text().partition("## Runs")[2]
    lines = {line.split("]")[0][3:]: line for line in runs_table.splitlines() if line.startswith("| [")}
    assert lines["sft"].endswith("| measured here |") and lines["sent"].endswith("| submitted |")
    file = f"records/both/{next((runs / 'both').iterdir()).name}/attestation.json"
    assert f"[reproduced]({file}) (submitted; {FACTS}) |" in lines["both"]
    assert f"(measured here; {FACTS}, by A \\| B) |" in lines["again"]
    assert "*submitted*: sent in by somebody else" in runs_table


def test_a_board_built_again_from_itself_keeps_them_byte_for_byte(runs: Path, tmp_path: Path) -> None:
    first = build_board([runs], tmp_path / "board")
    assert beside(first.out) == beside(runs) and len(beside(runs)) == 4
    files = {file: file.read_bytes() for file in first.out.rglob("*") if file.is_file()}
    assert {str(file.relative_to(first.out)) for file in files} == set(first.data["files"])
    build_board([first.out], first.out)
    assert {file: file.read_bytes() for file in first.out.rglob("*") if file.is_file()} == files
    assert list(board_differences(first.out)) == []


def test_a_mark_is_not_lost_by_another_copy_of_the_record(runs: Path, tmp_path: Path) -> None:
    """Neither among the records, whichever comes first, nor where the board has the record already."""
    out = build_board([runs], tmp_path / "board").out
    kept = beside(runs)
    for name in ("a", "z"):
        copy = shutil.copytree(
            runs, tmp_path / name, ignore=shutil.ignore_patterns("*submission*", "*attestation*")
        )
        found = without_copies([open_run(folder) for folder in sorted(find_runs([copy, runs]))])
        assert {run.name: provenance_of(run).label for run in found} == LABELS
        assert beside(build_board([copy, runs], tmp_path / f"board-{name}").out) == kept
    assert beside(build_board([tmp_path / "a"], out).out) == kept
    assert list(board_differences(out)) == []


def test_another_record_in_the_same_place_inherits_nothing(runs: Path, tmp_path: Path) -> None:
    out = build_board([runs], tmp_path / "board").out
    attest(next((out / "records" / "sft").iterdir()))  # since then, so that the board does not list it
    for folder in find_runs([runs]):
        for name in ("submission.json", "attestation.json"):
            (folder / name).unlink(missing_ok=True)
        file = folder / "run.json"
        file.write_text(file.read_text().replace("2026-11-20T10", "2026-11-21T10"))
    built = build_board([runs], out)
    assert beside(out) == {} and {each["provenance"] for each in built.data["records"]} == {"measured here"}


def test_what_lay_beside_a_record_goes_with_it(runs: Path, tmp_path: Path) -> None:
    out = build_board([runs], tmp_path / "board").out
    shutil.rmtree(runs / "both")
    build_board([runs], out)
    assert not [file for file in (out / "records" / "both").rglob("*") if file.is_file()]


def test_an_attestation_added_to_a_board_shows_when_it_is_built_again(runs: Path, tmp_path: Path) -> None:
    out = build_board([runs], tmp_path / "board").out
    [folder] = (out / "records" / "sent").iterdir()
    attest(folder)
    assert any("is not what the records give" in fault for fault in board_differences(out))
    assert provenance_of(open_run(folder)).label == "reproduced"
    built = build_board([out], out)
    assert "reproduced" in {
        each["provenance"] for each in built.data["records"] if each["model"]["name"] == "sent"
    }
    assert list(board_differences(out)) == []


DAMAGED = ["", "{}", "null", '{"schema_version": 1, "provenance": "measured here"}', "\x00", "[" * 9999]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_mark_is_a_fault_and_still_a_mark(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(published_run("base", "micro_webquestions"), folder)
    (folder / "submission.json").write_text(content)
    (folder / "attestation.json").unlink(missing_ok=True)
    assert provenance_of(open_run(folder)).label == "submitted"
    [verdict] = verify_records([folder]).verdicts
    assert "submission.json is not what 'leaderboard submit' writes" in verdict.faults[0]


def test_a_mark_that_leads_elsewhere_is_refused(runs: Path, tmp_path: Path) -> None:
    [folder] = (runs / "sent").iterdir()
    (folder / "submission.json").unlink()
    (folder / "submission.json").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match=r"submission\.json is a link"):
        build_board([runs], tmp_path / "board")


def test_a_board_does_not_write_them_outside(runs: Path, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "board", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / "records").mkdir(parents=True)
    (out / "records" / "both").symlink_to(elsewhere)
    with pytest.raises(UserError, match="leads out of"):
        build_board([runs], out)
    assert not list(elsewhere.iterdir())


def test_rescoring_keeps_whose_record_it_is_and_not_that_it_was_reproduced(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(published_run("base", "micro_webquestions"), folder)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"task_version": "0"}))  # as if of an older version
    attest(mark(folder))
    into = rescore_folder(folder, out=tmp_path / "out").folder
    assert provenance_of(open_run(into)).label == "submitted" and not (into / "attestation.json").exists()
    assert provenance_of(open_run(folder)).label == "reproduced"
    assert rescore_folder(folder).changed
    assert provenance_of(open_run(folder)).label == "submitted" and not (folder / "attestation.json").exists()
    assert verify_records([folder, into]).ok

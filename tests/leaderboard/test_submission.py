"""`leaderboard submit`: what a reviewer would find is found before, and what is packed is what a board publishes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.leaderboard.submission import check_submission, pack_submission, published_path
from rba_bench.leaderboard.verify import verify_records
from tests.leaderboard.attested import attest, mark
from tests.leaderboard.given_submission import BESIDE, PUBLISHED, TASK, board, published_run


def copied(folder: Path, of: str = "rba-group", **changes: Any) -> Path:
    """A published run as its author has it, its record changed."""
    shutil.copytree(published_run(of), folder, ignore=BESIDE)
    record = json.loads((folder / "run.json").read_text())
    if changes:
        (folder / "run.json").write_text(json.dumps(record | changes))
    return folder


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    return int(stopped.value.code or 0), capsys.readouterr().out


def test_a_run_is_packed_as_a_board_publishes_it_and_shown_beside_the_board(tmp_path, capsys):
    boards = board(tmp_path, "base", "sft")
    before = {path for path in boards.rglob("*") if path.is_file()}
    code, shown = run(["leaderboard", "submit", str(copied(tmp_path / "mine")), "--out", str(boards)], capsys)
    assert code == 0
    added = {path for path in boards.rglob("*") if path.is_file()} - before
    place = published_run("rba-group").relative_to(PUBLISHED.parent)
    mark = boards / "micro" / place / "submission.json"
    assert added == {mark, *(mark.with_name(name) for name in ("run.json", "samples.jsonl.gz"))}
    assert json.loads(mark.read_text()) == {"schema_version": 1, "provenance": "submitted"}
    for path in added - {mark}:  # the very bytes of the published board
        assert path.read_bytes() == (PUBLISHED.parent / path.relative_to(boards / "micro")).read_bytes()
    rows = [line for line in shown.splitlines() if "[" in line]
    assert [row.split()[0] for row in rows].count("new") == 1
    new = next(row for row in rows if row.split()[0] == "new")
    assert "rba-group" in new and "2026-" in new and any("(baseline)" in row for row in rows)
    assert f"packed: {boards / 'micro' / place}" in shown and "--rerun 5" in shown
    assert verify_records([boards / "micro"]).ok


def test_an_attestation_of_one_s_own_is_not_packed(tmp_path):
    boards, mine = board(tmp_path, "base"), copied(tmp_path / "mine")
    attest(mark(mine))
    found = check_submission([mine], boards)
    [folder] = pack_submission(found, boards)
    assert sorted(file.name for file in folder.iterdir()) == [
        "run.json",
        "samples.jsonl.gz",
        "submission.json",
    ]
    assert not any("answered again" in note for note in found.notes)
    attest(mine, items=["a"] * 5)
    assert "names other items" in check_submission([mine], tmp_path / "other").refused[0]


def test_the_same_run_twice_and_another_record_of_it_are_refused(tmp_path):
    boards = board(tmp_path, "base")
    again = check_submission([copied(tmp_path / "again", "base")], boards)
    assert not again.ok and "it is on the board already" in again.refused[0]
    created = json.loads((published_run("base") / "run.json").read_text())["created"]
    other = copied(tmp_path / "other", "base", created=created.replace("2026-11", "2026-10"))
    refused = check_submission([other], boards).refused
    assert len(refused) == 1 and "another record of this run is in" in refused[0]


def test_faulty_partial_unfinished_and_unreadable_runs_are_one_line_each_and_nothing_is_written(
    tmp_path, capsys
):
    runs = tmp_path / "runs"
    metrics = json.loads((published_run("rba-group") / "run.json").read_text())["metrics"]
    metrics["asserted_match"]["low"] = 0.9
    copied(runs / "faulty", metrics=metrics)
    copied(runs / "good")
    copied(runs / "partial", "sft", partial=True, limit=96)
    (runs / "torn").mkdir()
    (runs / "torn" / "run.json").write_text("{")
    (runs / "unfinished").mkdir()
    (runs / "unfinished" / "samples.jsonl").write_text("{}\n")
    boards = tmp_path / "leaderboards"
    code, shown = run(["leaderboard", "submit", str(runs), "--out", str(boards), "--json"], capsys)
    found = json.loads(shown)
    assert code == 1 and not boards.exists() and not found["ok"] and found["folders"] == []
    assert [Path(each["folder"]).name for each in found["runs"]] == ["good"]
    by_name = {line.split(" ")[0].rstrip(":").rpartition("/")[2]: line for line in found["refused"]}
    assert by_name.keys() == {"faulty", "partial", "torn", "unfinished"}
    assert "asserted_match.low is recorded as 0.9" in by_name["faulty"]
    assert "limit 96" in by_name["partial"] and "not a run record" in by_name["torn"]
    assert "repeat its command" in by_name["unfinished"]
    assert all("\n" not in line for line in found["refused"])
    with pytest.raises(UserError, match="is not packed"):
        pack_submission(check_submission([runs], boards), boards)


def test_an_honest_run_of_a_part_of_the_test_set_is_refused_for_that_alone(tmp_path):
    from rba_bench.evaluation.runner import EvalRequest, evaluate

    evaluate(EvalRequest(tasks=(TASK,), model="constant", out=tmp_path / "eval", limit=5))
    [line] = check_submission([tmp_path / "eval"], tmp_path / "boards").refused
    assert line.endswith(": it is partial (--limit 5): evaluate without --limit")


def test_an_unfinished_run_alone_is_refused_too(tmp_path):
    (tmp_path / "samples.jsonl").write_text("{}\n")
    assert "is unfinished" in check_submission([tmp_path], tmp_path / "boards").refused[0]
    with pytest.raises(UserError, match="it does not exist"):
        check_submission([tmp_path / "nowhere"], tmp_path / "boards")


def test_a_task_of_ones_own_cannot_be_submitted(tmp_path, monkeypatch):
    from rba_bench.evaluation.runner import EvalRequest, evaluate
    from tests.evaluation.conftest import ScriptedModel, write_task

    task = write_task(tmp_path / "task", "triviaqa")
    monkeypatch.setattr("rba_bench.speechlm.model_names.load_speech_model", lambda spec, **_: ScriptedModel())
    evaluate(EvalRequest(tasks=(str(task),), model="scripted", out=tmp_path / "eval"))
    [line] = check_submission([tmp_path / "eval"], tmp_path / "boards").refused
    assert "task tiny_triviaqa does not come with rba-bench" in line


def test_what_a_reviewer_should_know_is_said(tmp_path):
    boards = board(tmp_path, "base", "sft")
    record = json.loads((published_run("sft") / "run.json").read_text())
    model = {**record["model"], "name": "totally-new", "spec": "/home/me/runs/totally-new"}
    found = check_submission([copied(tmp_path / "mine", "sft", model=model)], boards)
    notes = "\n".join(found.notes)
    assert found.ok and "sft on the board has the same weights" in notes
    assert (
        "holds a path of the machine that made it, which will be public: /home/me/runs/totally-new" in notes
    )
    assert list(found.tables[0].headings[:3]) == ["", "rank", "model"]


def test_without_a_board_the_run_stands_alone_and_that_is_said(tmp_path):
    found = check_submission([published_run("rba-group")], tmp_path / "leaderboards")
    assert found.ok and len(found.tables) == 1 and len(found.tables[0].rows) == 1
    assert any("no paired differences, as there is no row 'sft'" in note for note in found.notes)
    pack_submission(found, tmp_path / "leaderboards")
    assert (tmp_path / "leaderboards" / published_path(found.runs[0]) / "samples.jsonl.gz").is_file()


def test_items_that_differ_from_the_board_s_are_refused_where_the_test_set_is_not_here(tmp_path, monkeypatch):
    boards = board(tmp_path, "base", "sft")
    monkeypatch.setattr("rba_bench.leaderboard.test_sets.load_test_set", lambda spec, data_dir: (None, ""))
    import gzip

    from rba_bench.files import sha256_bytes

    folder = copied(tmp_path / "mine")
    packed = folder / "samples.jsonl.gz"
    lines = gzip.decompress(packed.read_bytes()).replace(b'"duration": ', b'"duration": 1', 1)
    packed.write_bytes(gzip.compress(lines))
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"samples_sha256": sha256_bytes(lines)}))
    [line] = check_submission([folder], boards).refused
    assert "1 items differ from other records on the same test set" in line


def test_another_protocol_begins_a_table_of_its_own(tmp_path):
    boards = board(tmp_path, "base")
    file = next((boards / "micro" / "records" / "base").glob("*/run.json"))
    record = json.loads(file.read_text())
    record["protocol_spec"]["answer"] = "older"
    file.write_text(json.dumps(record | {"protocol_hash": "ab" * 32}))
    found = check_submission([published_run("sft")], boards)
    assert any("begins a table of its own, as its protocol differs in answer" in note for note in found.notes)
    assert len(found.tables[0].rows) == 1 and found.tables[0].title.startswith(TASK)


CONTROLLED = "micro_triviaqa"


def control_of(model: str, audio: str) -> Path:
    """A published control of a model."""
    for run in sorted((PUBLISHED / model).glob(f"{CONTROLLED}-*")):
        if json.loads((run / "run.json").read_text())["protocol_spec"].get("audio", {}).get("text") == audio:
            return run
    raise FileNotFoundError(f"{model} {audio}")


def full_run_of(model: str) -> Path:
    for run in sorted((PUBLISHED / model).glob(f"{CONTROLLED}-*")):
        if "audio" not in json.loads((run / "run.json").read_text())["protocol_spec"]:
            return run
    raise FileNotFoundError(model)


@pytest.mark.parametrize("together", [True, False])
def test_a_control_joins_the_row_of_its_full_run_on_the_board_or_beside_it(tmp_path, together):
    boards = tmp_path / "leaderboards"
    runs = [control_of("base", "silence")]
    if together:
        runs.append(full_run_of("base"))
    else:
        shutil.copytree(full_run_of("base"), boards / "micro" / "records" / "base" / "micro_triviaqa-x")
    found = check_submission(runs, boards)
    assert found.ok and not found.refused
    [table] = found.tables
    assert "retained, silence %" in table.headings
    assert [row[0] for row in table.rows] == (["new"] if together else ["new control"])
    notes = "\n".join(found.notes)
    assert "a control without the speech (silence), which is no row of its own" in notes
    assert "table of its own" not in notes and "both rows will stand" not in notes


def test_a_control_without_its_full_run_is_refused_and_the_rest_goes_on(tmp_path):
    runs = [control_of("base", "silence"), full_run_of("sft"), published_run("sft")]
    found = check_submission(runs, tmp_path / "leaderboards")
    [line] = found.refused
    assert "has no full run to compare it with: evaluate the model without --audio as well" in line
    assert line.count(str(runs[0])) == 1 and len(found.runs) == 2

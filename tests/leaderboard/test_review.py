"""`leaderboard review BASE HEAD`: a pull request is read from git as data, and adds records or is refused."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.leaderboard import review
from rba_bench.leaderboard.review import Review, review_changes
from tests.leaderboard.attested import attest, mark
from tests.leaderboard.given_submission import git, propose, published_run, repository_with, submitted

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Its board has a record that was reproduced and one that was submitted."""
    root = repository_with(tmp_path / "project", "base", "sft")
    attest(on_board(root, "base"))
    mark(on_board(root, "sft"))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "the maintainers' part")
    return root


def reviewed(repository: Path, change: Callable[[Path], None]) -> Review:
    return review_changes(repository, "main", propose(repository, change))


def test_an_added_record_is_checked_and_its_row_shown(repository, capsys):
    head = propose(repository, submitted("rba-group"))
    with pytest.raises(SystemExit) as stopped:
        main(["leaderboard", "review", "main", head, "--repository", str(repository)])
    report = capsys.readouterr().out
    assert stopped.value.code == 0 and report.startswith("### Records of runs: 1 pass\n")
    rows = [line.split() for line in report.splitlines() if "[" in line and "rba-group" in line]
    assert len(rows) == 1 and rows[0][0] == "new"
    folder = f"leaderboards/micro/records/rba-group/{published_run('rba-group').name}"
    assert f"rba-bench leaderboard verify {folder} --rerun 5" in report
    assert "responses are the model's own" in report
    assert git(repository, "status", "--porcelain") == ""  # nothing was checked out or written
    assert not (repository / "leaderboards" / "micro" / "records" / "rba-group").exists()


def test_a_pull_request_without_records_is_none_of_its_business(repository, capsys):
    head = propose(repository, lambda clone: (clone / "code.py").write_text("print('other')\n") and None)
    with pytest.raises(SystemExit) as stopped:
        main(["leaderboard", "review", "main", head, "--repository", str(repository)])
    assert stopped.value.code == 0 and "adds no record" in capsys.readouterr().out


def test_commits_that_main_got_meanwhile_do_not_count(repository):
    head = propose(repository, submitted("rba-group"))
    (repository / "code.py").write_text("print('newer')\n")
    git(repository, "commit", "-qam", "newer")
    assert review_changes(repository, "main", head).ok


def add(model: str = "rba-group") -> Callable[[Path], Path]:
    def change(clone: Path) -> Path:
        submitted(model)(clone)
        return clone / "leaderboards" / "micro" / "records" / model / published_run(model).name

    return change


def with_code(clone: Path) -> None:
    add()(clone)
    (clone / "code.py").write_text("import os; os.system('x')\n")


def with_page(clone: Path) -> None:
    add()(clone)
    (clone / "leaderboards" / "micro" / "index.md").write_text("# I am first\n")


def with_note(clone: Path) -> None:
    (add()(clone) / "notes.html").write_text("<script>alert(1)</script>")


def with_workflow(clone: Path) -> None:
    add()(clone)
    folder = clone / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "x.yml").write_text("on: push\n")


def deleting(clone: Path) -> None:
    shutil.rmtree(clone / "leaderboards" / "micro" / "records" / "sft")


def changing(clone: Path) -> None:
    file = next((clone / "leaderboards" / "micro" / "records" / "sft").glob("*/run.json"))
    file.write_text(file.read_text().replace("sft", "sft2"))


def moving(clone: Path) -> None:
    folder = clone / "leaderboards" / "micro" / "records"
    (folder / "sft").rename(folder / "sft-2")


def linked(clone: Path) -> None:
    file = add()(clone) / "run.json"
    file.unlink()
    os.symlink("/etc/passwd", file)


def linked_folder(clone: Path) -> None:
    folder = add()(clone)
    shutil.move(folder, clone / "elsewhere")
    os.symlink("../../../../elsewhere", folder)


def executable(clone: Path) -> None:
    (add()(clone) / "run.json").chmod(0o755)


def half(clone: Path) -> None:
    (add()(clone) / "samples.jsonl.gz").unlink()


def other_folder(clone: Path) -> None:
    folder = add()(clone)
    folder.rename(folder.parent / "micro_webquestions-000000000000")


def other_model_folder(clone: Path) -> None:
    folder = add()(clone).parent
    folder.rename(folder.parent / "gpt-9")


def other_track(clone: Path) -> None:
    folder = add()(clone).parent
    (clone / "leaderboards" / "small" / "records").mkdir(parents=True)
    folder.rename(clone / "leaderboards" / "small" / "records" / "rba-group")


def unpacked(clone: Path) -> None:
    folder = add()(clone)
    import gzip

    packed = folder / "samples.jsonl.gz"
    (folder / "samples.jsonl").write_bytes(gzip.decompress(packed.read_bytes()))


def large(clone: Path) -> None:
    file = add()(clone) / "run.json"
    file.write_bytes(file.read_bytes() + b" " * 2**20)


def submodule(clone: Path) -> None:
    folder = add()(clone)
    (folder / "run.json").unlink()
    (folder / "run.json").mkdir()
    git(folder / "run.json", "init", "-q")
    git(folder / "run.json", "commit", "-q", "--allow-empty", "-m", "x")


def strange_name(clone: Path) -> None:
    folder = add()(clone).parent
    folder.rename(folder.parent / "a`b\n<img src=x>@everyone")


def without_mark(clone: Path) -> None:
    (add()(clone) / "submission.json").unlink()


def linked_mark(clone: Path) -> None:
    file = add()(clone) / "submission.json"
    file.unlink()
    os.symlink("/etc/passwd", file)


def on_board(clone: Path, model: str) -> Path:
    return clone / "leaderboards" / "micro" / "records" / model / published_run(model).name


def mark_removed(clone: Path) -> None:
    add()(clone)
    (on_board(clone, "sft") / "submission.json").unlink()


def mark_changed(clone: Path) -> None:
    (on_board(clone, "sft") / "submission.json").write_text("{}")


def mark_moved(clone: Path) -> None:
    file = on_board(clone, "sft") / "submission.json"
    file.rename(file.with_name("submission.txt"))


def mark_added(clone: Path) -> None:
    mark(on_board(clone, "base"))


def attested(clone: Path) -> None:
    attest(add()(clone))


def attested_there(clone: Path) -> None:
    attest(on_board(clone, "sft"))


def attestation_changed(clone: Path) -> None:
    attest(on_board(clone, "base"), seed=12)


def attestation_removed(clone: Path) -> None:
    (on_board(clone, "base") / "attestation.json").unlink()


def attested_elsewhere(clone: Path) -> None:
    """A path that is that of the record where letters have no case."""
    folder = clone / "Leaderboards" / "micro" / "RECORDS" / "sft" / published_run("sft").name
    folder.mkdir(parents=True)
    shutil.copy(attest(published_copy(clone)), folder / "Attestation.json")
    shutil.rmtree(clone / "copy")


def published_copy(clone: Path) -> Path:
    return Path(shutil.copytree(published_run("sft"), clone / "copy"))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "code": (with_code, "it also changes another file (code.py)"),
    "a page": (with_page, "it also changes another file (leaderboards/micro/index.md)"),
    "a file beside the record": (with_note, "it also changes another file"),
    "a workflow": (with_workflow, "it also changes another file (.github/workflows/x.yml)"),
    "a record removed": (deleting, "is on the board already, and records are only added"),
    "a record changed": (changing, "is on the board already, and records are only added"),
    "a record moved": (moving, "is on the board already, and records are only added"),
    "a link": (linked, "run.json is not an ordinary file (mode 120000)"),
    "a linked folder": (linked_folder, "it also changes"),
    "a program": (executable, "run.json is not an ordinary file (mode 100755)"),
    "half a record": (half, "lacks samples.jsonl.gz"),
    "another folder": (other_folder, "micro_webquestions-000000000000 is not the folder of this run"),
    "another model's folder": (other_model_folder, "is not the folder of this run"),
    "another track": (other_track, "is not the folder of this run"),
    "samples twice": (unpacked, "it also changes another file"),
    "a repository in the repository": (submodule, "run.json is not an ordinary file (mode 160000)"),
    "a name of markup": (strange_name, "it also changes 3 other files"),
    "no mark of a submission": (
        without_mark,
        "lacks submission.json: pack it with rba-bench leaderboard submit",
    ),
    "a mark that is a link": (linked_mark, "submission.json is not an ordinary file (mode 120000)"),
    "a mark removed": (mark_removed, "submission.json is on the board already, and records are only added"),
    "a mark changed": (mark_changed, "submission.json is on the board already, and records are only added"),
    "a mark moved away": (mark_moved, "submission.json is on the board already, and records are only added"),
    "a mark for a record of the board": (mark_added, "lacks run.json, samples.jsonl.gz"),
    "an attestation with its record": (attested, "attestations are made by the maintainers"),
    "an attestation of a record of the board": (attested_there, "attestations are made by the maintainers"),
    "an attestation changed": (attestation_changed, "attestations are made by the maintainers"),
    "an attestation removed": (attestation_removed, "attestations are made by the maintainers"),
    "an attestation by another spelling": (attested_elsewhere, "attestations are made by the maintainers"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_no_plain_submission_is_refused(repository, name):
    change, fault = CHANGES[name]
    found = reviewed(repository, change)
    assert not found.ok and any(fault in line for line in found.faults), found.faults
    report = found.markdown()
    assert (
        report.startswith("### Records of runs: ")
        and "pass" in report
        and "```text" in report
        and all("\n" not in line for line in found.faults)
    )
    assert report.count("```") % 2 == 0 and "<img" not in report


def test_a_file_that_is_too_large_is_not_even_read(repository, monkeypatch):
    monkeypatch.setitem(review.LARGEST, "run.json", 2**20)
    head = propose(repository, large)
    read = []
    run_git = review._git
    monkeypatch.setattr(review, "_git", lambda place, *words: read.append(words) or run_git(place, *words))
    [fault] = review_changes(repository, "main", head).faults
    assert "more than the 1048576 that are allowed" in fault
    sizes = {words[2] for words in read if words[:2] == ("cat-file", "-s")}
    blobs = {words[2] for words in read if words[:2] == ("cat-file", "blob")}
    assert len(sizes) == 3 and len(blobs) == 2


def test_a_record_at_fault_is_refused_by_its_path_in_the_pull_request(repository, capsys):
    def forged(clone: Path) -> None:
        file = add()(clone) / "run.json"
        record = json.loads(file.read_text())
        record["metrics"]["asserted_match"]["low"] = 0.9
        file.write_text(json.dumps(record))

    head = propose(repository, forged)
    with pytest.raises(SystemExit) as stopped:
        main(["leaderboard", "review", "main", head, "--repository", str(repository), "--json"])
    found = json.loads(capsys.readouterr().out)
    [line] = found["submission"]["refused"]
    assert stopped.value.code == 1 and not found["ok"] and found["submission"]["runs"] == []
    assert line.startswith("leaderboards/micro/records/rba-group/micro_webquestions-")
    assert "asserted_match.low is recorded as 0.9" in line


@pytest.mark.parametrize(
    "content",
    [
        '{"schema_version": 1, "provenance": "measured here"}',
        '{"schema_version": 1, "provenance": "submitted", "by": "<img src=x onerror=alert(1)>"}',
        '{"provenance": "submitted"}',
        "[]",
        "",
    ],
)
def test_a_mark_says_what_submit_writes_and_nothing_else(repository, content):
    found = reviewed(
        repository, lambda clone: (add()(clone) / "submission.json").write_text(content) and None
    )
    assert found.submission is not None and not found.ok and found.submission.runs == ()
    [line] = found.submission.refused
    assert "submission.json is not what 'leaderboard submit' writes" in line
    assert "<img" not in found.markdown()


def test_no_text_of_a_record_is_markup_in_the_report(repository):
    name = "@everyone ``` <img src=x> [a](http://x) #1"

    def hostile(clone: Path) -> None:
        folder = add()(clone)
        record = json.loads((folder / "run.json").read_text())
        record["model"]["name"] = name
        (folder / "run.json").write_text(json.dumps(record))
        from rba_bench.files import folder_name

        folder.parent.rename(folder.parent.parent / folder_name(name))

    found = reviewed(repository, hostile)
    assert found.ok, (found.faults, found.submission)
    outside = "".join(found.markdown().split("```")[::2])
    assert "everyone" not in outside and "@" not in outside and "<img" not in found.markdown()
    assert found.markdown().count("```") % 2 == 0
    noted = Review(replace(found.submission, notes=("``` @everyone",)), ()).markdown()
    assert "@everyone" in noted and "@" not in "".join(noted.split("```")[::2])


def test_a_long_report_is_cut_to_what_a_comment_takes(repository):
    found = reviewed(repository, submitted("rba-group"))
    notes = tuple(f"note {number}" for number in range(20_000))
    text = Review(replace(found.submission, notes=notes), ()).markdown()
    assert len(text) < 65_536 and "more lines: rba-bench leaderboard review shows them" in text
    wide = tuple("漢" * 100 for _ in range(2_000))  # a variable of a step takes 131,072 bytes
    assert len(Review(replace(found.submission, notes=wide, refused=wide), ()).markdown().encode()) < 65_536


@pytest.mark.parametrize("name", ["--output=/tmp/x", "nowhere", "main:code.py", "a b", ""])
def test_what_is_no_commit_is_one_line(repository, name):
    with pytest.raises(UserError, match="is no commit of .*: fetch it first"):
        review_changes(repository, "main", name)


def test_a_folder_that_is_no_repository_is_one_line(tmp_path):
    with pytest.raises(UserError, match="is no commit of"):
        review_changes(tmp_path, "main", "main")

"""A record is somebody else's file: what it says becomes neither a path outside, nor markup, nor a formula."""

import csv
import gzip
import json
import os
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.leaderboard import loaded_runs
from rba_bench.leaderboard.board import build_board, print_board
from rba_bench.untrusted import MARK
from tests.leaderboard import board_records as made


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made.write_run(tmp_path / "deep" / "runs", "sft", made.qa_samples(0.5, n=12))


def edit(run: Path, **changes: object) -> dict:
    record = json.loads((run / "run.json").read_text())
    for key, value in changes.items():
        target = record
        *path, last = key.split("__")
        for part in path:
            target = target[part]
        target[last] = value
    (run / "run.json").write_text(json.dumps(record))
    return record


def everything(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


BAD_NAMES = [
    "../../../evil", "/tmp/evil", "..", ".", "", "a/b", "a\\b", "a\0b", "CON", "nul.json", "x" * 300, "a.", "a b",
    "ev\u202eil", "\u0435vil", "a\nb", "-rf", "=1+1", "<b>", 7, None,
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("key", ["run_id", "task", "benchmark", "track", "protocol", "task_version"])
def test_an_identifier_is_an_identifier(tmp_path, run, key, name):
    edit(run, **{key: name})
    before = everything(tmp_path)
    with pytest.raises(UserError, match=f"not a run record of schema.*{key}"):
        build_board([tmp_path / "deep"], tmp_path / "deep" / "out")
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "key", ["protocol_hash", "samples_sha256", "data__items_sha256", "data__audio_set_sha256"]
)
@pytest.mark.parametrize("value", ["", "ffff", "F" * 64, "0" * 63 + "\n", "0" * 65, None])
def test_a_hash_is_a_hash(tmp_path, run, key, value):
    edit(run, **{key: value})
    with pytest.raises(UserError, match="not a run record"):
        loaded_runs.load_checked_run(run)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n", "12"), ("n", True), ("n", 1.5), ("partial", 0), ("created", "yesterday"), ("model__name", ""),
        ("model__name", 3), ("model__spec", None), ("data__n_items", "12"), ("data__n_items", 0), ("extra_field", 1),
        ("metrics__alias_match__extra", 1), ("metrics", {"a|b": {}}), ("statuses", {"fine": 12}), ("seeds", {"a": "b"}),
    ],
)  # fmt: skip
def test_a_field_is_of_its_kind_and_no_other_is_there(run, key, value):
    edit(run, **{key: value})
    with pytest.raises(UserError, match="not a run record"):
        loaded_runs.load_checked_run(run)


NAMES = [
    "<img src=x onerror=alert(1)>", "x](javascript:alert(1)) [y", "\x1b[2J\x1b]0;x\x07m", "a\u202egnp", "a\u2066b",
    "=HYPERLINK(\"http://x\")", "+1+1", "@SUM(A1)", "\t=1+1", "x\n\n# Fake heading\n\n| a | b |\n|---|---|", "a\0b",
    "![x](http://evil/y.png)", "```\ncode", "[bold]x[/bold]", "a|b\\|c", "https://evil.example/a", "<!--", "\x9b2J",
    "x][1]\n\n[1]: http://evil", "a\u2028# b",
]  # fmt: skip
FORBIDDEN = (
    "<img",
    "<!--",
    "](j",
    "](h",
    "](d",
    "\x1b",
    "\x9b",
    "\0",
    "\u202e",
    "\u2066",
    "\u2028",
    "\n# F",
    "\n| a |",
    "\n[1]:",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["model", "judge", "signature", "method", "perturb", "group", "finish"])
def test_no_text_of_a_record_is_markup_a_formula_or_an_escape(tmp_path, place, name):
    samples = made.qa_samples(0.5, n=12)
    changes: dict[str, object] = {}
    if place == "model":
        changes["model"] = {"name": name, "spec": "x", "weights_sha256": "33" * 32, "training": None}
    elif place == "judge":
        changes["judge"] = {"name": name}
    elif place == "perturb":
        changes["protocol_spec"] = {"task": "t", "perturb": {"text": name}}
    elif place == "finish":
        changes["finish"] = {name: {"agreement": 0.5}}
    elif place == "group":
        samples = [sample.model_copy(update={"group": name}) for sample in samples]
    run = made.write_run(tmp_path / "runs", "x", samples, **changes)
    if place in ("signature", "method"):
        edit(run, **{f"metrics__alias_match__{place}": name})
    board = build_board([tmp_path / "runs"], tmp_path / "out")
    shown = StringIO()
    print_board(board, Console(file=shown, highlight=False, width=200, color_system=None))
    pages = [file for file in board.out.iterdir() if file.suffix in (".md", ".csv")]
    texts = [file.read_text() for file in pages] + [shown.getvalue()]
    for text in texts:
        assert not [mark for mark in FORBIDDEN if mark in text]
    for file in board.out.glob("*.csv"):
        with open(file, newline="") as handle:
            cells = [cell for row in csv.reader(handle) for cell in row]
        numbers = [cell for cell in cells if cell[:1] in ("-", "+")]
        assert all(float(cell) <= 100 for cell in numbers) and not [
            c for c in cells if c[:1] in ("=", "@", "\t")
        ]
    rows = [line for line in (board.out / "index.md").read_text().splitlines() if line.startswith("|")]
    for line in rows:
        assert line.endswith(" |")
    if place == "model" and name == "[bold]x[/bold]":
        assert name in shown.getvalue()
    if place == "model" and name == "a\0b":
        assert f"a{MARK}b" in shown.getvalue()


def test_names_that_differ_in_a_slash_do_not_share_a_folder(tmp_path):
    for number, name in enumerate(("a/b", "a-b", "a b", "a:b")):
        model = {"name": name, "spec": name, "weights_sha256": "33" * 32, "training": None}
        made.write_run(tmp_path / "runs", f"m{number}", made.qa_samples(0.5, n=12), model=model)
    out = build_board([tmp_path / "runs"], tmp_path / "out").out
    folders = sorted(folder.name for folder in (out / "records").iterdir())
    assert len(folders) == 4 and "a-b" in folders and all(name.startswith("a-b") for name in folders)


def test_records_that_only_differ_in_case_are_not_published_into_one_folder(tmp_path):
    first = made.write_run(tmp_path / "runs", "one", made.qa_samples(0.5, n=12))
    model = {"name": "ONE", "spec": "ONE", "weights_sha256": "33" * 32, "training": None}
    run_id = json.loads((first / "run.json").read_text())["run_id"]
    made.write_run(tmp_path / "runs", "two", made.qa_samples(0.7, n=12), model=model, run_id=run_id)
    with pytest.raises(UserError, match="into one folder"):
        build_board([tmp_path / "runs"], tmp_path / "out")


def test_a_task_called_breakdown_does_not_replace_the_breakdown(tmp_path):
    made.write_run(tmp_path / "runs", "sft", made.qa_samples(0.5, n=12), "Breakdown", benchmark="x")
    out = build_board([tmp_path / "runs"], tmp_path / "out").out
    names = sorted(file.name for file in out.glob("*.csv"))
    assert (
        len(names) == 2
        and "breakdown.csv" in names
        and "group" in (out / "breakdown.csv").read_text().splitlines()[0]
    )


def test_a_list_of_files_deletes_nothing_but_what_a_board_makes(tmp_path, run):
    out = build_board([tmp_path / "deep"], tmp_path / "out").out
    mine = [tmp_path / "secret.csv", out / "notes.txt", out / "records" / "x.txt", out / "old.csv"]
    for file in mine:
        file.write_text("mine")
    (out / "linked.csv").symlink_to(tmp_path / "secret.csv")
    listed = json.loads((out / "records.json").read_text())
    listed["files"] += [
        "../secret.csv",
        str(mine[0]),
        "notes.txt",
        "records/x.txt",
        "old.csv",
        "linked.csv",
        "a\0b",
    ]
    (out / "records.json").write_text(json.dumps(listed))
    build_board([tmp_path / "deep"], out)
    assert [file.exists() for file in mine] == [True, True, True, False]


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"files": 3}', '{"files": [3]}', "x", "[" * 99999, '{"files": null}']
)
def test_a_strange_records_json_is_one_line(tmp_path, run, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / "records.json").write_text(content)
    with pytest.raises(UserError, match="is not of a leaderboard"):
        build_board([tmp_path / "deep"], out)


def test_nothing_is_written_through_a_link_in_the_board(tmp_path, run):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "records").symlink_to(elsewhere)
    with pytest.raises(UserError, match="leads out"):
        build_board([tmp_path / "deep"], out)
    assert not list(elsewhere.iterdir())


def bomb(run: Path) -> None:
    (run / "samples.jsonl").unlink()
    (run / "samples.jsonl.gz").write_bytes(gzip.compress(bytes(32 * 2**20), mtime=0))


def huge(run: Path) -> None:
    with open(run / "run.json", "wb") as handle:
        handle.truncate(2**31)


def linked(run: Path) -> None:
    target = run.parent / "else"
    (run / "samples.jsonl").rename(target)
    (run / "samples.jsonl").symlink_to(target)


def pipe(run: Path) -> None:
    (run / "samples.jsonl").unlink()
    os.mkfifo(run / "samples.jsonl")


def twice(run: Path) -> None:
    record = (run / "run.json").read_text()
    (run / "run.json").write_text('{"n": 5,' + record.lstrip()[1:])


def not_utf8(run: Path) -> None:
    (run / "samples.jsonl").write_bytes(b'{"id": "\xff"}\n')
    edit(run, samples_sha256=loaded_runs.sha256_bytes(b'{"id": "\xff"}\n'))


@pytest.mark.parametrize("damage", [bomb, huge, linked, pipe, twice, not_utf8])
def test_a_file_that_breaks_readers_is_one_line(tmp_path, run, damage, capsys):
    damage(run)
    refused(tmp_path, capsys)


@pytest.mark.parametrize(
    "content",
    ["[" * 10**6, '{"n": NaN}', '{"n": 1e999}', '{"n": ' + "9" * 5000 + "}", "null", "3", '"x"', "", "\0"],
    ids=["deep", "nan", "inf", "long", "null", "number", "text", "empty", "nul"],
)
def test_json_that_breaks_readers_is_one_line(tmp_path, run, content, capsys):
    (run / "run.json").write_text(content)
    refused(tmp_path, capsys)


def refused(root: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["leaderboard", "build", str(root / "deep"), "--out", str(root / "out")])
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 2 and said.startswith("error: ") and "\n" not in said


def test_a_folder_of_odd_letters_is_shown_in_plain_ones(tmp_path, run):
    shown = Console(record=True, file=StringIO(), width=200)
    print_board(build_board([run], tmp_path / "ou\u202et\x1b[31m"), shown)
    text = shown.export_text()
    assert f"ou{MARK}t{MARK}[31m/index.md" in text and "\u202e" not in text and "\x1b" not in text

"""A valid submission, tampered with: each change is refused with a line that says what is wrong, or does no harm.

`test_verify` edits what a forger would make consistent; here it is the submission as files, and what `submit` says.
"""

import copy
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rba_bench.errors import UserError
from rba_bench.evaluation.records import pack_samples
from rba_bench.files import sha256_bytes
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.submission import check_submission, pack_submission, published_path
from rba_bench.leaderboard.tables import print_tables
from tests.leaderboard import forging
from tests.leaderboard.forging import Json
from tests.leaderboard.given_submission import board, published_run

Edit = Callable[[Json, list[Json]], object]
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def valid() -> tuple[Json, list[Json]]:
    run = published_run("rba-group")
    lines = gzip.decompress((run / "samples.jsonl.gz").read_bytes()).splitlines()
    return json.loads((run / "run.json").read_text()), [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return board(tmp_path_factory.mktemp("project"), "base", "sft")


def written(folder: Path, record: Json, samples: list[Json]) -> Path:
    """The submission as `submit` packs it, with the hash of its samples made to fit."""
    data = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples).encode()
    record["samples_sha256"] = sha256_bytes(data)
    folder.mkdir(parents=True)
    (folder / "samples.jsonl.gz").write_bytes(pack_samples(data))
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def field(path: str, value: Any) -> Edit:
    def edit(record: Json, _: list[Json]) -> None:
        *names, last = path.split(".")
        for name in names:
            record = record[name]
        record[last] = value

    return edit


def first(**changes: Any) -> Edit:
    return lambda _, samples: samples[0].update(changes)


def identified(edit: Edit) -> Edit:
    """An edit after which protocol hash and run id fit again."""

    def both(record: Json, samples: list[Json]) -> None:
        edit(record, samples)
        forging.identify(record)

    return both


def settled(edit: Edit) -> Edit:
    """An edit after which everything that is computed from samples fits again."""

    def both(record: Json, samples: list[Json]) -> None:
        edit(record, samples)
        forging.rehash(record, samples)
        forging.settle(record, samples)

    return both


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def halved(_: Json, samples: list[Json]) -> None:
    del samples[48:]


def doubled(_: Json, samples: list[Json]) -> None:
    samples += [{**sample, "doc_id": sample["doc_id"] + 96, "id": sample["id"] + "b"} for sample in samples]


def of_another_task(record: Json, samples: list[Json]) -> None:
    record["task"] = record["protocol_spec"]["task"] = "micro_triviaqa"


def of_another_test_set(record: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["instruction"] = "is this easy"
        sample["references"] = ["yes"]


def errors_hidden(record: Json, samples: list[Json]) -> None:
    for sample in samples:
        if not sample["scores"]["asserted_match"]:
            sample.update(status="no_reply", error="HTTP 503", response="", extracted="", scores={})


REFUSED: dict[str, tuple[Edit, str]] = {
    # scores and samples
    "a score": (field("metrics.asserted_match.value", 0.99), "asserted_match is recorded as 0.99, its samples give"),
    "an interval": (field("metrics.asserted_match.low", 0.4), "asserted_match.low is recorded as 0.4"),
    "an interval turned round": (field("metrics.asserted_match.high", -1.0), "asserted_match.high is recorded as -1"),
    "half of the samples": (settled(halved), "is not that of the test set|48 of"),
    "samples twice": (settled(doubled), "is not that of the test set"),
    "a sample twice": (lambda _, s: s.append(copy.deepcopy(s[0])), "96 items recorded, 97 samples found"),
    "a response": (first(response="the right one"), "has an extracted answer that is not its response's"),
    "wrong answers as failures of a server": (settled(errors_hidden), "though the model uses no server"),
    "a negative count": (field("statuses.empty", -1), "statuses recorded"),
    # protocols and test sets
    "the protocol of another task": (settled(of_another_task), "benchmark is webquestions, of the task it is"),
    "another test set": (settled(of_another_test_set), "is not that of the test set on this machine"),
    "another task by name": (field("task", "micro_triviaqa"), "task micro_triviaqa is not the one in protocol_spec"),
    "another track by name": (field("track", "full"), "track is full, of the task it is micro"),
    "a task that is not shipped": (
        identified(lambda r, _: (r.update(task="my_task"), r["protocol_spec"].update(task="my_task"))),
        "task my_task does not come with rba-bench",
    ),
    "a path as a task": (field("task", "../../x"), "not a run record of schema 2: task"),
    "a path as a run id": (field("run_id", "../../x"), "not a run record of schema 2: run_id"),
    "a limit": (lambda r, s: r.update(limit=96, partial=True), "limit 96"),
    # numbers and shapes
    "NaN": (field("metrics.asserted_match.value", float("nan")), "NaN is no number that JSON allows"),
    "infinity": (field("timing.rtfx", float("inf")), "Infinity is no number that JSON allows"),
    "a huge integer": (field("n", 10**50), "an integer of 51 digits; at most 40 are allowed"),
    "a huge number of items": (field("n", 10**39), "items recorded, 96 samples found"),
    "a huge time": (field("timing.generation_s", 1e308), "is not 224.789 s of audio in 1e\\+308 s"),
    "a huge duration": (first(duration=1e308), "duration of 1 items is not that of the test set"),
    "a huge score of an item": (first(scores={"asserted_match": 1e308}), "recorded (as|with)"),
    "a text for a number": (field("n", "96"), "not a run record of schema 2: n: Input should be a valid integer"),
    "deep nesting in a record": (field("hardware.x", nested(70)), "JSON nested too deeply"),
    "deep nesting in a sample": (first(judge={"x": nested(70)}), "JSON nested too deeply"),
    "a list for a mapping": (field("model.training", [1]), "it has another form than any record"),
    # keys that nobody knows
    "a key of a record": (field("rank", 1), "not a run record of schema 2: rank: Extra inputs are not permitted"),
    "a key of a metric": (field("metrics.asserted_match.rank", 1), "metrics.asserted_match.rank: Extra inputs"),
    "a key of a sample": (first(verified=True), "samples.jsonl is damaged: verified: Extra inputs"),
    "a key of a model": (field("model.seen_by", "us"), "run_id does not follow from task, protocol, model"),
    "a key of the data": (field("data.url", "http://x"), "data says more than is known of the test set"),
    "a key of the protocol": (identified(field("protocol_spec.x", 1)), "protocol_spec.x is not what the task says"),
    "a report of a judge": (field("finish", {"judge": {"agreement": 1.0}}), "finish reports of"),
    # names
    "the name of a reference": (field("model.name", "Text"), "a model is called Text, as a reference is"),
    "a reference in wide letters": (field("model.name", "ｔｅｘｔ"), "as a reference is"),
    "a reference with a letter that nobody sees": (field("model.name", "te\u200bxt"), "as a reference is"),
    "no name": (field("model.name", " \t"), "model.name is missing"),
    "a server in the spec alone": (field("model.spec", "openai:http://x#y"), "names a server, yet the"),
    "the spec of a reference": (field("model.spec", "text:some/llm"), "is not that of a model of kind composite"),
    # dates
    "a date that is none": (field("created", "2026-13-45T99:99:99Z"), "is no date"),
    "a date to come": (field("created", "2999-01-01T00:00:00Z"), "created 2999-01-01T00:00:00Z cannot be"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_tampered_record_is_refused_with_what_is_wrong(valid, boards, tmp_path, name):
    edit, fault = REFUSED[name]
    record, samples = copy.deepcopy(valid)
    edit(record, samples)
    found = check_submission([written(tmp_path / "run", record, samples)], boards)
    assert not found.ok and not found.tables and len(found.refused) == 1
    assert (
        re.search(fault, found.refused[0]) and "\n" not in found.refused[0] and len(found.refused[0]) < 1500
    )


def bomb(run: Path) -> None:
    (run / "samples.jsonl.gz").write_bytes(gzip.compress(bytes(64 * 2**20), mtime=0))


def nested_bomb(run: Path) -> None:
    data = b"".join(gzip.compress(bytes(2**20), mtime=0) for _ in range(64))  # many members of one file
    (run / "samples.jsonl.gz").write_bytes(data)


def more_behind(run: Path) -> None:
    file = run / "samples.jsonl.gz"
    file.write_bytes(file.read_bytes() + b"behind")


def torn(run: Path) -> None:
    file = run / "samples.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-100])


def plain_deflate(run: Path) -> None:
    (run / "samples.jsonl.gz").write_bytes(zlib.compress(b"{}"))


def linked(name: str) -> Damage:
    def damage(run: Path) -> None:
        (run / name).rename(run.parent / name)
        os.symlink(run.parent / name, run / name)

    return damage


def no_samples(run: Path) -> None:
    (run / "samples.jsonl.gz").unlink()


def other_samples(run: Path) -> None:
    (run / "samples.jsonl").write_text("{}\n")


def key_twice(run: Path) -> None:
    text = (run / "run.json").read_text()
    (run / "run.json").write_text('{"n": 1,' + text[1:])


def not_unicode(run: Path) -> None:
    (run / "run.json").write_bytes((run / "run.json").read_bytes().replace(b'"rba-group"', b'"\xff\xfe"', 1))


def many_levels(run: Path) -> None:
    (run / "run.json").write_text('{"a":' * 10**5 + "1" + "}" * 10**5)


def folder_for_file(run: Path) -> None:
    (run / "samples.jsonl.gz").unlink()
    (run / "samples.jsonl.gz").mkdir()


DAMAGED: dict[str, tuple[Damage, str]] = {
    "a bomb": (bomb, "unpacks to more than 16 MiB"),
    "a bomb in pieces": (nested_bomb, "unpacks to more than 16 MiB"),
    "something behind the end": (more_behind, "samples.jsonl.gz is damaged"),
    "a torn file": (torn, "samples.jsonl.gz is damaged: it ends too early"),
    "another kind of file": (plain_deflate, "samples.jsonl.gz is damaged"),
    "a linked record": (linked("run.json"), "run: is a link: copy the file itself here"),
    "linked samples": (linked("samples.jsonl.gz"), "samples.jsonl.gz is a link: copy the file itself here"),
    "no samples": (no_samples, "has a run.json but no samples.jsonl"),
    "other samples beside": (other_samples, "the samples are not the ones that run.json was computed from"),
    "a key twice": (key_twice, "the key 'n' occurs twice"),
    "no Unicode": (not_unicode, "not a run record|not Unicode"),
    "many levels": (many_levels, "JSON nested too deeply"),
    "a folder for a file": (folder_for_file, "is not an ordinary file|cannot be read"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_breaks_readers_is_refused_in_one_line(valid, boards, tmp_path, name):
    damage, fault = DAMAGED[name]
    run = written(tmp_path / "run", *copy.deepcopy(valid))
    damage(run)
    found = check_submission([run], boards)
    [line] = found.refused
    assert not found.ok and re.search(fault, line) and "\n" not in line and line.count(str(run)) <= 2


HARMLESS: dict[str, Edit] = {
    "a path": field("model.name", "../../../etc/cron.d/x"),
    "an absolute path": field("model.name", "/etc/passwd"),
    "markup": field("model.name", '<img src=x onerror="alert(1)">'),
    "an escape of a terminal": field("model.name", "\x1b]0;owned\x07\x1b[2Jx"),
    "an override of direction": field("model.name", "a\u202egnp.exe"),
    "lines": field("model.name", "x\n\n# Heading\n\n| a |\n|---|"),
    "a formula": field("model.name", '=HYPERLINK("http://evil/")'),
    "a formula in wide signs": field("model.name", "＝1+1"),
    "a link": field("model.name", "[a](javascript:alert(1))"),
    "a mention": field("model.name", "@everyone closes #1"),
    "a name of a device": field("model.name", "CON"),
    "a long name": field("model.name", "x" * 5000),
    "letters that look like others": field("model.name", "rb\u0430-group"),
    "marks upon marks": field("model.name", "z" + "\u0301" * 500),
    "markup about the machine": field("hardware", {"<script>": "</script><script>alert(1)</script>"}),
    "formulas for versions": field("versions", {"=1+1": "=cmd|' /C calc'!A0", "rba-bench": "<b>"}),
    "much text": field("versions", {"rba-bench": "x" * 10**6}),
    "markup for a failure": first(error="<script>alert(1)</script>"),
}
FORBIDDEN = ("<img", "<script", "\x1b", "\x07", "\u202e", "\n# H", "](j", "\u0301" * 8)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_nobody_can_refuse_does_no_harm(valid, boards, tmp_path, name):
    record, samples = copy.deepcopy(valid)
    HARMLESS[name](record, samples)
    project = tmp_path / "project" / "leaderboards"
    found = check_submission([written(tmp_path / "run", record, samples)], boards)
    assert found.ok, found.refused
    [folder] = pack_submission(found, project)
    assert folder.resolve().is_relative_to((project / "micro" / "records").resolve())
    assert len(folder.relative_to(project).parts) == 4
    assert {file for file in tmp_path.rglob("*") if file.is_file()} == {
        *(tmp_path / "run").iterdir(), *folder.iterdir()
    }  # fmt: skip
    shown = StringIO()
    lines = [f"note: {note}" for note in found.notes]
    print_tables(found.tables, lines, console=Console(file=shown, width=200, color_system=None))
    published = build_board([project], tmp_path / "board", baseline_row="rba-group")
    pages = [file.read_text() for file in published.out.iterdir() if file.suffix in (".md", ".csv")]
    for text in [shown.getvalue(), *pages]:
        assert len(text) < 400_000 and not [mark for mark in FORBIDDEN if mark in text]
    assert not [mark for mark in "\x1b\x07\u202e" if mark in (published.out / "records.json").read_text()]


def test_a_name_that_looks_like_another_is_shown_by_its_letters(valid, boards, tmp_path):
    record, samples = copy.deepcopy(valid)
    record["model"]["name"] = "rb\u0430-group"
    notes = check_submission([written(tmp_path / "run", record, samples)], boards).notes
    assert any("letters beyond ASCII, which may look like others: rb\\u0430-group" in note for note in notes)


def test_a_link_in_the_folder_of_boards_leads_nothing_out(valid, boards, tmp_path):
    found = check_submission([written(tmp_path / "run", *copy.deepcopy(valid))], boards)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "leaderboards").mkdir()
    (tmp_path / "leaderboards" / "micro").symlink_to(elsewhere)
    with pytest.raises(UserError, match="leads out of"):
        pack_submission(found, tmp_path / "leaderboards")
    assert not list(elsewhere.iterdir()) and published_path(found.runs[0]).startswith(
        "micro/records/rba-group/"
    )

"""The page of a set: what stands on it, that it is closed, and that nothing in a set becomes markup."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rba_bench.audio.alignment_set import MANIFEST, shard_schema
from rba_bench.audio.sealing import seal_alignment_set
from rba_bench.audio.set_figures import can_draw
from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes
from rba_bench.synthesis.inspection.clip_records import clip_record
from rba_bench.synthesis.inspection.page import Inspection, inspect_set
from tests.audio.looked_at import CLIPS, HOSTILE, make_set, rows


class Page(HTMLParser):
    """Elements of a page with their attributes, its text, and the records in it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self.opened = ""
        self.feed(file.read_text(encoding="utf-8"))
        self.records: list[dict[str, Any]] = json.loads(self.inside["script"][0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside.setdefault(tag, []).append("")

        self.opened = tag

    def handle_endtag(self, tag: str) -> None:
        self.opened = ""

    def handle_data(self, data: str) -> None:
        if self.opened:
            self.inside[self.opened][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second; the page of `made`, which is written before, has them."""
    monkeypatch.setattr("rba_bench.synthesis.inspection.page.can_draw", lambda: False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("inspected") / "set")


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    return inspect_set(folder, tmp_path_factory.mktemp("page") / "page", 20)


def test_clips_lie_beside_the_page_with_their_stored_bytes(made: Inspection) -> None:
    page, by_id = Page(made.page), {row["id"]: row for row in rows()}
    assert len(page.records) == made.clips == 20 and made.statistics.clips == CLIPS
    for record in page.records:
        row = by_id[record["id"]]
        assert (made.page.parent / record["clip"]).read_bytes() == row["audio"]["bytes"]
        assert record["response"] == row["response"] or row["response"] == HOSTILE
        assert (record["voice"], record["topic"]) == (row["voice"], row["topic"])
        assert record["seconds"] == 0.1 and record["wer"] == row["asr_wer"]
    assert max(row["asr_wer"] for row in rows()) in [record["wer"] for record in page.records]
    assert "20 of 45 clips are on this page" in made.page.read_text()


def test_the_differences_of_the_worst_clip_are_marked(made: Inspection) -> None:
    worst = max(Page(made.page).records, key=lambda record: record["wer"])
    assert worst["differences"][0] == ["substituted", "please tell me number", "oops oops oops oops"]
    assert worst["differences"][1][0] == "same" and worst["voice"] == "cem"


def test_one_can_filter_by_voice_topic_and_error_rate_and_find_figures(made: Inspection) -> None:
    page = Page(made.page)
    fields = {field["name"] for tag in ("input", "select") for field in page.all(tag)}
    assert fields == {"q", "voice", "topic", "from", "to", "sort"}  # all clips are equally difficult
    options = [option["value"] for option in page.all("option")]
    assert {"=ann", "=bob", "=cem", "=", "=advice", "worst", "longest"} <= set(options)
    pytest.importorskip("matplotlib")
    for image in page.all("img"):
        assert (made.page.parent / str(image["src"])).is_file() and image["alt"]
    for source in page.all("source"):
        assert (made.page.parent / str(source["srcset"])).is_file()
    assert len(page.all("img")) == 5


def test_the_page_is_closed_and_its_policy_allows_its_own_parts_alone(made: Inspection) -> None:
    page = Page(made.page)
    text = made.page.read_text(encoding="utf-8")
    (policy,) = [str(meta["content"]) for meta in page.all("meta") if meta.get("http-equiv")]
    code, style = page.inside["script"][1], page.inside["style"][0]
    for kind, content in (("script-src", code), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert len(page.all("script")) == 2 and [link["href"] for link in page.all("link")] == ["data:,"]
    assert not any(name.startswith("on") or name == "style" for _, found in page.elements for name in found)
    assert "http://" not in text and "https://" not in text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", code)


def test_nothing_in_a_set_becomes_markup(folder: Path, tmp_path: Path) -> None:
    changes = dict.fromkeys(
        ("voice", "topic", "difficulty", "instruction", "response", "asr_text", "id"), HOSTILE
    )
    bad = [{**rows()[0], **changes}, rows()[2]]
    page_file = inspect_set(make_set(tmp_path / "set", bad), tmp_path / "page").page
    page, text = Page(page_file), page_file.read_text(encoding="utf-8")
    assert len(page.all("script")) == 2 and "alert(1)" not in page.inside["script"][1]
    assert not [image for image in page.all("img") if image.get("src") == "x"]
    assert "\u202e" not in text and "<script>alert" not in text
    assert page.records[0]["response"] == HOSTILE.replace("\u202e", "\ufffd")


def test_equal_sets_have_equal_pages_and_clips_of_an_earlier_page_go(
    folder: Path, made: Inspection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rba_bench.synthesis.inspection.page.can_draw", can_draw)
    again = inspect_set(shutil.copytree(folder, tmp_path / "set"), tmp_path / "page", 20)
    files = {
        path.relative_to(again.page.parent): path.read_bytes() for path in again.page.parent.rglob("*.*")
    }
    assert files == {
        path.relative_to(made.page.parent): path.read_bytes() for path in made.page.parent.rglob("*.*")
    }
    fewer = inspect_set(tmp_path / "set", tmp_path / "page", 5)
    assert len(list((fewer.page.parent / "clips").iterdir())) == 5
    assert inspect_set(tmp_path / "set", tmp_path / "none", 0).clips == 0


def test_a_set_without_transcripts_has_no_filter_by_error_rate(tmp_path: Path) -> None:
    bare = [{**row, "asr_text": None, "asr_wer": None, "topic": "others"} for row in rows()[:6]]
    page = Page(inspect_set(make_set(tmp_path / "set", bare), tmp_path / "page").page)
    assert {field["name"] for field in page.all("input")} == {"q"}
    assert "differences" not in page.records[0] and page.records[0]["wer"] is None


def test_a_transcript_alone_gives_the_error_rate(tmp_path: Path) -> None:
    row = {**rows()[2], "asr_text": "please tell him number zero", "asr_wer": None}
    record = clip_record(row, 0, lambda text, language: text)
    assert record["wer"] == pytest.approx(0.2) and ("substituted", "me", "him") in record["differences"]


def test_what_was_spoken_is_what_the_words_are_compared_with() -> None:
    row = {
        **rows()[2],
        "instruction": "It costs $5 approx.",
        "asr_text": "it costs five dollars approximately",
    }
    spoken = "It costs five dollars approximately."
    record = clip_record(row, 0, lambda text, language: spoken)
    assert record["said"] == spoken and [kind for kind, _, _ in record["differences"]] == ["same"]
    row |= {
        "snr_db": 12.345,
        "noise_colour": "pink",
        "speed": 1.1,
        "augmentation": '{"room":{"size":2},"codec":"gsm"}',
    }
    assert clip_record(row, 0, lambda text, language: text)["sound"] == [
        "pink noise, 12.3 dB", "speed 1.10", 'room: {"size": 2}', "codec: gsm"
    ]  # fmt: skip


def test_dialogues_show_their_earlier_turns(tmp_path: Path) -> None:
    turns = [{"instruction": "hello there", "response": "hi", "audio": None}]
    table = pa.Table.from_pylist([{**rows()[0], "turns": turns}, rows()[1]], schema=shard_schema(turns=True))
    (tmp_path / "set").mkdir()
    pq.write_table(table, tmp_path / "set" / "a.parquet")
    seal_alignment_set(tmp_path / "set")
    records = Page(inspect_set(tmp_path / "set", tmp_path / "page").page).records
    assert records[0]["turns"] == [["hello there", "hi"]] and records[1]["turns"] == []


def test_a_clip_that_is_not_there_is_named_and_the_others_play(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", rows()[:3])
    part = next(folder.glob("*.parquet"))
    table = pq.read_table(part)
    sounds = [
        {"bytes": b"RIFF broken", "path": "x"},
        {"bytes": None, "path": None},
        table["audio"][2].as_py(),
    ]
    column = pa.array(sounds, table.schema.field("audio").type)
    pq.write_table(table.set_column(table.column_names.index("audio"), "audio", column), part)
    made = inspect_set(folder, tmp_path / "page")
    first, second, third = Page(made.page).records
    assert "cannot be decoded" in first["problem"] and "holds no audio bytes" in second["problem"]
    assert third["clip"] and "problem" not in third
    assert made.notes[0].startswith("2 clips cannot be played")


def test_a_set_that_is_still_being_made_is_shown_as_far_as_it_is(finished: Path, tmp_path: Path) -> None:
    half = shutil.copytree(finished, tmp_path / "half")
    (half / MANIFEST).unlink()
    whole = inspect_set(finished, tmp_path / "page").statistics
    last = sorted((half / "shards").iterdir())[-1]
    rows_of_last = pq.read_metadata(last).num_rows
    (half / "done" / f"{last.stem}.json").unlink()  # as if its worker were at work
    made = inspect_set(half, tmp_path / "page")
    assert made.statistics.clips == whole.clips - rows_of_last
    assert made.progress.startswith("unfinished: 20 of 20 instructions are there")
    assert "not finished" in made.page.read_text()
    kept = {count.part: count.n for count in made.statistics.filters if count.reason == "kept"}
    assert kept["answers"] == 20 and kept["clips"] == made.statistics.clips
    reasons = {(count.part, count.reason, count.n) for count in whole.filters if count.part != "clips"}
    assert reasons == {
        (count.part, count.reason, count.n) for count in made.statistics.filters if count.part != "clips"
    }
    shutil.rmtree(half / "shards")
    shutil.rmtree(half / "done")
    with pytest.raises(UserError, match="is finished yet"):
        inspect_set(half, tmp_path / "page")


def test_nothing_is_written_over_something_else(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the set itself"):
        inspect_set(folder, folder)
    (tmp_path / "index.html").write_text("<p>mine</p>")
    with pytest.raises(UserError, match="was not written by"):
        inspect_set(folder, tmp_path)
    assert (tmp_path / "index.html").read_text() == "<p>mine</p>"


@pytest.mark.parametrize("kind", ["nothing", "empty", "foreign", "damaged"])
def test_what_is_no_set_is_one_line(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "place"
    if kind != "nothing":
        place.mkdir()
    if kind == "foreign":  # a checkpoint
        (place / "rba_config.json").write_text('{"stage": "train", "config": {}}')
    if kind == "damaged":
        (place / MANIFEST).write_text("{")
    with pytest.raises(SystemExit) as end:
        main(["synth", "inspect", str(place), "--out", str(tmp_path / "page")])
    error = capsys.readouterr().err
    assert end.value.code == 2 and "Traceback" not in error and str(place) in error
    assert not (tmp_path / "page").exists()


def test_the_command_prints_counts_and_the_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["synth", "inspect", str(folder)])
    out = capsys.readouterr().out
    assert end.value.code == 0 and out.splitlines()[-1] == "runs/inspect/set/index.html"
    assert re.search(r"^advice +15 +33\.3 % +18\.5 %$", out, re.MULTILINE)
    assert re.search(r"^cem +15 +0\.00 +40\.0 %$", out, re.MULTILINE)
    with pytest.raises(SystemExit):
        main(["synth", "inspect", str(folder), "--out", "page", "--clips", "4", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["clips"] == CLIPS and told["clips_shown"] == 4 and told["page"] == "page/index.html"
    assert told["wer"]["p100"] == 0.8 and told["unfinished"] is False


def test_without_matplotlib_the_page_says_so(folder: Path, tmp_path: Path) -> None:
    made = inspect_set(folder, tmp_path / "page", 3)
    assert "matplotlib is not installed; install it with `pip install" in made.notes[0]
    assert not Page(made.page).all("img") and "33.3" in made.page.read_text()


def test_names_of_clips_follow_from_their_content(made: Inspection) -> None:
    for file in (made.page.parent / "clips").iterdir():
        assert file.stem == sha256_bytes(file.read_bytes())[:20]

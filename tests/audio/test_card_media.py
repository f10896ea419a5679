"""The card of a set shows figures and ten clips, which the set itself takes no notice of."""

import re
import shutil
from pathlib import Path

import pytest

from rba_bench.audio import card_media
from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.audio.card_media import media_files
from rba_bench.audio.set_card import write_set_card
from rba_bench.cards import CARD
from rba_bench.files import sha256_file
from tests.audio.looked_at import CLIPS, make_set, rows


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(card_media, "can_draw", lambda: True)


@pytest.mark.usefixtures("drawing")
def test_figures_and_clips_lie_beside_the_card_and_are_linked(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    text, names = (folder / CARD).read_text(), media_files(folder)
    assert [name for name in names if name.endswith(".png")] == [
        f"card/{name}.png" for name in ("difficulty", "durations", "topics", "voices", "wer")
    ]
    clips = [name for name in names if name.startswith("card/clips/")]
    assert len(clips) == 10
    for name in names:
        assert f"]({name})" in text
    assert [f'<audio controls preload="none" src="{name}"></audio>' in text for name in clips] == [True] * 10
    stored = {row["audio"]["bytes"] for row in rows()}
    assert all((folder / name).read_bytes() in stored for name in clips)
    assert "| advice | 15 | 33.3 | 18.5 |" in text and "per cent in the RBA paper, Table 1" in text


@pytest.mark.usefixtures("drawing")
def test_equal_sets_have_equal_cards_and_the_set_stays_what_it_is(tmp_path: Path) -> None:
    from datasets import load_dataset

    folder = make_set(tmp_path / "set")
    before = {name: sha256_file(folder / name) for name in [CARD, *media_files(folder)]}
    identity = AlignmentSet.open(folder).sha256
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / "card")
    (copy / CARD).unlink()
    assert write_set_card(AlignmentSet.open(copy)) and AlignmentSet.open(copy).sha256 == identity
    assert {name: sha256_file(copy / name) for name in [CARD, *media_files(copy)]} == before
    loaded = load_dataset(str(folder), "all", split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["id"] == [row["id"] for row in rows()] and len(loaded) == CLIPS


def test_without_matplotlib_the_card_has_its_clips_and_numbers(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")  # where nothing can be drawn: see conftest.py
    text = (folder / CARD).read_text()
    assert not list(folder.rglob("*.png")) and "![" not in text
    assert "| planning | 15 | 33.3 | 4.2 |" in text and len(media_files(folder)) == 10


def test_media_of_an_earlier_card_go_and_a_user_s_own_readme_gets_none(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set")
    (folder / "card" / "clips" / "11.wav").write_bytes(b"RIFF")
    (folder / "card" / "mine.png").write_bytes(b"mine")
    assert write_set_card(AlignmentSet.open(folder))
    assert len(media_files(folder)) == 10 and (folder / "card" / "mine.png").is_file()
    shutil.rmtree(folder / "card")
    (folder / CARD).write_text("# Mine\n")
    assert not write_set_card(AlignmentSet.open(folder)) and not (folder / "card").exists()


def test_nothing_in_a_text_becomes_markup(tmp_path: Path) -> None:
    made = rows()[1:2]  # the hostile row
    text = (make_set(tmp_path / "set", made) / CARD).read_text()
    (line,) = [line for line in text.splitlines() if "card/clips/01.flac" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == 5 and line.count("alert(1)") == 3
    assert re.findall(r"<[^>]*>", line) == [
        '<audio controls preload="none" src="card/clips/01.flac">', "</audio>", "<br>", "<br>"
    ]  # fmt: skip
    assert "](javascript" not in line and "\u202e" not in line


def test_a_clip_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", rows()[:2])
    part = next(folder.glob("*.parquet"))
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(part)
    broken = pa.array([{"bytes": b"RIFF broken", "path": "x"}] * 2, table.schema.field("audio").type)
    pq.write_table(table.set_column(table.column_names.index("audio"), "audio", broken), part)
    assert write_set_card(AlignmentSet.open(folder, verify=False))
    assert "the clip cannot be decoded" in (folder / CARD).read_text() and not media_files(folder)

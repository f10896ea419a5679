"""A finished set has a card with which `datasets` reads it, and which follows from the set alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rba_bench.audio.alignment_set import MANIFEST, AlignmentSet, shard_schema
from rba_bench.audio.sealing import seal_alignment_set
from rba_bench.audio.set_card import write_set_card
from rba_bench.cards import CARD, front_matter
from tests.audio.test_sealing import row


def rows(split: str, numbers: range) -> list[dict[str, Any]]:
    return [{**row(number), "split": split, "source_lang": "en", "target_lang": "de"} for number in numbers]


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """Two files of a foreign tool: both splits in each, one column that only the first one has."""
    folder = tmp_path / "set"
    (folder / "deep").mkdir(parents=True)
    table = pa.Table.from_pylist(
        rows("train", range(4)) + rows("validation", range(4, 6)), schema=shard_schema()
    )
    pq.write_table(table.append_column("more", pa.array(["x"] * 6)), folder / "a.parquet")
    bare = pa.Table.from_pylist(rows("train", range(6, 9)), schema=shard_schema().remove_metadata())
    pq.write_table(bare, folder / "deep" / "b.parquet")
    seal_alignment_set(folder)
    return folder


def load(path: Path, scratch: Path, *words: str, **options: Any) -> Any:
    from datasets import load_dataset

    return load_dataset(str(path), *words, cache_dir=str(scratch / "cache"), **options)


def test_a_folder_is_loaded_by_its_name_alone(sealed: Path, tmp_path: Path) -> None:
    from datasets import Audio

    found = load(sealed, tmp_path)
    assert found["train"]["id"] == [f"c{n}" for n in (0, 1, 2, 3, 6, 7, 8)]
    assert found["train"].features["audio"] == Audio(decode=False)
    assert found["train"][0]["audio"]["bytes"] == row(0)["audio"]["bytes"]
    assert "more" not in found["train"].features
    held_out = load(sealed, tmp_path, "validation")
    assert held_out["validation"]["id"] == ["c4", "c5"]
    streamed = load(sealed, tmp_path, "all", split="train", streaming=True)
    assert [one["split"] for one in streamed] == ["train"] * 4 + ["validation"] * 2 + ["train"] * 3
    plainly = load(Path("parquet"), tmp_path, data_files=str(sealed / "a.parquet"))
    assert plainly["train"].num_rows == 6


def test_the_card_follows_from_the_set_and_leaves_its_identity_alone(sealed: Path, tmp_path: Path) -> None:
    text = (sealed / CARD).read_bytes()
    before = AlignmentSet.open(sealed).sha256
    assert before.encode() in text and b"9 of 9, none bad" in text
    (sealed / CARD).unlink()
    seal_alignment_set(sealed)  # with another date in the manifest
    assert (sealed / CARD).read_bytes() == text and AlignmentSet.open(sealed).sha256 == before
    moved = shutil.copytree(sealed, tmp_path / "moved")
    (moved / CARD).unlink()
    assert write_set_card(AlignmentSet.open(moved)) and (moved / CARD).read_bytes() == text
    metadata = front_matter(sealed / CARD)
    assert metadata["language"] == ["de", "en"] and metadata["size_categories"] == ["n<1K"]
    assert "license" not in metadata and "synthetic" not in metadata["tags"]


def test_a_set_without_held_out_rows_has_no_validation(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows("train", range(3)), schema=shard_schema()), folder / "a.parquet")
    seal_alignment_set(folder)
    assert [one["config_name"] for one in front_matter(folder / CARD)["configs"]] == ["default", "all"]


def test_a_readme_of_the_user_s_own_stays(sealed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sealed / CARD).write_text("# Mine\n")
    seal_alignment_set(sealed)
    assert (sealed / CARD).read_text() == "# Mine\n"
    (sealed / CARD).write_text("---\na: [\n---\n<!-- rba-bench:set: x -->\n<!-- /rba-bench:set -->\n")
    seal_alignment_set(sealed)
    assert "the card is not renewed: the front matter of" in capsys.readouterr().err
    assert (sealed / MANIFEST).is_file()


def test_a_manifest_of_another_tool_has_a_card_too(sealed: Path) -> None:
    ours = json.loads((sealed / MANIFEST).read_text())
    kept = {key: ours[key] for key in ("schema_version", "status", "checksums")}
    foreign = {"tts": "festival", "teacher": {"name": "/home/ann/llm"}, "counts": {"rows": 9}, "filters": 3}
    (sealed / MANIFEST).write_text(json.dumps(kept | foreign))
    (sealed / CARD).unlink()
    alignment = AlignmentSet.open(sealed)
    assert write_set_card(alignment) and alignment.origin == {"teacher": "llm"}
    text = (sealed / CARD).read_text()
    assert "of 9 instructions in 9 clips" in text and "train 7, validation 2" in text

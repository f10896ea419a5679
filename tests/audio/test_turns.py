"""Version 2 of the alignment set: rows that end a dialogue, read beside version 1."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rba_bench.audio import clips
from rba_bench.audio.alignment_index import TURN_TOKENS, IndexedSet
from rba_bench.audio.alignment_set import MANIFEST, AlignmentSet, schema_version, shard_schema
from rba_bench.audio.sealing import seal_alignment_set
from rba_bench.audio.turns import Turn, turn_clips
from rba_bench.errors import UserError
from rba_bench.synthesis.shards import parquet_bytes
from tests.audio.test_sealing import row

# Of the columns of version 1, as they were before there was a second one
COLUMNS_SHA256 = "abf24eee17a1c1baeec0dafd5a33f616bf3c71290e627bf6b1793b6e353510b8"
SCORED_SHA256 = "9660710290d4098d6ccb59c858134906f22584433c58d528f5d19abf31f41a8b"


def clip(number: int) -> bytes:
    return clips.encode_flac((0.2 * np.sin(np.arange(1_600) * (number + 2) / 70)).astype(np.float32))


def turn(number: int, data: bytes | None = None) -> dict[str, Any]:
    audio = None if data is None else {"bytes": data, "path": f"turn{number}.flac"}
    return {"instruction": f"question {number}", "response": f"answer {number}", "audio": audio}


def dialogues() -> list[dict[str, Any]]:
    """One row without earlier turns, one with two (one of them recorded), one with an empty list."""
    return [row(0), {**row(1), "turns": [turn(0, clip(0)), turn(1)]}, {**row(2), "turns": []}]


def write(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist(rows, schema=shard_schema(turns=True)), folder / "a.parquet", **options
    )
    return folder


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = write(tmp_path / "set", dialogues())
    seal_alignment_set(folder)
    return folder


@pytest.mark.parametrize(("scored", "expected"), [(False, COLUMNS_SHA256), (True, SCORED_SHA256)])
def test_sets_without_turns_keep_the_columns_of_version_1(scored: bool, expected: str) -> None:
    columns = shard_schema(scored)
    text = json.dumps([[field.name, str(field.type)] for field in columns])
    assert hashlib.sha256(text.encode() + columns.metadata[b"huggingface"]).hexdigest() == expected
    assert (schema_version(False), schema_version(True)) == (1, 2)


def test_a_set_without_turns_has_the_bytes_of_version_1(tmp_path: Path) -> None:
    rows = [row(0), row(1)]
    version_1 = pa.schema(
        [field for field in shard_schema(turns=True) if field.name != "turns"],
        metadata=shard_schema().metadata,
    )
    assert parquet_bytes(rows, shard_schema()) == parquet_bytes(rows, version_1)
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(rows, shard_schema()))
    assert seal_alignment_set(tmp_path).manifest["schema_version"] == 1


def test_turns_are_read_as_texts_and_their_clips_on_demand(sealed: Path) -> None:
    data = AlignmentSet.open(sealed)
    assert data.has_turns and data.manifest["schema_version"] == 2
    alone, last, empty = data.rows()
    assert alone.turns == empty.turns == ()
    assert last.turns == (Turn("question 0", "answer 0"), Turn("question 1", "answer 1"))
    assert (last.instruction, last.response) == ("who is it", "ann")
    assert turn_clips(last.audio) == (clip(0), None) and turn_clips(alone.audio) == ()
    assert len(clips.load_clip(last.audio)) == 1_600


def test_one_text_cannot_stand_for_a_dialogue(sealed: Path) -> None:
    alone, last, _ = AlignmentSet.open(sealed).rows()
    assert alone.user_text == alone.last_user_text == last.last_user_text == "who is it"
    with pytest.raises(UserError, match="row c1 ends a dialogue of 3 turns"):
        _ = last.user_text


@pytest.mark.parametrize("compliant", [True, False])
def test_the_index_reads_turns_whatever_a_writer_calls_list_entries(tmp_path: Path, compliant: bool) -> None:
    folder = write(tmp_path / "set", dialogues(), use_compliant_nested_type=compliant)
    seal_alignment_set(folder)
    indexed = IndexedSet(AlignmentSet.open(folder))
    assert [indexed.rows(number)[0].turns for number in range(3)] == [
        (),
        (Turn("question 0", "answer 0"), Turn("question 1", "answer 1")),
        (),
    ]
    history = 2 * (len("question 0") + len("answer 0") + TURN_TOKENS)
    assert indexed.index.text.tolist() == [3, 3 + history, 3]


def test_the_datasets_library_reads_version_2(sealed: Path, tmp_path: Path) -> None:
    from datasets import Audio, Value, load_dataset

    found = load_dataset(str(sealed), split="train", cache_dir=str(tmp_path / "cache"))
    feature = found.features["turns"].feature
    assert feature["audio"] == Audio(decode=False) and feature["instruction"] == Value("string")
    assert found[1]["turns"][0] == turn(0, clip(0)) and found[1]["turns"][1]["response"] == "answer 1"
    assert "Rows with `turns` end a dialogue" in (sealed / "README.md").read_text()
    assert not found[0]["turns"] and found[1]["audio"]["bytes"] == row(1)["audio"]["bytes"]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([{**turn(0), "response": " "}], "c1 of .*a.parquet: earlier turn 1 has no response"),
        ([turn(0), None], "earlier turn 2 has no instruction"),
        ([turn(0, b"RIFF broken")], "the clip of earlier turn 1 cannot be used"),
        (
            [{**turn(0), "audio": {"bytes": None, "path": "gone.wav"}}],
            "turn 1 is a file that is not there: gone.wav",
        ),
    ],
)
def test_sealing_names_the_row_with_a_bad_turn(tmp_path: Path, turns: list[Any], message: str) -> None:
    folder = write(tmp_path / "set", [row(0), {**row(1), "turns": turns}])
    with pytest.raises(UserError, match=message):
        seal_alignment_set(folder)
    assert not (folder / MANIFEST).exists()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([["a"], []]), "of type list<.*string>, not a list of structs"),
        (pa.array([[{"instruction": "a"}], []]), "entries without a string 'response'"),
    ],
)
def test_a_column_of_turns_of_another_type_is_refused(tmp_path: Path, column: pa.Array, message: str) -> None:
    table = pa.Table.from_pylist([row(0), row(1)], schema=shard_schema()).append_column("turns", column)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        seal_alignment_set(tmp_path)


def test_a_newer_version_is_refused_by_one_line(sealed: Path) -> None:
    manifest = json.loads((sealed / MANIFEST).read_text())
    (sealed / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 3}))
    with pytest.raises(
        UserError, match="has format 3, this rba-bench reads 1 and 2: use a newer rba-bench"
    ) as error:
        AlignmentSet.open(sealed)
    assert "\n" not in str(error.value)

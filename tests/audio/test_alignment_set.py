"""Reading an alignment set."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rba_bench.audio import clips
from rba_bench.audio.alignment_set import COLUMNS, MANIFEST, AlignmentSet, shard_schema
from rba_bench.audio.sealing import seal_alignment_set
from rba_bench.errors import UserError
from rba_bench.files import sha256_bytes, sha256_file


def row(number: int, group: str, split: str) -> dict[str, object]:
    wave = (0.1 * np.sin(np.arange(800) * (number + 1) / 9)).astype(np.float32)
    data = clips.encode_flac(wave, 16_000)
    texts = dict.fromkeys(("prompt", "source_lang", "target_lang", "topic", "difficulty", "voice"), "")
    return {
        **texts,
        "id": f"{group}-{number}",
        "group_id": group,
        "kind": "qa",
        "instruction": "who is it",
        "response": "ann",
        "split": split,
        "audio": {"bytes": data, "path": f"{number}.flac"},
        "audio_sha256": sha256_bytes(data),
        "sampling_rate": 16_000,
        "duration": 0.05,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of 70 and 2 rows: more than one row group, two groups."""
    (tmp_path / "shards").mkdir()
    parts = [[row(n, "a", "train") for n in range(70)], [row(n, "b", "validation") for n in range(2)]]
    checksums = {}
    for number, rows in enumerate(parts):
        name = f"shards/part-{number:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=shard_schema()), tmp_path / name, row_group_size=64)
        checksums[name] = sha256_file(tmp_path / name)
    manifest = {"schema_version": 1, "status": "complete", "checksums": checksums}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    return tmp_path


def rewrite(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def test_rows_groups_and_audio(folder: Path) -> None:
    data = AlignmentSet.open(folder)
    assert [len(data.rows(split)) for split in (None, "train", "validation")] == [72, 70, 2]
    assert {group: len(rows) for group, rows in data.groups().items()} == {"a": 70, "b": 2}
    assert list(data.groups("validation")) == ["b"]
    for number in (0, 65, 69):
        clip = data.rows("train")[number]
        assert clip.id == f"a-{number}" and clip.audio.row == number
        wave = clips.load_clip(clip.audio, 16_000)
        np.testing.assert_allclose(wave, 0.1 * np.sin(np.arange(800) * (number + 1) / 9), atol=4e-5)
    assert data.rows()[0].user_text == "who is it"


def test_identity_is_the_content(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    first = AlignmentSet.open(folder).sha256
    moved = folder.rename(tmp_path_factory.mktemp("moved") / "set")
    rewrite(moved, created="another day")
    assert AlignmentSet.open(moved).sha256 == first
    rewrite(moved, checksums={"shards/part-00001.parquet": sha256_file(moved / "shards/part-00001.parquet")})
    assert AlignmentSet.open(moved).sha256 != first


def test_unknown_split(folder: Path) -> None:
    with pytest.raises(UserError, match="valid: train, validation"):
        AlignmentSet.open(folder).rows("test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "partial"}, "unfinished"),
        ({"checksums": {}}, "unfinished"),
        ({"schema_version": 99}, "format 99"),
        ({"checksums": {"shards/part-00009.parquet": "00"}}, "missing"),
        ({"checksums": {"../../part.parquet": "00"}}, "no file below"),
        ({"checksums": {"/etc/passwd": "00"}}, "no file below"),
        ({"checksums": {"shards/part-00000.parquet": "00"}}, "damaged"),
    ],
)
def test_unusable_sets(folder: Path, changes: dict[str, object], message: str) -> None:
    rewrite(folder, **changes)
    with pytest.raises(UserError, match=message):
        AlignmentSet.open(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"status": "complete"}'])
def test_damaged_manifest(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(UserError, match="damaged"):
        AlignmentSet.open(folder)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rba-bench synth --out"):
        AlignmentSet.open(tmp_path / "no")


def test_a_shard_of_another_format(folder: Path) -> None:
    shard = folder / "shards/part-00000.parquet"
    pq.write_table(pa.table({"id": ["a"]}), shard)
    with pytest.raises(UserError, match="lacks the column"):
        AlignmentSet.open(folder, verify=False).rows()
    shard.write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match="cannot be read"):
        AlignmentSet.open(folder, verify=False).rows()


@pytest.mark.parametrize("named", ["data_files", "data_dir"])
def test_the_datasets_library_reads_it(folder: Path, tmp_path: Path, named: str) -> None:
    datasets = pytest.importorskip("datasets")
    where = str(folder / "shards" / "*.parquet") if named == "data_files" else str(folder / "shards")
    loaded = datasets.load_dataset(
        "parquet", **{named: where}, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 72
    assert loaded.features["audio"] == datasets.Audio(decode=False)
    undecoded = loaded.cast_column("audio", datasets.Audio(decode=False))
    first = undecoded[0]
    assert sha256_bytes(first["audio"]["bytes"]) == first["audio_sha256"]


def foreign(folder: Path, *parts: list[dict[str, object]]) -> Path:
    """Files of another tool: no manifest, names and folders of its own, only the columns that matter."""
    (folder / "data").mkdir()
    kept = {*COLUMNS, "audio"}
    for number, rows in enumerate(parts):
        table = pa.Table.from_pylist([{k: v for k, v in row.items() if k in kept} for row in rows])
        pq.write_table(table, folder / "data" / f"train-{number}.parquet")
    return folder


def test_a_foreign_folder_is_sealed(tmp_path: Path) -> None:
    folder = foreign(
        tmp_path, [row(n, "a", "train") for n in range(3)], [row(n, "b", "validation") for n in range(2)]
    )
    sealed = seal_alignment_set(folder)
    assert sealed.manifest["counts"] == {
        "groups": 2,
        "clips": 5,
        "clips_without_response": 0,
        "groups_by_kind": {"qa": 2},
        "groups_by_split": {"train": 1, "validation": 1, "test": 0},
        "hours": round(0.25 / 3600, 4),
    }
    again = AlignmentSet.open(folder)
    assert {group: len(rows) for group, rows in again.groups().items()} == {"a": 3, "b": 2}
    assert seal_alignment_set(folder).sha256 == again.sha256
    shard = folder / "data" / "train-0.parquet"
    shard.write_bytes(shard.read_bytes()[:-9] + b"123456789")
    with pytest.raises(UserError, match=r"train-0\.parquet is damaged; restore .* --seal"):
        AlignmentSet.open(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "a-0"}, "clip id 'a-0' occurs twice"),
        ({"split": "validation"}, "differ in split"),
        ({"kind": "song", "group_id": "b"}, "kind song; valid: instruct, qa, s2tt"),
        ({"split": "dev"}, "split 'dev'"),
    ],
)
def test_rows_that_cannot_be_sealed(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    folder = foreign(tmp_path, [row(0, "a", "train"), {**row(1, "a", "train"), **changes}])
    with pytest.raises(UserError, match=message):
        seal_alignment_set(folder)
    assert not (folder / MANIFEST).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio_sha256": "0" * 64}, "damaged or was replaced"),
        ({"duration": 3.0}, r"lasts 0\.05 s, not 3\.00 s"),
        ({"duration": "0.05"}, "column duration is of type string"),
        ({"voice": 7}, "column voice is of type int64"),
        ({"audio": {"bytes": b"no", "path": "x"}, "audio_sha256": sha256_bytes(b"no")}, "not audio"),
    ],
)
def test_files_that_cannot_be_sealed(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        seal_alignment_set(foreign(tmp_path, [{**row(0, "a", "train"), **changes}]))


def test_folders_that_cannot_be_sealed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = (folder / MANIFEST).read_bytes()
    with pytest.raises(UserError, match="not written by sealing"):
        seal_alignment_set(folder)
    assert (folder / MANIFEST).read_bytes() == before
    with pytest.raises(UserError, match="no parquet files"):
        seal_alignment_set(tmp_path_factory.mktemp("empty"))

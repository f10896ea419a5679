"""Files that survive `kill -9`, and records that survive a torn last line."""

import json
import os
from pathlib import Path

import pytest

from rba_bench import files
from rba_bench.errors import MissingPrerequisite


def test_hashes_agree_for_bytes_and_file(tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(b"abc")
    assert files.sha256_file(path) == files.sha256_bytes(b"abc")
    assert files.sha256_bytes(b"abc").startswith("ba7816bf")  # FIPS 180-2, appendix B.1


def test_json_hash_ignores_key_order_but_not_values() -> None:
    assert files.sha256_json({"a": 1, "b": "ä"}) == files.sha256_json({"b": "ä", "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 2})


def test_write_replaces_the_whole_file_and_leaves_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "new" / "record.json"
    files.write_json(target, {"v": 1})
    files.write_json(target, {"v": "ü"})
    assert files.read_json(target) == {"v": "ü"}
    assert [entry.name for entry in target.parent.iterdir()] == ["record.json"]
    assert target.read_bytes().endswith(b"}\n")


def test_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "record"
    files.write_atomic(target, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(target, "new")
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["record"]


def test_torn_last_line_is_not_a_record(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b'{"id": 1}\n\n{"id": 2}\n{"id": 3')
    assert [record["id"] for record in files.read_jsonl(path)] == [1, 2]


def test_missing_file_has_no_records(tmp_path: Path) -> None:
    assert list(files.read_jsonl(tmp_path / "absent.jsonl")) == []


def test_damage_before_the_last_line_is_not_overlooked(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b'{"id": 1\n{"id": 2}\n')
    with pytest.raises(json.JSONDecodeError):
        list(files.read_jsonl(path))


def test_appending_goes_on_behind_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b'{"id": 1}\n{"id": 2')
    with files.JsonlAppender(path) as out:
        out.write({"id": 2}, {"id": 3})
    with files.JsonlAppender(path) as out:
        out.write({"id": 4})
    assert [record["id"] for record in files.read_jsonl(path)] == [1, 2, 3, 4]


def test_file_that_is_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes(b'{"id"')
    with files.JsonlAppender(path) as out:
        out.write({"id": 1})
    assert path.read_bytes() == b'{"id": 1}\n'


def test_record_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with files.JsonlAppender(path) as out:
        out.write({"text": "zwei\nZeilen"})
        assert list(files.read_jsonl(path)) == [{"text": "zwei\nZeilen"}]


def test_sweeping_removes_what_killed_writers_left_and_nothing_else(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    litter = [deep / ".x.json.4194305.tmp", tmp_path / ".part-0.parquet.77.tmp"]
    kept = [deep / f".x.json.{os.getpid()}.tmp", deep / ".notes.tmp", deep / "x.77.tmp", deep / ".gitkeep"]
    for file in [*litter, *kept]:
        file.touch()
    files.sweep(tmp_path, older_than_s=60)
    assert all(file.exists() for file in litter)
    files.sweep(tmp_path)
    assert not any(file.exists() for file in litter) and all(file.exists() for file in kept)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_get_the_permissions_that_the_umask_leaves(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with files.replacing(tmp_path / "model.safetensors") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors does
        private = tmp_path / "private"
        os.close(os.open(private, os.O_CREAT | os.O_WRONLY, 0o600))
        files.open_up(tmp_path)
        assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("model.safetensors", "private")} == {
            mode
        }
    finally:
        os.umask(before)


def test_without_a_home_folder_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("RBA_CACHE", raising=False)
    monkeypatch.setattr(files.Path, "home", staticmethod(homeless))
    with pytest.raises(MissingPrerequisite, match="RBA_CACHE"):
        files.cache_dir()

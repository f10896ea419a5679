"""Faults of the machine become one line with the right exit code; mistakes of the program keep their traceback."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.faults import database_error, explain_fault
from rba_bench.textlm.judging import FILE, VoteCache


class SafetensorError(Exception):
    """As safetensors' own, which is no OSError."""


def wrapped(cause: BaseException) -> Exception:
    try:
        try:
            raise cause
        except BaseException as inner:
            raise ValueError("while saving") from inner
    except ValueError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "x", "/data/run.json"), 1, "no space left on the disk at /data/run.json"),
        (OSError(errno.EDQUOT, "x"), 1, "no space left"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 1, "no space left"),
        (RuntimeError("[enforce fail] PytorchStreamWriter failed writing file"), 1, "no space left"),
        (wrapped(OSError(errno.ENOSPC, "x")), 1, "no space left"),
        (PermissionError(errno.EACCES, "x", "/data/out"), 2, "cannot use /data/out (Permission denied)"),
        (OSError(errno.EROFS, "x", "/data/out"), 2, "Read-only file system"),
        (NotADirectoryError(errno.ENOTDIR, "x", "/data/file/below"), 2, "Not a directory"),
    ],
)
def test_a_fault_of_the_machine_is_explained(error: Exception, code: int, words: str) -> None:
    told = explain_fault(error)
    assert told is not None and told.exit_code == code
    assert words in str(told) and "\n" not in str(told)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        FileNotFoundError(errno.ENOENT, "x", "/data"),
        KeyError("a"),
        RuntimeError("shape"),
        OSError("x"),
    ],
)
def test_a_mistake_of_the_program_is_not(error: Exception) -> None:
    assert explain_fault(error) is None


def test_a_cache_that_cannot_be_written_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_CACHE", "/data/cache")
    monkeypatch.setenv("HF_HOME", "/data/hf")
    for path, variable in (("/data/cache/index/a", "RBA_CACHE"), ("/data/hf/hub", "HF_HOME")):
        told = explain_fault(PermissionError(errno.EACCES, "x", path))
        assert isinstance(told, MissingPrerequisite) and variable in str(told)


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("told by sqlite")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_FULL, RbaError, "no space left"),
        (sqlite3.SQLITE_READONLY, UserError, "cannot be opened or written"),
        (sqlite3.SQLITE_CANTOPEN | 2 << 8, UserError, "cannot be opened or written"),
        (sqlite3.SQLITE_BUSY, RbaError, "locked by another process"),
        (sqlite3.SQLITE_NOTADB, UserError, "damaged"),
        (sqlite3.SQLITE_CORRUPT | 1 << 8, UserError, "damaged"),
        (sqlite3.SQLITE_IOERR | 19 << 8, RbaError, "not full, then run the command again"),
    ],
)
def test_only_a_damaged_database_is_to_be_removed(code: int, kind: type[RbaError], words: str) -> None:
    told = database_error(sqlite_error(code), Path("answers.sqlite"), "remove it")
    assert type(told) is kind and words in str(told)
    assert ("remove it" in str(told)) == (words == "damaged")


def test_real_databases_tell_their_trouble(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 100)
    with pytest.raises(UserError, match="damaged"):
        VoteCache(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot use .*file"):
        VoteCache(tmp_path / "file" / "votes")


@pytest.mark.skipif(os.name != "posix" or not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_really_full_device_is_recognised() -> None:
    with pytest.raises(OSError) as full, open("/dev/full", "w") as device:
        device.write("x")
    assert isinstance(explain_fault(full.value), RbaError)

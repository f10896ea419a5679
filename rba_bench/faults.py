"""Faults of the machine in one line: a full disk, a folder that cannot be written, a damaged database file.

They reach a program as `OSError`, as SQLite's errors, or wrapped by safetensors, torch and pyarrow, from any line that
writes. So they are recognised in one place, by their codes, and not at every write.
"""

import errno
import os
import sqlite3
from pathlib import Path

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import cache_dir

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# of safetensors and pyarrow, of torch where writing fails, and of SQLite
FULL_WORDS = (
    *(f"os error {n}" for n in FULL), "No space left on device", "PytorchStreamWriter", "unexpected pos",
    "iostream error", "database or disk is full",
)  # fmt: skip
REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip
# Primary result codes, https://sqlite.org/rescode.html
_SQLITE_UNWRITABLE = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_SQLITE_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_SQLITE_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_CHAIN = 6  # how far back causes are followed


def is_full(error: BaseException) -> bool:
    """Whether an exception says that a disk is full, or that a quota or a limit of file size is reached."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return any(words in str(error) for words in FULL_WORDS)


def explain_fault(error: BaseException) -> RbaError | None:
    """One line for an exception that comes from the machine; None for one that comes from a mistake in this program."""
    cause: BaseException | None = error
    for _ in range(_CHAIN):
        if cause is None:
            return None
        fault, cause = cause, cause.__cause__ or cause.__context__
        if isinstance(fault, RbaError):
            continue
        if isinstance(fault, sqlite3.Error):
            return database_error(fault, None)
        if isinstance(fault, OSError | RuntimeError) or type(fault).__name__ == "SafetensorError":
            if is_full(fault):
                return RbaError(_no_space(getattr(fault, "filename", None)))
            if isinstance(fault, OSError) and fault.errno in REFUSED and isinstance(fault.filename, str):
                return _explain_refusal(fault)
    return None


def database_error(error: sqlite3.Error, file: Path | None, remedy: str = "move it away") -> RbaError:
    """What an error of SQLite means for the user.

    Args:
        error: As it was raised.
        file: The database, None if it is not known.
        remedy: What to do with a damaged file, and what that costs.
    """
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    name = str(file) if file is not None else "a database of this run"
    if code == sqlite3.SQLITE_FULL or is_full(error):
        return RbaError(_no_space(file))
    if code in _SQLITE_UNWRITABLE:
        return UserError(f"{name} cannot be opened or written ({error}): choose a folder that can be written")
    if code in _SQLITE_BUSY:
        return RbaError(
            f"{name} is locked by another process ({error}): run the command again when that process has ended"
        )
    if code in _SQLITE_DAMAGED:
        return UserError(f"{name} is damaged ({error}): {remedy}")
    # SQLITE_IOERR stands for a full disk too, where shared memory cannot grow
    return RbaError(
        f"{name} cannot be read or written ({error}): check that its disk is there and not full, then run the command "
        "again"
    )


def _no_space(path: object) -> str:
    where = f"the disk at {path}" if path else "the disk"
    return f"no space left on {where}: free some and run the same command again; finished work is kept"


def _explain_refusal(error: OSError) -> RbaError:
    path = Path(str(error.filename))
    refused = f"cannot use {path} ({os.strerror(error.errno or 0)})"
    cache = cache_dir()
    if path.is_relative_to(cache) or cache.is_relative_to(path):
        return MissingPrerequisite(f"{refused}: set RBA_CACHE to a folder that can be written")
    hub = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    if path.is_relative_to(hub) or hub.is_relative_to(path):
        return MissingPrerequisite(f"{refused}: set HF_HOME to a folder that can be written")
    return UserError(f"{refused}: choose a folder or file that can be read and written")

"""Files and paths: written so that `kill -9` at any moment leaves either the old content or the new; names as paths.

A task, a run id or a model's name may come from a file that somebody else wrote. As a path it could climb out of a
folder, replace it (an absolute path), or be one that another system cannot store (`CON`, a trailing dot). `is_name`,
`folder_name`, `is_below` and `inside` say which names may be taken as they are, and how others are written.
"""

import hashlib
import json
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError

_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")
LONGEST = 200  # characters of an identifier; file names hold 255 bytes
LONGEST_PART = 255  # bytes
LONGEST_FOLDER = 120  # bytes of a folder's name
# An identifier: the same on every file system, in every table, in every script. Letters of other alphabets look like
# these and are not.
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+=-]{{0,{LONGEST - 1}}}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\.|\Z)", re.IGNORECASE)


def cache_dir() -> Path:
    """Cache folder, whose content can be made again: `$RBA_CACHE`, by default `~/.cache/rba-bench`."""
    if folder := os.environ.get("RBA_CACHE"):
        return Path(folder)
    try:
        return Path.home() / ".cache" / "rba-bench"
    except RuntimeError as error:
        fix = "set RBA_CACHE to a folder that can be written"
        raise MissingPrerequisite(f"this user has no home folder: {fix}") from error


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """`sha256_file`, remembered in this process as long as size and time of change of the file are the same."""
    stat = path.stat()
    return _sha256_once(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256_once(path: Path, _size: int, _changed_ns: int) -> str:
    return sha256_file(path)


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and without spaces."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON form of `value`."""
    return sha256_bytes(canonical_json(value))


def write_atomic(path: Path | str, data: bytes | str | Iterable[str]) -> None:
    """Write through a temporary file and a rename; readers never see half a file.

    Args:
        path: Where; folders on the way are made.
        data: Bytes, text, or pieces of text that are written one by one.
    """
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        for piece in [data] if isinstance(data, bytes | str) else data:
            handle.write(piece.encode() if isinstance(piece, str) else piece)
        handle.flush()
        os.fsync(handle.fileno())


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary file to write, which takes the place of `path` if all goes well and is removed if not.

    It gets the permissions that the umask leaves, also where a library makes its files private (safetensors does).
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        # Windows refuses it while a virus scanner, say, reads the target: tried for a second
        for _ in range(20 if os.name == "nt" else 0):
            with suppress(PermissionError):
                os.replace(temporary, target)
                return
            time.sleep(0.05)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def exclusive(folder: Path, waiting: str) -> Iterator[None]:
    """Hold the lock beside a folder that is being made; the operating system frees it if the process is killed.

    Args:
        folder: Its parent is made if absent.
        waiting: Line to print where another process holds the lock, which is then waited for.
    """
    from filelock import FileLock, Timeout

    from rba_bench.progress import say

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def link_or_copy(source: Path, place: Path) -> None:
    """Make `source` available as `place`: a link where the system allows one (Windows often does not), else a copy."""
    try:
        place.symlink_to(source)
    except OSError:
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            shutil.copyfile(source, place)


def open_up(folder: Path | str) -> None:
    """Give the files of a folder the permissions that the umask leaves: some libraries write private ones."""
    for file in Path(folder).rglob("*"):
        if file.is_file() and not file.is_symlink():
            os.chmod(file, 0o666 & ~_umask())


def _umask() -> int:
    # Linux tells it; elsewhere it must be set to be read
    with suppress(OSError, IndexError, ValueError), open("/proc/self/status", "rb", buffering=0) as status:
        return int(status.read(4096).split(b"\nUmask:", 1)[1].split(maxsplit=1)[0], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sweep(folder: Path | str, older_than_s: float = 0.0) -> None:
    """Remove temporary files that killed processes have left anywhere under `folder`; this process's own stay.

    Args:
        folder: Where to look.
        older_than_s: Age from which a file is removed: 0 where nobody else writes, otherwise long enough for anybody
            to have finished a file.
    """
    for file in Path(folder).rglob(".*.tmp"):
        writer = _TEMPORARY.fullmatch(file.name)
        if writer is None or int(writer[1]) == os.getpid():
            continue
        with suppress(OSError):  # another process may be faster
            if time.time() - file.stat().st_mtime >= older_than_s:
                file.unlink()


def write_json(path: Path | str, value: Any) -> None:
    """`write_atomic` of indented JSON with a final newline."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Content of a JSON file of our own; for somebody else's see `untrusted.read_untrusted_json`."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_jsonl(path: Path | str) -> Iterator[Any]:
    """Yield the records of a JSON-lines file; a torn last line (a killed writer) is left out."""
    target = Path(path)
    if not target.exists():
        return
    with open(target, "rb") as handle:
        for line in handle:
            if line.endswith(b"\n") and line.strip():
                yield json.loads(line)


class JsonlAppender:
    """Append records to a JSON-lines file, each durable when `write` returns.

    Opening cuts off a torn last line that a killed process left behind, so appending can go on.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = open(self.path, "ab+")  # noqa: SIM115 - closed in close()
        self._handle.seek(0)
        data = self._handle.read()
        if data and not data.endswith(b"\n"):
            self._handle.truncate(data.rfind(b"\n") + 1)
        self._handle.seek(0, os.SEEK_END)

    def write(self, *records: Any) -> None:
        """Append `records`, one line each, and force them to disk together."""
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        self._handle.write(text.encode())
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def __enter__(self) -> "JsonlAppender":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_name(text: object) -> bool:
    """Whether `text` is an identifier that may stand in a path as it is."""
    if not isinstance(text, str):
        return False
    return bool(_NAME.fullmatch(text)) and text[-1] != "." and not _RESERVED.match(text)


def check_name(text: str) -> str:
    """`text`, for pydantic. Raises ValueError where it is no identifier."""
    if not is_name(text):
        allowed = f"letters, digits and . _ + = - (at most {LONGEST})"
        raise ValueError(f"{text[:60]!r} is not a valid name: use {allowed}")
    return text


def folder_name(text: str) -> str:
    """`text` as the name of one folder: letters of any alphabet, digits and `.=+-_`.

    A name that had to be changed ends in a hash of what it was, so that `a/b` and `a-b` do not share a folder.
    """
    safe = re.sub(r"[^\w.=+-]+", "-", unicodedata.normalize("NFC", text)).strip("-.")
    while len(safe.encode(errors="replace")) > LONGEST_FOLDER:
        safe = safe[:-1]
    if safe == text and safe and not _RESERVED.match(safe):
        return safe
    return f"{safe or 'name'}-{sha256_bytes(text.encode(errors='surrogatepass'))[:8]}"


def is_below(name: object) -> bool:
    """Whether a path in somebody's list stays below the folder of the list: relative, and without `..`.

    Links are not followed: the cache of the Hub keeps every file of a data set as a link.
    """
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.parts != ()


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, where that lies below the folder, links followed.

    Raises:
        UserError: it does not, or no such path can be.
    """
    if any(len(part.encode(errors="replace")) > LONGEST_PART for part in name.split("/")):
        raise UserError(f"{name[:80]!r}... is too long for a file name")
    try:
        target, root = folder / name, folder.resolve()
        resolved = target.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, too long a name, links in a circle
        raise UserError(f"{name[:80]!r} is not a path inside {folder}: {error}") from error
    if resolved == root or not resolved.is_relative_to(root):
        raise UserError(f"{name[:80]!r} leads out of {folder}, so it is refused")
    return target

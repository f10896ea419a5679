"""Rows of large parquet files, read by row group: few files open, few row groups kept, safe in threads and forks.

A row of a parquet file cannot be read alone, and to open a file its footer must be parsed, which for a shard of 40,000
rows takes 35 ms and 13 MB. So open files are kept while their footers are small enough together, and the row groups
read last are kept while they fit. Keys hold size and time of the file: a shard that is written again is read anew.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.errors import UserError

FOOTER_GROWTH = 5  # memory of a parsed footer over its size in the file (measured: 13.4 MB of 2.6 MB)
OPEN_BYTES = 256 * 2**20  # parsed footers kept, about
OPEN_FILES = 64  # descriptors
BESIDE_BYTES = 512 * 2**20  # longest file that a row may name instead of holding its bytes

Version = tuple[int, int, int, int]  # device, inode, time in ns, size


def stored_bytes(file: Path, value: Mapping[str, Any] | None) -> bytes | None:
    """The encoded clip of one cell of an undecoded Audio column: embedded, or in a file that the cell names.

    `datasets` writes `{bytes: null, path: NAME}` where the audio was not embedded. NAME is relative to the parquet
    file, or absolute.

    Args:
        file: The parquet file.
        value: `{bytes, path}` of the row, None for a null.

    Returns:
        None where there are no bytes, and no plain file of that name (of at most BESIDE_BYTES).

    Raises:
        OSError: the file is there but cannot be read.
    """
    data, name = (value or {}).get("bytes"), (value or {}).get("path")
    if data or not name:
        return None if data is None else bytes(data)
    beside = file.parent / str(name)
    try:
        usable = beside.is_file() and beside.stat().st_size <= BESIDE_BYTES
    except (OSError, ValueError):  # a name that no file can have
        usable = False
    return beside.read_bytes() if usable else data


def nothing_stored(file: Path, row: int, value: Mapping[str, Any] | None) -> str:
    """Why a row has no clip, and what to do; without folders, for the message goes into records."""
    path = str((value or {}).get("path") or "")
    name = (Path(path).name or path)[:80]
    beside = f", and the file {name!r} is not beside it" if name else ""
    fix = "embed them when writing the file" + (", or put the audio there" if name else "")
    return f"row {row} of {file.name} holds no audio bytes{beside}: {fix}"


class OpenFile:
    """One open parquet file and where its row groups begin.

    Attributes:
        file: for one thread at a time: hold `lock`.
        starts: first row of each row group, and the number of rows, [n + 1].
        weight: estimated bytes of the parsed footer.
    """

    def __init__(self, path: str) -> None:
        import pyarrow.parquet as pq

        self.file = pq.ParquetFile(path)
        metadata = self.file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.starts = np.cumsum([0, *sizes], dtype=np.int64)
        self.weight = FOOTER_GROWTH * metadata.serialized_size
        self.lock = threading.Lock()

    def row_group(self, row: int) -> int:
        """Number of the row group that holds `row`. Raises UserError if no such row exists."""
        if not 0 <= row < self.starts[-1]:
            raise UserError(f"{self.starts[-1]} rows, no row {row}")
        return int(np.searchsorted(self.starts, row, side="right")) - 1


class OpenFiles:
    """The files used last, open. Evicted ones close when nobody reads them any more.

    Args:
        limit: bytes of parsed footers, estimated; the newest file stays whatever it weighs.
    """

    def __init__(self, limit: int = OPEN_BYTES) -> None:
        self.limit = limit
        self._files: OrderedDict[Version, OpenFile] = OrderedDict()
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def get(self, path: Path) -> tuple[Version, OpenFile]:
        """The open file and its version. Raises OSError or pyarrow's errors where it cannot be opened."""
        stat = path.stat()
        version = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        with self._lock:
            if version not in self._files:
                self._files[version] = OpenFile(str(path))
                weight = sum(file.weight for file in self._files.values())
                while len(self._files) > 1 and (weight > self.limit or len(self._files) > OPEN_FILES):
                    weight -= self._files.popitem(last=False)[1].weight
            self._files.move_to_end(version)
            return version, self._files[version]

    def _forget(self) -> None:
        """A forked child starts empty: a lock may have been held by a thread that it does not have."""
        self._files = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._files)


class RowGroupCache:
    """Least-recently-used cache of something made of row groups, such as their audio column or their text.

    Args:
        limit: bytes kept; the newest stays whatever its size.
        files: open files, shared by caches.
    """

    def __init__(self, limit: int, files: OpenFiles) -> None:
        self.limit = limit
        self.nbytes = 0
        self.files = files
        self.groups: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def find(self, path: Path, row: int, columns: tuple[str, ...], tag: str = "") -> tuple[Any, int]:
        """The row group of `row`, of these columns, and the place of `row` in it.

        Raises:
            UserError: no such row.
            OSError, pyarrow.ArrowException: the file cannot be read.
        """
        version, opened = self.files.get(path)
        try:
            group = opened.row_group(row)
        except UserError as error:
            raise UserError(f"{path} has {error}: the reference belongs to another file") from error
        key = (*version, tag, columns, group)
        with self._lock:
            values = self.groups.get(key)
            if values is not None:
                self.groups.move_to_end(key)
        if values is None:
            with opened.lock:
                values = self.read(path, opened, group, columns)
            with self._lock:
                if key not in self.groups:  # else another thread was faster
                    self.groups[key] = values
                    self.nbytes += values.nbytes
                while self.nbytes > self.limit and len(self.groups) > 1:
                    self.nbytes -= self.groups.popitem(last=False)[1].nbytes
        return values, row - int(opened.starts[group])

    def read(self, path: Path, opened: OpenFile, group: int, columns: tuple[str, ...]) -> Any:
        """What is kept of a row group: its table; anything with `nbytes`."""
        return opened.file.read_row_group(group, columns=list(columns), use_threads=False)

    def _forget(self) -> None:
        self.groups = OrderedDict()
        self.nbytes = 0
        self._lock = threading.Lock()


FILES = OpenFiles()

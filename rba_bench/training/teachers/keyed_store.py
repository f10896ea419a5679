"""Entries by key in one SQLite file and in memory: written whole or not at all, by any number of processes.

A rollback journal rather than a write-ahead log: it leaves no files beside the database, and works on shared folders.
A writer that is killed leaves its last transaction undone, which the next reader cleans up.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.faults import database_error
from rba_bench.progress import say

ASKED_AT_ONCE = 500  # variables of a statement; SQLite's own limit was 999 for long
PATIENCE_S = 60.0  # for other writers
MIB = 2**20


class Store:
    """Bytes by key: least recently used first out of memory, never out of the file.

    Args:
        path: the file, made with its folder when it is first written; None keeps entries in memory alone.
        max_bytes: bound of what is kept in memory; without a file it would lose entries, so there it does not apply.

    Attributes:
        hits: keys that were known.
        misses: keys that were not.
    """

    def __init__(self, path: Path | None, max_bytes: int = 512 * MIB) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._memory: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0
        self._connection: sqlite3.Connection | None = None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The entries of those keys that are known.

        Raises:
            UserError: the file is damaged, or cannot be opened.
            RbaError: another process does not let go of it.
        """
        distinct = list(dict.fromkeys(keys))
        entries = {key: self._memory[key] for key in distinct if key in self._memory}
        for key in entries:
            self._memory.move_to_end(key)
        unread = [key for key in distinct if key not in entries]
        read = dict(self._select("SELECT key, value FROM entries WHERE key IN", unread))
        self._keep(read)
        entries |= read
        self.hits += len(entries)
        self.misses += len(distinct) - len(entries)
        return entries

    def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Keep entries, together; of a key that another process has written meanwhile, that one's stays in the file."""
        if self.path is not None and entries:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self._open() as connection:
                    connection.executemany("INSERT OR IGNORE INTO entries VALUES (?, ?)", entries.items())
            except (OSError, sqlite3.OperationalError) as error:  # full, read-only, or locked for a minute
                say(f"what the teacher says is not kept on disk any longer: {error}")
                self.close()
                self.path = None
        self._keep(entries)

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Distinct keys that are unknown, in order; nothing is counted or kept for it."""
        distinct = [key for key in dict.fromkeys(keys) if key not in self._memory]
        there = {row[0] for row in self._select("SELECT key FROM entries WHERE key IN", distinct)}
        return [key for key in distinct if key not in there]

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _keep(self, entries: Mapping[bytes, bytes]) -> None:
        for key, value in entries.items():
            self._bytes += len(value) - len(self._memory.pop(key, b""))
            self._memory[key] = value
        while self.path is not None and self._bytes > self.max_bytes:
            self._bytes -= len(self._memory.popitem(last=False)[1])

    def _select(self, statement: str, keys: Sequence[bytes]) -> list[Any]:
        if self.path is None or not keys or not self.path.exists():
            return []
        rows: list[Any] = []
        try:
            connection = self._open()
            for start in range(0, len(keys), ASKED_AT_ONCE):
                part = keys[start : start + ASKED_AT_ONCE]
                rows += connection.execute(f"{statement} ({','.join('?' * len(part))})", part).fetchall()
        except sqlite3.DatabaseError as error:
            self.close()
            raise database_error(error, self.path, "delete it, it will be made again") from error
        return rows

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            assert self.path is not None  # asked for only with a file
            # a transaction takes its lock when it begins: one that is upgraded later may fail without waiting
            self._connection = sqlite3.connect(self.path, timeout=PATIENCE_S, isolation_level="IMMEDIATE")
            # survives a kill; a power cut costs entries
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
            )
        return self._connection

"""Index of the groups of an alignment set of any size; rows are read when they are asked for.

The index holds 22 bytes a group, the group's id, and 8 bytes a clip. It is written once to `$RBA_CACHE/alignment-index`
and mapped into memory, so a second start reads none of the shards. Rows of one group usually lie together (synthesis
writes them so): one *run*. A set whose groups are scattered has several runs a group.
"""

import os
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.audio.alignment_set import (
    COLUMNS,
    OPTIONAL,
    AlignmentRow,
    AlignmentSet,
    make_row,
    refuse_missing,
)
from rba_bench.audio.parquet import FILES, RowGroupCache
from rba_bench.audio.turns import TURN_TEXTS, TURNS
from rba_bench.errors import UserError
from rba_bench.files import cache_dir, read_json, sha256_json, write_json
from rba_bench.progress import bar

FORMAT = 2
SPLIT_NAMES = ("train", "validation", "test")
ROWS_AT_ONCE = 65_536  # while indexing
TEXT_BYTES = 64 * 2**20  # row groups of text kept in memory
TURN_TOKENS = 64  # more than a chat template writes around the words of an earlier turn and its answer
_SCANNED = ("group_id", "split", "kind", "prompt", "response", "duration", *TURN_TEXTS)
_ARRAYS = ("ids", "order", "first", "shard", "row", "count", "kind", "split", "seconds", "text")
_TEXT = RowGroupCache(TEXT_BYTES, FILES)


@dataclass(frozen=True)
class GroupIndex:
    """Where the groups of one alignment set lie; G groups, R >= G runs of rows, C clips.

    Attributes:
        ids: [G] bytes, group ids in the order of the shards.
        order: [G] uint32, group numbers sorted by id.
        first: [G + 1] uint32, first run of each group.
        shard, row, count: [R] uint32, where a run lies: shard, first row in it, number of rows.
        kind, split: [G] uint8, places in `kinds` and SPLIT_NAMES.
        seconds: [C] float32, durations as the set states them, group by group; NaN where it does not.
        text: [C] uint32, bytes of prompt, response and earlier turns together, which no tokenizer makes more tokens of;
            each turn counts TURN_TOKENS more, for what a chat template writes around it.
        kinds: names of the kinds.
        rows: rows with a response, in all splits.
        unanswered: rows that were left out because they have none.
    """

    ids: np.ndarray
    order: np.ndarray
    first: np.ndarray
    shard: np.ndarray
    row: np.ndarray
    count: np.ndarray
    kind: np.ndarray
    split: np.ndarray
    seconds: np.ndarray
    text: np.ndarray
    kinds: tuple[str, ...]
    rows: int
    unanswered: int

    def find(self, group_id: str) -> int:
        """Number of a group. Raises KeyError if there is none of that id."""
        key = group_id.encode()
        place = bisect_left(self.order, key, key=lambda number: self.ids[number])
        if place == len(self.order) or self.ids[self.order[place]] != key:
            raise KeyError(group_id)
        return int(self.order[place])

    def name(self, number: int) -> str:
        """Id of a group."""
        return bytes(self.ids[number]).decode()

    @cached_property
    def starts(self) -> np.ndarray:
        """[G + 1] int64, place of each group's first clip in the arrays over clips."""
        ends: np.ndarray = np.concatenate([[0], np.cumsum(self.count, dtype=np.int64)])[self.first]
        return ends

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in _ARRAYS)


class IndexedSet:
    """An alignment set, read group by group.

    Every shard is checked against its checksum before a row of it is returned. Shards that passed are remembered in
    `$RBA_CACHE/verified` by path, size, time and checksum, so that a resumed run does not hash again.

    Args:
        data: the set, opened without verifying.
        verify_now: check all shards here rather than each when first touched.

    Raises:
        UserError: a shard is damaged or is not of an alignment set, or a group lies in two splits.
    """

    def __init__(self, data: AlignmentSet, verify_now: bool = True) -> None:
        self.data = data
        self._notes = cache_dir() / "verified" / f"{data.sha256[:24]}.txt"
        self._verified: set[int] = set()
        # marks of shards that any process has verified; a torn line is the mark of nothing
        text = self._notes.read_text("ascii", "replace") if self._notes.is_file() else ""
        self._marks = set(text.split())
        if verify_now:
            self.verify_all()
        self.index = self._load() or self._build()

    def rows(self, number: int, prefix: str = "") -> list[AlignmentRow]:
        """Rows of a group, in the order of the shards; ids are given a prefix."""
        index = self.index
        records: list[tuple[tuple[str, int], dict[str, Any]]] = []
        for run in range(int(index.first[number]), int(index.first[number + 1])):
            shard = int(index.shard[run])
            self.verify(shard)
            records += self._read_run(shard, int(index.row[run]), int(index.count[run]))
        name = index.name(number)
        if any(record["group_id"] != name for _, record in records):
            raise UserError(f"{self.data.path} was changed while in use: start again")
        rows = []
        for (path, row), record in records:
            record["id"], record["group_id"] = prefix + record["id"], prefix + record["group_id"]
            rows.append(make_row(record, path, row))
        return rows

    def verify(self, shard: int) -> None:
        """Check a shard unless that was done before, here or in an earlier process.

        Raises:
            UserError: it is absent or damaged.
        """
        if shard in self._verified:
            return
        mark = self._mark(shard)  # before hashing: a file that changes meanwhile is not remembered
        if mark not in self._marks:
            try:
                self.data.verify(shard)
            except UserError:
                shutil.rmtree(self._folder, ignore_errors=True)  # it may have been made of the damaged rows
                raise
            with suppress(OSError):  # a cache that cannot be written costs time, nothing else
                self._notes.parent.mkdir(parents=True, exist_ok=True)
                with open(self._notes, "ab") as notes:
                    notes.write(f"\n{mark}\n".encode())
        self._verified.add(shard)

    def verify_all(self) -> None:
        """Check all shards, with a bar where there is something to hash."""
        numbers = range(len(self.data.names))
        if unverified := [number for number in numbers if self._mark(number) not in self._marks]:
            with bar("checksums", len(numbers), len(numbers) - len(unverified), "shards") as advance:
                for number in unverified:
                    self.verify(number)
                    advance(1)
        self._verified.update(numbers)

    @cached_property
    def bytes(self) -> int:
        """Size of the shards on disk."""
        return sum(path.stat().st_size for path in self.data.shards)

    def _read_run(self, shard: int, row: int, count: int) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
        import pyarrow as pa

        path = self.data.shards[shard]
        stop = row + count
        while row < stop:
            try:
                table, place = _TEXT.find(path, row, (*COLUMNS, *OPTIONAL))
            except (OSError, pa.ArrowException) as error:
                raise UserError(
                    f"shard {path} cannot be read ({_line(error)}): restore it or make it again"
                ) from error
            part = table.slice(place, stop - row).to_pylist()
            for offset, record in enumerate(part):
                yield (str(path), row + offset), record
            row += len(part)

    def _mark(self, shard: int) -> str:
        """What a verified shard is remembered by. Raises UserError if it is not there."""
        path = self.data.shards[shard]
        if not path.is_file():
            self.data.verify(shard)
        stat = path.stat()
        parts = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
        return sha256_json([*parts, self.data.manifest["checksums"][self.data.names[shard]]])

    @cached_property
    def _folder(self) -> Path:
        """Where the index is kept: named by format, content and the state of the files it was made of."""
        marks = [self._mark(number) for number in range(len(self.data.names))]
        return cache_dir() / "alignment-index" / sha256_json([FORMAT, self.data.sha256, marks])[:24]

    def _load(self) -> GroupIndex | None:
        try:
            facts = read_json(self._folder / "facts.json")
            arrays = {name: np.load(self._folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
            return GroupIndex(**arrays, **{**facts, "kinds": tuple(facts["kinds"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            shutil.rmtree(self._folder, ignore_errors=True)  # torn: made again
            return None

    def _build(self) -> GroupIndex:
        index = build_group_index(self.data)
        scratch = None
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder.parent))
            for name in _ARRAYS:
                np.save(scratch / f"{name}.npy", getattr(index, name))
            facts = {"kinds": list(index.kinds), "rows": index.rows, "unanswered": index.unanswered}
            write_json(scratch / "facts.json", facts)
            os.replace(scratch, self._folder)
        except OSError:  # another process was faster, or the cache cannot be written
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
        return self._load() or index


def build_group_index(data: AlignmentSet) -> GroupIndex:
    """Scan the shards of a set; rows without a response are left out.

    Raises:
        UserError: a shard cannot be read, or the rows of one group differ in kind or split.
    """
    import pyarrow.compute as pc

    parts, kinds, rows, unanswered = [], dict[str, int](), 0, 0
    with bar("alignment index", len(data.shards), unit="shards") as advance:
        for number, path in enumerate(data.shards):
            for start, columns in _batches(path):
                has_words = pc.not_equal(pc.utf8_trim_whitespace(columns["response"]), "").fill_null(False)
                answered = np.asarray(has_words.to_numpy(zero_copy_only=False), dtype=bool)
                parts.append(_runs(path, number, start, columns, answered, kinds))
                rows += int(answered.sum())
                unanswered += int((~answered).sum())
            advance(1)
    if not rows:
        raise UserError(f"alignment set {data.path} has no rows with a response")
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _grouped(data, arrays, tuple(kinds), rows, unanswered)


def _batches(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            refuse_missing(path, file.schema_arrow.names)
            start = 0
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(_SCANNED), use_threads=False):
                yield start, batch
                start += len(batch)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"shard {path} cannot be read ({_line(error)}): restore it or make it again"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _codes(column: Any, names: dict[str, int]) -> np.ndarray:
    """Numbers of the values of a column of few values; new ones are added to `names`."""
    coded = column.dictionary_encode()
    table = [names.setdefault(str(name), len(names)) for name in coded.dictionary.to_pylist()]
    return np.asarray(table, dtype=np.int64)[coded.indices.to_numpy(zero_copy_only=False)]


def _runs(
    path: Path, shard: int, start: int, columns: Any, is_answered: np.ndarray, kinds: dict[str, int]
) -> dict[str, np.ndarray]:
    """Runs of answered rows of one group in a batch that begins at row `start`."""
    import pyarrow as pa

    if any(columns[name].null_count for name in ("group_id", "split", "kind")):
        raise UserError(f"shard {path} has rows without group_id, split or kind")
    try:
        stated = columns["duration"].cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise UserError(f"shard {path}: durations must be numbers of seconds ({_line(error)})") from error
    group = columns["group_id"].dictionary_encode()
    splits = {name: number for number, name in enumerate(SPLIT_NAMES)}
    kind, split = _codes(columns["kind"], kinds), _codes(columns["split"], splits)
    if len(splits) > len(SPLIT_NAMES):
        raise UserError(f"shard {path} has a split {list(splits)[-1]!r}; valid: {', '.join(SPLIT_NAMES)}")
    answered = np.flatnonzero(is_answered)
    number = group.indices.to_numpy(zero_copy_only=False)
    code = np.stack([number[answered], kind[answered], split[answered], answered], axis=1)
    changes = (np.diff(code, axis=0) != [0, 0, 0, 1]).any(axis=1)
    begins = np.flatnonzero(np.concatenate([[True] * bool(len(answered)), changes]))
    heads = code[begins]
    used, places = np.unique(heads[:, 0], return_inverse=True)
    names = [str(name).encode() for name in group.dictionary.take(used).to_pylist()]
    return {
        "ids": np.asarray(names, dtype=np.bytes_)[places] if names else np.zeros(0, "S1"),
        "shard": np.full(len(heads), shard, dtype=np.uint32),
        "row": (heads[:, 3] + start).astype(np.uint32),
        "count": np.diff(np.append(begins, len(answered))).astype(np.uint32),
        "kind": heads[:, 1].astype(np.uint8),
        "split": heads[:, 2].astype(np.uint8),
        "seconds": np.asarray(stated, dtype=np.float32)[answered],  # NaN where none is stated
        "text": _all_text_bytes(columns)[answered],
    }


def _all_text_bytes(columns: Any) -> np.ndarray:
    """Bytes of the texts of each row that a model reads or writes, as in `GroupIndex.text`, [n] uint32."""
    import pyarrow.compute as pc

    own = _text_bytes(columns["prompt"]) + _text_bytes(columns["response"])
    if TURNS not in columns.schema.names:
        return own
    turns = columns[TURNS]
    entries = turns.flatten()
    names = ("instruction", "response")
    sizes = sum((_text_bytes(pc.struct_field(entries, name)) for name in names), TURN_TOKENS)
    before = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    counts = np.asarray(pc.fill_null(pc.list_value_length(turns), 0)).astype(np.int64)
    ends = np.cumsum(counts)
    return (own + before[ends] - before[ends - counts]).astype(np.uint32)


def _text_bytes(column: Any) -> np.ndarray:
    """Length of each text of a column, [n] uint32."""
    import pyarrow.compute as pc

    if column.null_count == len(column):
        return np.zeros(len(column), dtype=np.uint32)
    lengths = pc.fill_null(pc.binary_length(column), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False)).astype(np.uint32)


def _grouped(
    data: AlignmentSet, runs: dict[str, np.ndarray], kinds: tuple[str, ...], rows: int, unanswered: int
) -> GroupIndex:
    """Runs of equal id put together, groups numbered by where they first occur."""
    _, head, member = np.unique(runs["ids"], return_index=True, return_inverse=True)
    number = np.empty(len(head), dtype=np.uint32)
    number[np.argsort(head, kind="stable")] = np.arange(len(head), dtype=np.uint32)
    group = number[member]
    for name in ("kind", "split"):
        if (mixed := np.flatnonzero(runs[name] != runs[name][head][member])).size:
            group_id = bytes(runs["ids"][mixed[0]]).decode()
            raise UserError(
                f"{data.path}: the rows of group {group_id!r} differ in {name}; give each group one"
            )
    placed = np.argsort(group, kind="stable")
    heads = np.sort(head)
    # places of the clips of runs of `count` rows each, in the new order of runs
    lengths = runs["count"][placed].astype(np.int64)
    firsts = (np.cumsum(runs["count"], dtype=np.int64) - runs["count"])[placed]
    clips = np.repeat(firsts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
    return GroupIndex(
        ids=runs["ids"][heads],
        order=number,
        first=np.concatenate([[0], np.cumsum(np.bincount(group))]).astype(np.uint32),
        shard=runs["shard"][placed],
        row=runs["row"][placed],
        count=runs["count"][placed],
        kind=runs["kind"][heads],
        split=runs["split"][heads],
        seconds=runs["seconds"][clips],
        text=runs["text"][clips],
        kinds=kinds,
        rows=rows,
        unanswered=unanswered,
    )

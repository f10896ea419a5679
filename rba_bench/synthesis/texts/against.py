"""Texts of files that a training set must not repeat: `--against FILE`, or `FILE:COLUMN`.

    .txt                one text a line
    .jsonl              one object a line, or one text a line in quotes
    .csv, .tsv          with a header
    .parquet            any columns

The column is the one that is named, else the first of `COLUMNS` that is there, else the only column of texts.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError, first_line

COLUMNS = (
    "instruction", "question", "prompt", "query", "text", "input", "sentence", "transcript", "transcription",
    "source", "user", "problem",
)  # fmt: skip
SUFFIXES = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
_LONGEST_FIELD = 1 << 24  # characters of a CSV field; Python's own limit is shorter than some documents


def read_against(given: str) -> list[str]:
    """The texts of one file, without empty ones.

    Args:
        given: `FILE` or `FILE:COLUMN`.

    Raises:
        MissingPrerequisite: no such file.
        UserError: another kind of file, a damaged one, or no such column.
    """
    path, column = Path(given), ""
    if not path.is_file() and ":" in given:
        name, _, column = given.rpartition(":")
        path = Path(name)
    if not path.is_file():
        raise MissingPrerequisite(f"--against {given}: no file {path}")
    if path.suffix not in SUFFIXES:
        raise UserError(f"--against {path}: what kind of file is it? known are {', '.join(SUFFIXES)}")
    if column and path.suffix == ".txt":
        raise UserError(f"--against {given}: a .txt file has no columns: write {path}")
    try:
        texts = [text.strip() for text in _texts(path, column)]
    except (
        ValueError,
        OSError,
        csv.Error,
    ) as error:  # not UTF-8 and not JSON are ValueErrors, as is bad parquet
        raise UserError(f"--against {path}: cannot be read ({first_line(error)})") from error
    if not any(texts):
        raise UserError(f"--against {path}: holds no texts")
    return [text for text in texts if text]


def _texts(path: Path, column: str) -> Iterable[str]:
    if path.suffix == ".txt":
        return path.read_text(encoding="utf-8-sig").splitlines()
    if path.suffix == ".parquet":
        return _parquet_texts(path, column)
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8-sig").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
        if rows and all(isinstance(row, str) for row in rows):
            return rows
        return _column_of_rows(path, rows, column)
    return _csv_texts(path, column)


def _csv_texts(path: Path, column: str) -> list[str]:
    previous = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t" if path.suffix == ".tsv" else ","))
    finally:
        csv.field_size_limit(previous)
    return list(_column_of_rows(path, rows, column))


def _column_of_rows(path: Path, rows: Sequence[Any], column: str) -> Iterator[str]:
    if not all(isinstance(row, Mapping) for row in rows):
        raise UserError(f"--against {path}: its lines are not all objects with names and values")
    names = list(dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, str)))
    chosen = _choose(path, [name for name in names if isinstance(name, str)], column)
    return (row[chosen] for row in rows if isinstance(row.get(chosen), str))


def _parquet_texts(path: Path, column: str) -> list[str]:
    import pyarrow.parquet as pq
    import pyarrow.types as kinds

    schema = pq.read_schema(path)
    texts = [
        field.name for field in schema if kinds.is_string(field.type) or kinds.is_large_string(field.type)
    ]
    chosen = _choose(path, texts, column)
    values = pq.read_table(path, columns=[chosen])[chosen].to_pylist()
    return [value for value in values if value is not None]


def _choose(path: Path, names: Sequence[str], column: str) -> str:
    """The column to read, of those that hold texts."""
    for name in [column] if column else COLUMNS:
        if name in names:
            return name
    if len(names) == 1 and not column:
        return names[0]
    problem = f"no column {column} of texts" if column else "which column holds the texts?"
    raise UserError(
        f"--against {path}: {problem} It has {', '.join(names) or 'none'}: name one as {path}:COLUMN"
    )

"""Results on stdout, and nothing else there: tables for people, or one JSON value for programs."""

import dataclasses
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rba_bench.untrusted import json_safe, printable, visible_text


def set_utf8_output() -> None:
    """Make stdout UTF-8 with a line feed at the ends of lines on every system, and stderr never fail.

    Windows would take the code page of its region, in which many results cannot be written, and its own line ends.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


def emit(text: str = "") -> None:
    """Print a line of the result on stdout."""
    print(visible_text(text))  # noqa: T201 - this module is the one door to stdout


def emit_json(value: Any) -> None:
    """Print a value as indented JSON on stdout."""
    emit(json_safe(json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)))


def jsonable(value: Any) -> Any:
    """Plain JSON data from pydantic models, dataclasses, paths and containers; NaN and infinity become null."""
    if isinstance(value, BaseModel):
        return jsonable(value.model_dump(mode="json"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return str(value) if isinstance(value, Path) else value


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print aligned columns without wrapping, so that `grep` and `cut` work on them; numbers to the right."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    numeric = [rows and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    for row in [list(columns), ["-" * width for width in widths], *cells]:
        parts = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        emit("  ".join(parts).rstrip())

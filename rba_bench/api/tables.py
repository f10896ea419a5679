"""Rows as pandas tables, as HTML for notebooks, and as text for terminals."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rba_bench.errors import MissingPrerequisite
from rba_bench.installing import package
from rba_bench.untrusted import printable

if TYPE_CHECKING:
    import pandas as pd

Rows = Sequence[Mapping[str, Any]]


def frame(rows: Rows) -> "pd.DataFrame":
    """A table with one line for each row.

    Raises:
        MissingPrerequisite: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingPrerequisite(f"tables need pandas: {package('pandas')}") from error
    return pd.DataFrame([dict(row) for row in rows])


def escaped(value: Any) -> str:
    """A value as text within HTML."""
    return escape(printable(value))


def html(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table for notebooks; everything in it is text."""
    head = "".join(f"<th>{escaped(each)}</th>" for each in headings)
    lines = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    caption = f"<p><b>{escaped(title)}</b></p>" if title else ""
    return f"{caption}<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def text(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The same in columns of equal width."""
    cells = [[printable(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in ([title] if title else []) + lines)

"""Rows as pandas tables, as HTML for notebooks, and as text for terminals."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rba_bench.errors import MissingPrerequisite
from rba_bench.installing import package
from rba_bench.untrusted import printable

if TYPE_CHECKING:
    import pandas as pd


def data_frame(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """A pandas table with one line for each row.

    Raises:
        MissingPrerequisite: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingPrerequisite(f"tables need pandas: {package('pandas')}") from error
    return pd.DataFrame(list(rows))


def html_text(value: Any) -> str:
    """A value as text within HTML: nothing in it is markup."""
    return escape(printable(value))


def html_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table for notebooks; nothing in title and cells is markup."""
    head = "".join(f"<th>{html_text(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{html_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    caption = f"<p><b>{html_text(title)}</b></p>" if title else ""
    return f"{caption}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def text_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table for terminals, in aligned columns."""
    cells = [[printable(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in ([title] if title else []) + lines)

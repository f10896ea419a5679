"""One table of strings, written as Markdown, CSV or a terminal table."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rba_bench.untrusted import csv_cell, plain, printable

if TYPE_CHECKING:
    from rich.table import Table

DIGITS = 12
LONGEST = 2000  # characters of a cell
NOTHING = "-"  # a cell that cannot be filled; never a zero


class Markdown(str):
    """A cell that is Markdown already, made here of safe parts: a link, a code span."""


@dataclass(frozen=True)
class TextTable:
    """Headings and rows of equal length; columns from `numeric_from` on are right-aligned.

    Raises:
        ValueError: a row does not fit the headings.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    numeric_from: int = 1

    def __post_init__(self) -> None:
        if any(len(row) != len(self.headings) for row in self.rows):
            raise ValueError(f"a row of table {self.title!r} does not fit its {len(self.headings)} headings")

    def markdown(self) -> str:
        """GitHub Markdown, without the title."""
        rule = ["---:" if column >= self.numeric_from else "---" for column in range(len(self.headings))]
        lines = [self.headings, rule, *self.rows]
        return "\n".join("| " + " | ".join(map(_markdown_cell, line)) + " |" for line in lines) + "\n"

    def rich(self) -> "Table":
        """The table for a terminal; cells are plain text, so brackets survive."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        title = Text(printable(self.title), style="table.title") if self.title else None
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column, heading in enumerate(self.headings):
            table.add_column(
                Text(printable(heading)), justify="right" if column >= self.numeric_from else "left"
            )
        for row in self.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        return table


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV of equal-keyed rows with Unix line ends; floats to 12 digits, None empty, no text that is a formula.

    Raises:
        ValueError: there are no rows, or their keys differ.
    """
    if not rows:
        raise ValueError("a table without rows cannot be written")
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: csv_cell(rounded(value)) for key, value in row.items()})
    return text.getvalue()


def rounded(value: Any) -> Any:
    """JSON values with every float at 12 significant digits, and none at all below 1e-12.

    The digits behind differ from processor to processor, and a published table should not.
    """
    if isinstance(value, float):
        return float(f"{round(value, DIGITS):.{DIGITS}g}") + 0.0
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _markdown_cell(cell: str) -> str:
    text = printable(cell) if isinstance(cell, Markdown) else plain(cell, LONGEST)
    return text.replace("\\", "\\\\").replace("|", "\\|")

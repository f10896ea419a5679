"""Tables of text, written as Markdown, as CSV or for the terminal, and the way in which numbers are written in them."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rba_bench.untrusted import csv_cell, json_safe, plain, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

K = TypeVar("K")
C = TypeVar("C")
DIGITS = 12
LONGEST = 2000  # characters of a cell
NOTHING = "-"  # a cell that cannot be filled; never a zero
ALL_TEXT = 1000  # `numeric_from` of a table without numbers
SHORT = 8  # hex digits of a hash on a page; records.json has all of them
# What could be emphasis, a strike or an entity; a star between spaces and an underscore within a word are none
_MARKUP = re.compile(r"\*(?=\S)|(?<=\S)\*|(?<![^\W_])_|_(?![^\W_])|~|&(?=[#\w])")
WIDTH = 140  # columns of a table in a file or a pipe, which have no width of their own


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
        lines = []
        for row in (self.headings, rule, *self.rows):
            lines.append(" | ".join(map(_markdown_cell, row)))
        return "".join(f"| {line} |\n" for line in lines)

    def split(self, width: int) -> Iterator["TextTable"]:
        """Tables that fit into a terminal of `width` columns: some numbers each, all with the columns of text."""
        first = self.numeric_from
        if first >= len(self.headings):  # only text, which can be wrapped
            yield self
            return
        columns = list(zip(self.headings, *self.rows, strict=True))
        widths = [
            3 + max(map(len, [*printable(heading).split(), *map(printable, cells)]), default=0)
            for heading, *cells in columns
        ]
        parts: list[list[int]] = [[]]
        for column in range(first, len(columns)):
            if parts[-1] and sum(widths[:first]) + sum(widths[i] for i in (*parts[-1], column)) > width:
                parts.append([])
            parts[-1].append(column)
        for part in parts:
            headings, *rows = zip(*columns[:first], *(columns[i] for i in part), strict=True)
            yield TextTable(headings, rows, self.title, first)

    def rich(self) -> "Table":
        """The table for a terminal; cells are plain text, so brackets survive."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        title = Text(printable(self.title), style="table.title") if self.title else None
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column, heading in enumerate(self.headings):
            justify: Literal["left", "right"] = "right" if column >= self.numeric_from else "left"
            table.add_column(Text(printable(heading)), justify=justify, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        return table


def matrix_table(
    title: str, corner: str, rows: Mapping[K, str], columns: Mapping[C, str], cells: Mapping[tuple[K, C], str]
) -> TextTable:
    """A table of `cells` by row and column; a row without any cell is left out.

    Args:
        title: Title of the table.
        corner: Heading of the first column.
        rows: Text of the first cell of each row.
        columns: Heading of each column.
        cells: What is known; other cells are `-`.
    """
    lines = []
    for row, label in rows.items():
        texts = [cells.get((row, column), NOTHING) for column in columns]
        if any(text != NOTHING for text in texts):
            lines.append([label, *texts])
    return TextTable([corner, *columns.values()], lines, title)


def print_tables(
    tables: Sequence[TextTable], lines: Sequence[str], width: int = WIDTH, console: "Console | None" = None
) -> None:
    """Print tables, then lines of text; by default on stdout, `width` columns wide where that is no terminal."""
    from rich.console import Console
    from rich.text import Text

    if console is None:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=width)
    for table in tables:
        for part in table.split(console.width):
            console.print(part.rich())
    for line in lines:
        console.print(Text(printable(line)))


def number_texts(
    numbers: Iterable[float], factor: float = 1.0, digits: int = 1, signed: bool = False
) -> list[str]:
    """Numbers as they are written in tables, each multiplied by `factor`; a zero has no sign."""
    texts = [f"{number * factor:{'+' if signed else ''}.{digits}f}" for number in numbers]
    return [text if text.strip("+-0.") else text.lstrip("+-") for text in texts]


def interval_text(
    ends: tuple[float, float, float], factor: float = 1.0, digits: int = 1, signed: bool = False
) -> str:
    """`value [low, high]`, see `number_texts`."""
    value, low, high = number_texts(ends, factor, digits, signed)
    return f"{value} [{low}, {high}]"


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


def json_text(value: Any) -> str:
    """JSON of a published file: indented, with a line end, and without letters that change how a page is read."""
    return json_safe(json.dumps(value, indent=1, ensure_ascii=False)) + "\n"


def rounded(value: Any) -> Any:
    """JSON values with every float at 12 significant digits, and none at all below 1e-12.

    The digits behind differ from processor to processor, and a published table should not.
    """
    if isinstance(value, float):
        return float(f"{round(value, DIGITS):.{DIGITS}g}") + 0.0
    if value is None or isinstance(value, str | int):  # most are, and to tell a mapping takes long
        return value
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _markdown_cell(cell: str) -> str:
    """A cell that is shown as it is: neither its bars nor its stars are markup; one that is Markdown keeps its own."""
    written = isinstance(cell, Markdown)
    text = (printable(cell) if written else plain(cell, LONGEST)).replace("\\", "\\\\").replace("|", "\\|")
    return text if written else _MARKUP.sub(r"\\\g<0>", text)

"""Tables of the paper: reported numbers, typed in with their source, checked and rendered. Nothing is measured here.

One YAML file per table. A file names one version of the paper; a table cannot hold two, so versions are never mixed.
"""

import datetime
import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from rba_bench.errors import UserError
from rba_bench.files import write_atomic
from rba_bench.leaderboard.site.reported import ReportedTable, reported_files
from rba_bench.leaderboard.tables import LONGEST, NOTHING, TextTable, csv_text
from rba_bench.untrusted import plain

INDEX = "index.md"
ABOUT = """# The paper's numbers

These numbers are copied from the source named under each table. rba-bench measured none of them, and they must not be
compared with measured numbers: test sets, prompts, judges and n differ or are unknown. The two versions of the paper
differ a lot and never share a column. `-` means not reported. Columns marked *ours* are computed from the copied
numbers. The paper gives no intervals; the half-widths are plain binomial ones at a rate of 50 %.

Made from the YAML files in this folder by `rba-bench leaderboard build --reported`; edit those, not this page.
"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """Where a table was read.

    Attributes:
        evidence: `read in the paper`, or `second-hand` where only somebody's report of it was seen.
    """

    paper: str
    version: Literal["v1", "v2"]
    date: datetime.date
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s<>()\[\]`|]+\z")]
    place: str
    evidence: Literal["read in the paper", "second-hand"]


class PaperRow(_Strict):
    """One row as printed. `average` is the printed average, `misprint` says where the print contradicts itself."""

    name: str
    values: tuple[float | None, ...]
    n: int | None = None
    average: float | None = None
    misprint: str = ""

    def recomputed_average(self) -> float | None:
        """Mean of the row's values, None if one is missing."""
        numbers = [value for value in self.values if value is not None]
        return sum(numbers) / len(numbers) if len(numbers) == len(self.values) else None


class PaperTable(_Strict):
    """One table of one version of the paper.

    Attributes:
        binomial: The values are rates of `n` judged items in %, so a binomial half-width can be given.
        benchmarks: Benchmark, as the tasks of rba-bench name it, by the column or the row that is about it; those whose
            test set the source does not name have none.
    """

    title: str
    source: Source
    metric: str
    higher_is_better: bool
    row_header: str
    columns: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    binomial: bool = False
    notes: tuple[str, ...] = ()
    benchmarks: dict[str, str] = {}

    @model_validator(mode="after")
    def _rows_fit(self) -> "PaperTable":
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(f"{row.name!r} has {len(row.values)} values for {len(self.columns)} columns")
            if self.binomial and row.n is None:
                raise ValueError(f"row {row.name!r} needs n for its binomial half-width")
        unknown = set(self.benchmarks) - {*self.columns, *(row.name for row in self.rows)}
        if unknown:
            raise ValueError(f"benchmarks names {min(unknown)!r}, which is no column and no row")
        return self

    def excerpt(self, benchmarks: Collection[str]) -> "PaperTable | None":
        """The columns, or the rows, that are about one of `benchmarks`; None where there are none."""
        about = {name: benchmark for name, benchmark in self.benchmarks.items() if benchmark in benchmarks}
        places = [place for place, name in enumerate(self.columns) if name in about]
        if places:
            cut = [
                row.model_copy(
                    update={"values": tuple(row.values[place] for place in places), "average": None}
                )
                for row in self.rows
            ]
            rows = [row for row in cut if any(value is not None for value in row.values)]
        else:
            places, rows = list(range(len(self.columns))), [row for row in self.rows if row.name in about]
        columns = tuple(self.columns[place] for place in places)
        changes = {"columns": columns, "rows": tuple(rows), "benchmarks": about}
        return self.model_copy(update=changes) if rows else None


@dataclass(frozen=True)
class PaperBuild:
    """The tables and the files written."""

    tables: dict[str, PaperTable]
    files: tuple[Path, ...]


def load_paper_table(path: Path) -> PaperTable:
    """One table from its YAML file.

    Raises:
        UserError: the file is not a table; the message names the first fault.
    """
    import yaml

    try:
        return PaperTable.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        fault = " ".join(str(error).split())[:300]
        raise UserError(f"{path} is not a table of the paper: {fault}") from error


def build_paper_tables(folder: Path, out: Path | None = None) -> PaperBuild:
    """Render every `*.yaml` of `folder` into `out` (default: the same folder) as `index.md`, a page and one CSV each.

    Raises:
        UserError: there are no tables, or one is malformed.
    """
    tables = {path.stem: load_paper_table(path) for path in sorted(folder.glob("*.yaml"))}
    if not tables:
        raise UserError(f"no tables (*.yaml) in {folder}")
    target = out or folder
    texts = {f"{name}.csv": csv_text(_csv_rows(table)) for name, table in tables.items()}
    texts[INDEX] = ABOUT + "".join(f"\n{_section(name, table)}" for name, table in tables.items())
    files = {name: text.encode() for name, text in texts.items()}
    about = " ".join(ABOUT.split("\n\n")[1].replace("*", "").replace("`", "").split())
    files |= reported_files([reported_table(name, table) for name, table in tables.items()], about)
    for name, content in files.items():
        write_atomic(target / name, content)
    return PaperBuild(tables, tuple(target / name for name in files))


def reported_table(name: str, table: PaperTable) -> ReportedTable:
    """The table for a browser."""
    source = table.source
    return ReportedTable(
        name=name,
        version=source.version,
        table=_text_table(table),
        metric=table.metric,
        place=f"{source.paper}, {source.version} of {source.date}, {source.place}",
        url=source.url,
        evidence=source.evidence
        + ("; n is not reported" if all(row.n is None for row in table.rows) else ""),
        remarks=[*table.notes, *(f"{row.name}: {row.misprint}." for row in table.rows if row.misprint)],
    )


def tables_beside(page: Path, benchmarks: Collection[str]) -> dict[str, dict[str, Any]] | None:
    """Of the tables that a page of reported numbers was made from, what is about `benchmarks`, as JSON values.

    Args:
        page: The page; its tables lie beside it as YAML files.
        benchmarks: Of a board.

    Returns:
        The excerpts by the name of their table; None where there are no tables.
    """
    tables = {}
    for path in sorted(page.parent.glob("*.yaml")):
        with suppress(UserError):  # another file
            tables[path.stem] = load_paper_table(path)
    excerpts = {name: table.excerpt(benchmarks) for name, table in tables.items()}
    found = {name: each.model_dump(mode="json") for name, each in excerpts.items() if each is not None}
    return found if tables else None


def excerpts_from(stored: object) -> list[ReportedTable] | None:
    """What `tables_beside` gave, read from a board's `records.json`, which may be somebody else's.

    Raises:
        UserError: it is something else.
    """
    if stored is None:
        return None
    if not isinstance(stored, Mapping):
        raise UserError("records.json holds reported tables of another form")
    try:
        return [reported_table(plain(name), PaperTable.model_validate(each)) for name, each in stored.items()]
    except ValidationError as error:
        fault = " ".join(str(error).split())[:300]
        raise UserError(f"records.json holds a table of reported numbers that is none: {fault}") from error


def _text_table(table: PaperTable) -> TextTable:
    """The table as shown: printed values, and beside them what can be computed from them."""
    columns = [(table.row_header, [row.name for row in table.rows])]
    for i, name in enumerate(table.columns):
        columns.append((name, [_number_text(row.values[i]) for row in table.rows]))
    if any(row.average is not None for row in table.rows):
        columns.append(("average, printed", [_number_text(row.average) for row in table.rows]))
        columns.append(("average, ours", [_number_text(row.recomputed_average(), 2) for row in table.rows]))
    if any(row.n is not None for row in table.rows):
        columns.append(("n", [_number_text(row.n) for row in table.rows]))
    if table.binomial:
        columns.append(
            ("95 % half-width, ours", [f"±{half_width(row.n):.1f}" for row in table.rows if row.n])
        )
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    return TextTable([heading for heading, _ in columns], rows, title=table.title)


def half_width(n: int) -> float:
    """Half-width in points of the 95 % binomial interval of a rate of 50 % over `n` items (normal approximation)."""
    return 100 * 1.96 * math.sqrt(0.25 / n)


def _section(name: str, table: PaperTable) -> str:
    """Heading, source, table and remarks of one table, in Markdown."""

    def text(typed: str) -> str:
        return plain(typed, LONGEST)

    source = table.source
    origin = (
        f"{text(table.metric)}. Source: {text(source.paper)}, {source.version} of {source.date}, {text(source.place)}, "
        f"{source.url}; {source.evidence}. Data: `{name}.yaml`, `{name}.csv`."
    )
    if all(row.n is None for row in table.rows):
        origin += " n is not reported."
    blocks = [f"## {source.version}, {text(table.title)}", origin, _text_table(table).markdown().rstrip("\n")]
    remarks = [*map(text, table.notes)]
    remarks += [f"{text(row.name)}: {text(row.misprint)}." for row in table.rows if row.misprint]
    blocks += ["\n".join(f"- {remark}" for remark in remarks)] if remarks else []
    return "\n\n".join(blocks) + "\n"


def _csv_rows(table: PaperTable) -> list[dict[str, Any]]:
    source = table.source
    return [
        {
            "version": source.version,
            "place": source.place,
            "evidence": source.evidence,
            "row": row.name,
            "column": column,
            "value": value,
            "n": row.n,
            "metric": table.metric,
            "date": source.date,
            "url": source.url,
        }
        for row in table.rows
        for column, value in zip(
            (*table.columns, "average, printed"), (*row.values, row.average), strict=True
        )
        if column in table.columns or row.average is not None
    ]


def _number_text(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return NOTHING
    return str(value) if digits is None else f"{value:.{digits}f}"

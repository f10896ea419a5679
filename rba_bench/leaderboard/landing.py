"""`rba-bench leaderboard index`: the first page of several leaderboards, with the answer of each.

It reads what the boards say of themselves, `records.json` of a board and `study.json` of a study, and the tables of a
paper. Boards of different tracks never share a table, and they share none here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from rba_bench.errors import UserError
from rba_bench.files import write_atomic
from rba_bench.leaderboard.board_files import RECORDS
from rba_bench.leaderboard.loaded_runs import MODEL
from rba_bench.leaderboard.pages import MICRO, PUBLISHED, first_and_last_day
from rba_bench.leaderboard.paper import load_paper_table
from rba_bench.leaderboard.site.front import count
from rba_bench.leaderboard.site.shell import PAGE, SHELL_FILES, render_page, site_assets
from rba_bench.untrusted import plain, read_untrusted_json

STUDY = "study.json"
DEEPEST = 2  # folders below the one that is indexed: a track, and its study
MEASURED, REPORTED = "measured", "reported"
TOLD = 2_000  # characters of an answer
_Text = Annotated[str, Field(max_length=TOLD), AfterValidator(partial(plain, limit=TOLD))]


class _Row(BaseModel):
    model: _Text
    kind: _Text
    date: _Text


class _Section(BaseModel):
    task: _Text
    rows: list[_Row]


class _Answer(BaseModel):
    sentence: _Text = ""
    caution: _Text = ""


class _Board(BaseModel):
    track: _Text
    answer: _Answer = _Answer()
    sections: list[_Section] = Field(min_length=1)


class _Recipe(BaseModel):
    track: _Text


class _Study(BaseModel):
    recipe: _Recipe
    answer: _Answer = _Answer()


@dataclass(frozen=True)
class Entry:
    """One leaderboard on the page.

    Attributes:
        title: As on its own page.
        address: Of its page, as seen from the index.
        kind: `measured`, or `reported` where the numbers were copied from a paper.
        answer: What came out.
        facts: How much was compared, and when.
        note: What a reader should know first, "" for nothing.
    """

    title: str
    address: str
    kind: str
    answer: _Answer
    facts: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class IndexResult:
    """The page as it was written.

    Attributes:
        page: The page.
        files: The page with its styles.
        boards: Folders of the leaderboards, as seen from the page.
    """

    page: Path
    files: tuple[Path, ...]
    boards: tuple[str, ...]


def build_index(folder: Path) -> IndexResult:
    """Write the first page of the leaderboards in `folder`, as `index.html` with its styles.

    Args:
        folder: Holds the leaderboards, such as `leaderboards`: boards, studies and tables of papers, each in a folder
            of its own, studies also in the folder of their track.

    Raises:
        UserError: there is none, one is damaged, or `folder` is itself a leaderboard.
    """
    if not folder.is_dir():
        raise UserError(f"{plain(folder)} is no folder")
    if _kind(folder):
        raise UserError(f"{plain(folder)} is itself a leaderboard: name the folder that it lies in")
    entries = sorted(_entries(folder, folder, DEEPEST), key=lambda each: (each.kind, each.address))
    if not entries:
        raise UserError(f"no leaderboard in {plain(folder)}: build one with rba-bench leaderboard build")
    page = render_page("landing.html.jinja", title="Leaderboards", root="", entries=entries)
    files = {PAGE: page.encode(), **site_assets(*SHELL_FILES)}
    for name, content in files.items():
        write_atomic(folder / name, content)
    boards = tuple(each.address.removesuffix(f"/{PAGE}") for each in entries)
    return IndexResult(folder / PAGE, tuple(folder / name for name in files), boards)


def _kind(folder: Path) -> str:
    """Name of the file that makes a folder a leaderboard, "" where it is none; `*.yaml` for tables of a paper."""
    for name in (RECORDS, STUDY):
        if (folder / name).is_file():
            return name
    return "*.yaml" if (folder / PAGE).is_file() and any(folder.glob("*.yaml")) else ""


def _entries(folder: Path, top: Path, depth: int) -> Iterator[Entry]:
    for below in sorted(folder.iterdir()):
        if below.is_symlink() or not below.is_dir() or below.name == PUBLISHED:
            continue
        if kind := _kind(below):
            try:
                yield _entry(below, kind, quote(f"{below.relative_to(top).as_posix()}/{PAGE}"))
            except (ValidationError, ValueError) as error:
                raise UserError(f"{plain(below / kind)} is not of a leaderboard: build it again") from error
        if depth > 1:
            yield from _entries(below, top, depth - 1)


def _entry(folder: Path, kind: str, address: str) -> Entry:
    if kind == RECORDS:
        return _of_board(_Board.model_validate(read_untrusted_json(folder / RECORDS)), address)
    if kind == STUDY:
        study = _Study.model_validate(read_untrusted_json(folder / STUDY))
        return Entry(f"Study, {study.recipe.track} track", address, MEASURED, study.answer)
    tables = [load_paper_table(path) for path in sorted(folder.glob("*.yaml"))]
    papers = dict.fromkeys(table.source.paper for table in tables)
    answer = _Answer(sentence=f"Numbers that {', '.join(papers)} reports; rba-bench measured none of them.")
    return Entry("The paper's numbers", address, REPORTED, answer, [count(len(tables), "table")])


def _of_board(board: _Board, address: str) -> Entry:
    rows = [row for section in board.sections for row in section.rows]
    models = {row.model for row in rows if row.kind == MODEL}
    facts = [
        count(len(models), "model"),
        count(len({row.model for row in rows} - models), "reference"),
        count(len({section.task for section in board.sections}), "task"),
        f"runs of {first_and_last_day(row.date for row in rows)}",
    ]
    note = MICRO.replace("**", "") if board.track == "micro" else ""
    return Entry(f"Leaderboard, {board.track} track", address, MEASURED, board.answer, facts, note)

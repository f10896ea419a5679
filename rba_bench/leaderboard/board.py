"""`rba-bench leaderboard build`: run records in, a folder out that can be published and built again from itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from rba_bench.errors import UserError
from rba_bench.files import inside, write_atomic
from rba_bench.leaderboard.board_files import INDEX, RECORDS, UNFINISHED, board_warnings, render_board
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.comparing import compare_runs_by_task
from rba_bench.leaderboard.equal_length import estimate_equal_length
from rba_bench.leaderboard.loaded_runs import (
    LoadedRun,
    find_runs,
    find_unfinished_runs,
    open_run,
    without_copies,
)
from rba_bench.leaderboard.pages import PUBLISHED, reference_notes, summary_tables
from rba_bench.leaderboard.paper import tables_beside
from rba_bench.leaderboard.publishing import keep_beside, publish
from rba_bench.leaderboard.site.build import NAMES as SITE_FILES
from rba_bench.leaderboard.site.clips import PER_TASK, choose_clips, clip_file, published_hashes
from rba_bench.leaderboard.site.shell import PAGE
from rba_bench.leaderboard.tables import SHORT, TextTable, print_tables
from rba_bench.leaderboard.verified_records import VerifiedRecords, refuse_differing_items, verify_once
from rba_bench.leaderboard.worker_processes import worker_processes, worthwhile_workers
from rba_bench.progress import say
from rba_bench.untrusted import read_untrusted_json

if TYPE_CHECKING:
    from rich.console import Console

FULL = "full"  # the track whose tasks are benchmarks as others report them; those of the other tracks are small forms

# What a board may hold; a list in somebody's records.json must not delete anything else
_BOARD_FILE = re.compile(
    rf"index\.md|[\w.=+-]+\.csv|{SITE_FILES}|"
    rf"{PUBLISHED}/[\w.=+-]+/[\w.=+-]+/(run\.json|samples\.jsonl\.gz|submission\.json|attestation\.json)"
)


@dataclass(frozen=True)
class BuildResult:
    """A board as it was built.

    Attributes:
        out: The folder.
        files: Everything written in it.
        groups: The compared runs, one group per section.
        warnings: What a reader should know: unfinished runs, partial runs, a missing baseline.
        data: Content of `records.json`.
    """

    out: Path
    files: tuple[Path, ...]
    groups: tuple[BoardGroup, ...]
    warnings: tuple[str, ...]
    data: dict[str, Any]

    @property
    def tables(self) -> list[TextTable]:
        """The summary tables."""
        return summary_tables(self.groups)


def build_board(
    records: Sequence[Path],
    out: Path,
    baseline_row: str | None = None,
    allow_partial: bool = False,
    ceiling: str | None = None,
    equal_length: bool = False,
    workers: int | None = 1,
    verify_again: bool = False,
    reported_page: str | None = None,
    clips: int | None = None,
) -> BuildResult:
    """Verify run records, compare them, and write the board.

    Every record is computed again from its responses first (see `verify`): one that does not follow from them, or was
    made by another version of its task, is refused. Where the board in `out` is among the records, what is not said is
    as it was there, so that a board can be made again, or be given one more record, by its folder alone.

    Args:
        records: `run.json` files, run folders, or folders searched for them.
        out: Folder to write; files of an earlier build that no longer belong to it are removed.
        baseline_row: Model (or training method) that the others are compared with; by default `sft`.
        allow_partial: Take in runs with `--limit`, marked as partial, instead of refusing.
        ceiling: Name of the text LLM that modality gaps are measured from, where several were run.
        equal_length: Estimate win rates at equal length from the runs of each table, where these are enough.
        workers: Processes; None for one a core where the records are many. Their number changes no byte. A script
            that asks for several needs `if __name__ == "__main__":`, as for all of multiprocessing.
        verify_again: Verify records, too, that passed before, see `verified_records`.
        reported_page: Address of a page of reported numbers that the front page links to, as seen from `out`. Where it
            lies on the disk, beside the tables that it was made from, those of the board's benchmarks are shown.
        clips: Clips of each test set that lie beside the pages, where its licence allows that; 0 for none, by default
            20.

    Raises:
        UserError: no finished runs, a partial, damaged or contradictory one, runs of two tracks, or an unknown ceiling.
    """
    earlier = _EarlierBoard.extended_by(records, out)
    baseline = earlier.baseline if baseline_row is None else baseline_row
    ceiling = ceiling or earlier.ceiling
    equal_length = equal_length or earlier.equal_length
    reported_page = earlier.reported_page if reported_page is None else reported_page
    clips = earlier.clips if clips is None else clips
    runs = without_copies([open_run(folder) for folder in find_runs(records, out)])
    keep_beside(runs, out)
    first: dict[str, LoadedRun] = {}
    for run in runs:
        run.share(first.setdefault(run.record.task, run))
    count = worthwhile_workers(sum(run.record.n for run in runs)) if workers is None else workers
    with worker_processes(count) as mapped:
        known = VerifiedRecords(None) if verify_again else VerifiedRecords.of_this_code()
        verified, compared = verify_once(runs, known, mapped, (baseline, ceiling))
        refuse_differing_items(runs, verified)
        if not allow_partial:
            _refuse_partial(runs)
        groups = compare_runs_by_task(runs, baseline, ceiling, mapped, compared)
        runs = [run for group in groups for run in group.all_runs]
        estimates = [estimate_equal_length(group) for group in groups] if equal_length else []
        unfinished = tuple(f"{folder} {UNFINISHED}" for folder in find_unfinished_runs(records))
        warnings = unfinished + board_warnings(groups, baseline, estimates)
        options: dict[str, Any] = {
            "ceiling": ceiling,
            "allow_partial": allow_partial,
            "equal_length": equal_length,
        }
        options |= {"clips": clips} if clips != PER_TASK else {}
        options |= _reported_options(out, reported_page, groups, earlier)
        chosen = choose_clips(groups, clips, out, _hashes_of_clips(out))
        for note in chosen.notes:
            say(f"without some clips: {note}")
        contents, data = render_board(runs, groups, warnings, options, estimates, chosen.hashes, mapped)
        contents |= {clip_file(name): content for name, content in chosen.files.items()}
        targets = {name: inside(out, name) for name in contents}
        stale = _stale_files(out, set(data["files"]))
        publish(runs, {run: verified[run.record_sha256].packed for run in runs}, out, mapped)
    _remove(stale, out)
    for name, content in contents.items():
        write_atomic(targets[name], content)
    return BuildResult(out, tuple(out / name for name in data["files"]), groups, warnings, data)


@dataclass(frozen=True)
class _EarlierBoard:
    """What `records.json` says of how a board was built; the defaults where there is none."""

    baseline: str = "sft"
    ceiling: str | None = None
    equal_length: bool = False
    reported_page: str = ""
    reported_tables: dict[str, Any] | None = None
    clips: int = PER_TASK

    @classmethod
    def extended_by(cls, records: Sequence[Path], out: Path) -> "_EarlierBoard":
        """The board in `out`, if it is among the records."""
        if not any(path.resolve().is_relative_to(out.resolve()) for path in records):
            return cls()
        try:
            data = read_untrusted_json(out / RECORDS)
            options = data.get("options") or {}
            known = {field.name: options[field.name] for field in fields(cls) if field.name in options}
            return TypeAdapter(cls).validate_python(known | {"baseline": data["baseline"]})
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{out / RECORDS} is not of a leaderboard: choose another --out") from error


def _reported_options(
    out: Path, page: str, groups: Sequence[BoardGroup], earlier: _EarlierBoard
) -> dict[str, Any]:
    """The page of reported numbers and, where its tables can be read, what they say of the benchmarks of the board.

    A page on the web has no tables here; where those of a page on the disk are gone, what the board held stays.
    """
    if not page:
        return {}
    tables = None
    if "://" not in page:
        benchmarks = {group.record.benchmark for group in groups if group.record.track == FULL}
        tables = tables_beside((out / page).resolve(), benchmarks)
        if tables is None and page == earlier.reported_page:
            tables = earlier.reported_tables
    return {"reported_page": page} | ({} if tables is None else {"reported_tables": tables})


def _hashes_of_clips(out: Path) -> dict[str, str]:
    """The clips that an earlier build left in `out`."""
    try:
        return published_hashes(read_untrusted_json(out / RECORDS).get("clips", {}))
    except (FileNotFoundError, ValueError, AttributeError):
        return {}  # none, or another file, which `_stale_files` refuses


def _refuse_partial(runs: Sequence[LoadedRun]) -> None:
    for run in runs:
        if run.record.partial:
            raise UserError(
                f"{run.folder} is partial (--limit {run.record.limit}) and would mislead on a board: "
                "evaluate it without --limit, or pass --allow-partial to have it marked"
            )


def _remove(files: Sequence[Path], out: Path) -> None:
    """Remove files of an earlier build; none that a link leads out to."""
    for file in files:
        if file.is_file() and file.resolve().is_relative_to(out.resolve()):
            file.unlink()


def _stale_files(out: Path, current: set[str]) -> list[Path]:
    """What an earlier build listed as its own and this one does not write; nothing that no build makes."""
    if not (out / RECORDS).is_file():
        return []
    try:
        names = read_untrusted_json(out / RECORDS)["files"]
        return [out / name for name in names if name not in current and _BOARD_FILE.fullmatch(name)]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{out / RECORDS} is not of a leaderboard: choose another --out") from error


def print_board(result: BuildResult, console: "Console | None" = None) -> None:
    """Print the summary tables, the warnings and the path of the full board; by default on stdout."""
    tasks = [
        f"- {group.task}, n = {group.record.n}, {group.protocol_hash[:SHORT]}, {group.record.created[:10]}"
        for group in result.groups
    ]
    lines = (
        *reference_notes(result.groups),
        *result.warnings,
        "Scores have 95 % intervals; * marks an interval that excludes zero. Task, n, protocol hash, date:",
        *tasks,
        f"Page: {result.out / PAGE}; tables: {result.out / INDEX}",
    )
    print_tables(result.tables, lines, console=console)

"""`rba-bench leaderboard submit`: a run checked as a reviewer would, packed as a pull request adds it, and previewed.

    leaderboards/<track>/records/<model>/<run id>/{run.json, samples.jsonl.gz, submission.json}

That is what a submission adds, and nothing else. `submission.json` marks the record as sent in, see `provenance`; an
attestation is never packed, as it is for the maintainers to make. The board around it (tables, pages) is built again by
the maintainers from all records.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.cards import last_path_part
from rba_bench.errors import UserError
from rba_bench.evaluation.records import MARK_FILE, PACKED_FILE, RUN_FILE, pack_samples
from rba_bench.files import inside, write_atomic
from rba_bench.leaderboard.board_files import RECORDS, UNFINISHED, board_warnings
from rba_bench.leaderboard.board_groups import BoardGroup, group_key, group_runs, table_key
from rba_bench.leaderboard.loaded_runs import (
    MODEL,
    LoadedRun,
    find_runs,
    find_unfinished_runs,
    kind_of_run,
    load_checked_run,
    without_copies,
)
from rba_bench.leaderboard.pages import PUBLISHED, published_folder, section_table
from rba_bench.leaderboard.provenance import MARK
from rba_bench.leaderboard.tables import SHORT, TextTable
from rba_bench.leaderboard.test_sets import shared_test_set_faults, shipped_task
from rba_bench.leaderboard.verify import LONGEST, SHOWN, RecordVerdict, verify_run
from rba_bench.untrusted import plain, read_untrusted_json

BOARDS = Path("leaderboards")
RERUN = "rba-bench leaderboard verify {folder} --rerun 5"


@dataclass(frozen=True)
class Submission:
    """Runs as they would stand on a board.

    Attributes:
        runs: Those that may be added.
        refused: Why others may not, one line each.
        notes: What a reviewer should know, in sentences.
        tables: For each protocol that a new run belongs to, all rows of its table, the new ones marked.
    """

    runs: tuple[LoadedRun, ...]
    refused: tuple[str, ...]
    notes: tuple[str, ...]
    tables: tuple[TextTable, ...]

    @property
    def ok(self) -> bool:
        """Whether everything may be added."""
        return bool(self.runs) and not self.refused

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "ok": self.ok,
            "runs": [
                {"folder": str(run.folder), "model": run.record.model["name"], "task": run.record.task,
                 "run_id": run.record.run_id, "published": published_path(run)}
                for run in self.runs
            ],
            "refused": list(self.refused),
            "notes": list(self.notes),
            "tables": [
                {"title": table.title, "headings": list(table.headings), "rows": [list(row) for row in table.rows]}
                for table in self.tables
            ],
        }  # fmt: skip


def published_path(run: LoadedRun) -> str:
    """Where a run lies below the folder of all boards."""
    return f"{run.record.track}/{published_folder(run)}"


def check_submission(paths: Sequence[Path], boards: Path, data_dir: Path | None = None) -> Submission:
    """Check runs, and compare them with the board that they would join.

    Args:
        paths: Run folders, or folders that contain them.
        boards: Folder of all boards, `<boards>/<track>/records/...`; it may be absent.
        data_dir: Folder with local copies of public data sets.

    Raises:
        UserError: a path does not exist, no run is there, or the board itself is damaged.
    """
    refused = [
        f"{folder} {UNFINISHED}: repeat its command to finish it" for folder in find_unfinished_runs(paths)
    ]
    loaded: list[LoadedRun] = []
    try:
        folders = find_runs(paths)
    except UserError:
        if not refused:
            raise
        folders = []
    for folder in folders:
        try:
            loaded.append(load_checked_run(folder))
        except UserError as error:
            refused.append(_about(folder, str(error)))
    # A control needs its full run, which may be new too
    loaded.sort(key=lambda run: bool(run.record.audio_control))
    present = [run for track, task in _places(loaded) for run in _board_runs(boards / track, task)]
    shared = shared_test_set_faults([*present, *loaded])
    runs: list[LoadedRun] = []
    notes: list[str] = []
    for position, run in enumerate(loaded, start=len(present)):
        verdict = verify_run(run, data_dir, shared.get(position, ()))
        if reason := _refusal(run, verdict, present + runs):
            refused.append(_about(run.folder, reason))
            continue
        runs.append(run)
        notes += [
            f"{run.name} on {run.record.task}: {note}" for note in (*verdict.notes, *_record_notes(run))
        ]
        notes += _board_notes(run, present)
    tables: list[TextTable] = []
    for track in sorted({run.record.track for run in runs}):
        made, about = _tables(boards / track, track, present, runs)
        tables += made
        notes += about
    return Submission(tuple(runs), tuple(refused), tuple(dict.fromkeys(notes)), tuple(tables))


def pack_submission(submission: Submission, boards: Path) -> list[Path]:
    """Write the runs of a submission below the folder of all boards.

    Returns:
        The folders of the runs.

    Raises:
        UserError: a run is refused, so nothing is written; a path leads out of the folder.
    """
    if not submission.ok:
        raise UserError("a submission with a refused run is not packed: leave that run out, or correct it")
    contents: dict[Path, bytes] = {}
    folders = []
    for run in submission.runs:
        folders.append(inside(boards, published_path(run)))
        files = {RUN_FILE: run.record_bytes, PACKED_FILE: pack_samples(run.sample_bytes), MARK_FILE: MARK}
        for name, data in files.items():
            contents[inside(boards, f"{published_path(run)}/{name}")] = data
    for path, data in contents.items():
        write_atomic(path, data)
    return folders


def _about(folder: Path, reason: str) -> str:
    """A reason as one line that names the folder once."""
    text = reason.removeprefix(f"{folder}: ").removeprefix(f"{folder / RUN_FILE} ")
    return f"{folder}: {plain(text, LONGEST)}"


def _places(runs: Sequence[LoadedRun]) -> list[tuple[str, str]]:
    return sorted({(run.record.track, run.record.task) for run in runs})


def _board_runs(board: Path, task: str) -> list[LoadedRun]:
    """Runs of a task on a board; a run lies in a folder that begins with its task."""
    files = sorted((board / PUBLISHED).glob(f"*/{task}-*/{RUN_FILE}"))
    found = without_copies([load_checked_run(file.parent) for file in files])
    return [run for run in found if run.record.task == task]


def _refusal(run: LoadedRun, verdict: RecordVerdict, others: Sequence[LoadedRun]) -> str:
    """Why a run may not be added, "" if it may."""
    record = run.record
    if verdict.faults:
        more = len(verdict.faults) - SHOWN
        return "; ".join(verdict.faults[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
    if verdict.unscored:
        return f"its scores cannot be computed again here: {verdict.unscored}"
    if record.partial:
        return f"it is partial (--limit {record.limit}): evaluate without --limit"
    if shipped_task(record.task) is None:
        return f"task {record.task} does not come with rba-bench, so nobody could compare its protocol"
    if record.audio_control:
        full = [other for other in others if group_key(other.record) == table_key(record)]
        try:
            group_runs([*full, run], "")
        except UserError as error:
            return str(error).removeprefix(f"{run.folder} ")
    for other in others:
        if published_path(other).casefold() == published_path(run).casefold():
            same = other.record_bytes == run.record_bytes
            return (
                "it is on the board already" if same else f"another record of this run is in {other.folder}"
            )
    return ""


def _record_notes(run: LoadedRun) -> Iterator[str]:
    """What the record says that its author may not want to publish, or that may mislead."""
    name = str(run.record.model["name"])
    if not name.isascii():
        escaped = name.encode("ascii", "backslashreplace").decode()
        yield f"its name has letters beyond ASCII, which may look like others: {plain(escaped)}"
    for path in sorted(set(_absolute_paths(run.record.model_dump()))):
        yield f"the record holds a path of the machine that made it, which will be public: {plain(path)}"


def _absolute_paths(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _absolute_paths(item)
    elif isinstance(value, str) and last_path_part(value) != value:
        yield value


def _board_notes(run: LoadedRun, present: Sequence[LoadedRun]) -> Iterator[str]:
    """How a run relates to those on the board."""
    record, about = run.record, f"{run.name} on {run.record.task}"
    if record.audio_control:
        yield f"{about}: a control without the speech ({record.audio_control}), which is no row of its own"
        return
    same_group = [other for other in present if group_key(other.record) == group_key(record)]
    for other in same_group:
        if other.name == run.name:
            yield f"{about}: the board has {other.record.run_id} of a model of this name; both rows will stand"
        elif kind_of_run(run) == MODEL == kind_of_run(other) and _weights(run) == _weights(other):
            yield f"{about}: {other.name} on the board has the same weights"
    same_task = [
        other for other in present if other.record.task == record.task and not other.record.audio_control
    ]
    if same_task and not same_group:
        keys = sorted(_differing(record.protocol_spec, same_task[0].record.protocol_spec))
        what = f"its protocol differs in {plain(', '.join(keys))}" if keys else "its test set differs"
        yield f"{about}: begins a table of its own, as {what} from the records on the board"


def _weights(run: LoadedRun) -> Any:
    model = run.record.model
    return model.get("weights_sha256"), model.get("template")


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> set[str]:
    return {str(key) for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


def _tables(
    board: Path, track: str, present: Sequence[LoadedRun], runs: Sequence[LoadedRun]
) -> tuple[list[TextTable], list[str]]:
    """Tables that the new runs of a track join, and what `leaderboard build` would warn of."""
    on_track = [run for run in [*present, *runs] if run.record.track == track]
    new = {id(run) for run in runs}
    keys = {table_key(run.record) for run in runs}
    baseline = _baseline(board)
    groups = group_runs([run for run in on_track if table_key(run.record) in keys], baseline)
    return [_marked(group, new) for group in groups], list(board_warnings(groups, baseline))


def _marked(group: BoardGroup, new: set[int]) -> TextTable:
    table = section_table(group)
    marks = [
        "new"
        if id(row.run) in new
        else "new control"
        if any(id(control) in new for control in row.controls.values())
        else ""
        for row in group.rows
    ]
    rows = [[mark, *cells] for mark, cells in zip(marks, table.rows, strict=True)]
    record = group.record
    title = f"{table.title}, {record.protocol} decoding, protocol {group.protocol_hash[:SHORT]}"
    return TextTable(["", *table.headings], rows, title, table.numeric_from + 1)


def _baseline(board: Path) -> str:
    """The row that a board compares with; `sft` where there is no board yet."""
    try:
        return str(read_untrusted_json(board / RECORDS)["baseline"])
    except FileNotFoundError:
        return "sft"
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{board / RECORDS} is not of a leaderboard: build it again") from error

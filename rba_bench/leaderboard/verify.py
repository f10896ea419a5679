"""`rba-bench leaderboard verify`: whether a record follows from its own responses, and which of it nobody can tell.

Everything that is a function of responses, references and votes is computed again: the scored part of each response,
item scores, statuses, metrics, intervals, breakdowns, reports of judges, hashes, seeds, run ids. What was asked is
compared with the task of that name, with its test set where this machine has it, and with other records on that set.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import task_registry
from rba_bench.evaluation.records import RUN_FILE, RunRecord
from rba_bench.leaderboard import checks, loaded_runs, test_sets
from rba_bench.leaderboard.loaded_runs import Run
from rba_bench.leaderboard.recompute import UNSCORABLE, recompute
from rba_bench.untrusted import plain

CANNOT_KNOW = (
    "whether the responses are the model's own (--rerun N asks it again)",
    "whether the weights are those of the name, and how they were trained",
    "whether a server or a judge failed, or a clip of a set that is not at hand was unusable, where it is said so",
    "hardware, versions, speed and date",
)
SHOWN = 3


@dataclass(frozen=True)
class Verdict:
    """What was found out about one record.

    Attributes:
        folder: Where it lies.
        record: Its content, None if it cannot be read.
        faults: What cannot be, in sentences; none if it passes.
        notes: What was not checked, and why.
        unscored: Why its scores could not be computed again here, "" where they were.
        seconds: What the check took.
    """

    folder: Path
    record: RunRecord | None
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    unscored: str = ""

    @property
    def ok(self) -> bool:
        """Whether no fault was found."""
        return not self.faults

    def line(self) -> str:
        """One line for people."""
        who = "" if self.record is None else f" ({plain(self.record.model['name'])}, n = {self.record.n})"
        if self.ok:
            mark = "UNSURE" if self.unscored else "ok    "
            return f"{mark} {self.folder}{who}" + "".join(f"; {note}" for note in self.notes)
        more = f"; and {len(self.faults) - SHOWN} more" if len(self.faults) > SHOWN else ""
        return f"FAULT  {self.folder}{who}: {'; '.join(self.faults[:SHOWN])}{more}"

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        record = self.record
        return {
            "folder": str(self.folder),
            "ok": self.ok,
            "model": record and record.model["name"],
            "task": record and record.task,
            "run_id": record and record.run_id,
            "n": record and record.n,
            "faults": list(self.faults),
            "notes": list(self.notes),
            "scores_computed_again": not self.unscored,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Checked:
    """Verdicts on records, and on the board that they lie in.

    Attributes:
        board: Faults of the pages and tables of a board, by its folder; none where no board was named.
        runs: The runs that could be read.
    """

    verdicts: tuple[Verdict, ...]
    board: dict[str, tuple[str, ...]] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is at fault."""
        return all(verdict.ok for verdict in self.verdicts) and not any(self.board.values())

    def lines(self) -> list[str]:
        """One line a record, one a fault of a board, and what nobody can know."""
        found = [verdict.line() for verdict in self.verdicts]
        found += [f"FAULT  {board}: {fault}" for board, faults in self.board.items() for fault in faults]
        faulty = sum(not verdict.ok for verdict in self.verdicts)
        seconds = sum(verdict.seconds for verdict in self.verdicts)
        count = f"{len(self.verdicts)} record{'' if len(self.verdicts) == 1 else 's'}"
        found.append(f"{count}, {faulty} at fault, {seconds:.0f} s")
        return [*found, f"not known: {'; '.join(CANNOT_KNOW)}"]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "ok": self.ok,
            "records": [verdict.to_dict() for verdict in self.verdicts],
            "boards": {board: list(faults) for board, faults in self.board.items()},
            "not_known": list(CANNOT_KNOW),
        }


def verify(
    paths: Sequence[Path], data_dir: Path | None = None, told: Callable[[Verdict], None] = lambda _: None
) -> Checked:
    """Check every record in or below `paths`.

    Args:
        paths: Run folders, `run.json` files, folders of them, or boards, whose pages are compared as well.
        data_dir: Folder with local copies of public data sets.
        told: Called with each verdict in order.

    Raises:
        UserError: a path does not exist, or holds no record.
    """
    folders = loaded_runs.find(paths)
    read: list[tuple[Path, Run | None, str]] = [_read(folder) for folder in folders]
    runs = [run for _, run, _ in read if run is not None]
    apart = test_sets.shared(runs)
    verdicts, place = [], 0
    for folder, run, fault in read:
        if run is None:
            verdict = Verdict(folder, None, (fault,))
        else:
            verdict = check(run, data_dir, apart.get(place, ()))
            place += 1
        told(verdict)
        verdicts.append(verdict)
    return Checked(tuple(verdicts), _boards(paths), tuple(runs))


def check(run: Run, data_dir: Path | None = None, others: Sequence[str] = ()) -> Verdict:
    """Check one run.

    Args:
        run: As read; `load.read` has compared it with its hashes and counts.
        data_dir: Folder with local copies of public data sets.
        others: Faults found by comparing it with other runs.
    """
    started = time.perf_counter()
    record = run.record
    try:
        spec = task_of(record.task)
        if old := checks.of_version(record, spec, run.folder):
            return Verdict(
                run.folder, record, (*checks.of_shape(run), old), (), time.perf_counter() - started
            )
        docs, note = (None, "") if spec is None else test_sets.of_task(spec, data_dir)
        notes = [note] if note else []
        if spec is None:
            notes.append(
                f"task {record.task} is not shipped here: its protocol and test set were not compared"
            )
        paired = test_sets.clips_in_pairs(spec)
        faults = [
            *checks.of_shape(run),
            *checks.of_model(run),
            *checks.of_dates(record),
            *checks.of_timing(run, paired),
            *checks.of_protocol(run, spec, docs),
            *checks.of_items(run, docs, paired),
        ]
        config = None if spec is None else (spec.config.get("metadata") or {}).get("finish") or []
        faults += [*checks.of_answers(run, docs), *others]
        unscored = _of_scores(run, config, data_dir, faults, notes)
    except UNSCORABLE as error:
        faults, notes, unscored = (
            [f"cannot be checked, as it has another form than any record: {error!r}"],
            [],
            "",
        )
    seconds = time.perf_counter() - started
    told = tuple(plain(each, 400) for each in faults)
    return Verdict(run.folder, record, told, tuple(notes), seconds, unscored)


def _of_scores(run: Run, config: Any, data_dir: Path | None, faults: list[str], notes: list[str]) -> str:
    """Add what computing the scores again finds; returns why they cannot be computed here, "" where they were."""
    try:
        again = recompute(run, config, data_dir)
    except (
        MissingPrerequisite,
        ImportError,
    ) as error:  # a package that one scorer needs: other records go on
        notes.append(f"its scores were not computed again: {error}")
        return str(error)
    faults += checks.of_scores(run, again)
    notes += [f"{name} was not computed again: {why}" for name, why in again.not_computed.items()]
    return ""


def with_rerun(
    checked: Checked, n: int, seed: int, model: str | None, data_dir: Path | None, device: str | None
) -> Checked:
    """Verdicts with what the models of the records answer now to `n` of their items.

    Args:
        checked: Records at fault are not asked about.
        n: Items of each record.
        seed: Of the draw.
        model: As in `eval`; None to look for each record's model on this machine.
        data_dir: Folder with local copies of public data sets.
        device: Torch device.

    Raises:
        UserError: the model that is named has other weights.
        MissingPrerequisite: a model or a test set is not here.
    """
    from rba_bench.leaderboard.rerun import Models, rerun

    models = Models(model, {"device": device or "cpu", "batch_size": 32})
    runs = {run.folder: run for run in checked.runs}
    found = []
    for verdict in checked.verdicts:
        if not verdict.ok:
            found.append(verdict)
            continue
        run = runs[verdict.folder]
        result = rerun(run, task_of(run.record.task), n, seed, models, data_dir)
        faults, notes = ((result.line(),), ()) if result.fault else ((), (result.line(),))
        found.append(replace(verdict, faults=faults, notes=(*verdict.notes, *notes)))
    return replace(checked, verdicts=tuple(found))


def refuse_faulty(runs: Sequence[Run]) -> None:
    """Refuse a board with the first run that is at fault, or whose scores cannot be computed again here.

    Raises:
        UserError: a run is at fault.
        MissingPrerequisite: a package is missing that a scorer needs.
    """
    apart = test_sets.shared(runs)
    for place, run in enumerate(runs):
        verdict = check(run, None, apart.get(place, ()))
        if not verdict.ok:
            more = len(verdict.faults) - 1
            rest = f" (and {more} more: rba-bench leaderboard verify {run.folder})" if more else ""
            raise UserError(f"{run.folder}: {verdict.faults[0]}{rest}")
        if verdict.unscored:
            raise MissingPrerequisite(f"{run.folder} cannot be verified: {verdict.unscored}")


@lru_cache(maxsize=1024)
def task_of(name: str) -> task_registry.TaskSpec | None:
    """The shipped task of a name, or one that can be made of it; None for tasks of others."""
    shipped = {spec.name: spec for spec in task_registry.list_tasks()}
    return shipped.get(name) or next(iter(task_registry.made(name)), None)


def _read(folder: Path) -> tuple[Path, Run | None, str]:
    try:
        return folder, loaded_runs.read(folder), ""
    except UserError as error:
        return (
            folder,
            None,
            plain(str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder / RUN_FILE} "), 400),
        )


def _boards(paths: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    from rba_bench.leaderboard import build  # which builds a board, and a build verifies

    boards = [path for path in paths if (path / build.RECORDS).is_file()]
    return {str(board): tuple(build.differences(board)) for board in boards}

"""`rba-bench leaderboard verify`: whether a record follows from its own responses, and what nobody can tell.

Everything that is a function of responses, references and votes is computed again: the scored part of each response,
item scores, statuses, metrics, intervals, breakdowns, reports of judges, hashes, seeds, run ids. The items are compared
with the task of that name, with its test set where this machine has it, and with other records on that set.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.records import ATTESTATION_FILE, MARK_FILE, RUN_FILE, RunRecord
from rba_bench.leaderboard import checks, loaded_runs, test_sets
from rba_bench.leaderboard.attestation import attestation_of, checked_name, draw_seed, write_attestation
from rba_bench.leaderboard.board_files import RECORDS, board_differences
from rba_bench.leaderboard.item_facts import items_sha256
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.leaderboard.provenance import Provenance, provenance_faults, provenance_of
from rba_bench.leaderboard.recompute import UNSCORABLE, check_scores, recompute
from rba_bench.leaderboard.test_sets import shipped_task
from rba_bench.untrusted import plain

if TYPE_CHECKING:
    from rba_bench.leaderboard.rerun import RerunResult

CANNOT_KNOW = (
    "whether the responses are the model's own, beyond those that --rerun N let it give again",
    "whether the weights are those of the named model, and how they were trained",
    "where a record says that a server or a judge failed, or that a clip was unusable: whether this is true",
    "hardware, versions, speed and date",
)
SHOWN = 3
LONGEST = 400  # characters of a fault


@dataclass(frozen=True)
class RecordVerdict:
    """What the verification found out about one record.

    Attributes:
        folder: The run folder.
        record: Its content, None if it cannot be read.
        faults: What cannot be true, in sentences; none if it passes.
        notes: What was not checked, and why.
        unscored: Why its scores could not be computed again here, "" where they were.
        seconds: Time of the check.
        provenance: What the files beside the record say, None if the record cannot be read.
    """

    folder: Path
    record: RunRecord | None
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    unscored: str = ""
    provenance: Provenance | None = None

    @property
    def ok(self) -> bool:
        """Whether no fault was found."""
        return not self.faults

    def line(self) -> str:
        """One line for people."""
        model = "" if self.record is None else f" ({plain(self.record.model['name'])}, n = {self.record.n})"
        if self.ok:
            mark = "UNSURE" if self.unscored else "ok    "
            known = [self.provenance.summary] if self.provenance and self.provenance.summary else []
            return f"{mark} {self.folder}{model}" + "".join(f"; {note}" for note in (*known, *self.notes))
        more = f"; and {len(self.faults) - SHOWN} more" if len(self.faults) > SHOWN else ""
        return f"FAULT  {self.folder}{model}: {'; '.join(self.faults[:SHOWN])}{more}"

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
            **(self.provenance.fields() if self.provenance else {}),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Verification:
    """Verdicts on records, and on the boards that they are part of.

    Attributes:
        boards: Faults of the pages and tables of each board, by its folder.
        runs: The runs that could be read.
    """

    verdicts: tuple[RecordVerdict, ...]
    boards: dict[str, tuple[str, ...]] = field(default_factory=dict)
    runs: tuple[LoadedRun, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is at fault."""
        return all(verdict.ok for verdict in self.verdicts) and not any(self.boards.values())

    def lines(self) -> list[str]:
        """One line per record, one per fault of a board, and what nobody can know."""
        lines = [verdict.line() for verdict in self.verdicts]
        lines += [f"FAULT  {board}: {fault}" for board, faults in self.boards.items() for fault in faults]
        faulty = sum(not verdict.ok for verdict in self.verdicts)
        seconds = sum(verdict.seconds for verdict in self.verdicts)
        count = f"{len(self.verdicts)} record{'' if len(self.verdicts) == 1 else 's'}"
        return [
            *lines,
            f"{count}, {faulty} at fault, {seconds:.0f} s",
            "not known from a record:",
            *(f"  {each}" for each in CANNOT_KNOW),
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "ok": self.ok,
            "records": [verdict.to_dict() for verdict in self.verdicts],
            "boards": {board: list(faults) for board, faults in self.boards.items()},
            "not_known": list(CANNOT_KNOW),
        }


def verify_records(paths: Sequence[Path], data_dir: Path | None = None) -> Verification:
    """Check every record in or below `paths`.

    Args:
        paths: Run folders, `run.json` files, folders of them, or boards, whose pages are compared as well.
        data_dir: Folder with local copies of public data sets.

    Raises:
        UserError: a path does not exist, or holds no record.
    """
    runs: dict[Path, LoadedRun] = {}
    items: dict[Path, str] = {}
    verdicts: dict[Path, RecordVerdict] = {}
    folders = loaded_runs.find_runs(paths)
    for folder in sorted(folders, key=_task_of):  # what follows from the items of a test set is computed once
        try:
            run = loaded_runs.load_checked_run(folder)
        except UserError as error:
            message = str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder / RUN_FILE} ")
            verdicts[folder] = RecordVerdict(folder, None, (plain(message, LONGEST),))
        else:
            runs[folder], verdicts[folder] = run, verify_run(run, data_dir)
            items[folder] = items_sha256(run.item_facts)
            run.release()  # the samples of one run are in memory at a time
    verdicts = {folder: verdicts[folder] for folder in folders}
    runs = {folder: runs[folder] for folder in folders if folder in runs}
    compared = test_sets.shared_test_set_faults(list(runs.values()), [items[folder] for folder in runs])
    for position, faults in compared.items():
        folder, record = list(runs)[position], list(runs.values())[position].record
        if not checks.version_fault(record, shipped_task(record.task), folder):
            verdicts[folder] = replace(verdicts[folder], faults=(*verdicts[folder].faults, *faults))
    boards = {str(path): tuple(board_differences(path)) for path in paths if (path / RECORDS).is_file()}
    return Verification(tuple(verdicts.values()), boards, tuple(runs.values()))


def _task_of(folder: Path) -> str:
    try:
        return loaded_runs.open_run(folder).record.task
    except UserError:
        return ""


def verify_run(run: LoadedRun, data_dir: Path | None = None, shared: Sequence[str] = ()) -> RecordVerdict:
    """Check one run.

    Args:
        run: As loaded; `load_checked_run` has compared it with its hashes and counts.
        data_dir: Folder with local copies of public data sets.
        shared: Faults found by comparing it with other runs.
    """
    started, record, unscored = time.perf_counter(), run.record, ""
    faults: list[str] = []
    notes: list[str] = []
    try:
        faults += checks.check_shape(run)
        spec = shipped_task(record.task)
        if outdated := checks.version_fault(record, spec, run.folder):
            faults.append(outdated)
        else:
            note = f"task {record.task} is not shipped here: its protocol and test set were not compared"
            test_set, note = test_sets.load_test_set(spec, data_dir) if spec else (None, note)
            notes += [note] if note else []
            faults += [*checks.check_content(run, spec, test_set), *shared]
            finish = (spec.config.get("metadata") or {}).get("finish") or [] if spec else None
            try:
                recomputed = recompute(run, finish, data_dir)
            except (MissingPrerequisite, ImportError) as error:
                # a package that one scorer needs: other records go on
                unscored = str(error)
                notes.append(f"its scores were not computed again: {error}")
            else:
                faults += check_scores(run, recomputed)
                notes += [
                    f"{name} was not computed again: {why}" for name, why in recomputed.not_computed.items()
                ]
        faults += provenance_faults(run)  # last, as a faulty record makes its attestation void as well
    except UNSCORABLE as error:
        faults = [f"cannot be checked, as it has another form than any record: {error!r}"]
        notes, unscored = [], ""
    sentences = tuple(plain(fault, LONGEST) for fault in faults)
    seconds = time.perf_counter() - started
    return RecordVerdict(run.folder, record, sentences, tuple(notes), seconds, unscored, provenance_of(run))


@dataclass(frozen=True)
class Rerun:
    """What the models of records are to answer again.

    Attributes:
        n: Items of each record.
        seed: Random seed of the choice of items; None to draw one that nobody could foresee.
        item: Id or number of the one item to answer, instead of `n` at random.
        model: As in `eval`; None to look for each record's model on this machine.
        device: Torch device.
        attest: Whether to keep equal answers as an attestation beside the record.
        by: Who attests, "" to leave that out.

    Raises:
        UserError: an attestation is asked for items that were chosen.
    """

    n: int = 0
    seed: int | None = None
    item: str | None = None
    model: str | None = None
    device: str | None = None
    attest: bool = False
    by: str = ""

    def __post_init__(self) -> None:
        if self.attest and (self.n < 1 or self.item is not None):
            raise UserError("--attest keeps what --rerun N finds: add --rerun N, without --item")
        if self.attest and self.seed is not None:
            raise UserError("--attest draws items that nobody could foresee: leave out --seed")
        if self.by and not self.attest:
            raise UserError("--by names who attests: add --attest, or leave out --by")
        checked_name(self.by)


def add_rerun(verification: Verification, rerun: Rerun, data_dir: Path | None = None) -> Verification:
    """The verdicts with what the models of the records answer now to some of their items.

    Args:
        verification: Models of records at fault do not answer.
        rerun: What they answer.
        data_dir: Folder with local copies of public data sets.

    Raises:
        UserError: the model that is named has other weights, or a record has no such item.
        MissingPrerequisite: a model or a test set is not here.
    """
    from rba_bench.leaderboard.rerun import ModelLoader, rerun_items

    loader = ModelLoader(rerun.model, {"device": rerun.device or "cpu", "batch_size": 32})
    seed = draw_seed() if rerun.seed is None else rerun.seed
    runs = {run.folder: run for run in verification.runs}
    verdicts = []
    for verdict in verification.verdicts:
        if verdict.ok:
            run = runs[verdict.folder]
            spec = shipped_task(run.record.task)
            if rerun.attest and not os.access(run.folder, os.W_OK):  # said before the model has answered
                raise UserError(f"{run.folder} cannot be written: let --attest work on a copy of the record")
            result = rerun_items(run, spec, rerun.n, seed, loader, data_dir, rerun.item)
            verdict = _with_rerun(verdict, run, result, rerun)
            run.release()
        verdicts.append(verdict)
    return replace(verification, verdicts=tuple(verdicts))


def _with_rerun(verdict: RecordVerdict, run: LoadedRun, result: "RerunResult", rerun: Rerun) -> RecordVerdict:
    """A verdict with the result of a rerun, which is kept where that is asked for and all answers are equal."""
    earlier = attestation_of(run)
    if result.is_fault:
        contradicted = f"; {earlier.facts()}, says {ATTESTATION_FILE}" if earlier else ""
        return replace(verdict, faults=(result.line() + contradicted,))
    notes = [*verdict.notes, result.line()]
    if rerun.attest and (reason := result.proves_nothing):
        notes.append(f"not attested, as {reason}")
    elif rerun.attest:
        found = write_attestation(run, list(result.items), result.seed, rerun.device or "cpu", rerun.by)
        notes.append(f"kept as {ATTESTATION_FILE}{', in place of an earlier one' if earlier else ''}")
        provenance = Provenance(MARK_FILE in run.beside, found)
        return replace(verdict, notes=tuple(notes), provenance=provenance)
    return replace(verdict, notes=tuple(notes))


def refuse_faulty(runs: Sequence[LoadedRun]) -> None:
    """Refuse a board with the first run that is at fault, or whose scores cannot be computed again here.

    Raises:
        UserError: a run is at fault.
        MissingPrerequisite: a package is missing that a scorer needs.
    """
    shared = test_sets.shared_test_set_faults(runs)
    for position, run in enumerate(runs):
        if fault := fault_of(run, shared.get(position, ())):
            raise fault


def fault_of(run: LoadedRun, shared: Sequence[str] = ()) -> UserError | MissingPrerequisite | None:
    """Why a run may not stand on a board, None if it may.

    Args:
        run: As loaded.
        shared: Faults found by comparing it with other runs.
    """
    verdict = verify_run(run, None, shared)
    if not verdict.ok:
        more = len(verdict.faults) - 1
        rest = f" (and {more} more: rba-bench leaderboard verify {run.folder})" if more else ""
        return UserError(f"{run.folder}: {verdict.faults[0]}{rest}")
    if verdict.unscored:
        return MissingPrerequisite(f"{run.folder} cannot be verified: {verdict.unscored}")
    return None

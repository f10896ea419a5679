"""Records are verified once: a build remembers which ones passed, by their content and by the code that verified them.

To verify a record is to score every answer again, most of what a build costs. `rba-bench leaderboard build` keeps the
hashes of what passed in the cache folder (`files.cache_dir`), in a file that is named by a hash of this package's
source, its tasks, and all packages that are installed: whatever could change a verdict makes a new file. A record that
differs in one byte, or that was at fault, is verified. `rba-bench leaderboard verify` never looks there.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.records import packed_as_published
from rba_bench.evaluation.task_registry import tasks_dir
from rba_bench.files import cache_dir, sha256_bytes, sha256_json, write_atomic
from rba_bench.leaderboard.board_groups import BoardGroup, data_hash
from rba_bench.leaderboard.comparing import CompareJob, compare_task
from rba_bench.leaderboard.item_facts import items_sha256
from rba_bench.leaderboard.loaded_runs import LoadedRun, check_run
from rba_bench.leaderboard.test_sets import load_test_set, shared_test_set_faults, shipped_task
from rba_bench.leaderboard.verify import fault_of
from rba_bench.leaderboard.worker_processes import Mapped
from rba_bench.progress import say, silenced

FOLDER = "verified"
SOURCES = (".py", ".yaml", ".yml", ".json", ".jsonl", ".txt", ".csv")
_KEPT = TypeAdapter(dict[str, tuple[str, str]])
TOGETHER = 20_000  # samples that a process verifies before it tells; what an interrupted build has lost
WORTH_TELLING = 100  # records


@dataclass(frozen=True)
class Verified:
    """What is known of a record that passed.

    Attributes:
        items: Hash of what its items say, to find records that differ in them.
        packed: Hash of its samples as they are published.
    """

    items: str
    packed: str


class VerifiedRecords:
    """Records that passed before, by `key_of`.

    Args:
        file: Where they are kept; None keeps nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self._known = self._read()
        self._new: dict[str, tuple[str, str]] = {}

    @classmethod
    def of_this_code(cls) -> "VerifiedRecords":
        """Those that this code verified on this machine."""
        return cls(cache_dir() / FOLDER / f"{code_sha256()[:32]}.json")

    def get(self, key: str) -> Verified | None:
        """What is known of a record, None if it has not passed yet."""
        return Verified(*self._known[key]) if key in self._known else None

    def add(self, key: str, verified: Verified) -> None:
        """A record that passed."""
        self._known[key] = self._new[key] = (verified.items, verified.packed)

    def save(self) -> None:
        """Write what is new, beside what other builds wrote; a folder that cannot be written keeps nothing."""
        if self.file is not None and self._new:
            with suppress(OSError):
                write_atomic(self.file, json.dumps({**self._read(), **self._new}))
            self._new = {}

    def _read(self) -> dict[str, tuple[str, str]]:
        if self.file is None:
            return {}
        try:
            return _KEPT.validate_json(self.file.read_bytes(), strict=True)
        except (OSError, ValueError):  # none yet, or damaged
            return {}


@lru_cache(maxsize=1)
def code_sha256() -> str:
    """Hash of everything that a verdict depends on beside the record: sources, tasks, installed packages, Python."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(sys.version.encode())
    for root in (package, tasks_dir()):
        for path in sorted(path for path in root.rglob("*") if path.suffix in SOURCES and path.is_file()):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root)} {len(content)}\n".encode() + content)
    folders = [Path(folder) for folder in sys.path if Path(folder).is_dir()]
    installed = sorted(
        each.name for folder in folders for each in folder.glob("*.dist-info")
    )  # name and version
    return hashlib.sha256(digest.digest() + "\n".join(installed).encode()).hexdigest()


def key_of(run: LoadedRun) -> str:
    """A record by its content, what lies beside it, and what it can be compared with on this machine."""
    beside = [[name, sha256_bytes(data)] for name, data in sorted(run.beside.items())]
    test_set = _test_set_note(run.record.task)
    return sha256_json([run.record_sha256, run.record.samples_sha256, test_set, *beside])


@lru_cache(maxsize=1024)
def _test_set_note(task: str) -> str:
    spec = shipped_task(task)
    return load_test_set(spec, None)[1] if spec else "not shipped"


@dataclass(frozen=True)
class VerifyJob:
    """Runs on one test set to verify.

    Attributes:
        runs: The runs.
        comparison: Where these are all runs of their task, the baseline and the ceiling they are compared with: their
            scores are at hand, and nobody needs to read them again.
    """

    runs: tuple[LoadedRun, ...]
    comparison: tuple[str, str | None] | None = None


Verdict = Verified | UserError | MissingPrerequisite


def verify_once(
    runs: Sequence[LoadedRun],
    known: VerifiedRecords,
    mapped: Mapped,
    comparison: tuple[str, str | None] | None = None,
) -> tuple[dict[str, Verified], dict[str, list[BoardGroup]]]:
    """What is known of each run, after verifying those that have not passed before.

    Args:
        runs: Runs whose records were read.
        known: What passed before; what passes now is added.
        mapped: Maps a function to jobs, perhaps in several processes.
        comparison: Baseline and ceiling, to compare the runs as well where that needs no further reading.

    Returns:
        What is known by the hash of each record; and by task the groups that were compared, see `compare_task`.

    Raises:
        UserError: a run is at fault.
        MissingPrerequisite: a package is missing that a scorer needs.
    """
    keys = {run: key_of(run) for run in runs}
    missing = list({key: run for run, key in keys.items() if known.get(key) is None}.values())
    of_task = Counter(run.record.task for run in runs)
    jobs, done = [], 0
    for together in _jobs(missing):
        task = together[0].record.task
        jobs.append(VerifyJob(tuple(together), comparison if len(together) == of_task[task] else None))
    compared: dict[str, list[BoardGroup]] = {}
    try:
        for job, (verdicts, groups) in zip(jobs, mapped(verify_together, jobs), strict=True):
            for run, verdict in zip(job.runs, verdicts, strict=True):
                if isinstance(verdict, Exception):
                    raise verdict
                known.add(keys[run], verdict)
            compared |= {job.runs[0].record.task: groups} if groups else {}
            done += len(job.runs)
            known.save()
            if len(missing) >= WORTH_TELLING:
                say(f"{done} of {len(missing)} new records verified")
    finally:
        known.save()
    found = {run.record_sha256: known.get(key) for run, key in keys.items()}
    return {record: verified for record, verified in found.items() if verified is not None}, compared


def _jobs(runs: Sequence[LoadedRun]) -> list[list[LoadedRun]]:
    """Runs to verify together: of one test set, as what follows from its items is computed once in a process."""
    jobs: list[list[LoadedRun]] = []
    room, last = 0, None
    for run in sorted(runs, key=lambda run: (run.record.task, data_hash(run.record))):
        test_set = (run.record.task, data_hash(run.record))
        if test_set != last or room < run.record.n:
            jobs.append([])
            room = TOGETHER
        jobs[-1].append(run)
        room, last = room - run.record.n, test_set
    return jobs


def verify_together(job: VerifyJob) -> tuple[list[Verdict], list[BoardGroup]]:
    """Each run verified, or why it cannot be taken, and the groups if all passed; in the process that is asked."""
    verdicts: list[Verdict] = []
    for run in job.runs:
        verdicts.append(_verify(run))
        if job.comparison is not None and all(isinstance(verdict, Verified) for verdict in verdicts):
            run.condense(like=job.runs[0] if len(verdicts) > 1 else None)
        else:
            run.release()
    groups: list[BoardGroup] = []
    if job.comparison is not None and all(isinstance(verdict, Verified) for verdict in verdicts):
        with suppress(UserError):  # said in its turn, behind what is wrong with single records
            groups = compare_task(CompareJob(job.runs, *job.comparison))
    for run in job.runs:
        run.release()
    return verdicts, groups


def _verify(run: LoadedRun) -> Verdict:
    try:
        check_run(run)
        with silenced():  # as many bars as there are judged records
            fault = fault_of(run)
        return fault or Verified(
            items_sha256(run.item_facts), sha256_bytes(packed_as_published(run.folder, run.sample_bytes))
        )
    except (UserError, MissingPrerequisite) as error:
        return error


def refuse_differing_items(runs: Sequence[LoadedRun], verified: Mapping[str, Verified]) -> None:
    """Refuse runs that differ in their items from other runs on the same test set.

    Raises:
        UserError: two runs do.
    """
    faults = shared_test_set_faults(runs, [verified[run.record_sha256].items for run in runs])
    for position, sentences in sorted(faults.items()):
        raise UserError(f"{runs[position].folder}: {sentences[0]}")

"""The stage `speak`: clips of units, a shard at a time, in worker processes or in this one (on Ray: `ray_speaking`).

A shard of clips depends on its units and the maker alone, so the number of workers and the order in which they finish
change no byte. A worker that is killed (by lack of memory, say) is replaced, and its shard made again.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from rba_bench.audio.alignment_set import shard_schema
from rba_bench.audio.turns import TURNS
from rba_bench.errors import RbaError
from rba_bench.files import sweep
from rba_bench.processes import start_worker
from rba_bench.progress import bar, say
from rba_bench.synthesis.shards import (
    SHARDS,
    clips_name,
    finished_shard,
    make_plan,
    parquet_bytes,
    write_shard,
)

THREADS = min(
    4, os.cpu_count() or 1
)  # of a process that makes rows: noise and FLAC run outside the interpreter lock
WAITING = 2  # shards that wait for each worker: their units are in memory
DEATHS = 3  # workers that may be killed before the run stops


class RowMaker(Protocol):
    """Makes the rows of a unit: by speaking it, or from a recording. Is sent to worker processes (pickled)."""

    name: str
    version: str

    def voice_names(self) -> list[str]:
        """Of all voices that may be used; none for recordings."""
        ...

    def round_trip_facts(self) -> dict[str, Any] | None:
        """The recogniser that transcribes the clips, None without one."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything beside the units that decides the rows, as JSON values."""
        ...

    def shard(self, units: Sequence[Any], first: int) -> "SpokenShard":
        """Rows of units, of which the first has this number in its set."""
        ...


@dataclass(frozen=True)
class SpokenShard:
    """What became of the units of a shard.

    Attributes:
        rows: With the columns of `alignment_set.shard_schema()`; those left out are null.
        dropped: Clips that were left out: `id`, `voice`, `reason` and what else is known.
        earlier_seconds: Duration of the clips of earlier turns of dialogues.
    """

    rows: list[dict[str, Any]]
    dropped: list[dict[str, Any]]
    earlier_seconds: float = 0.0


@dataclass(frozen=True)
class SpeakJob:
    """A shard of clips to be made.

    Attributes:
        out: Folder of the set.
        name: Of the file, relative to `out`.
        plan: Hash of everything that decides it.
        units: What is said.
        first: Number of the first of them in the set.
    """

    out: Path
    name: str
    plan: str
    units: tuple[Any, ...]
    first: int


class ShardMaker(Protocol):
    """Where shards of clips are made; a context manager, which leaves nothing running behind it.

    Is told with what maker when it is made, and whom to tell name and marker of each finished shard.
    """

    def hand_in(self, job: SpeakJob) -> None:
        """Begin to make a shard; waits while WAITING shards a worker are not finished.

        Raises:
            RbaError: this shard, or one before it, cannot be made.
        """
        ...

    def finish(self) -> None:
        """Return when all shards are made. Errors as of `hand_in`."""
        ...

    def __enter__(self) -> "ShardMaker":
        """It is ready."""
        ...

    def __exit__(self, *_: object) -> None:
        """End what is under way."""
        ...


def speak_shard(job: SpeakJob, maker: RowMaker) -> dict[str, Any]:
    """Make a shard of clips; returns its marker."""
    made = maker.shard(job.units, job.first)
    columns = ("constraints", TURNS, "augmentation")
    has = {column: any(column in row for row in made.rows) for column in columns}
    schema = shard_schema(scored=has["constraints"], turns=has[TURNS], augmented=has["augmentation"])
    data = parquet_bytes(made.rows, schema)
    facts = {"rows": len(made.rows), "units": len(job.units), "dropped": made.dropped}
    if has[TURNS]:
        facts["earlier_seconds"] = made.earlier_seconds
    return write_shard(job.out, job.name, job.plan, data, **facts)


def speak_units(units: Sequence[Any], size: int, maker: RowMaker, out: Path) -> dict[str, str]:
    """Speak units that are all there, `size` a shard; finished shards of an earlier run are kept.

    Returns:
        Checksums (hex SHA-256) by file name relative to `out`.
    """
    sweep(out / SHARDS)  # half-written files of a killed run
    checksums = {}
    with bar("speaking", len(units), unit="instructions") as advance:
        for number, start in enumerate(range(0, len(units), size)):
            part, name = tuple(units[start : start + size]), clips_name(number)
            plan = make_plan(maker.settings(), [asdict(unit) for unit in part])
            done = finished_shard(out, name, plan) or speak_shard(
                SpeakJob(out, name, plan, part, start), maker
            )
            checksums[name] = str(done["sha256"])
            advance(len(part))
    return checksums


class ShardSpeaker:
    """Makes shards of clips on this machine (a `ShardMaker`).

    Args:
        maker: Makes the rows.
        workers: Processes; 0 makes each shard in this process as it is handed in.
        finished: Is told name and marker of each finished shard.
    """

    def __init__(
        self, maker: RowMaker, workers: int, finished: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self.maker, self.workers, self.finished = maker, workers, finished
        self._pool: ProcessPoolExecutor | None = None
        self._under_way: deque[tuple[SpeakJob, Future[dict[str, Any]]]] = deque()
        self._deaths = 0

    def hand_in(self, job: SpeakJob) -> None:
        """See `ShardMaker`."""
        if self.workers == 0:
            self.finished(job.name, speak_shard(job, self.maker))
            return
        self._under_way.append((job, self._submit(job)))
        while len(self._under_way) > WAITING * self.workers:
            self._take_oldest()

    def finish(self) -> None:
        """See `ShardMaker`."""
        while self._under_way:
            self._take_oldest()

    def __enter__(self) -> "ShardSpeaker":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_pool()

    def _submit(self, job: SpeakJob) -> "Future[dict[str, Any]]":
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers, get_context("spawn"), initializer=_start_worker, initargs=(self.maker,)
            )
        try:
            return self._pool.submit(_in_worker, job)
        except BrokenProcessPool as error:  # found out when the oldest shard is taken
            failed: Future[dict[str, Any]] = Future()
            failed.set_exception(error)
            return failed

    def _take_oldest(self) -> None:
        job, future = self._under_way[0]
        try:
            marker = future.result()
        except BrokenProcessPool as error:
            self._replace_workers(error)
            return
        self._under_way.popleft()
        self.finished(job.name, marker)

    def _replace_workers(self, error: BrokenProcessPool) -> None:
        """New workers for those of which one was killed; they get what was not finished."""
        self._deaths += 1
        if self._deaths > DEATHS:
            raise RbaError(
                f"workers were killed {self._deaths} times, for lack of memory perhaps: use fewer with --workers; "
                "finished shards are kept, and the same command goes on"
            ) from error
        say("a worker was killed: its shards are made again")
        self._stop_pool()
        waiting = [job for job, future in self._under_way if not _succeeded(future)]
        done = [(job, future) for job, future in self._under_way if _succeeded(future)]
        self._under_way = deque(done)
        for job in waiting:
            self._under_way.append((job, self._submit(job)))

    def _stop_pool(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _succeeded(future: "Future[dict[str, Any]]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


_maker: RowMaker | None = None  # of this worker


def _start_worker(maker: RowMaker) -> None:
    global _maker
    _maker = maker
    start_worker()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _in_worker(job: SpeakJob) -> dict[str, Any]:
    if _maker is None:
        raise RuntimeError("a worker without a maker")
    return speak_shard(job, _maker)

"""The stage `speak` on a Ray cluster: Ray Data with a pool of actors, which speak and transcribe.

    hand_in -> board (an actor) -> source of a data set: numbers of jobs, as they come
                                -> map_batches: an actor takes the job from the board, makes its shard, writes it
                                -> rows with markers -> finished

The data set is read while it grows: its source waits at the board for the next job, so speaking overlaps with asking,
and the actors load voices and recogniser once in a run. Ray repeats what a killed process or a lost node was at. If
something fails that Ray cannot repeat (the board itself), the data set begins anew with the jobs that are not finished.
"""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from queue import Queue
from typing import Any

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.faults import explain_fault
from rba_bench.progress import say
from rba_bench.synthesis.ray_cluster import TRIES, Cluster, Home, ray_error
from rba_bench.synthesis.shards import finished_shard
from rba_bench.synthesis.speaking import DEATHS, WAITING, RowMaker, SpeakJob, speak_shard

_ERRORS = {error.exit_code: error for error in (RbaError, UserError, MissingPrerequisite)}
END_S = 5.0  # longest wait for a data set that is given up
SEEN_S = 90.0  # an NFS client may hold on to "there is no such file" for a minute


class _Board:
    """Jobs that are not finished (a Ray actor with coroutines). Jobs have the numbers 0, 1, 2 ..."""

    def __init__(self) -> None:
        self._jobs: dict[int, SpeakJob] = {}
        self._known, self._ended = 0, False
        self._tries: Counter[int] = Counter()
        self._changed = asyncio.Condition()

    async def add(self, number: int, job: SpeakJob) -> None:
        """Put up a job."""
        async with self._changed:
            self._jobs[number] = job
            self._known = number + 1
            self._changed.notify_all()

    async def end(self) -> None:
        """No further jobs will come, and those that are not begun will not be."""
        async with self._changed:
            self._ended = True
            self._jobs.clear()
            self._changed.notify_all()

    async def has(self, number: int) -> bool:
        """Whether there is, or was, a job of this number; waits until that is known."""
        async with self._changed:
            await self._changed.wait_for(lambda: number < self._known or self._ended)
            return number < self._known

    async def begin(self, number: int) -> tuple[SpeakJob | None, int]:
        """A job, and how often it was begun with this time; None if it is finished or not wanted any more."""
        if number not in self._jobs:
            return None, 0
        self._tries[number] += 1
        return self._jobs[number], self._tries[number]

    async def finished(self, number: int) -> None:
        """Take down a job."""
        self._jobs.pop(number, None)
        self._tries.pop(number, None)


class _SpeakerProcess:
    """Makes shards (what `map_batches` runs in an actor).

    A batch is the number of a job; its row has the marker of the shard, or why there is none. Errors travel as text:
    Ray would wrap them. A row without either says that nothing was to be done.
    """

    def __init__(self, board: Any, maker: RowMaker, home: Home) -> None:
        self._board, self._maker, self._home = board, maker, home
        self._entered = False

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import ray
        from ray.exceptions import RayError

        number = int(batch["number"][0])
        job, tries = None, 0
        with suppress(RayError):  # without a board the data set ends and another begins
            job, tries = ray.get(self._board.begin.remote(number))
        marker, fault, code = "", "", 0
        if job is not None:
            try:
                marker = json.dumps(self._make(job, tries))
            except (RbaError, OSError) as error:
                told = error if isinstance(error, RbaError) else explain_fault(error)
                if told is None:
                    raise  # a bug keeps its traceback
                fault, code = str(told), told.exit_code
        return {"number": [number], "marker": [marker], "fault": [fault], "exit_code": [code]}

    def _make(self, job: SpeakJob, tries: int) -> dict[str, Any]:
        if tries > TRIES:
            raise RbaError(
                f"the workers that made {job.name} were killed {tries - 1} times, for lack of memory perhaps: use "
                "fewer with --workers; finished shards are kept, and the same command goes on"
            )
        if not self._entered:
            self._home.enter()
            self._entered = True
        # the worker before may have been killed just behind the last byte
        done = finished_shard(job.out, job.name, job.plan) if tries > 1 else None
        return done or speak_shard(job, self._maker)


class _Pass:
    """A data set of jobs that is read once, in a thread, while jobs are added.

    Attributes:
        results: Rows as they come, an exception where reading failed, None at the end.
    """

    def __init__(self, cluster: Cluster, maker: RowMaker) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.results: Queue[dict[str, Any] | Exception | None] = Queue()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._board = ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()
        rows = _rows(self._board, cluster, maker)
        self._thread = threading.Thread(target=self._read, args=(rows,), name="ray-data", daemon=True)
        self._thread.start()

    def add(self, number: int, job: SpeakJob) -> None:
        """Raises RayError where the board is gone."""
        import ray

        ray.get(self._board.add.remote(number, job))

    def finished(self, number: int) -> None:
        """The board may forget a job."""
        self._board.finished.remote(number)

    def end(self) -> None:
        """Nothing is to be made any more, or all is made: let the actors go."""
        import ray
        from ray.exceptions import RayError

        with suppress(RayError):
            ray.get(self._board.end.remote(), timeout=END_S)
        self._thread.join(END_S)  # actors of a run that was stopped end with the shards that they are at
        ray.kill(self._board)

    def _read(self, rows: Iterable[dict[str, Any]]) -> None:
        try:
            for row in rows:
                self.results.put(row)
        except Exception as error:  # noqa: BLE001 - raised again, or repaired, where results are taken
            self.results.put(error)
        else:
            self.results.put(None)


def _rows(board: Any, cluster: Cluster, maker: RowMaker) -> Iterator[dict[str, Any]]:
    """Rows of the jobs of a board, as they are made."""
    import ray.data

    shares = cluster.shares
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # bytes: every row is handed on at once
    with ray.data.DataContext.current(context):
        numbers = ray.data.read_datasource(_job_numbers(board), override_num_blocks=1, num_cpus=0)
        made = numbers.map_batches(
            _SpeakerProcess,
            fn_constructor_args=(board, maker, cluster.home),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=shares.speakers, max_tasks_in_flight_per_actor=WAITING),
            num_cpus=shares.speaker_cpus,
            num_gpus=shares.speaker_gpus or None,
        )
    for batch in made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.to_pylist()


def _job_numbers(board: Any) -> Any:
    """A source of Ray Data: a block for the number of each job, as soon as the board has it."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    def read() -> Iterator[Any]:
        import pyarrow as pa
        import ray
        from ray.exceptions import RayError

        with suppress(RayError):  # as above
            for number in count():
                if not ray.get(board.has.remote(number)):
                    return
                yield pa.table({"number": [number]})

    class JobNumbers(Datasource):
        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, **_: Any) -> list[Any]:
            del parallelism  # jobs come one after the other
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ReadTask(read, unknown)]

    return JobNumbers()


class RaySpeaker:
    """Makes shards of clips on a cluster (a `ShardMaker`).

    Args:
        cluster: Where.
        maker: Makes the rows.
        finished: Is told name and marker of each finished shard.
    """

    def __init__(
        self, cluster: Cluster, maker: RowMaker, finished: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self._cluster, self._maker, self._finished = cluster, maker, finished
        self._jobs: dict[int, SpeakJob] = {}  # by number, those that are not finished
        self._files: list[Path] = []  # that were written somewhere in the cluster
        self._next = self._losses = 0
        self._pass: _Pass | None = None

    def hand_in(self, job: SpeakJob) -> None:
        """See `ShardMaker`."""
        from ray.exceptions import RayError

        number, self._next = self._next, self._next + 1
        self._jobs[number] = replace(job, out=job.out.resolve())  # workers begin in folders of their own
        try:
            self._pass = self._pass or _Pass(self._cluster, self._maker)
            self._pass.add(number, self._jobs[number])
        except RayError as error:
            self._begin_anew(error)
        while len(self._jobs) > WAITING * self._cluster.shares.speakers:
            self._take()

    def finish(self) -> None:
        """See `ShardMaker`."""
        while self._jobs:
            self._take()
        self._end_pass()
        _wait_until_seen(self._files)

    def __enter__(self) -> "RaySpeaker":
        return self

    def __exit__(self, *_: object) -> None:
        self._end_pass()

    def _end_pass(self) -> None:
        if self._pass is not None:
            self._pass.end()
            self._pass = None

    def _take(self) -> None:
        """Wait for the next row."""
        assert self._pass is not None
        row = self._pass.results.get()
        if not isinstance(row, dict):
            self._begin_anew(row)
            return
        if row["fault"]:
            raise _ERRORS[row["exit_code"]](row["fault"])
        job = self._jobs.pop(row["number"], None) if row["marker"] else None
        if job is None:
            return
        self._pass.finished(row["number"])
        self._files.append(job.out / job.name)
        self._finished(job.name, json.loads(row["marker"]))

    def _begin_anew(self, error: Exception | None) -> None:
        """A new data set for what is not finished, where something failed that Ray does not repair by itself."""
        from ray.exceptions import RayError, RayTaskError

        while True:
            if error is not None and (isinstance(error, RayTaskError) or not isinstance(error, RayError)):
                raise error  # a bug
            told = ray_error(error)
            self._losses += 1
            if self._losses > DEATHS or isinstance(told, MissingPrerequisite):
                raise told from error
            say("a part of the cluster was lost: its shards are made again")
            self._end_pass()
            self._jobs, self._next = dict(enumerate(self._jobs.values())), len(self._jobs)
            try:
                self._pass = _Pass(self._cluster, self._maker)
                for number, job in self._jobs.items():
                    self._pass.add(number, job)
                return
            except RayError as again:
                error = again


def _wait_until_seen(files: Iterable[Path]) -> None:
    """Return when all files are visible on this node too.

    Raises:
        RbaError: one of them does not appear.
    """
    until = time.monotonic() + SEEN_S
    for file in files:
        while not file.is_file():
            if time.monotonic() > until:
                raise RbaError(
                    f"{file} was written by another node and does not appear on this one: the same command goes on "
                    "when the shared folder works again"
                )
            time.sleep(0.5)

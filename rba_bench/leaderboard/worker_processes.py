"""Jobs of a board in several processes; the results come in the order of the jobs, whoever did them."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from rba_bench.errors import RbaError
from rba_bench.processes import start_worker

WORTH_WORKERS = 20_000  # samples; fewer are read before other processes have started
COLLECTED = 200_000  # new objects between two collections of garbage; a job makes many, and no cycles

Mapped = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


def worthwhile_workers(samples: int) -> int:
    """Processes for so many samples: one a core, or this one alone."""
    return (os.cpu_count() or 1) if samples >= WORTH_WORKERS else 1


@contextmanager
def worker_processes(count: int) -> Iterator[Mapped]:
    """A map over jobs in `count` processes, 1 being this one.

    Raises:
        RbaError: a process was killed.
    """
    before = gc.get_threshold()
    gc.set_threshold(COLLECTED, *before[1:])
    pool: list[ProcessPoolExecutor] = []

    def mapped(function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        if count <= 1 or len(jobs) < 2:
            yield from map(function, jobs)
            return
        if not pool:
            pool.append(ProcessPoolExecutor(count, get_context("spawn"), initializer=_start_worker))
        yield from pool[0].map(function, jobs)

    try:
        yield mapped
    except BrokenProcessPool as error:
        raise RbaError("a worker was killed, for lack of memory perhaps: use fewer with --workers") from error
    finally:
        gc.set_threshold(*before)
        for each in pool:
            each.shutdown(cancel_futures=True)


def _start_worker() -> None:
    start_worker()
    gc.set_threshold(COLLECTED, *gc.get_threshold()[1:])

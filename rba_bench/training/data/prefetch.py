"""Work done ahead of its turn in threads: clips are read and decoded while the model computes.

Threads, not processes: reading, decoding, resampling and hashing leave Python's lock, and nothing has to be copied
from one process to another. What comes out is what the same function gives when it is needed, so looking ahead changes
no result; how far is bounded by a number of items.
"""

import os
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

THREADS = 4  # at most; they only have to keep up with the model


class Prefetcher(Generic[K, V]):
    """Results of a pure function, made before they are asked for.

    Args:
        work: what to do with an item; called from several threads at once.
        limit: most items that are in the works or kept; 0 does everything when it is asked for.
        threads: how many work.
    """

    def __init__(self, work: Callable[[K], V], limit: int, threads: int | None = None) -> None:
        self.work = work
        self.limit = limit
        self._threads = max(1, min(THREADS, os.cpu_count() or 1)) if threads is None else threads
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[K, Future[V]] = {}

    def ahead(self, items: Iterable[K]) -> None:
        """Begin with these, soonest needed first, as far as the bound allows; what is not among them is dropped."""
        wanted = list(dict.fromkeys(islice(items, self.limit)))
        kept = {item: self._begun.pop(item) for item in wanted if item in self._begun}
        for stale in self._begun.values():
            stale.cancel()
        self._begun = kept
        for item in wanted:
            if item not in self._begun:
                self._begun[item] = self._workers().submit(self.work, item)

    def __call__(self, item: K) -> V:
        """The result for an item; a failure of its work is raised here, as if it had been done here."""
        begun = self._begun.get(item)
        return self.work(item) if begun is None else begun.result()

    def close(self) -> None:
        """Stop; what is in the works ends first. Asking goes on working."""
        self._begun = {}
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _workers(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="prefetch")
        return self._pool

"""The kept instructions of filtered shards, put into shards of clips of one size."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.synthesis.filtering import FilteredShard, ShardFilter
from rba_bench.synthesis.shards import clips_name, finished_shard, make_plan
from rba_bench.synthesis.speaking import SpeakJob


@dataclass
class ClipShards:
    """Collects what is kept until a shard of clips is full.

    Attributes:
        out: Folder of the set.
        source: Reads the units of a filtered shard.
        settings: Of the maker of clips.
        size: Units in a shard of clips.
        finished: Is told name and marker of the shards that are finished already.
    """

    out: Path
    source: ShardFilter
    settings: dict[str, Any]
    size: int
    finished: Callable[[str, dict[str, Any]], None]

    def __post_init__(self) -> None:
        self._waiting: deque[tuple[FilteredShard, int, int]] = deque()  # shard, first and last unit
        self._n, self._number = 0, 0
        self._read: tuple[int, tuple[Any, ...]] = (-1, ())

    def add(self, shard: FilteredShard) -> Iterator[SpeakJob]:
        """Jobs of which all units are known with this shard."""
        if shard.kept:
            self._waiting.append((shard, 0, shard.kept))
            self._n += shard.kept
        while self._n >= self.size:
            yield from self._job(self.size)

    def rest(self) -> Iterator[SpeakJob]:
        """The last job, of what is left."""
        if self._n:
            yield from self._job(self._n)

    def _job(self, n: int) -> Iterator[SpeakJob]:
        """The next job, of n units; none if its shard is finished."""
        pieces, first = list(self._take(n)), self._number * self.size
        name, self._number = clips_name(self._number), self._number + 1
        plan = make_plan(self.settings, [[shard.sha256, start, stop] for shard, start, stop in pieces])
        done = finished_shard(self.out, name, plan)
        if done is not None:
            self.finished(name, done)
            return
        units = tuple(unit for piece in pieces for unit in self._units(*piece))
        yield SpeakJob(self.out, name, plan, units, first)

    def _take(self, n: int) -> Iterator[tuple[FilteredShard, int, int]]:
        self._n -= n
        while n:
            shard, start, stop = self._waiting.popleft()
            taken = min(n, stop - start)
            if start + taken < stop:
                self._waiting.appendleft((shard, start + taken, stop))
            n -= taken
            yield shard, start, start + taken

    def _units(self, shard: FilteredShard, start: int, stop: int) -> tuple[Any, ...]:
        if self._read[0] != shard.number:
            self._read = shard.number, tuple(self.source.units(self.out, shard.number))
        return self._read[1][start:stop]

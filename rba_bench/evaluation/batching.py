"""Which clips are answered together: windows of neighbours, like lengths inside a window, a budget of audio.

Sorting a whole set by length would read its files in random order, and a parquet file can only be read in groups of
rows. So a window of a few hundred neighbours is sorted, and batches are cut where the padded audio reaches the budget.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

WINDOW = 512  # items
SECONDS_PER_CLIP = 12.0  # the default budget is as many of such clips as the batch size says
SMALLEST_BUDGET = 1.0


class Item(Protocol):
    """What is planned: a request with its place, length, content and decoding."""

    index: int
    duration: float
    key: str
    settings: Any


Plan = TypeVar("Plan", bound=Item)


class Planner:
    """Cuts batches; learns from running out of memory.

    Args:
        batch_size: Most clips in a batch.
        batch_seconds: Most audio in a batch, padding included; by default 12 s for each clip of the batch size.

    Attributes:
        seconds: The budget at present.
    """

    def __init__(self, batch_size: int, batch_seconds: float | None = None) -> None:
        self.batch_size = batch_size
        self.seconds = batch_seconds or batch_size * SECONDS_PER_CLIP
        self._lock = threading.Lock()

    def batches(self, planned: Sequence[Plan]) -> Iterator[list[Plan]]:
        """Batches of one decoding each. Lazily, so that a smaller budget holds from the next batch on."""
        by_decoding: dict[Any, list[Plan]] = {}
        for plan in planned:
            by_decoding.setdefault(plan.settings.decoding, []).append(plan)
        for plans in by_decoding.values():
            for window in windows(plans, max(WINDOW, self.batch_size)):
                # Longest first: memory peaks at once. Requests for one clip are neighbours, so it is encoded once.
                yield from self._cut(sorted(window, key=lambda p: (-p.duration, p.key, p.index)))

    def halve(self, requests: Sequence[Any]) -> None:
        """Memory ran out on these requests: keep to half of their padded audio from now on."""
        longest = max(len(request.audio) for request in requests) / 16_000
        with self._lock:
            self.seconds = max(SMALLEST_BUDGET, min(self.seconds, longest * len(requests)) / 2)

    def _cut(self, ordered: Sequence[Plan]) -> Iterator[list[Plan]]:
        start = 0
        while start < len(ordered):
            longest = max(ordered[start].duration, 0.1)
            n = max(1, min(self.batch_size, int(self.seconds / longest)))
            yield list(ordered[start : start + n])
            start += n


def windows(items: Sequence[Plan], size: int) -> Iterator[list[Plan]]:
    """`items` in order, `size` at a time."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def out_of_memory() -> tuple[type[BaseException], ...]:
    """What is raised when memory runs out, on a GPU or off."""
    import torch

    return (torch.OutOfMemoryError, MemoryError)

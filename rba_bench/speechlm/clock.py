"""Where the time of answering goes: seconds by stage, filled by the model, read by the harness."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StageClock:
    """Adds up wall time by stage (`features`, `encoder`, `decoder`); a stage within another one is not counted twice.

    Args:
        synchronize: Called before each reading, for devices that compute asynchronously.

    Attributes:
        seconds: Wall time by stage so far.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._synchronize = synchronize
        self._outer: list[float] = []  # time spent in inner stages, for each stage that is open

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the body of a `with` under `stage`."""
        started = self._now()
        self._outer.append(0.0)
        try:
            yield
        finally:
            spent = self._now() - started
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent - self._outer.pop()
            if self._outer:
                self._outer[-1] += spent

    def _now(self) -> float:
        if self._synchronize is not None:
            self._synchronize()
        return time.perf_counter()


def device_clock(device: str) -> StageClock:
    """A clock for models on `device` (`cpu`, `cuda:0`): on a GPU it waits for the kernels before it reads."""
    if not str(device).startswith("cuda"):
        return StageClock()
    import torch

    return StageClock(torch.cuda.synchronize)

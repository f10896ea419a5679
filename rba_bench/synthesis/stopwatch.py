"""Time spent on the steps of synthesis, on the wall and of the processor."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Adds up the time of steps by name.

    Attributes:
        seconds: On the wall.
        cpu_s: Of the processor, all threads of this process: other work of the process meanwhile counts too.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, step: str) -> Iterator[None]:
        """Add the time inside the block to that of a step."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - wall
            self.cpu_s[step] = self.cpu_s.get(step, 0.0) + time.process_time() - cpu

"""How many requests a server gets at once: found out by trying, as TCP finds its window.

Additive increase, multiplicative decrease: the window opens by one for each answer until the server first says that
it is too much (then by one for each window of answers), and halves when it does.
"""

import asyncio
import heapq
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, TypeVar

from rba_bench.errors import UserError

T = TypeVar("T")


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work` in an event loop of its own; in another thread where a loop runs here, as in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(asyncio.run, work).result()


class Pace:
    """How wide the window is; kept between runs, so that what was learnt is not learnt again.

    Args:
        start: Requests at once in the beginning.
        most: Never more than this.

    Attributes:
        limit: Requests allowed at once, at least 1; a fraction on its way to the next whole number.
    """

    def __init__(self, start: int, most: int) -> None:
        if start < 1 or most < 1:
            raise UserError(f"requests at once are {min(start, most)}: use 1 or more")
        self.most = most
        self.limit = float(min(start, most))
        self._opening = True  # no sign of too much yet

    def grow(self) -> None:
        """An answer came while the window was full."""
        self.limit = min(float(self.most), self.limit + (1 if self._opening else 1 / self.limit))

    def shrink(self) -> None:
        """The server said that it is too much."""
        self._opening = False
        self.limit = max(1.0, self.limit / 2)


class Window:
    """Lets requests through, as many at once as the pace allows. For one event loop.

    Args:
        pace: What was learnt so far; goes on learning.

    Attributes:
        in_flight: Requests that are through and have not left.
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.in_flight = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = count()
        self._held_until = 0.0
        self._shrunk_at = 0.0

    async def enter(self, urgent: bool = False) -> float:
        """Wait for a place; `urgent` requests (those that were sent before) come first.

        Returns:
            The loop's time of entry, to be handed to `overloaded`.
        """
        place: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._waiting, (0 if urgent else 1, next(self._tickets), place))
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # let in and cancelled in the same moment
                self.leave()
            raise
        return self._loop.time()

    def leave(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
        self._admit()

    def answered(self) -> None:
        """An answer came; call it before `leave`. An idle window learns nothing from it."""
        if self.in_flight >= int(self.pace.limit):
            self.pace.grow()

    def overloaded(self, entered: float) -> None:
        """Too much, says the answer to a request that entered at `entered`; once for all that were under way then."""
        if entered >= self._shrunk_at:
            self._shrunk_at = self._loop.time()
            self.pace.shrink()

    def hold(self, seconds: float) -> None:
        """Let nothing through for so long: the server asked for it."""
        self._held_until = max(self._held_until, self._loop.time() + seconds)
        self._loop.call_at(self._held_until, self._admit)

    def _admit(self) -> None:
        # The clock of the loop is coarse: a call may come a little before its time.
        while (
            self._waiting
            and self.in_flight < int(self.pace.limit)
            and self._loop.time() >= self._held_until - 1e-3
        ):
            place = heapq.heappop(self._waiting)[2]
            if not place.done():
                self.in_flight += 1
                place.set_result(None)

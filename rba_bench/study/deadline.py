"""Stopping a study after some time, as Ctrl-C would: whatever runs saves its state, and the same command goes on."""

import _thread
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rba_bench.errors import UserError
from rba_bench.progress import say

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}  # seconds
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def parse_duration(text: str) -> float:
    """Seconds of `2h`, `90m`, `1.5h`, `45 min` or `3600`.

    Raises:
        UserError: it is no duration.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    seconds = float(match[1]) * UNITS[match[2]] if match and match[2] in UNITS else 0.0
    if not seconds:
        raise UserError(f"{text!r} is no duration: write 2h, 90m or 3600s")
    return seconds


@contextmanager
def stopping_after(seconds: float | None) -> Iterator[None]:
    """Interrupt the work inside after some seconds; None never does.

    The interrupt is the SIGTERM that a batch system would send, so that it is handled in the same way; work that it has
    stopped ends the block without an error.
    """
    if seconds is None:
        yield
        return
    fired = threading.Event()

    def fire() -> None:
        fired.set()
        _thread.interrupt_main(signal.SIGTERM)

    timer = threading.Timer(seconds, fire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        if not fired.is_set():
            raise
        say("stopped, as the time is up; the same command goes on")
    finally:
        timer.cancel()

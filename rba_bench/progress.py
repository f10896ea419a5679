"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere. stdout is for results."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rba_bench.plain import printable

console = Console(stderr=True, highlight=False, soft_wrap=True)
PLAIN_EVERY = 10.0  # seconds between plain lines when stderr is not a terminal


def say(message: str) -> None:
    """Print one line on stderr, brackets untouched."""
    console.print(printable(message), markup=False)


@contextmanager
def bar(label: str, total: int, done: int = 0, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Show progress of a loop; yields `advance(n)`. `done` items were finished by an earlier run."""
    if not sys.stderr.isatty():
        yield _plain(label, total, done, unit)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(printable(label), total=total, completed=done)

        def advance(n: int = 1) -> None:
            progress.advance(task, n)

        yield advance


def _plain(label: str, total: int, done: int, unit: str) -> Callable[[int], None]:
    state = {"done": done, "said": time.monotonic()}

    def advance(n: int = 1) -> None:
        state["done"] += n
        now = time.monotonic()
        if state["done"] >= total or now - state["said"] >= PLAIN_EVERY:
            state["said"] = now
            say(f"{label}: {int(state['done'])}/{total} {unit}".rstrip())

    return advance

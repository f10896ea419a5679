"""Progress on stderr: a bar on a terminal, otherwise a plain line every ten seconds. stdout is for results."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rba_bench.untrusted import printable

# In a notebook rich would write into the cell's results instead of on stderr.
console = Console(stderr=True, highlight=False, soft_wrap=True, force_jupyter=False)
PLAIN_EVERY = 10.0  # seconds between plain lines when stderr is not a terminal


def say(message: str) -> None:
    """Print one line on stderr, brackets untouched."""
    console.print(printable(message), markup=False)


@contextmanager
def bar(label: str, total: int, done: int = 0, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Show progress of a loop; yields `advance(n)`. `done` items were finished by an earlier run."""
    if not sys.stderr.isatty():
        printed = time.monotonic()

        def count(n: int = 1) -> None:
            nonlocal done, printed
            done += n
            now = time.monotonic()
            if done >= total or now - printed >= PLAIN_EVERY:
                printed = now
                say(f"{label}: {done}/{total} {unit}".rstrip())

        yield count
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


@contextmanager
def silenced() -> Iterator[None]:
    """Print no lines and show no bars inside the block."""
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


@contextmanager
def stdout_reserved() -> Iterator[None]:
    """Send to stderr whatever libraries print on stdout meanwhile, from Python or from C.

    Several of them announce themselves there, which would spoil `--json`.
    """
    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:  # a caller closed stdout: nothing to protect
        yield
        return
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)

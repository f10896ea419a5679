"""What a run shows while it trains: a block that stays in place on a terminal, a line now and then elsewhere.

All figures are means over the last steps (`log_every` of them); speeds count training time, the time that is left the
time on the clock. What a method does not have is left out.
"""

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rba_bench.progress import console, say
from rba_bench.untrusted import printable

SILENCE_S = 60.0  # a line at least so often, where steps are slow
PACE_STEPS = 20  # steps whose pace says how long the rest takes
GAP = "   "

# name in the step log, name on the screen, form
FIGURES = (
    ("loss", "loss", "{:.3f}"),
    ("reward", "reward", "{:.3f}"),
    ("margin", "margin", "{:.2f}"),
    ("length", "length", "{:.1f}"),
    ("truncated", "cut", "{:.0%}"),
    ("saturated", "saturated", "{:.0%}"),
)


class Board:
    """The figures of a run as words. By itself it shows nothing, as on all processes but the first.

    Args:
        label: the run.
        steps: at its end.
        done: before this attempt.
        window: steps of a mean.
        budget_s: training time at which it ends, None without a limit.
    """

    def __init__(self, label: str, steps: int, done: int, window: int, budget_s: float | None = None) -> None:
        self.label = printable(label)
        self.steps, self.done = steps, done
        self.budget_s = budget_s
        self.started = time.monotonic()
        self.trained_s = 0.0  # of the whole run
        self.validation = ""
        self._records: deque[tuple[Mapping[str, float], float]] = deque(maxlen=window)
        self._times: deque[tuple[int, float]] = deque([(done, self.started)], maxlen=PACE_STEPS + 1)

    def step(self, record: Mapping[str, float], seconds: float) -> None:
        """Take in a step: its record in the step log, and the training time it took, in seconds."""
        self.done = int(record["step"])
        self.trained_s = record.get("elapsed_s", 0.0)
        self._records.append((record, seconds))
        self._times.append((self.done, time.monotonic()))

    def validated(self, step: int, figures: Mapping[str, float]) -> None:
        """Take in a validation."""
        self.validation = validation_text(step, figures)

    def figures(self) -> list[str]:
        """What there is to say, a few words each."""
        words = []
        for name, shown, form in FIGURES:
            values = [record[name] for record, _ in self._records if name in record]
            if values:
                words.append(f"{shown} {form.format(sum(values) / len(values))}")
        seconds = sum(spent for _, spent in self._records)
        for name in ("tokens", "clips"):
            total = sum(record.get(name, 0.0) for record, _ in self._records)
            if total and seconds > 0:
                speed = total / seconds
                words.append(f"{speed:,.0f} {name}/s" if speed >= 10 else f"{speed:.2g} {name}/s")
        return words

    def left(self) -> float | None:
        """Seconds to come, None before the first step."""
        (first, since), (last, now) = self._times[0], self._times[-1]
        if last == first:
            return None
        seconds = (now - since) / (last - first) * (self.steps - last)
        return seconds if self.budget_s is None else min(seconds, max(self.budget_s - self.trained_s, 0.0))


class Panel(Board):
    """The board as a block on a terminal, as wide as that is."""

    def __rich_console__(self, screen: Console, options: ConsoleOptions) -> RenderResult:
        """Bar first, then as many figures a line as there is room for."""
        left = self.left()
        head = Table.grid(padding=(0, 2), expand=True)
        for ratio in (None, 1, None, None, None):
            head.add_column(ratio=ratio, no_wrap=True)
        head.add_row(
            Text(self.label, style="bold"),
            ProgressBar(total=self.steps, completed=self.done),
            Text(f"{self.done}/{self.steps} steps"),
            Text(clock(time.monotonic() - self.started), style="yellow"),
            Text(
                "" if self.done >= self.steps else f"{'?' if left is None else clock(left)} left",
                style="cyan",
            ),
        )
        yield head
        for line in wrap_words([*self.figures(), *filter(None, [self.validation])], options.max_width):
            yield Text(line)


class Lines(Board):
    """The board as lines of plain text, for a file or a pipe."""

    def __init__(self, label: str, steps: int, done: int, every: int, budget_s: float | None = None) -> None:
        super().__init__(label, steps, done, every, budget_s)
        self.every = every
        self._said = self.started

    def step(self, record: Mapping[str, float], seconds: float) -> None:
        """Take in a step; say a line if it is time."""
        super().step(record, seconds)
        due = self.done % self.every == 0 or self.done >= self.steps
        if not due and time.monotonic() - self._said < SILENCE_S:
            return
        self._said = time.monotonic()
        left = self.left()
        rest = [] if left is None or self.done >= self.steps else [f"{clock(left)} left"]
        say(", ".join([f"{self.label}: step {self.done}/{self.steps}", *self.figures(), *rest]))

    def validated(self, step: int, figures: Mapping[str, float]) -> None:
        """Say it at once."""
        super().validated(step, figures)
        say(f"{self.label}: {self.validation}")


@contextmanager
def display(
    label: str, steps: int, done: int, every: int, budget_s: float | None = None, shown: bool = True
) -> Iterator[Board]:
    """Show a run.

    Args:
        label: its name.
        steps: at its end.
        done: before this attempt.
        every: `log_every`.
        budget_s: of the recipe.
        shown: whether this process shows anything.
    """
    if not shown:
        yield Board(label, steps, done, every, budget_s)
    elif not sys.stderr.isatty() or console.is_dumb_terminal:
        yield Lines(label, steps, done, every, budget_s)
    else:
        panel = Panel(label, steps, done, every, budget_s)
        with Live(panel, console=console, refresh_per_second=2):
            yield panel


def validation_text(step: int, figures: Mapping[str, float]) -> str:
    """A validation in words: `validation at step 20: loss 3.100 (qa 1.200, s2tt 5.000)`."""
    for metric in ("loss", "reward"):
        name = f"validation_{metric}"
        if name in figures:
            kinds = sorted(key for key in figures if key.startswith(f"{name}_"))
            inside = ", ".join(f"{kind.removeprefix(f'{name}_')} {figures[kind]:.3f}" for kind in kinds)
            about = f" ({inside})" if len(kinds) > 1 else ""
            return f"validation at step {step}: {metric} {figures[name]:.3f}{about}"
    return ""


def wrap_words(words: Sequence[str], width: int) -> list[str]:
    """Lines of at most `width` columns that break between words only (or within one that is longer)."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(GAP) + len(word) <= width:
            lines[-1] += GAP + word
        else:
            lines.append(word)
    return lines


def clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

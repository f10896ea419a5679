"""What a reward promises, and what it says when it cannot judge."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import RbaError

NOT_JUDGED = math.nan


class Reward(Protocol):
    """Scores answers; higher is better, NaN means "not judged": such an answer takes part in nothing.

    A value must not depend on batch mates or earlier calls, and no gradient runs through it. A reward that leaves
    answers out, or reads less than all of one, counts them in an optional method `counts() -> dict[str, int]`.
    """

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        ...


@runtime_checkable
class InStep(Protocol):
    """A reward that asks weights which processes share out, and must do so as often as the others."""

    def walk_in_step(self, sync: Any, shell: Any) -> None:
        """From now on; `shell` is what the weights are called through."""
        ...

    def keep_company(self) -> None:
        """To be called when this process has no more to ask; returns when none has."""
        ...


@contextmanager
def blame(key: str) -> Iterator[None]:
    """Put the recipe key in front of what is wrong with its value."""
    try:
        yield
    except RbaError as error:
        raise type(error)(f"{key}: {error}") from error

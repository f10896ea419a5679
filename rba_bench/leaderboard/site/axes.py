"""Axes of figures: ranges with round numbers, from values that are rounded already."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """A range with the numbers that are written at it.

    Attributes:
        low: Lower end.
        high: Upper end.
        ticks: Numbers to write, within the ends.
        log: Whether the numbers stand at their logarithms.
        reverse: Whether it runs from high to low.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False
    reverse: bool = False

    def share(self, value: float) -> float:
        """Place of a value, 0 at the beginning and 1 at the end; what lies outside stands at the edge."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        place = (math.log10(value) if self.log else value) - low
        share = min(max(place / (high - low), 0.0), 1.0)
        return 1.0 - share if self.reverse else share


def linear_axis(values: Sequence[float], count: int = 4, reverse: bool = False) -> Axis:
    """An axis around `values` whose ticks are round: 1, 2, 2.5 or 5 times a power of ten apart."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 1.0, high + 1.0
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    ticks = tuple(round(step * place, 9) + 0.0 for place in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks, reverse=reverse)


def log_axis(values: Sequence[float]) -> Axis:
    """A logarithmic axis around positive `values`: ticks at powers of ten, and at more numbers where these are few."""
    low, high = min(values) / 1.3, max(values) * 1.3
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    dense = ((1,), (1, 3), (1, 2, 5)) if last - first > 2 else ((1, 2, 5), (1, 1.5, 2, 3, 5, 7))
    ticks: list[float] = []
    for factors in dense:
        made = (factor * 10.0**power for power in range(first, last + 1) for factor in factors)
        ticks = [tick for tick in made if low <= tick <= high]
        if len(ticks) > 1:
            break
    return Axis(low, high, tuple(ticks), log=True)


def tick_text(value: float) -> str:
    """A tick as short as it can be."""
    return f"{value:g}".replace("-", "\u2212")

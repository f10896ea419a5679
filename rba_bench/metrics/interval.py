"""From a score, its standard error and the number of independent clusters to an interval that keeps its promise.

A percentile interval is right for many items that differ. It is too short for few clusters, and it claims certainty
where almost nothing differed. What is done instead, chosen by simulation (`benchmarks/statistics.py`):

score         Independent items that are 0 or 1: the mid-p interval of a share, or Wilson's if all are equal. Otherwise
              the form of Wilson's (1927) with the bootstrap's standard error, widened by sqrt(G / (G - 1)) for G
              clusters, and Student's t with K - 1 degrees, K = (sum n)^2 / sum n^2 being what clusters of sizes n are
              worth (Kish). The variance is taken to shrink towards the ends of the scale as a share's does, so the
              interval stays on the scale.
difference    Value +- t (K - 1 degrees) times the standard error. Independent 0/1 items, and any items most of which
              do not differ: one item more in favour of each side (Bonett and Price 2012, an adjusted Wald interval).
zero          belongs to a difference whenever an exact test does not exclude it: the sign test (McNemar's) for 0/1
              items, else all swaps of the two systems' clusters if at most `SWAPPED` differ. With fewer than `FEWEST`
              clusters no such test can fall below 0.05 (2 / 2^5 = 0.06), so no difference is significant.
no spread     If all or nearly all clusters agree, the interval leaves room for what was not seen: a share of
              z^2 / (G + z^2) of them (Wilson's bound for none in G) may lie at either end of the scale.
"""

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
Z = 1.959963984540054
FEWEST = 6  # independent clusters: below, no difference is called one and nothing is ranked
SWAPPED = 12  # clusters that differ, up to which all 2^12 swaps are counted
_NOTHING = 1e-9  # share of the scale that is rounding


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval.

    Attributes:
        value: Point estimate on all items.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Items (not clusters) behind it.
        method: How the interval was made, in words.
    """

    value: float
    low: float
    high: float
    n: int
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return asdict(self)

    def excludes(self, point: float) -> bool:
        """True if `point` lies outside the interval (by more than rounding)."""
        return not self.low - 1e-9 <= point <= self.high + 1e-9

    @property
    def p_zero(self) -> float:
        """Two-sided p-value of zero as the width implies it under a normal law; 1 without a width."""
        half = self.value - self.low if self.value > 0 else self.high - self.value
        return normal_p(Z * abs(self.value) / half) if half > 0 else 1.0


@dataclass(frozen=True)
class Difference(Interval):
    """One system minus another on the same items.

    Attributes:
        p: Two-sided p-value of no difference; at most 0.05 exactly where the interval leaves out zero.
    """

    p: float

    @property
    def p_zero(self) -> float:
        """The p-value."""
        return self.p


@dataclass(frozen=True)
class Scale:
    """Where a score can lie.

    Attributes:
        width: How much a score changes if every item goes from worst to best.
        low: Lowest possible score; minus infinity where there is none.
        high: Highest possible score, or infinity.
    """

    width: float
    low: float = -math.inf
    high: float = math.inf

    def bottom(self, value: float) -> float:
        """The lowest score there may be beside `value`."""
        return self.low if math.isfinite(self.low) else value - self.width

    def top(self, value: float) -> float:
        """The highest score there may be beside `value`; of error rates at least 100."""
        if math.isfinite(self.high):
            return self.high
        return max(self.width, value) if math.isfinite(self.low) else value + self.width

    @property
    def of_differences(self) -> "Scale":
        """Where the difference of two such scores can lie."""
        reach = self.high - self.low
        return Scale(self.width, -reach, reach)


@dataclass(frozen=True)
class Clusters:
    """How many independent observations a score rests on.

    Attributes:
        count: Clusters, G.
        worth: Clusters of equal size that clusters of these sizes are worth, K <= G.
        n: Items.
    """

    count: int
    worth: float
    n: int

    @classmethod
    def of(cls, sizes: Floats) -> "Clusters":
        """From the number of items in each cluster `[G]`."""
        total = float(sizes.sum())
        return cls(len(sizes), total**2 / float((sizes**2).sum()), round(total))

    @property
    def few(self) -> bool:
        """True if there are too few to tell anything apart."""
        return self.count < FEWEST

    @property
    def degrees(self) -> float:
        """Degrees of freedom of a spread between them."""
        return max(self.worth - 1.0, 1.0)

    @property
    def inflation(self) -> float:
        """What makes the bootstrap's standard deviation that of as many new clusters."""
        return math.sqrt(self.count / (self.count - 1)) if self.count > 1 else math.nan

    def __str__(self) -> str:
        unit = "independent items" if self.count == self.n else f"clusters of {self.n} items"
        return f"{self.count} {unit}"


@lru_cache(maxsize=1024)  # many systems on the same items have the same
def t_quantile(degrees: float) -> float:
    """Student's t that 95 % of values stay within."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def t_p(statistic: float, degrees: float) -> float:
    """Two-sided p-value of a t statistic."""
    from scipy.special import stdtr

    return float(2 * stdtr(degrees, -abs(statistic)))


def normal_p(statistic: float) -> float:
    """Two-sided p-value of a standard normal statistic."""
    return math.erfc(abs(statistic) / math.sqrt(2))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact sign test, on 0/1 items the exact test of McNemar; 1 where there is neither.

    Twice the smaller tail of a binomial with one half: 4 against 0 gives 0.125, 6 against 0 gives 0.03125.
    """
    from scipy.special import bdtr

    total = wins + losses
    return min(1.0, float(2 * bdtr(min(wins, losses), total, 0.5))) if total else 1.0


@lru_cache(maxsize=2**14)  # there are n + 1 of them, for thousands of systems
def share_ends(right: int, n: int) -> tuple[float, float]:
    """Ends of the interval of a share, `right` of `n` independent items.

    Mid-p (Lancaster 1961): the share at whose end the tail beyond `right`, with half of `right` itself, holds 2.5 %.
    Of none or all it would be a little short, so there it is Wilson's: all of 20 gives 0.839 to 1.
    """
    if right in (0, n):
        reach = Z * Z / (n + Z * Z)
        return (0.0, reach) if right == 0 else (1.0 - reach, 1.0)
    tail = (1 - LEVEL) / 2
    return _share_at(right, n, tail), _share_at(right, n, 1 - tail)


def score_ends(
    value: float, error: float, clusters: Clusters, scale: Scale, degrees: float | None = None
) -> tuple[float, float]:
    """Ends of the interval of a score with standard error `error`; see the module.

    Args:
        value: The score.
        error: Its standard error.
        clusters: What it rests on.
        scale: Where it can lie.
        degrees: Degrees of freedom of `error` if they are not those of the clusters.
    """
    t = t_quantile(degrees or clusters.degrees)
    if clusters.count < 2:
        ends = scale.bottom(value), scale.top(value)
    elif error <= _NOTHING * scale.width:
        ends = widen_for_unseen(value, value, value, clusters, scale)
    elif math.isfinite(scale.low) and 0 < value - scale.low < scale.high - scale.low:
        # Solutions x of (above - x)^2 = t^2 error^2 x (width - x) / (above (width - above)) on [0, width]
        above, width = value - scale.low, scale.high - scale.low
        per = 1.0 / width  # 0 where there is no upper end
        spread = t * t * error**2 / (above * (1.0 - above * per))
        a, b = 1.0 + spread * per, above + spread / 2
        root = math.sqrt(max(b * b - a * above * above, 0.0))
        ends = max((b - root) / a, 0.0) + scale.low, min((b + root) / a, width) + scale.low
    else:
        ends = value - t * error, value + t * error
    return clip_to_scale(scale, value, *ends)


def widen_for_unseen(
    value: float, low: float, high: float, clusters: Clusters, scale: Scale
) -> tuple[float, float]:
    """Ends with room for clusters unlike all those seen, which may lie at either end of the scale."""
    share = Z**2 / (clusters.count + Z**2)  # upper bound of the share of clusters like none of these
    return min(low, value - share * (value - scale.bottom(value))), max(
        high, value + share * (scale.top(value) - value)
    )


def adjusted_difference(value: float, error: float, count: int, width: float) -> tuple[float, float]:
    """Centre and standard error of a mean difference after one cluster more in favour of each side.

    Bonett and Price (2012, Statistics in Medicine 31:1105): of 0/1 items, b and c of them discordant, the shares
    become (b + 1) / (n + 2) and (c + 1) / (n + 2). Here for any mean of `count` differences with standard error
    `error` (not yet inflated), an item being able to change it by `width`.
    """
    more = count + 2
    centre = value * count / more
    square = (count * (count * error**2 + value**2) + 2 * width**2) / more
    return centre, math.sqrt(max(square - centre**2, 0.0) / more)


def clip_to_scale(scale: Scale, value: float, low: float, high: float) -> tuple[float, float]:
    """Ends on the scale, with the value between them."""
    return max(min(low, value), scale.low), min(max(high, value), scale.high)


def include_zero(low: float, high: float, told_apart: bool) -> tuple[float, float]:
    """Ends stretched to zero unless the difference is significant."""
    return (low, high) if told_apart else (min(low, 0.0), max(high, 0.0))


def _share_at(right: int, n: int, level: float) -> float:
    """The share for which `right` or more of `n`, `right` itself counted half, have probability `level`."""
    from scipy.special import betainc

    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        above = (betainc(right, n - right + 1, share) + betainc(right + 1, n - right, share)) / 2
        low, high = (share, high) if above < level else (low, share)
    return (low + high) / 2

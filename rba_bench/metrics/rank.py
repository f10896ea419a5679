"""Ranks that do not pretend: a band from the best to the worst rank that the differences of all pairs leave open.

The bands hold together: with probability 0.95 no pair of equal systems of a board is put in order, however many pairs
there are. Pairs are ordered by their p-values after Holm's step-down (1979) with Shaffer's refinement (1986): once some
pairs differ, not all of the others can be equal, since equality is transitive.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rba_bench.metrics.interval import FEWEST, LEVEL, Difference, Interval, t_p, t_quantile, with_zero


@dataclass(frozen=True)
class RankBand:
    """Ranks 1..n a system may hold: `best` counts those surely above it, `worst` those surely below it."""

    best: int
    worst: int

    def __str__(self) -> str:
        return str(self.best) if self.best == self.worst else f"{self.best}-{self.worst}"


def rank_bands(
    n: int, difference: Callable[[int, int], Interval], higher_is_better: bool = True
) -> list[RankBand]:
    """Band of each of `n` systems from the differences of all pairs.

    Args:
        n: Number of systems.
        difference: Interval of score(i) - score(j), asked once per pair with i < j; its `p_zero` counts.
        higher_is_better: Direction of the score.
    """
    above = [[0, 0] for _ in range(n)]  # per system: surely better ones, surely worse ones
    pairs = {(i, j): difference(i, j) for i in range(n) for j in range(i + 1, n)}
    for i, j in apart(n, {pair: gap.p_zero for pair, gap in pairs.items()}):
        winner, loser = (i, j) if (pairs[i, j].value > 0) == higher_is_better else (j, i)
        above[loser][0] += 1
        above[winner][1] += 1
    return [RankBand(1 + better, n - worse) for better, worse in above]


def rank_bands_from_intervals(
    intervals: Sequence[Interval], higher_is_better: bool = True, independent: Sequence[int] | None = None
) -> list[RankBand]:
    """Bands from the systems' own intervals where items are not at hand, see `apart_by_intervals`."""
    counts = independent or [each.n for each in intervals]

    def difference(i: int, j: int) -> Interval:
        return apart_by_intervals(intervals[i], intervals[j], min(counts[i], counts[j]))

    return rank_bands(len(intervals), difference, higher_is_better)


def apart_by_intervals(a: Interval, b: Interval, independent: int) -> Difference:
    """Difference of two scores from their own intervals, which exclude zero where they are disjoint.

    More cautious than paired differences: two systems may be told apart although their intervals overlap. The p-value
    is that of Student's t for a standard error as wide as the two facing halves together.

    Args:
        a: One score.
        b: The other.
        independent: Items or clusters behind the lesser of them; below `FEWEST` nothing is told apart.
    """
    gap = a.value - b.value
    facing = (a.value - a.low) + (b.high - b.value) if gap > 0 else (a.high - a.value) + (b.value - b.low)
    p = 1.0
    if facing > 0 and independent >= FEWEST:
        degrees = independent - 1.0
        p = t_p(t_quantile(degrees) * gap / facing, degrees)
    ends = with_zero(a.low - b.high, a.high - b.low, p <= 1 - LEVEL)
    return Difference(gap, *ends, min(a.n, b.n), "from the scores' own intervals", p)


def apart(n: int, p_values: Mapping[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Pairs of `n` systems that are told apart, wrongly so in at most 5 % of boards.

    Args:
        n: Number of systems.
        p_values: Of every pair `(i, j)`, i < j.
    """
    found = []
    for rank, (p, pair) in enumerate(sorted((p, pair) for pair, p in p_values.items())):
        if p * _most_equal(n, len(p_values) - rank) > 1 - LEVEL:
            break
        found.append(pair)
    return found


@lru_cache(maxsize=4096)
def _most_equal(n: int, left: int) -> int:
    """The most pairs, up to `left`, that can be equal at once when not all others are."""
    possible = _equal_pairs(n)
    return next(count for count in range(left, -1, -1) if possible >> count & 1) or 1


@lru_cache(maxsize=256)
def _equal_pairs(n: int) -> int:
    """Numbers of equal pairs that `n` systems can have, as bits: those of a block of j equal ones and of the rest."""
    if n < 2:
        return 1
    bits = 0
    for block in range(1, n + 1):
        bits |= _equal_pairs(n - block) << block * (block - 1) // 2
    return bits

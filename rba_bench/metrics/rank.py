"""Ranks that do not pretend: a band from the best to the worst rank that pairwise intervals leave open."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rba_bench.metrics.bootstrap import Interval


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
    """Band of each of `n` systems from pairwise differences.

    Args:
        n: Number of systems.
        difference: Interval of score(i) - score(j), asked once per pair with i < j. A pair is ordered only
            where the interval excludes 0; all other pairs are ties.
        higher_is_better: Direction of the score.
    """
    above = [[0, 0] for _ in range(n)]  # per system: surely better ones, surely worse ones
    for i in range(n):
        for j in range(i + 1, n):
            gap = difference(i, j)
            if not gap.excludes(0.0):
                continue
            first_wins = (gap.low > 0) == higher_is_better
            winner, loser = (i, j) if first_wins else (j, i)
            above[loser][0] += 1
            above[winner][1] += 1
    return [RankBand(1 + better, n - worse) for better, worse in above]


def rank_bands_from_intervals(intervals: Sequence[Interval], higher_is_better: bool = True) -> list[RankBand]:
    """Bands from the systems' own intervals where items are not at hand; disjoint intervals order a pair.

    More cautious than paired differences: two systems may be told apart although their intervals overlap.
    """

    def difference(i: int, j: int) -> Interval:
        a, b = intervals[i], intervals[j]
        return Interval(
            a.value - b.value, a.low - b.high, a.high - b.low, min(a.n, b.n), "disjoint intervals"
        )

    return rank_bands(len(intervals), difference, higher_is_better)

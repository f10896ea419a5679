"""The difference of two systems on the same items with its interval, and rank bands from the differences of all pairs.

The rules of intervals are those of `rba_bench.metrics.interval`; boards, `compare` and studies apply them through this
module. A rank band goes from the best to the worst rank that the differences of all pairs leave open. The bands of a
board hold together: with probability 0.95 no pair of equal systems is put in order, however many pairs there are. Pairs
are ordered by their p-values after Holm's step-down (1979) with Shaffer's refinement (1986): once some pairs differ,
not all of the others can be equal, since equality is transitive.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rba_bench.metrics.interval import (
    FEWEST,
    LEVEL,
    SWAPPED,
    Clusters,
    Difference,
    Floats,
    Interval,
    Scale,
    Z,
    adjusted_difference,
    clip_to_scale,
    include_zero,
    normal_p,
    sign_test,
    t_p,
    t_quantile,
)

MOST = 0.5  # share of clusters that agree, above which a spread between them is not to be trusted
ROUNDING = 1e-9  # share of the scale


@dataclass(frozen=True)
class PairedRows:
    """Two systems on the same clusters.

    Attributes:
        left: Summed rows of one system, `[G, k]`, a row per cluster.
        right: Of the other.
        sizes: Items in each cluster, `[G]`.
        score: Scores `[m]` of summed rows `[m, k]`.
        scale: Where a score of one system can lie.
    """

    left: Floats
    right: Floats
    sizes: Floats
    score: Callable[[Floats], Floats]
    scale: Scale

    @property
    def value(self) -> float:
        """Score of left minus score of right."""
        left, right = self.score(np.stack([self.left.sum(axis=0), self.right.sum(axis=0)])).tolist()
        return float(left - right)

    @property
    def votes(self) -> tuple[int, int] | None:
        """Items right on one side only, left then right; None unless items are independent and 0 or 1."""
        if self.left.shape[1] != 2 or (self.sizes != 1).any():
            return None
        both = np.stack([self.left, self.right])
        if (both[..., 1] != 1).any() or not np.isin(both[..., 0], (0.0, 1.0)).all():
            return None
        gap = both[0, :, 0] - both[1, :, 0]
        return int((gap > 0).sum()), int((gap < 0).sum())

    @property
    def changed(self) -> np.ndarray:
        """Which clusters differ between the two, `[G]`."""
        return np.asarray((self.left != self.right).any(axis=1))

    @property
    def gaps(self) -> Floats | None:
        """Left minus right of each cluster where a score is a ratio of two columns, `[G]`; None otherwise."""
        if self.left.shape[1] != 2 or not (self.left[:, 1] * self.right[:, 1]).all():
            return None
        return self.score(self.left) - self.score(self.right)

    @property
    def mostly_equal(self) -> bool:
        """True if nearly all clusters have one and the same difference: most of them, all but `SWAPPED`."""
        count = len(self.sizes)
        odd, gaps = int(self.changed.sum()), self.gaps
        if gaps is not None:
            odd = count - int(np.unique(gaps.round(9), return_counts=True)[1].max())
        return odd <= SWAPPED and odd < (1 - MOST) * count

    @property
    def reach(self) -> float:
        """How far an item not seen may lie apart: as far as any seen, if enough differ, else the whole scale."""
        gaps = self.gaps
        if gaps is None or np.count_nonzero(gaps) < FEWEST:
            return self.scale.width
        return float(np.abs(gaps).max())


@dataclass(frozen=True)
class SeedVariance:
    """Variance of a difference between training seeds, over and above that between items.

    Attributes:
        variance: Of the mean over the seeds.
        degrees: Seeds less one.
    """

    variance: float
    degrees: float


def difference_interval(
    rows: PairedRows, drawn: Callable[[], Floats], source: str, between: SeedVariance | None = None
) -> Difference:
    """Left minus right with its 95 % interval and p-value.

    Args:
        rows: The two systems.
        drawn: Gives the differences of the resamples, whose spread is the standard error; asked if needed.
        source: Where `drawn` comes from, in words.
        between: What training seeds add.
    """
    clusters, scale, value = Clusters.of(rows.sizes), rows.scale.of_differences, rows.value
    if clusters.count < 2:
        low, high = include_zero(scale.bottom(value), scale.top(value), False)
        return Difference(value, low, high, clusters.n, "too few clusters: 1, the whole scale", 1.0)
    votes = rows.votes if between is None else None
    if votes is not None:
        centre, error, degrees, method = _of_votes(value, votes, clusters, scale.width)
        p = max(sign_test(*votes), normal_p(centre / error))
    else:
        centre, error, degrees, method = _of_clusters(rows, value, drawn(), clusters, source)
        if between is not None:
            error, degrees = pooled_error(error, degrees, between)
            method += f" and between {between.degrees + 1:.0f} seeds"
        p = t_p(centre / error, degrees) if error > 0 else 1.0
        p = max(p, swap_test(rows, value) or 0.0)
    if clusters.few:
        p, method = 1.0, f"{method}; too few clusters to tell anything apart: {clusters.count}"
    half = (Z if math.isinf(degrees) else t_quantile(degrees)) * error
    ends = include_zero(centre - half, centre + half, p <= 1 - LEVEL)
    return Difference(value, *clip_to_scale(scale, value, *ends), clusters.n, method, p)


def swap_test(rows: PairedRows, value: float) -> float | None:
    """Exact p-value of swapping the two systems' answers, cluster by cluster; None if more than `SWAPPED` differ.

    All swaps of the clusters that differ are counted, so this is approximate randomisation (Noreen 1989) without the
    approximation; of 0/1 items, the sign test.
    """
    changed = rows.changed
    count = int(changed.sum())
    if count > SWAPPED:
        return None
    if not count:
        return 1.0
    swaps = np.arange(2 ** (count - 1))  # the first stays: swapping all of them only turns the sign
    stays = 1.0 - (swaps[:, None] >> np.arange(count) & 1)
    left, right = rows.left[changed], rows.right[changed]
    rest_left, rest_right = rows.left[~changed].sum(axis=0), rows.right[~changed].sum(axis=0)
    gaps = rows.score(stays @ left + (1 - stays) @ right + rest_left)
    gaps = gaps - rows.score(stays @ right + (1 - stays) @ left + rest_right)
    return float((np.abs(gaps) >= abs(value) - ROUNDING * rows.scale.width).mean())


def _of_votes(
    value: float, votes: tuple[int, int], clusters: Clusters, width: float
) -> tuple[float, float, float, str]:
    """Centre, standard error, degrees of freedom and method for independent 0/1 items."""
    wins, losses = votes
    share, gap = (wins + losses) / clusters.n, (wins - losses) / clusters.n
    error = width * math.sqrt(max(share - gap**2, 0.0) / clusters.n)
    centre, error = adjusted_difference(value, error, clusters.n, width)
    method = (
        f"paired Bonett-Price 95 %, {clusters}, {wins} against {losses} differ; zero by the exact sign test"
    )
    return centre, error, math.inf, method


def _of_clusters(
    rows: PairedRows, value: float, draws: Floats, clusters: Clusters, source: str
) -> tuple[float, float, float, str]:
    """The same for clusters, ratings and corpus scores."""
    scored = scored_draws(draws)
    error = float(scored.std(ddof=1))
    # A spread of R resamples is as unsure as one of R items, which tells far out, where many pairs are compared.
    degrees = 1 / (1 / clusters.degrees + 1 / (len(scored) - 1))
    method = f"paired t interval 95 %, {degrees:.3g} degrees, standard error from {source}"
    changed = int(rows.changed.sum())
    if changed <= SWAPPED:
        method += f"; zero by all swaps of the {changed} clusters that differ"
    if rows.mostly_equal or error <= ROUNDING * rows.scale.width:
        centre, error = adjusted_difference(value, error, clusters.count, rows.reach)
        return centre, error, degrees, method + "; most are equal, so one more for each side"
    return value, error * clusters.inflation, degrees, method


def scored_draws(draws: Floats) -> Floats:
    """Scores of the resamples that have one: a resample of nothing but unscored items says nothing.

    Raises:
        ValueError: fewer than two have one.
    """
    scored = draws[~np.isnan(draws)]
    if len(scored) < 2:
        raise ValueError("no resample holds an item with a score")
    return scored


def pooled_error(error: float, degrees: float, between: SeedVariance) -> tuple[float, float]:
    """Standard error of both sources and its degrees of freedom (Satterthwaite 1946)."""
    parts = error**2, between.variance
    total = sum(parts)
    if not total:
        return error, degrees
    return math.sqrt(total), total**2 / (parts[0] ** 2 / degrees + parts[1] ** 2 / between.degrees)


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
    for i, j in significant_pairs(n, {pair: gap.p_zero for pair, gap in pairs.items()}):
        winner, loser = (i, j) if (pairs[i, j].value > 0) == higher_is_better else (j, i)
        above[loser][0] += 1
        above[winner][1] += 1
    return [RankBand(1 + better, n - worse) for better, worse in above]


def rank_bands_from_intervals(
    intervals: Sequence[Interval], higher_is_better: bool = True, independent: Sequence[int] | None = None
) -> list[RankBand]:
    """Bands from the systems' own intervals where items are not at hand, see `difference_of_intervals`."""
    counts = independent or [each.n for each in intervals]

    def difference(i: int, j: int) -> Interval:
        return difference_of_intervals(intervals[i], intervals[j], min(counts[i], counts[j]))

    return rank_bands(len(intervals), difference, higher_is_better)


def difference_of_intervals(a: Interval, b: Interval, independent: int) -> Difference:
    """Difference of two scores from their own intervals, which exclude zero where they are disjoint.

    More cautious than paired differences: the difference of two systems may be significant although their intervals
    overlap. The p-value is that of Student's t for a standard error as wide as the two facing halves together.

    Args:
        a: One score.
        b: The other.
        independent: Items or clusters behind the lesser of them; below `FEWEST` no difference is significant.
    """
    gap = a.value - b.value
    facing = (a.value - a.low) + (b.high - b.value) if gap > 0 else (a.high - a.value) + (b.value - b.low)
    p = 1.0
    if facing > 0 and independent >= FEWEST:
        degrees = independent - 1.0
        p = t_p(t_quantile(degrees) * gap / facing, degrees)
    ends = include_zero(a.low - b.high, a.high - b.low, p <= 1 - LEVEL)
    return Difference(gap, *ends, min(a.n, b.n), "from the scores' own intervals", p)


def significant_pairs(n: int, p_values: Mapping[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Pairs of `n` systems with a significant difference; wrongly so in at most 5 % of boards.

    Args:
        n: Number of systems.
        p_values: Of every pair `(i, j)`, i < j.
    """
    pairs = sorted(p_values)
    differ = holm_shaffer(n, np.array([p_values[pair] for pair in pairs]))
    return [pairs[place] for place in np.flatnonzero(differ)]


def holm_shaffer(n: int, p_values: Floats) -> NDArray[np.bool_]:
    """Which of all pairs of `n` systems differ; the larger any p-value, the fewer do.

    Args:
        n: Number of systems.
        p_values: Of all `n (n - 1) / 2` pairs.
    """
    order = np.argsort(p_values, kind="stable")
    fails = p_values[order] * _most_equal(n)[: len(order)] > 1 - LEVEL
    differ = np.zeros(len(order), dtype=bool)
    differ[order[: int(fails.argmax()) if fails.any() else len(order)]] = True
    return differ


@lru_cache(maxsize=64)
def _most_equal(n: int) -> NDArray[np.int64]:
    """By the number of pairs that differ for sure: the most of the others that can be equal at once, at least 1."""
    pairs = n * (n - 1) // 2
    bits = _equal_pairs(n).to_bytes(pairs // 8 + 1, "little")
    possible = np.flatnonzero(np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little"))
    left = np.arange(pairs, -1, -1)
    return np.maximum(possible[np.searchsorted(possible, left, side="right") - 1], 1)


@lru_cache(maxsize=64)
def _equal_pairs(n: int) -> int:
    """Numbers of equal pairs that `n` systems can have, as bits: those of a block of j equal ones and of the rest."""
    numbers = [1, 1]
    for count in range(2, n + 1):
        bits = 0
        for block in range(1, count + 1):
            bits |= numbers[count - block] << block * (block - 1) // 2
        numbers.append(bits)
    return numbers[n]

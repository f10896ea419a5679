"""The differences of all pairs of many systems on the same items, and the rank bands that follow from them.

This gives what `rba_bench.metrics.paired.difference_interval` and `rank_bands` give pair by pair. A system is summed up
by cluster, scored and resampled once, which is the cost that grows with the number of systems; a pair then costs the
subtraction of two rows of resamples. The p-values of a few kinds of pairs (few clusters differ, or nearly all by the
same amount) need a test of their own. They get bounds instead, and are computed one by one only where the bounds leave
open which pairs differ: Holm's step-down is monotone, so with p-values between two bounds it finds at least the pairs
that it finds with the upper ones, and at most those that it finds with the lower ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rba_bench.metrics.bootstrap import ScoreFn
from rba_bench.metrics.interval import SWAPPED, Clusters, Floats, Interval
from rba_bench.metrics.paired import MOST, ROUNDING, RankBand, holm_shaffer

CLOSE = 1e-9  # relative; the last digits of a p-value depend on how many are computed together
_PROBED = 64  # clusters looked at to find pairs of which nearly all may have one difference


@dataclass(frozen=True)
class System:
    """One of many systems on the same clusters.

    Attributes:
        score: On all of them.
        width: How much its score changes if every item goes from worst to best.
        contents: Gives a number for the summed row of each cluster, `[G]`; equal rows have equal numbers.
        share: Item scores `[G]` if items are independent and 0 or 1, else None.
        per_cluster: Score of each cluster `[G]` where it is a ratio of two columns, else None.
        drawn: Gives the scores of the resamples, `[R]`.
    """

    score: float
    width: float
    contents: Callable[[], NDArray[np.int64]]
    share: Floats | None
    per_cluster: Floats | None
    drawn: Callable[[], Floats]


@dataclass(frozen=True)
class PairBounds:
    """What is known of the pairs of M systems; entries above the diagonal count.

    Attributes:
        values: Score of the first minus score of the second, `[M, M]`; NaN where it is not known.
        low: Lower bounds of the p-values of no difference, `[M, M]`.
        high: Upper bounds, `[M, M]`.
    """

    values: Floats
    low: Floats
    high: Floats

    @classmethod
    def unknown(cls, count: int) -> "PairBounds":
        """Bounds that say nothing, of `count` systems."""
        shape = (count, count)
        return cls(np.full(shape, np.nan), np.zeros(shape), np.ones(shape))


def summed_up(
    rows: Floats,
    sizes: Floats,
    score: ScoreFn,
    width: float,
    drawn: Callable[[], Floats],
    numbers: dict[bytes, int],
) -> System:
    """One system from its summed rows.

    Args:
        rows: `[G, k]`, a row per cluster.
        sizes: Items in each cluster, `[G]`.
        score: Score of summed rows.
        width: Of the score's scale, for the items of this system.
        drawn: Gives the scores of the resamples, `[R]`; asked if needed.
        numbers: Numbers of the rows met so far, shared by all systems; grows.
    """
    is_share = rows.shape[1] == 2 and bool((sizes == 1).all() and (rows[:, 1] == 1).all())
    is_share = is_share and bool(np.isin(rows[:, 0], (0.0, 1.0)).all())
    is_ratio = rows.shape[1] == 2 and bool(rows[:, 1].all())
    numbered = partial(_numbered, rows, numbers)
    if not is_share:  # shares are seldom asked
        numbered = partial(np.asarray, numbered())
    return System(
        float(score.many(rows.sum(axis=0)[None])[0]),
        width,
        numbered,
        rows[:, 0].copy() if is_share else None,
        score.many(rows) if is_ratio else None,
        drawn,
    )


def _numbered(rows: Floats, numbers: dict[bytes, int]) -> NDArray[np.int64]:
    """The number of each row; new ones get the next."""
    data, size = (rows + 0.0).tobytes(), 8 * rows.shape[1]  # one zero, not two
    found = [numbers.setdefault(data[at : at + size], len(numbers)) for at in range(0, len(data), size)]
    return np.array(found, dtype=np.int64)


def pair_bounds(systems: Sequence[System], sizes: Floats) -> PairBounds:
    """Differences of all pairs, with bounds of their p-values that lie apart only where a pair needs a test of its own.

    Args:
        systems: M systems on the same clusters.
        sizes: Items in each cluster, `[G]`.
    """
    clusters, scores = Clusters.of(sizes), np.array([each.score for each in systems])
    values = scores[:, None] - scores[None]
    bounds = PairBounds(values, np.ones_like(values), np.ones_like(values))
    if clusters.few:  # too few to tell anything apart
        return bounds
    shares = np.array([each.share is not None for each in systems])
    if shares.any():
        _bound_shares(bounds, systems, np.flatnonzero(shares), clusters)
    if not shares.all():
        together = _Stacked(systems, clusters)
        for first in range(len(systems) - 1):
            others = np.arange(first + 1, len(systems))
            others = others[~shares[others]] if shares[first] else others
            if len(others):
                low, high = together.bounds(first, others, values[first, others])
                bounds.low[first, others], bounds.high[first, others] = low, high
    return bounds


def _bound_shares(
    bounds: PairBounds, systems: Sequence[System], places: NDArray[np.intp], clusters: Clusters
) -> None:
    """P-values of independent 0/1 items."""
    block = np.ix_(places, places)
    items = np.stack([share for place in places if (share := systems[place].share) is not None])
    wins = items @ (1.0 - items).T
    widths = np.array([systems[place].width for place in places])
    width = np.maximum(widths[:, None], widths[None])
    p = share_p_values(wins, wins.T, np.float64(clusters.n), bounds.values[block], width)
    bounds.low[block], bounds.high[block] = p * (1 - CLOSE), np.minimum(p * (1 + CLOSE), 1.0)


def share_p_values(
    wins: ArrayLike, losses: ArrayLike, n: ArrayLike, value: ArrayLike, width: ArrayLike
) -> Floats:
    """P-values of many pairs on independent 0/1 items: the exact sign test, or the interval's where that is larger.

    Args:
        wins: Items right on the left side only.
        losses: Items right on the right side only.
        n: Items.
        value: Score of left minus score of right.
        width: How much a score changes if every item goes from worst to best.
    """
    from scipy.special import bdtr, erfc

    won, lost, count, gap, wide = (
        np.asarray(each, dtype=np.float64) for each in (wins, losses, n, value, width)
    )
    differ, share = won + lost, (won - lost) / count
    error = wide * np.sqrt(np.maximum(differ / count - share**2, 0.0) / count)
    more = count + 2  # as in `adjusted_difference`: one more in favour of each side
    centre = gap * count / more
    square = (count * (count * error**2 + gap**2) + 2 * wide**2) / more
    error = np.sqrt(np.maximum(square - centre**2, 0.0) / more)
    sign = np.minimum(1.0, 2 * bdtr(np.minimum(won, lost), np.maximum(differ, 1.0).astype(np.int64), 0.5))
    p: Floats = np.maximum(np.where(differ > 0, sign, 1.0), erfc(np.abs(centre / error) / np.sqrt(2)))
    return p


class _Stacked:
    """Systems as arrays with a row for each: clusters that are not all 0/1 items, ratings, corpus scores."""

    def __init__(self, systems: Sequence[System], clusters: Clusters) -> None:
        self.clusters = clusters
        self.systems = systems
        self.widths = np.array([each.width for each in systems])
        self.contents = np.stack([each.contents() for each in systems])
        self.draws = np.stack([each.drawn() for each in systems])
        self.are_ratios = all(each.per_cluster is not None for each in systems)
        places = np.unique(np.linspace(0, clusters.count - 1, _PROBED).round().astype(np.intp))
        probed = [each.per_cluster[places] for each in systems if each.per_cluster is not None]
        self.probed = np.stack(probed) if self.are_ratios else np.empty((len(systems), 0))

    def bounds(self, first: int, others: NDArray[np.intp], values: Floats) -> tuple[Floats, Floats]:
        """Bounds of the p-values of one system against `others`."""
        from scipy.special import stdtr

        changed = np.count_nonzero(self.contents[first] != self.contents[others], axis=1)
        width = np.maximum(self.widths[first], self.widths[others])
        error = (self.draws[first] - self.draws[others]).std(axis=1, ddof=1)
        degrees = 1 / (1 / self.clusters.degrees + 1 / (self.draws.shape[1] - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stdtr(degrees, -np.abs(values / (error * self.clusters.inflation)))
        own_test = ~(error > ROUNDING * width) | self._maybe_mostly_equal(first, others, changed)
        few = changed <= SWAPPED
        low, high = np.where(own_test, 0.0, p * (1 - CLOSE)), np.where(own_test | few, 1.0, p * (1 + CLOSE))
        # Of the 2^(changed - 1) swaps, the one that changes nothing is always among those that count
        low = np.where(few, np.maximum(low, 2.0 ** -np.maximum(changed - 1.0, 0.0)), low)
        return low, np.minimum(high, 1.0)

    def _maybe_mostly_equal(
        self, first: int, others: NDArray[np.intp], changed: NDArray[np.intp]
    ) -> NDArray[np.bool_]:
        """Pairs that may have one and the same difference in nearly all clusters; all that have it are among them."""
        most_differ = (1 - MOST) * self.clusters.count
        maybe: NDArray[np.bool_] = (changed <= SWAPPED) & (changed < most_differ)
        if self.are_ratios:
            maybe = _odd_ones(self.probed[first] - self.probed[others]) <= SWAPPED
        for place in np.flatnonzero(maybe):
            pair = self.systems[first].per_cluster, self.systems[others[place]].per_cluster
            if pair[0] is not None and pair[1] is not None:
                odd = _odd_ones((pair[0] - pair[1])[None])[0]
                maybe[place] = odd <= SWAPPED and odd < most_differ
        return maybe


def _odd_ones(gaps: Floats) -> NDArray[np.intp]:
    """Of each row, how many are not equal to its median: all that differ from a value that more than half have."""
    middle = np.partition(gaps, gaps.shape[1] // 2, axis=1)[:, [gaps.shape[1] // 2]]
    return gaps.shape[1] - np.count_nonzero(np.abs(gaps - middle) <= 2 * ROUNDING, axis=1)


def rank_bands_within(
    bounds: PairBounds, exact: Callable[[int, int], Interval], higher_is_better: bool = True
) -> list[RankBand]:
    """Bands of M systems, equal to those of `rank_bands` on the exact differences of all pairs.

    Args:
        bounds: What is known of all pairs; changed where a pair is computed.
        exact: Interval of score(i) - score(j), i < j, asked once for each pair whose bounds leave its place open.
        higher_is_better: Direction of the score.
    """
    count = len(bounds.values)
    above = np.triu_indices(count, 1)
    values, low, high = (each[above] for each in (bounds.values, bounds.low, bounds.high))
    while True:
        surely, perhaps = holm_shaffer(count, high), holm_shaffer(count, low)
        is_open = (perhaps & ~surely) | (perhaps & np.isnan(values))
        if not is_open.any():
            break
        asked = is_open & ((low < high) | np.isnan(values))
        for place in np.flatnonzero(asked if asked.any() else low < high):
            difference = exact(int(above[0][place]), int(above[1][place]))
            values[place], low[place], high[place] = difference.value, difference.p_zero, difference.p_zero
    told_apart, sign = np.zeros((count, count), dtype=bool), values > 0
    told_apart[above] = surely
    first_wins = np.zeros_like(told_apart)
    first_wins[above] = sign if higher_is_better else ~sign
    wins = (told_apart & first_wins) | (told_apart & ~first_wins).T
    return [RankBand(1 + int(wins[:, i].sum()), count - int(wins[i].sum())) for i in range(count)]

"""The differences of all pairs of many mean scores where each system lacks the scores of other items.

Two systems are compared on the items that have a score in both, so each pair has a test set of its own and would have
to be resampled for itself. The bootstrap's standard error of a difference of means is known without: of clusters with
difference D_g and n_g items it tends to sqrt(sum (D_g - n_g d)^2) / n, d being the difference (Efron and Tibshirani
1993, An Introduction to the Bootstrap, chapter 5). The error of 1,000 resamples strays from that by 2.2 % (one standard
deviation). So p-values are bounded for errors up to `STRAY` apart, more than six such deviations, and a pair is
resampled only if its place is open between these bounds. Independent 0/1 items need no resamples: their p-values are
exact.
"""

import numpy as np
from numpy.typing import NDArray

from rba_bench.metrics.all_pairs import CLOSE, PairBounds, share_p_values
from rba_bench.metrics.bootstrap import RESAMPLES
from rba_bench.metrics.interval import FEWEST, SWAPPED, Floats
from rba_bench.metrics.paired import ROUNDING

STRAY = 1.15
_PROBED = 64  # clusters looked at to find pairs of which nearly all may have one difference


def mean_pair_bounds(
    values: Floats, scored: NDArray[np.bool_], clusters: NDArray[np.intp], width: float
) -> PairBounds:
    """Bounds for all pairs of M systems on `n` items.

    Args:
        values: Item scores `[M, n]`.
        scored: Which of them there are, `[M, n]`.
        clusters: Number of each item's cluster, `[n]`.
        width: How much a score changes if every item goes from worst to best.
    """
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    values, scored = np.where(scored, values, 0.0)[:, order], scored[:, order]
    are_shares = ~scored | np.isin(values, (0.0, 1.0))
    bounds = PairBounds.unknown(len(values))
    for first in range(len(values) - 1):
        rest = slice(first + 1, None)
        both = scored[first] & scored[rest]
        gaps = np.where(both, values[first] - values[rest], 0.0)
        sizes = np.add.reduceat(both.astype(np.float64), starts, axis=1)
        items = sizes.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # pairs without a common item stay unknown
            value = gaps.sum(axis=1) / items
            low, high = _of_clusters(np.add.reduceat(gaps, starts, axis=1), sizes, value, width)
            wins, losses = (gaps > 0).sum(axis=1), (gaps < 0).sum(axis=1)
            exact = share_p_values(wins, losses, items, value, width)
        shares = (sizes <= 1).all(axis=1) & (~both | (are_shares[first] & are_shares[rest])).all(axis=1)
        low, high = np.where(shares, exact * (1 - CLOSE), low), np.where(shares, exact * (1 + CLOSE), high)
        few = (sizes > 0).sum(axis=1) < FEWEST  # too few to tell anything apart
        known = items > 0
        bounds.values[first, rest] = np.where(known, value, np.nan)
        bounds.low[first, rest] = np.where(known, np.where(few, 1.0, low), 0.0)
        bounds.high[first, rest] = np.where(known, np.where(few, 1.0, np.minimum(high, 1.0)), 1.0)
    return bounds


def _of_clusters(gaps: Floats, sizes: Floats, value: Floats, width: float) -> tuple[Floats, Floats]:
    """Bounds of one system against others, from the summed differences `[m, G]` and the items `[m, G]` of clusters."""
    from scipy.special import stdtr

    items, present = sizes.sum(axis=1), sizes > 0
    count = present.sum(axis=1)
    error = np.sqrt(((gaps - sizes * value[:, None]) ** 2).sum(axis=1)) / items
    worth = np.maximum(items**2 / (sizes**2).sum(axis=1) - 1, 1.0)
    degrees = 1 / (1 / worth + 1 / (RESAMPLES - 1))
    statistic = np.abs(value) / (error * np.sqrt(count / (count - 1)))
    low, high = 2 * stdtr(degrees, -statistic * STRAY), 2 * stdtr(degrees, -statistic / STRAY)
    changed = (np.abs(gaps) > 0).sum(axis=1)
    own_test = ~(error > 10 * ROUNDING * width) | (changed <= SWAPPED) | _maybe_mostly_equal(gaps, sizes)
    low = np.where(own_test, np.where(changed <= SWAPPED, 2.0 ** -np.maximum(changed - 1.0, 0.0), 0.0), low)
    return low, np.where(own_test, 1.0, high)


def _maybe_mostly_equal(gaps: Floats, sizes: Floats) -> NDArray[np.bool_]:
    """Rows in which all but `SWAPPED` clusters may have one mean difference; surely those in which they have."""
    probed = np.unique(np.linspace(0, gaps.shape[1] - 1, _PROBED).round().astype(np.intp))
    maybe = _odd_ones(gaps[:, probed], sizes[:, probed]) <= SWAPPED
    places = np.flatnonzero(maybe)
    if len(places):
        maybe[places] = _odd_ones(gaps[places], sizes[places]) <= SWAPPED
    return maybe


def _odd_ones(gaps: Floats, sizes: Floats) -> NDArray[np.intp]:
    """Of each row, how many clusters have another mean difference than its median."""
    present = sizes > 0
    means = np.divide(gaps, sizes, out=np.full_like(gaps, np.inf), where=present)
    count = present.sum(axis=1)
    middle = np.take_along_axis(np.sort(means, axis=1), (count // 2)[:, None].clip(max=means.shape[1] - 1), 1)
    with np.errstate(invalid="ignore"):  # nothing is seen of a row without clusters
        return count - (present & (np.abs(means - middle) <= 2 * ROUNDING)).sum(axis=1)

"""Bootstrap intervals for means and corpus scores, alone and paired, by item or by cluster.

Everything is a function of a *sum of rows*: BLEU of its sentence statistics, a mean of `(value, 1)`. A resample is
then a vector of counts (how often each row was drawn) times the matrix of rows: no text is scored twice and no copy
of the data is made. Rows of one cluster (an instruction in several voices, a passage with many questions) are summed
first and drawn together, which is the clustered bootstrap. Two systems drawn with the same counts give the paired
bootstrap. The spread of the resamples is the standard error; `rba_bench.metrics.interval` makes an interval of it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rba_bench.metrics import paired
from rba_bench.metrics.interval import (
    LEVEL,
    SWAPPED,
    Clusters,
    Difference,
    Floats,
    Interval,
    Scale,
    Z,
    score_ends,
    share_ends,
    t_quantile,
    widen_for_unseen,
)

SEED = 1234
RESAMPLES = 1000
_CHUNK_CELLS = 1_000_000  # draws held at once: 8 MB, and a few copies
_KEPT_COUNTS = 8  # counts of draws that are kept, each of at most that many cells
_KEPT_CLUSTERS = 32  # clusterings of items that are kept


class ScoreFn(ABC):
    """A score as a function of a sum of rows, with the scale it lies on."""

    def __call__(self, total: Sequence[float]) -> float:
        """Score of one summed row `[k]`."""
        return float(self.many(np.asarray([total], dtype=np.float64))[0])

    @abstractmethod
    def many(self, totals: Floats) -> Floats:
        """Scores `[m]` of summed rows `[m, k]`."""

    @abstractmethod
    def scale(self, rows: Floats, width: float | None) -> Scale:
        """Where a score of items with these rows `[n, k]` can lie, `width` being the largest value if it is known."""


class MeanScore(ScoreFn):
    """Mean from a summed `(value, 1)` row; NaN where nothing was summed, which is no score at all."""

    def many(self, totals: Floats) -> Floats:
        """Means `[m]` of summed rows `[m, 2]`."""
        empty = np.full(len(totals), math.nan)
        return np.divide(totals[:, 0], totals[:, 1], out=empty, where=totals[:, 1] != 0)

    def scale(self, rows: Floats, width: float | None) -> Scale:
        """From 0 to `width` (else 1, or the largest value) if all items lie there; no ends otherwise."""
        values = np.divide(rows[:, 0], rows[:, 1], out=np.zeros(len(rows)), where=rows[:, 1] != 0)
        most = float(np.abs(values).max())
        reach = width or max(1.0, most)
        return Scale(reach, 0.0, reach) if values.min() >= 0 and most <= reach else Scale(max(reach, most))


mean_score = MeanScore()


def bootstrap_mean(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = SEED,
    resamples: int = RESAMPLES,
    scale: float | None = None,
    draws: Floats | None = None,
) -> Interval:
    """Mean of per-item `values` with its interval.

    Args:
        values: One number per item, `[n]`.
        clusters: Cluster label per item; clusters are drawn whole. None draws items.
        seed: Seed of the draws; equal seed, n and clusters give equal draws.
        resamples: Number of resamples.
        scale: Largest value of the metric; None for 1, or the largest of the values.
        draws: See `bootstrap_corpus`.
    """
    data = _finite_array(values, 1)
    groups = clusters_of(len(data), clusters)
    if groups.count == groups.n > 1 and scale in (None, 1.0) and ((data == 0.0) | (data == 1.0)).all():
        right = int(data.sum())
        method = f"Wilson 95 %, {groups}, all equal" if right in (0, groups.n) else f"mid-p 95 %, {groups}"
        return Interval(float(data.mean()), *share_ends(right, groups.n), groups.n, method)
    rows = mean_rows(data)
    interval = bootstrap_corpus(rows, mean_score, clusters, seed, resamples, scale, draws)
    means = mean_score.many(cluster_rows(rows, clusters))
    most_equal = int(np.unique(means.round(9), return_counts=True)[1].max())
    if not groups.few and paired.MOST * groups.count < most_equal and groups.count - most_equal <= SWAPPED:
        # Nearly all clusters agree: the few others are too few to tell how far from the rest an item may lie.
        limits = mean_score.scale(rows, scale)
        low, high = widen_for_unseen(interval.value, interval.low, interval.high, groups, limits)
        method = f"{interval.method}; nearly all equal, room for the unseen"
        return Interval(interval.value, low, high, interval.n, method)
    return interval


def bootstrap_corpus(
    stats: ArrayLike,
    score_fn: ScoreFn,
    clusters: Sequence[Hashable] | None = None,
    seed: int = SEED,
    resamples: int = RESAMPLES,
    scale: float | None = None,
    draws: Floats | None = None,
) -> Interval:
    """Corpus score with its interval.

    Args:
        stats: Sufficient statistics, one row per item `[n, k]`.
        score_fn: Score of a summed row `[k]`, e.g. `score_function("bleu")`.
        clusters: Cluster label per item; clusters are drawn whole. None draws items.
        seed: Seed of the draws; equal seed, n and clusters give equal draws.
        resamples: Number of resamples.
        scale: Largest value of the metric; None if the score function knows.
        draws: What `resampled_scores` gives for the other arguments, where that is known.
    """
    rows, groups = _finite_array(stats, 2), clusters_of(len(stats), clusters)  # type: ignore[arg-type]
    value, limits = float(score_fn(rows.sum(axis=0).tolist())), score_fn.scale(rows, scale)
    if draws is None:
        draws = resampled_scores(rows, score_fn, clusters, seed, resamples)
    if groups.count < 2:
        ends, method = score_ends(value, 0.0, groups, limits), "too few clusters: 1, the whole scale"
        return Interval(value, *ends, groups.n, method)
    method = (
        f"Wilson-shaped t interval 95 %, {groups.degrees:.3g} degrees, "
        f"standard error from {_source(groups, seed, resamples)}"
    )
    ends = score_ends(value, bootstrap_error(draws, groups), groups, limits)
    return Interval(value, *ends, groups.n, method)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    score_fn: ScoreFn | None = None,
    clusters: Sequence[Hashable] | None = None,
    seed: int = SEED,
    resamples: int = RESAMPLES,
    scale: float | None = None,
) -> Difference:
    """Score of A minus score of B on the same items, both drawn together.

    Args:
        a: Values `[n]` (the score is their mean) or statistics `[n, k]` (with `score_fn`) of system A.
        b: The same items, in the same order, of system B (see `align`).
        score_fn: Score of a summed row for statistics.
        clusters: Cluster label per item, or None.
        seed: Seed of the draws.
        resamples: Number of resamples.
        scale: Largest value of the metric; None if the score function knows, and for means 1, or the
            largest value.

    Raises:
        ValueError: the two do not have the same shape, or statistics come without a score function.
    """
    left, right = _rows(a, score_fn), _rows(b, score_fn)
    if left.shape != right.shape:
        raise ValueError(f"paired systems need equal items: {left.shape} against {right.shape}")
    score = score_fn or mean_score
    rows = paired_rows(left, right, score, clusters, scale)

    def drawn() -> Floats:
        sums = resampled_sums(np.hstack([rows.left, rows.right]), None, seed, resamples)
        a_sums, b_sums = np.hsplit(sums, 2)
        return score.many(a_sums) - score.many(b_sums)

    return paired.difference_interval(rows, drawn, _source(Clusters.of(rows.sizes), seed, resamples))


def paired_rows(
    left: Floats,
    right: Floats,
    score_fn: ScoreFn,
    clusters: Sequence[Hashable] | None,
    scale: float | None = None,
) -> paired.PairedRows:
    """Two systems' rows `[n, k]` summed by cluster."""
    return paired.PairedRows(
        left=cluster_rows(left, clusters),
        right=cluster_rows(right, clusters),
        sizes=cluster_sizes(len(left), clusters),
        score=score_fn.many,
        scale=score_fn.scale(np.vstack([left, right]), scale),
    )


def bootstrap_error(draws: Floats, clusters: Clusters) -> float:
    """Standard error of a score from those of its resamples; NaN for a single cluster."""
    return float(paired.scored_draws(draws).std(ddof=1)) * clusters.inflation


def relative_interval(
    value: float, draws: Floats, clusters: Clusters, absolute: Difference, base: float
) -> Interval:
    """Interval of a relative difference `value`, in line with that of the absolute one.

    The middle 95 % of the resamples, stretched for few clusters; at least the absolute interval over `base`, and with
    zero where that has it.
    """
    ends = stretched_ends(value, draws, clusters)
    if absolute.excludes(0.0):  # so does this one: the sign is the same
        ends = (max(ends[0], 0.0), ends[1]) if value > 0 else (ends[0], min(ends[1], 0.0))
    low, high = min(ends[0], absolute.low / base), max(ends[1], absolute.high / base)
    return Interval(value, low, high, absolute.n, absolute.method)


def stretched_ends(value: float, draws: Floats, clusters: Clusters) -> tuple[float, float]:
    """Ends of the middle 95 % of resamples, moved away from `value` for few clusters."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(paired.scored_draws(draws), [tail, 1 - tail]).tolist()
    stretch = t_quantile(clusters.degrees) / Z * clusters.inflation if clusters.count > 1 else 1.0
    return value + stretch * (low - value), value + stretch * (high - value)


def resampled_scores(
    stats: ArrayLike,
    score_fn: ScoreFn,
    clusters: Sequence[Hashable] | None = None,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Floats:
    """Score of every resample, `[resamples]`. Equal seeds on equal items draw alike: subtract to compare."""
    return score_fn.many(resampled_sums(stats, clusters, seed, resamples))


def resampled_sums(
    stats: ArrayLike, clusters: Sequence[Hashable] | None = None, seed: int = SEED, resamples: int = RESAMPLES
) -> Floats:
    """Summed rows of every resample, `[resamples, k]`.

    Raises:
        ValueError: no rows, fewer than one resample, or labels that do not fit the rows.
    """
    if resamples < 1:
        raise ValueError("at least one resample is needed")
    rows = cluster_rows(_finite_array(stats, 2), clusters)
    n = len(rows)
    chunk = max(1, _CHUNK_CELLS // n)
    if resamples <= chunk:
        return _kept_counts(n, seed, resamples) @ rows
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, rows.shape[1]))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        sums[start : start + size] = _drawn_counts(rng, n, size) @ rows
    return sums


def _drawn_counts(rng: np.random.Generator, n: int, size: int) -> Floats:
    """How often each of `n` rows was drawn in each of `size` resamples, `[size, n]`."""
    draws = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    counts = np.bincount(draws.ravel(), minlength=size * n).reshape(size, n)
    return counts.astype(np.float64)


@lru_cache(maxsize=_KEPT_COUNTS)
def _kept_counts(n: int, seed: int, resamples: int) -> Floats:
    """The same from the start of the stream of a seed; many systems are drawn on as many items."""
    counts = _drawn_counts(np.random.default_rng(seed), n, resamples)
    counts.flags.writeable = False
    return counts


def mean_rows(values: ArrayLike) -> Floats:
    """Values `[n]` as rows `(value, 1)`, the sufficient statistics of a mean."""
    data = _finite_array(values, 1)
    return np.column_stack([data, np.ones(len(data))])


def cluster_sizes(n: int, clusters: Sequence[Hashable] | None) -> Floats:
    """Items in each cluster, `[G]`; not to be changed."""
    return np.ones(n) if clusters is None else _clustering(tuple(clusters), n)[1]


def clusters_of(n: int, clusters: Sequence[Hashable] | None) -> Clusters:
    """How many independent observations `n` items are."""
    return Clusters.of(np.ones(n)) if clusters is None else _clustering(tuple(clusters), n)[2]


@lru_cache(maxsize=_KEPT_CLUSTERS)  # many systems are scored on the same items
def _clustering(labels: tuple[Hashable, ...], n: int) -> tuple[NDArray[np.intp], Floats, Clusters]:
    """Place of each item's cluster `[n]` in the order in which they come, and the sizes of the clusters `[G]`."""
    if len(labels) != n:
        raise ValueError(f"{len(labels)} cluster labels for {n} items")
    order = {label: index for index, label in enumerate(dict.fromkeys(labels))}
    places = np.array([order[label] for label in labels], dtype=np.intp)
    sizes = np.bincount(places).astype(np.float64)
    for kept in (places, sizes):
        kept.flags.writeable = False
    return places, sizes, Clusters.of(sizes)


def _source(clusters: Clusters, seed: int, resamples: int) -> str:
    return f"{resamples} resamples of {clusters}, seed {seed}"


def cluster_rows(rows: Floats, clusters: Sequence[Hashable] | None) -> Floats:
    """Rows `[n, k]` summed by cluster, `[G, k]`, clusters in the order in which they come."""
    if clusters is None:
        return rows
    places, sizes, _ = _clustering(tuple(clusters), len(rows))
    if len(sizes) == len(rows):  # each item is its own
        return rows + 0.0
    sums = np.zeros((len(sizes), rows.shape[1]))
    np.add.at(sums, places, rows)
    return sums


def _rows(values: ArrayLike, score_fn: ScoreFn | None) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim == 1:
        if score_fn is not None:
            raise ValueError("a score function needs statistics [n, k], not values [n]")
        return mean_rows(data)
    if score_fn is None:
        raise ValueError("statistics [n, k] need a score function")
    return _finite_array(data, 2)


def _finite_array(values: ArrayLike, ndim: int) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != ndim or not len(data):
        wanted = "values must be a non-empty list of numbers", "statistics must be a non-empty [n, k] matrix"
        raise ValueError(wanted[ndim - 1])
    if not math.isfinite(float(data.sum())):
        raise ValueError("a value is not a finite number")
    return data

"""Bootstrap intervals for means and corpus scores, alone and paired, by item or by cluster.

Everything is a function of a *sum of rows*: BLEU of its sentence statistics, a mean of `(value, 1)`. A
resample is then a vector of counts (how often each row was drawn) times the matrix of rows: no text is scored
twice and no copy of the data is made. Rows of one cluster (an instruction in several voices, a passage with
many questions) are summed first and drawn together, which is the clustered bootstrap. Two systems drawn with
the same counts give the paired bootstrap.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rba_bench.errors import UserError

Floats = NDArray[np.float64]
ScoreFn = Callable[[Sequence[float]], float]
Value = TypeVar("Value")

SEED = 1234
RESAMPLES = 1000
LEVEL = 0.95
_CHUNK_CELLS = 1_000_000  # draws held at once: 8 MB, and a few copies


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


def bootstrap_mean(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean of per-item `values` with a percentile interval.

    Where all values are 0 or all are 1 a bootstrap would claim certainty, so the Wilson score interval is
    given instead.
    """
    data = _vector(values)
    if len(np.unique(data)) == 1 and data[0] in (0.0, 1.0):
        groups = len(data) if clusters is None else len(set(clusters))
        low, high = _wilson_edge(float(data[0]), groups)
        return Interval(
            float(data[0]), low, high, len(data), f"Wilson 95 %, {groups} independent items, all equal"
        )
    return bootstrap_corpus(mean_rows(data), mean_score, clusters, seed, resamples)


def bootstrap_corpus(
    stats: ArrayLike,
    score_fn: ScoreFn,
    clusters: Sequence[Hashable] | None = None,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Interval:
    """Corpus score with a percentile interval.

    Args:
        stats: Sufficient statistics, one row per item `[n, k]`.
        score_fn: Score of a summed row `[k]`, e.g. `CorpusBleu("de").score`.
        clusters: Cluster label per item; clusters are drawn whole. None draws items.
        seed: Seed of the draws; equal seed, n and clusters give equal draws.
        resamples: Number of resamples.
    """
    rows = _matrix(stats)
    drawn = resampled_scores(rows, score_fn, clusters, seed, resamples)
    return _percentile(
        score_fn(rows.sum(axis=0).tolist()), drawn, len(rows), _method(clusters, seed, resamples)
    )


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    score_fn: ScoreFn | None = None,
    clusters: Sequence[Hashable] | None = None,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Interval:
    """Score of A minus score of B on the same items, both drawn together.

    Args:
        a: Values `[n]` (the score is their mean) or statistics `[n, k]` (with `score_fn`) of system A.
        b: The same items, in the same order, of system B (see `align`).
        score_fn: Score of a summed row for statistics.
        clusters: Cluster label per item, or None.
        seed: Seed of the draws.
        resamples: Number of resamples.

    Raises:
        ValueError: the two do not have the same shape, or statistics come without a score function.
    """
    left, right = _rows(a, score_fn), _rows(b, score_fn)
    if left.shape != right.shape:
        raise ValueError(f"paired systems need equal items: {left.shape} against {right.shape}")
    score = score_fn or mean_score
    width = left.shape[1]
    sums = resampled_sums(np.hstack([left, right]), clusters, seed, resamples)
    drawn = score_all(score, sums[:, :width]) - score_all(score, sums[:, width:])
    value = score(left.sum(axis=0).tolist()) - score(right.sum(axis=0).tolist())
    return _percentile(value, drawn, len(left), "paired " + _method(clusters, seed, resamples))


def resampled_scores(
    stats: ArrayLike,
    score_fn: ScoreFn,
    clusters: Sequence[Hashable] | None = None,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Floats:
    """Score of every resample, `[resamples]`. Equal seeds on equal items draw alike: subtract to compare."""
    sums = resampled_sums(stats, clusters, seed, resamples)
    return score_all(score_fn, sums)


def resampled_sums(
    stats: ArrayLike, clusters: Sequence[Hashable] | None = None, seed: int = SEED, resamples: int = RESAMPLES
) -> Floats:
    """Summed rows of every resample, `[resamples, k]`.

    Raises:
        ValueError: no rows, fewer than one resample, or labels that do not fit the rows.
    """
    if resamples < 1:
        raise ValueError("at least one resample is needed")
    rows = _cluster_sums(_matrix(stats), clusters)
    n = len(rows)
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, rows.shape[1]))
    chunk = max(1, _CHUNK_CELLS // n)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        sums[start : start + size] = counts.astype(np.float64) @ rows
    return sums


def mean_rows(values: ArrayLike) -> Floats:
    """Values `[n]` as rows `(value, 1)`, the sufficient statistics of a mean."""
    data = _vector(values)
    return np.column_stack([data, np.ones(len(data))])


class _Mean:
    """Mean from a summed `(value, 1)` row; NaN where nothing was summed, which is no score at all."""

    def __call__(self, total: Sequence[float]) -> float:
        return float(total[0]) / float(total[1]) if total[1] else math.nan

    def many(self, totals: Floats) -> Floats:
        empty = np.full(len(totals), math.nan)
        return np.divide(totals[:, 0], totals[:, 1], out=empty, where=totals[:, 1] != 0)


mean_score = _Mean()


def score_all(score_fn: ScoreFn, totals: Floats) -> Floats:
    """Scores `[m]` of summed rows `[m, k]`: at once if the score function has `many`, else one by one."""
    many = getattr(score_fn, "many", None)
    if many is not None:
        return np.asarray(many(totals))
    return np.array([score_fn(row) for row in totals.tolist()])


def align(
    a: Mapping[str, Value], b: Mapping[str, Value], names: tuple[str, str] = ("A", "B")
) -> tuple[list[str], list[Value], list[Value]]:
    """Sorted common ids and the values of both systems in that order.

    Raises:
        UserError: the systems were not scored on the same ids; their difference would compare test sets.
    """
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())
        raise UserError(
            f"{names[0]} and {names[1]} were not run on the same items: {len(odd)} ids differ, e.g. {odd[0]}"
        )
    ids = sorted(a)
    return ids, [a[key] for key in ids], [b[key] for key in ids]


def percentile_interval(value: float, drawn: ArrayLike, n: int, method: str) -> Interval:
    """Interval of `value` from the scores of its resamples (or differences of them)."""
    return _percentile(value, np.asarray(drawn, dtype=np.float64), n, method)


def _percentile(value: float, drawn: Floats, n: int, method: str) -> Interval:
    tail = (1 - LEVEL) / 2
    scored = drawn[~np.isnan(drawn)]  # a resample of nothing but unscored items says nothing
    if not len(scored):
        raise ValueError("no resample holds an item with a score")
    low, high = np.quantile(scored, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high), n, method)


def _method(clusters: Sequence[Hashable] | None, seed: int, resamples: int) -> str:
    unit = "items" if clusters is None else f"{len(set(clusters))} clusters"
    return f"bootstrap percentile 95 %, {resamples} resamples of {unit}, seed {seed}"


def _cluster_sums(rows: Floats, clusters: Sequence[Hashable] | None) -> Floats:
    if clusters is None:
        return rows
    if len(clusters) != len(rows):
        raise ValueError(f"{len(clusters)} cluster labels for {len(rows)} items")
    order = {label: index for index, label in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(order), rows.shape[1]))
    np.add.at(sums, [order[label] for label in clusters], rows)
    return sums


def _wilson_edge(share: float, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    reach = z * z / (n + z * z)
    return (0.0, reach) if share == 0.0 else (1.0 - reach, 1.0)


def _rows(values: ArrayLike, score_fn: ScoreFn | None) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim == 1:
        if score_fn is not None:
            raise ValueError("a score function needs statistics [n, k], not values [n]")
        return mean_rows(data)
    if score_fn is None:
        raise ValueError("statistics [n, k] need a score function")
    return _matrix(data)


def _vector(values: ArrayLike) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data):
        raise ValueError("values must be a non-empty list of numbers")
    return _finite(data)


def _matrix(stats: ArrayLike) -> Floats:
    data = np.asarray(stats, dtype=np.float64)
    if data.ndim != 2 or not len(data):
        raise ValueError("statistics must be a non-empty [n, k] matrix")
    return _finite(data)


def _finite(data: Floats) -> Floats:
    if not math.isfinite(float(data.sum())):
        raise ValueError("a value is not a finite number")
    return data

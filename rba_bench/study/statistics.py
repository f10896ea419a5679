"""Intervals over test items and training seeds together.

The same items are answered by every system and every seed, so items and seeds are crossed, not nested. Two sources
of chance add up:

* items (clusters of equal text), drawn once for all systems and seeds: a bootstrap of summed statistics as everywhere
  here, a corpus score being computed per seed and then averaged over the seeds;
* seeds: the variance of the S seeds' own numbers, over S.

The interval is Student's t for the sum of both variances, with Satterthwaite's degrees of freedom: as many as there are
clusters where items are all of it, S - 1 where seeds are. In simulation with 3 seeds and a true difference of zero, 2 %
are marked where seeds stray no more than the items' standard error, 5 to 7 % where they stray up to eight times
further (`benchmarks/statistics.py`); intervals are then wide. Tables show the spread over seeds beside the interval.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from rba_bench.metrics import paired
from rba_bench.metrics.bootstrap import (
    RESAMPLES,
    SEED,
    Floats,
    ScoreFn,
    bootstrap_error,
    cluster_rows,
    cluster_sizes,
    resampled_sums,
    scale_of,
    score_all,
)
from rba_bench.metrics.interval import Clusters, Scale, score_ends

SYSTEMS_AT_ONCE = 32  # statistics of this many systems are drawn in one pass


@dataclass(frozen=True)
class Items:
    """What all systems were asked.

    Attributes:
        sizes: Items in each cluster, `[G]`.
        score: Score of a summed row.
        scale: Where it can lie.
    """

    sizes: Floats
    score: ScoreFn
    scale: Scale


@dataclass(frozen=True)
class Scored:
    """One trained model on one test set: its score and that of every resample of the items.

    Attributes:
        value: Score on all items, in units of the metric.
        drawn: Scores `[resamples]`; equal positions of two systems come from equal items.
        rows: Summed statistics of each cluster, `[G, k]`.
        items: What was asked.
    """

    value: float
    drawn: Floats
    rows: Floats
    items: Items


@dataclass(frozen=True)
class Estimate:
    """A number over several training seeds.

    Attributes:
        value: Mean over the seeds.
        low: Lower end of the 95 % interval over items and seeds.
        high: Upper end.
        spread: Standard deviation of `by_seed`, NaN for a single seed.
        by_seed: The number for each seed alone, in the order of the seeds.
    """

    value: float
    low: float
    high: float
    spread: float
    by_seed: tuple[float, ...]

    @property
    def mark(self) -> int:
        """1 if the interval lies above zero, -1 if below, 0 if it holds zero."""
        return int(self.low > 1e-9) - int(self.high < -1e-9)


def score_systems(
    rows: Sequence[Floats], score: ScoreFn, clusters: Sequence[Hashable], scale: float | None = None
) -> list[Scored]:
    """Scores of several systems on the same items, all with the same draws.

    Args:
        rows: Per system the summable rows `[n, k]`, items in equal order.
        score: Score of a summed row.
        clusters: Label per item `[n]`; items of one cluster are drawn together.
        scale: Largest value of the metric; None if the score function knows, and for means 1, or the
            largest value.

    Raises:
        ValueError: systems of different shapes.
    """
    if len({matrix.shape for matrix in rows}) > 1:
        raise ValueError("systems on the same items have rows of one shape")
    found: list[Scored] = []
    items = Items(cluster_sizes(len(clusters), clusters), score, scale_of(score, np.vstack(rows), scale))
    for start in range(0, len(rows), SYSTEMS_AT_ONCE):
        part = rows[start : start + SYSTEMS_AT_ONCE]
        width = part[0].shape[1]
        sums = resampled_sums(np.hstack(part), clusters)
        for index, matrix in enumerate(part):
            drawn = score_all(score, sums[:, index * width : (index + 1) * width])
            value = score(matrix.sum(axis=0).tolist())
            found.append(Scored(value, drawn, cluster_rows(matrix, clusters), items))
    return found


def pooled(seeds: Sequence[Scored]) -> Estimate:
    """Mean score over seeds. Raises ValueError for no seeds."""
    values = _values([one.value for one in seeds])
    items, between = seeds[0].items, _between(values)
    clusters = Clusters.of(items.sizes)
    error = bootstrap_error(np.mean([one.drawn for one in seeds], axis=0), clusters)
    degrees = clusters.degrees
    if between is not None:
        error, degrees = paired.pooled_error(error, degrees, between)
    ends = score_ends(float(values.mean()), error, clusters, items.scale, degrees)
    return _estimate(values, *ends)


def difference(ours: Sequence[Scored], theirs: Sequence[Scored]) -> Estimate:
    """Mean of ours minus theirs, seed by seed on the same items.

    Args:
        ours: One per seed.
        theirs: The runs of the same seeds.

    Raises:
        ValueError: unequal numbers of seeds, or none.
    """
    pairs = list(zip(ours, theirs, strict=True))
    values = _values([a.value - b.value for a, b in pairs])
    items = ours[0].items
    rows = paired.Rows(
        left=np.hstack([one.rows for one in ours]),
        right=np.hstack([one.rows for one in theirs]),
        sizes=items.sizes,
        score=lambda totals: _mean_score(items.score, totals, len(ours)),
        scale=items.scale,
    )
    source = f"{RESAMPLES} resamples of {Clusters.of(items.sizes)}, seed {SEED}"
    found = paired.difference(
        rows, lambda: np.mean([a.drawn - b.drawn for a, b in pairs], axis=0), source, _between(values)
    )
    return _estimate(values, found.low, found.high)


def _values(values: Sequence[float]) -> Floats:
    if not values:
        raise ValueError("an estimate needs at least one seed")
    return np.asarray(values, dtype=np.float64)


def _mean_score(score: ScoreFn, totals: Floats, seeds: int) -> Floats:
    """Mean over the seeds of the scores of their blocks of columns."""
    return np.asarray(np.mean([score_all(score, block) for block in np.hsplit(totals, seeds)], axis=0))


def _between(values: Floats) -> paired.Between | None:
    if len(values) < 2:
        return None
    return paired.Between(float(values.var(ddof=1)) / len(values), len(values) - 1)


def _estimate(values: Floats, low: float, high: float) -> Estimate:
    spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), low, high, spread, tuple(values.tolist()))

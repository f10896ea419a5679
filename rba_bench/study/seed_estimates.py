"""Numbers of several training seeds on the same test items, each with one interval.

Intervals cover test items and training seeds together. The same items are answered by every system and every seed, so
items and seeds are crossed, not nested. Two sources of chance add up:

* items (clusters of equal text), drawn once for all systems and seeds: a bootstrap of summed statistics as everywhere
  here, a corpus score being computed per seed and then averaged over the seeds;
* seeds: the variance of the S seeds' own numbers, over S.

The interval is Student's t for the sum of both variances, with Satterthwaite's degrees of freedom: as many as there are
clusters where items are all of it, S - 1 where seeds are. In simulation with 3 seeds and a true difference of zero, 2 %
are marked where the spread of seeds is no more than the items' standard error, 5 to 7 % where it is up to eight times
larger (`benchmarks/statistics.py`); intervals are then wide. Tables show the spread over seeds beside the interval.
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
)
from rba_bench.metrics.interval import Clusters, Scale, score_ends, t_quantile

SYSTEMS_AT_ONCE = 32  # statistics of this many systems are drawn in one pass


@dataclass(frozen=True)
class ResampledSystem:
    """One trained model on one test set: its score and that of every resample of the items.

    Attributes:
        value: Score on all items, in units of the metric.
        resampled: Scores `[resamples]`; equal positions of two systems come from equal items.
        rows: Summed statistics of each cluster, `[G, k]`.
        sizes: Items in each cluster, `[G]`.
        score: Score of a summed row.
        scale: Where the score can lie.
    """

    value: float
    resampled: Floats
    rows: Floats
    sizes: Floats
    score: ScoreFn
    scale: Scale


@dataclass(frozen=True)
class SeedEstimate:
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


def resample_systems(
    rows: Sequence[Floats], score: ScoreFn, clusters: Sequence[Hashable], scale: float | None = None
) -> list[ResampledSystem]:
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
    sizes, limits = cluster_sizes(len(clusters), clusters), score.scale(np.vstack(rows), scale)
    systems: list[ResampledSystem] = []
    for start in range(0, len(rows), SYSTEMS_AT_ONCE):
        part = rows[start : start + SYSTEMS_AT_ONCE]
        sums = resampled_sums(np.hstack(part), clusters)
        for matrix, block in zip(part, np.hsplit(sums, len(part)), strict=True):
            value, by_cluster = score(matrix.sum(axis=0).tolist()), cluster_rows(matrix, clusters)
            systems.append(ResampledSystem(value, score.many(block), by_cluster, sizes, score, limits))
    return systems


def pool_seeds(seeds: Sequence[ResampledSystem]) -> SeedEstimate:
    """Mean score over seeds.

    Raises:
        ValueError: no seeds.
    """
    values, between = _seed_values([seed.value for seed in seeds])
    clusters = Clusters.of(seeds[0].sizes)
    error = bootstrap_error(np.mean([seed.resampled for seed in seeds], axis=0), clusters)
    degrees = clusters.degrees
    if between is not None:
        error, degrees = paired.pooled_error(error, degrees, between)
    ends = score_ends(float(values.mean()), error, clusters, seeds[0].scale, degrees)
    return _estimate(values, *ends)


def difference_over_seeds(ours: Sequence[ResampledSystem], theirs: Sequence[ResampledSystem]) -> SeedEstimate:
    """Mean of ours minus theirs, seed by seed on the same items.

    Args:
        ours: One per seed.
        theirs: The runs of the same seeds.

    Raises:
        ValueError: unequal numbers of seeds, or none.
    """
    pairs = list(zip(ours, theirs, strict=True))
    values, between = _seed_values([a.value - b.value for a, b in pairs])
    sizes, score = ours[0].sizes, ours[0].score

    def mean_score(totals: Floats) -> Floats:
        """Mean over the seeds of the scores of their blocks of columns."""
        blocks = np.hsplit(totals, len(ours))
        return np.asarray(np.mean([score.many(block) for block in blocks], axis=0))

    left, right = (np.hstack([seed.rows for seed in side]) for side in (ours, theirs))
    rows = paired.PairedRows(left, right, sizes, score=mean_score, scale=ours[0].scale)
    source = f"{RESAMPLES} resamples of {Clusters.of(sizes)}, seed {SEED}"
    interval = paired.difference_interval(
        rows, lambda: np.mean([a.resampled - b.resampled for a, b in pairs], axis=0), source, between
    )
    return _estimate(values, interval.low, interval.high)


def share_over_seeds(seeds: Sequence[ResampledSystem], whole: ResampledSystem) -> SeedEstimate:
    """Mean score over seeds divided by the score of another system on the same items.

    The interval covers the items of both, drawn together, and the seeds. A share may exceed 1.

    Args:
        seeds: The runs.
        whole: The system that stands for 1; its score must not be 0.
    """
    values, between = _seed_values([seed.value / whole.value for seed in seeds])
    clusters = Clusters.of(whole.sizes)
    drawn = np.mean([seed.resampled for seed in seeds], axis=0)
    shares = np.divide(drawn, whole.resampled, out=np.full_like(drawn, np.nan), where=whole.resampled > 0)
    error, degrees = bootstrap_error(shares[np.isfinite(shares)], clusters), clusters.degrees
    if between is not None:
        error, degrees = paired.pooled_error(error, degrees, between)
    reach = error * t_quantile(degrees)
    return _estimate(values, max(0.0, float(values.mean()) - reach), float(values.mean()) + reach)


def _seed_values(values: Sequence[float]) -> tuple[Floats, paired.SeedVariance | None]:
    """The numbers of the seeds, and the variance of their mean where there are several."""
    if not values:
        raise ValueError("an estimate needs at least one seed")
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return array, None
    return array, paired.SeedVariance(float(array.var(ddof=1)) / len(array), len(array) - 1)


def _estimate(values: Floats, low: float, high: float) -> SeedEstimate:
    spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return SeedEstimate(float(values.mean()), low, high, spread, tuple(values.tolist()))

"""Intervals over test items and training seeds together.

The same items are answered by every system and every seed, so items and seeds are crossed, not nested. A resample draws

* items (clusters of equal text), once for all systems and seeds: a bootstrap of summed statistics as everywhere here, a
  corpus score being computed per seed and then averaged over the seeds;
* seeds with replacement, independently: the mean of the drawn seeds' deviations from the mean of all, stretched by
  sqrt(S / (S - 1)), because S seeds drawn with replacement vary that much less than S new ones would.

The interval holds the middle 95 % of the sums. In simulations with 3 seeds and a true difference of zero, 2 to 3 % are
marked where the mean of a seed strays no more than the items' standard error, 5 to 7 % where it strays twice as much,
12 % where four times as much. Three seeds cannot do better without intervals that say nothing, so tables show the
spread over seeds beside the interval.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rba_bench.metrics.bootstrap import (
    LEVEL,
    RESAMPLES,
    SEED,
    Floats,
    ScoreFn,
    resampled_sums,
    score_all,
)

SYSTEMS_AT_ONCE = 32  # statistics of this many systems are drawn in one pass


@dataclass(frozen=True)
class Scored:
    """One trained model on one test set: its score and that of every resample of the items.

    Attributes:
        value: Score on all items, in units of the metric.
        drawn: Scores `[resamples]`; equal positions of two systems come from equal items.
    """

    value: float
    drawn: Floats


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


def score_systems(rows: Sequence[Floats], score: ScoreFn, clusters: Sequence[Hashable]) -> list[Scored]:
    """Scores of several systems on the same items, all with the same draws.

    Args:
        rows: Per system the summable rows `[n, k]`, items in equal order.
        score: Score of a summed row.
        clusters: Label per item `[n]`; items of one cluster are drawn together.

    Raises:
        ValueError: systems of different shapes.
    """
    if len({matrix.shape for matrix in rows}) > 1:
        raise ValueError("systems on the same items have rows of one shape")
    found: list[Scored] = []
    for start in range(0, len(rows), SYSTEMS_AT_ONCE):
        part = rows[start : start + SYSTEMS_AT_ONCE]
        width = part[0].shape[1]
        sums = resampled_sums(np.hstack(part), clusters)
        for index, matrix in enumerate(part):
            drawn = score_all(score, sums[:, index * width : (index + 1) * width])
            found.append(Scored(score(matrix.sum(axis=0).tolist()), drawn))
    return found


def pooled(seeds: Sequence[Scored]) -> Estimate:
    """Mean score over seeds. Raises ValueError for no seeds."""
    return _estimate([one.value for one in seeds], [one.drawn for one in seeds])


def difference(ours: Sequence[Scored], theirs: Sequence[Scored]) -> Estimate:
    """Mean of ours minus theirs, seed by seed on the same items.

    Args:
        ours: One per seed.
        theirs: The runs of the same seeds.

    Raises:
        ValueError: unequal numbers of seeds, or none.
    """
    pairs = list(zip(ours, theirs, strict=True))
    return _estimate([a.value - b.value for a, b in pairs], [a.drawn - b.drawn for a, b in pairs])


def _estimate(values: Sequence[float], drawn: Sequence[Floats]) -> Estimate:
    if not values:
        raise ValueError("an estimate needs at least one seed")
    own = np.asarray(values, dtype=np.float64)
    total = np.mean(np.stack(drawn), axis=0) + seed_noise(own, len(drawn[0]))
    scored = total[~np.isnan(total)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(scored, [tail, 1 - tail]) if len(scored) else (math.nan, math.nan)
    spread = float(own.std(ddof=1)) if len(own) > 1 else math.nan
    return Estimate(float(own.mean()), float(low), float(high), spread, tuple(map(float, own)))


def seed_noise(values: NDArray[np.float64], resamples: int = RESAMPLES) -> Floats:
    """What drawing other seeds would add to the mean of `values` (one per seed), per resample `[resamples]`."""
    n = len(values)
    if n < 2:
        return np.zeros(resamples)
    deviations = (values - values.mean()) * math.sqrt(n / (n - 1))
    rng = np.random.default_rng([SEED, n])
    return np.asarray(deviations[rng.integers(n, size=(resamples, n))].mean(axis=1))

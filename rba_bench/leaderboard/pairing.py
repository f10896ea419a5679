"""Paired differences of two runs on the same items, both resampled together.

Only items that have a score in both runs count: an item without a score in one run (no usable audio, no reply, no
verdict) is left out of the other as well, so the difference never compares two sets of items. The number left out is
given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rba_bench.errors import UserError
from rba_bench.evaluation.metric import largest_value, lowest_score
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.metrics import paired
from rba_bench.metrics.aggregate import item_scores
from rba_bench.metrics.bootstrap import (
    RESAMPLES,
    SEED,
    Floats,
    cluster_rows,
    cluster_sizes,
    clusters_of,
    relative_interval,
    resampled_scores,
)
from rba_bench.metrics.interval import Clusters, Difference, Interval
from rba_bench.metrics.retained import retained_share

TIE = 1e-9
KEPT_COLUMNS = 2  # of means and error rates
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Contrast:
    """One metric of run A against run B.

    Attributes:
        a: Score of A on the paired items, in units of the metric.
        b: Score of B on the same items.
        difference: A minus B with its paired 95 % interval and the p-value of no difference.
        relative: `(a - b) / b` with its interval; None where B is, or can be drawn as, zero.
        n_left_out: Items that one of the two runs lacks, or has no score for.
        wins: Paired items on which A is better (of corpus metrics: by the item's own statistics).
        losses: Paired items on which B is better.
    """

    metric: str
    aggregation: str
    scale: float
    higher_is_better: bool
    a: float
    b: float
    difference: Difference
    relative: Interval | None
    n: int
    n_left_out: int
    wins: int
    ties: int
    losses: int


class ResampledScores:
    """Scores of the resamples of runs, computed once for all pairs that a run is part of."""

    def __init__(self) -> None:
        self._cache: dict[tuple[int, str, bytes], tuple[float, Floats, LoadedRun]] = {}
        self._summed: dict[tuple[int, str, bytes], tuple[Floats, LoadedRun]] = {}

    def summed(self, run: LoadedRun, metric: str, items: Positions, clusters: Sequence[str]) -> Floats:
        """Rows of some items of a run summed by cluster, `[G, k]`; wide ones are not kept, as they are large."""
        key = (id(run), metric, items.tobytes())
        if key in self._summed:
            return self._summed[key][0]
        rows = cluster_rows(run.rows(metric)[0][items], clusters)
        if rows.shape[1] <= KEPT_COLUMNS:
            self._summed[key] = rows, run
        return rows

    def scores(
        self, run: LoadedRun, metric: str, items: Positions, clusters: Sequence[str]
    ) -> tuple[float, Floats]:
        """Score of a run on some of its items, and that of every resample of their clusters `[resamples]`."""
        key = (id(run), metric, items.tobytes())
        if key not in self._cache:
            rows, score = run.rows(metric)
            rows = rows[items]
            resampled = resampled_scores(rows, score, clusters)
            # The run is kept, as no other run may get its id meanwhile
            self._cache[key] = (score(rows.sum(axis=0).tolist()), resampled, run)
        return self._cache[key][:2]


class RunPair:
    """Two runs, item by item.

    Args:
        first: Run A.
        second: Run B.
        resampled: Scores shared with other pairs.
        across: Items are the same if they have the same name, references, group and answer to beat, even if their
            clips or prompts differ.

    Raises:
        UserError: two complete runs do not hold the same items, or the runs have none in common.
    """

    def __init__(
        self,
        first: LoadedRun,
        second: LoadedRun,
        resampled: ResampledScores | None = None,
        across: bool = False,
    ) -> None:
        self.first, self.second = first, second
        self._resampled = resampled or ResampledScores()
        self._left, self._right = _common_items(first, second, across)
        self.n_items = len(first.items) + len(second.items) - len(self._left)

    def difference(self, metric: str) -> Difference | None:
        """A minus B with its 95 % interval; None if no item has a score in both."""
        left, right = self._scored_items(metric)
        if not len(left):
            return None
        clusters = self._clusters(left)
        (rows_a, score), (rows_b, _) = self.first.rows(metric), self.second.rows(metric)
        scale = largest_value(metric, self.first.record.metrics[metric].scale)
        rows = paired.PairedRows(
            left=self._resampled.summed(self.first, metric, left, clusters),
            right=self._resampled.summed(self.second, metric, right, clusters),
            sizes=cluster_sizes(len(left), clusters),
            score=score.many,
            scale=score.scale(np.vstack([rows_a[left], rows_b[right]]), scale),
        )
        source = f"{RESAMPLES} resamples of {Clusters.of(rows.sizes)}, seed {SEED}"

        def resampled_differences() -> Floats:
            (_, scores_a), (_, scores_b) = self._resampled_scores(metric, left, right)
            return scores_a - scores_b

        difference = paired.difference_interval(rows, resampled_differences, source)
        missing = self.n_items - len(left)
        if not missing:
            return difference
        left_out = f"{missing} of {self.n_items} items not scored in both are left out"
        return replace(difference, method=f"{difference.method}; {left_out}")

    def contrast(self, metric: str) -> Contrast | None:
        """Everything about one metric of the two runs; None if no item has a score in both."""
        left, right = self._scored_items(metric)
        difference = self.difference(metric)
        if difference is None:
            return None
        value = self.first.record.metrics[metric]
        (a, scores_a), (b, scores_b) = self._resampled_scores(metric, left, right)
        relative = None
        if b and scores_b.all():
            clusters = clusters_of(len(left), self._clusters(left))
            ratios = (scores_a - scores_b) / scores_b
            relative = relative_interval((a - b) / b, ratios, clusters, difference, b)
        items_a = item_scores(value.aggregation, self.first.item_rows(metric)[left])
        items_b = item_scores(
            self.second.record.metrics[metric].aggregation, self.second.item_rows(metric)[right]
        )
        better = items_a - items_b if value.higher_is_better else items_b - items_a
        wins, losses = int((better > TIE).sum()), int((better < -TIE).sum())
        return Contrast(
            metric=metric,
            aggregation=value.aggregation,
            scale=value.scale,
            higher_is_better=value.higher_is_better,
            a=a,
            b=b,
            difference=difference,
            relative=relative,
            n=len(left),
            n_left_out=self.n_items - len(left),
            wins=wins,
            ties=len(left) - wins - losses,
            losses=losses,
        )

    def retained(self, metric: str) -> Interval | None:
        """Score of A as a share of that of B, see `retained_share`; None if no item has a score in both."""
        left, right = self._scored_items(metric)
        difference = self.difference(metric)
        if difference is None:
            return None
        value = self.first.record.metrics[metric]
        rows, score = self.first.rows(metric)
        return retained_share(
            *self._resampled_scores(metric, left, right),
            clusters_of(len(left), self._clusters(left)),
            score.scale(rows[left], value.scale),
            difference,
            None if value.higher_is_better else value.scale,
            lowest_score(metric, value.scale),
        )

    def _scored_items(self, metric: str) -> tuple[Positions, Positions]:
        """Positions in both runs of the common items that have a score in both."""
        both = self.first.has_score(metric)[self._left] & self.second.has_score(metric)[self._right]
        return self._left[both], self._right[both]

    def _resampled_scores(
        self, metric: str, left: Positions, right: Positions
    ) -> tuple[tuple[float, Floats], tuple[float, Floats]]:
        clusters = self._clusters(left)
        return (
            self._resampled.scores(self.first, metric, left, clusters),
            self._resampled.scores(self.second, metric, right, clusters),
        )

    def _clusters(self, left: Positions) -> list[str]:
        return [self.first.clusters[item] for item in left]


def _common_items(first: LoadedRun, second: LoadedRun, across: bool) -> tuple[Positions, Positions]:
    """Positions in both runs of the items that both hold, in the order of the first."""
    keys_a: tuple[tuple[object, ...], ...] = first.items
    keys_b: tuple[tuple[object, ...], ...] = second.items
    if across:
        keys_a, keys_b = (
            tuple((item.id, item.group, item.baseline, *item.references) for item in run.samples)
            for run in (first, second)
        )
    if keys_a == keys_b:
        positions = np.arange(len(keys_a))
        return positions, positions
    places = {key: place for place, key in enumerate(keys_b)}
    common = [(place, places[key]) for place, key in enumerate(keys_a) if key in places]
    complete = not (first.record.partial or second.record.partial)
    if complete and len(common) < max(len(keys_a), len(keys_b)):
        raise UserError(f"{first.folder} and {second.folder} are complete but hold different items")
    if not common:
        raise UserError(f"{first.folder} and {second.folder} have no item in common")
    left, right = np.array(common, dtype=np.intp).T
    return left, right

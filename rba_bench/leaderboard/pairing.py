"""Two runs on the same items: what one scores above the other, both drawn together.

Only items that have a score in both runs count, on both sides: an item without a score in one run (not heard, no reply,
judge failed) is left out of the other as well, so the difference never compares two sets of items. The number left out
is stated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rba_bench.errors import UserError
from rba_bench.leaderboard.loaded_runs import Run
from rba_bench.metrics import paired
from rba_bench.metrics.aggregate import item_scores
from rba_bench.metrics.bootstrap import (
    RESAMPLES,
    SEED,
    Floats,
    cluster_sizes,
    paired_rows,
    relative_interval,
    resampled_scores,
)
from rba_bench.metrics.interval import Clusters, Difference, Interval

TIE = 1e-9
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


class Draws:
    """Scores of the resamples of runs, computed once however many partners a run has."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str, bytes], tuple[float, Floats, Run]] = {}

    def of(self, run: Run, metric: str, items: Positions, clusters: Sequence[str]) -> tuple[float, Floats]:
        """Score of a run on some of its items, and that of every resample of their clusters `[resamples]`."""
        key = (id(run), metric, items.tobytes())
        if key not in self._kept:
            rows, score = run.rows(metric)
            chosen = rows[items]
            drawn = resampled_scores(chosen, score, clusters)
            self._kept[key] = (
                score(chosen.sum(axis=0).tolist()),
                drawn,
                run,
            )  # the run stays: its id is the key
        return self._kept[key][:2]


class Pair:
    """Two runs, item by item.

    Args:
        first: Run A.
        second: Run B.
        draws: Kept from other pairs of the same items.
        across: Items are the same if they have the same name, references, group and answer to beat, even if they
            are heard or asked in another way.

    Raises:
        UserError: two complete runs do not hold the same items, or the runs have none in common.
    """

    def __init__(self, first: Run, second: Run, draws: Draws | None = None, across: bool = False) -> None:
        self.first, self.second = first, second
        self._draws = draws or Draws()
        self._left, self._right = _common(first, second, across)
        self.n_items = len(first.items) + len(second.items) - len(self._left)

    def difference(self, metric: str) -> Difference | None:
        """A minus B with its 95 % interval; None if no item has a score in both."""
        left, right = self._scored(metric)
        if not len(left):
            return None
        (rows_a, score), (rows_b, _) = self.first.rows(metric), self.second.rows(metric)
        scale = self.first.record.metrics[metric].scale
        rows = paired_rows(rows_a[left], rows_b[right], score, self._clusters(left), scale)
        source = f"{RESAMPLES} resamples of {Clusters.of(rows.sizes)}, seed {SEED}"

        def drawn() -> Floats:
            (_, drawn_a), (_, drawn_b) = self._draw(metric, left, right)
            return drawn_a - drawn_b

        found = paired.difference(rows, drawn, source)
        missing = self.n_items - len(left)
        if not missing:
            return found
        left_out = f"{missing} of {self.n_items} items not scored in both are left out"
        return replace(found, method=f"{found.method}; {left_out}")

    def contrast(self, metric: str) -> Contrast | None:
        """Everything about one metric of the two runs; None if no item has a score in both."""
        left, right = self._scored(metric)
        difference = self.difference(metric)
        if difference is None:
            return None
        stated = self.first.record.metrics[metric]
        (a, _), (b, _) = self._draw(metric, left, right)
        better = self._item_scores(self.first, metric, left) - self._item_scores(self.second, metric, right)
        better = better if stated.higher_is_better else -better
        wins, losses = int((better > TIE).sum()), int((better < -TIE).sum())
        return Contrast(
            metric=metric,
            aggregation=stated.aggregation,
            scale=stated.scale,
            higher_is_better=stated.higher_is_better,
            a=a,
            b=b,
            difference=difference,
            relative=self._relative(metric, difference),
            n=len(left),
            n_left_out=self.n_items - len(left),
            wins=wins,
            ties=len(left) - wins - losses,
            losses=losses,
        )

    def _scored(self, metric: str) -> tuple[Positions, Positions]:
        both = self.first.scored(metric)[self._left] & self.second.scored(metric)[self._right]
        return self._left[both], self._right[both]

    def _draw(
        self, metric: str, left: Positions, right: Positions
    ) -> tuple[tuple[float, Floats], tuple[float, Floats]]:
        clusters = self._clusters(left)
        return (
            self._draws.of(self.first, metric, left, clusters),
            self._draws.of(self.second, metric, right, clusters),
        )

    def _relative(self, metric: str, difference: Difference) -> Interval | None:
        left, right = self._scored(metric)
        (a, drawn_a), (b, drawn_b) = self._draw(metric, left, right)
        if not b or not drawn_b.all():
            return None
        clusters = Clusters.of(cluster_sizes(len(left), self._clusters(left)))
        return relative_interval((a - b) / b, (drawn_a - drawn_b) / drawn_b, clusters, difference, b)

    def _clusters(self, left: Positions) -> list[str]:
        return [self.first.samples[item].cluster for item in left]

    def _item_scores(self, run: Run, metric: str, items: Positions) -> Floats:
        return item_scores(run.record.metrics[metric].aggregation, run.item_rows(metric)[items])


def _common(first: Run, second: Run, across: bool) -> tuple[Positions, Positions]:
    """Positions in both runs of the items that both hold, in the order of the first."""
    mine, theirs = (_names(first), _names(second)) if across else (first.items, second.items)
    if mine == theirs:
        every = np.arange(len(mine))
        return every, every
    places = {item: place for place, item in enumerate(theirs)}
    found = [(place, places[item]) for place, item in enumerate(mine) if item in places]
    complete = not (first.record.partial or second.record.partial)
    if complete and len(found) < max(len(mine), len(theirs)):
        raise UserError(f"{first.folder} and {second.folder} are complete but hold different items")
    if not found:
        raise UserError(f"{first.folder} and {second.folder} have no item in common")
    left, right = np.array(found, dtype=np.intp).T
    return left, right


def _names(run: Run) -> tuple[tuple[str, ...], ...]:
    return tuple((item.id, item.group, item.baseline, *item.references) for item in run.samples)

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

From kept scores to estimates: every system on every task, pooled over seeds, alone and against the baseline.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from rba_bench.errors import UserError
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
from rba_bench.study.folder import REFERENCE
from rba_bench.study.scores import SystemScores, TaskScores
from rba_bench.study.study_recipe import BUDGETS, StudyRecipe

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


Key = tuple[str, str]  # part and method
HOLDS, OPEN, CONTRADICTED = "holds", "not resolved", "contradicted"


@dataclass(frozen=True)
class Row:
    """One method under one budget on one metric.

    Attributes:
        part: The budget, or `reference`.
        seeds: Training seeds in the score.
        score: Pooled over seeds, in units of the metric.
        versus: Minus the baseline, same items and seeds; None for the baseline itself, or where it has no run.
        versus_seeds: Seeds in that difference.
        scale: Largest value of the metric, 1 or 100.
    """

    part: str
    method: str
    task: str
    protocol: str
    metric: str
    main: bool
    scale: float
    higher_is_better: bool
    n: int
    n_left_out: int
    seeds: tuple[int, ...]
    score: Estimate
    versus: Estimate | None
    versus_seeds: tuple[int, ...]

    @property
    def better(self) -> int:
        """1 if better than the baseline with an interval clear of zero, -1 if worse, else 0."""
        if self.versus is None:
            return 0
        return self.versus.mark if self.higher_is_better else -self.versus.mark

    @property
    def gain(self) -> float:
        """Difference from the baseline, positive where better; 0 without one."""
        if self.versus is None:
            return 0.0
        return self.versus.value if self.higher_is_better else -self.versus.value


@dataclass(frozen=True)
class Verdict:
    """A claim on one task under one budget."""

    text: str
    budget: str
    row: Row

    @property
    def word(self) -> str:
        """`holds`, `not resolved` or `contradicted`, by the 95 % interval of the difference."""
        return {1: HOLDS, -1: CONTRADICTED}.get(self.row.better, OPEN)


@dataclass(frozen=True)
class StudyData:
    """All that a report is made from.

    Attributes:
        study: The recipe.
        systems: Kept scores of every finished run and reference.
        time: The budget `time` as measured, see `timing.TimePlan`.
        failures: Runs that stopped for good, with the reason.
    """

    study: StudyRecipe
    systems: tuple[SystemScores, ...]
    time: dict[str, Any] = field(default_factory=dict)
    failures: tuple[dict[str, Any], ...] = ()

    def of(self, part: str) -> dict[str, list[SystemScores]]:
        """Runs of a budget by method, methods in the order of the recipe, seeds rising."""
        found = {method: self._runs(part, method) for method in self._methods(part)}
        return {method: runs for method, runs in found.items() if runs}

    def _methods(self, part: str) -> Sequence[str]:
        return self.study.references if part == REFERENCE else tuple(self.study.methods)

    def _runs(self, part: str, method: str) -> list[SystemScores]:
        found = [one for one in self.systems if (one.part, one.method) == (part, method)]
        return sorted(found, key=lambda one: one.seed)

    @property
    def budgets(self) -> tuple[str, ...]:
        """Budgets with a finished run."""
        return tuple(budget for budget in BUDGETS if self.of(budget))


class Analysis:
    """Estimates of a study.

    Args:
        data: What was measured.

    Raises:
        UserError: runs of one task that cannot be compared, as they are of other test sets or protocols.
    """

    def __init__(self, data: StudyData) -> None:
        self.data = data
        self.study = data.study

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every method on every metric, by task, then budget, then method."""
        found: list[Row] = []
        for task, metrics in self.study.tasks.items():
            for place, metric in enumerate(metrics):
                found += self._metric(task, metric, place == 0)
        return tuple(found)

    def table(self, part: str, protocol: str) -> list[Row]:
        """Rows of the main metrics of one budget and decoding."""
        return [row for row in self.rows if row.main and (row.part, row.protocol) == (part, protocol)]

    @cached_property
    def protocols(self) -> tuple[str, ...]:
        """Decodings in use, in the order of the tasks."""
        return tuple(dict.fromkeys(row.protocol for row in self.rows))

    @cached_property
    def compared(self) -> list[Row]:
        """Differences of trained methods from the baseline that the tables show."""
        return [row for row in self.rows if row.main and row.versus is not None and row.part != REFERENCE]

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Every claim on each of its tasks under each budget, where both sides are there."""
        found = {(row.part, row.task, row.method): row for row in self.compared}
        return [
            Verdict(claim.text, budget, found[budget, task, claim.method])
            for claim in self.study.claims
            for budget in self.data.budgets
            for task in claim.tasks
            if (budget, task, claim.method) in found
        ]

    def _metric(self, task: str, metric: str, main: bool) -> Iterator[Row]:
        systems = [
            one for one in self.data.systems if task in one.tasks and metric in one.tasks[task].metrics
        ]
        systems = [one for one in systems if one.method in self.data.of(one.part)]
        if not systems:
            return
        first = systems[0].tasks[task]
        self._check(task, [(one, one.tasks[task]) for one in systems])
        rows, score, kept = _rows([one.tasks[task] for one in systems], metric)
        labels = np.asarray(first.clusters)[kept].tolist()
        scored = dict(
            zip(_keys(systems), score_systems(rows, score, labels, first.metrics[metric].scale), strict=True)
        )
        stored = first.metrics[metric]
        for part in (REFERENCE, *self.data.budgets):
            for method in self.data.of(part):
                seeds = sorted(seed for p, m, seed in scored if (p, m) == (part, method))
                if not seeds:
                    continue
                versus, paired = self._versus(scored, part, method)
                yield Row(
                    part=part,
                    method=method,
                    task=task,
                    protocol=first.protocol,
                    metric=metric,
                    main=main,
                    scale=stored.scale,
                    higher_is_better=stored.higher_is_better,
                    n=int(kept.sum()),
                    n_left_out=int((~kept).sum()),
                    seeds=tuple(seeds),
                    score=pooled([scored[part, method, seed] for seed in seeds]),
                    versus=versus,
                    versus_seeds=paired,
                )

    def _versus(
        self, scored: Mapping[tuple[str, str, int], Scored], part: str, method: str
    ) -> tuple[Estimate | None, tuple[int, ...]]:
        """Against the baseline's runs of the same budget and seeds; a reference against those at equal steps."""
        baseline = self.study.baseline
        budget = self.data.budgets[0] if part == REFERENCE and self.data.budgets else part
        theirs = {seed: one for (p, m, seed), one in scored.items() if (p, m) == (budget, baseline)}
        ours = {seed: one for (p, m, seed), one in scored.items() if (p, m) == (part, method)}
        if part == REFERENCE:
            ours = dict.fromkeys(theirs, next(iter(ours.values())))
        elif method == baseline:
            return None, ()
        seeds = tuple(sorted(ours.keys() & theirs.keys()))
        if not seeds:
            return None, ()
        return difference([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]), seeds

    @staticmethod
    def _check(task: str, found: Sequence[tuple[SystemScores, TaskScores]]) -> None:
        """All of one test set and protocol, or a table would compare what cannot be compared."""
        (first, told), *others = found
        for system, stored in others:
            mine, theirs = ((one.protocol_hash, one.data_hash, one.items) for one in (told, stored))
            if mine != theirs:
                raise UserError(
                    f"{task}: {first.place} and {system.place} were evaluated on other test sets or protocols; "
                    "remove one of these files under report/scores to have it evaluated again"
                )


def _keys(systems: Sequence[SystemScores]) -> list[tuple[str, str, int]]:
    return [(one.part, one.method, one.seed) for one in systems]


def _rows(found: Sequence[TaskScores], metric: str) -> tuple[list[Floats], ScoreFn, np.ndarray]:
    """Rows of every system on the items that all of them have a score for, and which items these are."""
    kept = np.ones(len(found[0].clusters), dtype=bool)
    for task in found:
        kept &= np.array([row is not None for row in task.metrics[metric].rows])
    if not kept.any():
        raise UserError(f"no item has a {metric} for every system")
    matrices = [task.rows(metric) for task in found]
    return [matrix[kept] for matrix, _ in matrices], matrices[0][1], kept

"""Estimates of a study: every system on every task, pooled over training seeds, alone and against the baseline.

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
)
from rba_bench.metrics.interval import Clusters, Scale, score_ends, t_quantile
from rba_bench.study.curves import Curve
from rba_bench.study.folder import REFERENCE
from rba_bench.study.scores import MetricScores, SystemScores, scores_path
from rba_bench.study.study_recipe import BUDGETS, StudyRecipe

SYSTEMS_AT_ONCE = 32  # statistics of this many systems are drawn in one pass
# What an interval of a difference says, for the method and for a claim that it is better; the words of all pages
OUTCOMES = {1: "better", -1: "worse", 0: "not told apart"}
VERDICTS = {1: "supported", -1: "contradicted", 0: "not supported"}


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


@dataclass(frozen=True)
class StudyRow:
    """One method under one budget on one metric.

    Attributes:
        part: The budget, or `reference`.
        main: Whether the tables show the metric.
        seeds: Training seeds in the score.
        score: Pooled over seeds, in units of the metric.
        versus: Minus the baseline, same items and seeds; None for the baseline itself, or where it has no run.
        versus_seeds: Seeds in that difference.
        share: Share of the ceiling's score on the same items; None without a ceiling, or where lower is better.
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
    score: SeedEstimate
    versus: SeedEstimate | None
    versus_seeds: tuple[int, ...]
    share: SeedEstimate | None = None

    @property
    def better(self) -> int:
        """1 if better than the baseline with an interval clear of zero, -1 if worse, else 0."""
        if self.versus is None:
            return 0
        return self.versus.mark if self.higher_is_better else -self.versus.mark

    @property
    def outcome(self) -> str:
        """`better`, `worse` or `not told apart`, by the 95 % interval of the difference."""
        return OUTCOMES[self.better]


@dataclass(frozen=True)
class ClaimVerdict:
    """A claim on one task under one budget."""

    text: str
    budget: str
    row: StudyRow

    @property
    def word(self) -> str:
        """`supported`, `not supported` or `contradicted`, as the method is better, not told apart, or worse."""
        return VERDICTS[self.row.better]


@dataclass(frozen=True)
class StudyData:
    """All that a report is made from.

    Attributes:
        study: The recipe.
        systems: Scores of every finished run and reference.
        time: The budget `time` as measured, see `time_budget.TimePlan`.
        failures: Runs that stopped for good, with the reason.
        curves: Training curves of the runs that have one.
    """

    study: StudyRecipe
    systems: tuple[SystemScores, ...]
    time: dict[str, Any] = field(default_factory=dict)
    failures: tuple[dict[str, Any], ...] = ()
    curves: tuple[Curve, ...] = ()

    def runs(self, part: str) -> dict[str, list[SystemScores]]:
        """Runs of a budget by method, methods in the order of the recipe, seeds rising."""
        methods = tuple(self.study.reference_models if part == REFERENCE else self.study.methods)
        systems = sorted((run for run in self.systems if run.part == part), key=lambda run: run.seed)
        runs = {method: [run for run in systems if run.method == method] for method in methods}
        return {method: found for method, found in runs.items() if found}

    @property
    def budgets(self) -> tuple[str, ...]:
        """Budgets with a finished run."""
        return tuple(budget for budget in BUDGETS if self.runs(budget))


class Analysis:
    """Estimates of a study.

    Args:
        data: What was measured.

    Raises:
        UserError: runs of one task that cannot be compared, as they are of other test sets or protocols.
    """

    def __init__(self, data: StudyData) -> None:
        self.data, self.study = data, data.study

    @cached_property
    def rows(self) -> tuple[StudyRow, ...]:
        """Every method on every metric, by task, then budget, then method."""
        return tuple(
            row
            for task, metrics in self.study.tasks.items()
            for metric in metrics
            for row in self._metric_rows(task, metric, metric == metrics[0])
        )

    @cached_property
    def protocols(self) -> tuple[str, ...]:
        """Decodings in use, in the order of the tasks."""
        return tuple(dict.fromkeys(row.protocol for row in self.rows))

    @cached_property
    def compared(self) -> list[StudyRow]:
        """Differences of trained methods from the baseline that the tables show."""
        return [row for row in self.rows if row.main and row.versus is not None and row.part != REFERENCE]

    @cached_property
    def verdicts(self) -> list[ClaimVerdict]:
        """Every claim on each of its tasks under each budget, where both sides are there."""
        rows = {(row.part, row.task, row.method): row for row in self.compared}
        return [
            ClaimVerdict(claim.text, budget, rows[budget, task, claim.method])
            for claim in self.study.claims
            for budget in self.data.budgets
            for task in claim.tasks
            if (budget, task, claim.method) in rows
        ]

    def _metric_rows(self, task: str, metric: str, main: bool) -> Iterator[StudyRow]:
        parts = (REFERENCE, *self.data.budgets)
        methods = [(part, method) for part in parts for method in self.data.runs(part)]
        systems = [system for system in self.data.systems if (system.part, system.method) in methods]
        systems = [each for each in systems if task in each.tasks and metric in each.tasks[task].metrics]
        if not systems:
            return
        _check_comparable(task, systems)
        resampled, scored = _resample(systems, task, metric)
        first = systems[0].tasks[task]
        for part, method in methods:
            seeds = sorted(seed for p, m, seed in resampled if (p, m) == (part, method))
            if not seeds:
                continue
            versus, versus_seeds = self._versus(resampled, part, method)
            yield StudyRow(
                part=part,
                method=method,
                task=task,
                protocol=first.protocol,
                metric=metric,
                main=main,
                scale=first.metrics[metric].scale,
                higher_is_better=first.metrics[metric].higher_is_better,
                n=int(scored.sum()),
                n_left_out=int((~scored).sum()),
                seeds=tuple(seeds),
                score=pool_seeds([resampled[part, method, seed] for seed in seeds]),
                versus=versus,
                versus_seeds=versus_seeds,
                share=self._share(
                    [resampled[part, method, seed] for seed in seeds], resampled, first.metrics[metric]
                ),
            )

    def _share(
        self,
        ours: Sequence[ResampledSystem],
        resampled: Mapping[tuple[str, str, int], ResampledSystem],
        metric: MetricScores,
    ) -> SeedEstimate | None:
        """The share of the ceiling's score that some runs reach."""
        whole = resampled.get((REFERENCE, self.study.ceiling or "", 0))
        if whole is None or not metric.higher_is_better or whole.value <= 0:
            return None
        return share_over_seeds(ours, whole)

    def _versus(
        self, resampled: Mapping[tuple[str, str, int], ResampledSystem], part: str, method: str
    ) -> tuple[SeedEstimate | None, tuple[int, ...]]:
        """Against the baseline's runs of the same budget and seeds; a reference against those at equal steps."""
        baseline = self.study.baseline
        budget = self.data.budgets[0] if part == REFERENCE and self.data.budgets else part
        theirs = {seed: run for (p, m, seed), run in resampled.items() if (p, m) == (budget, baseline)}
        ours = {seed: run for (p, m, seed), run in resampled.items() if (p, m) == (part, method)}
        if part == REFERENCE:
            ours = dict.fromkeys(theirs, next(iter(ours.values())))
        elif method == baseline:
            return None, ()
        seeds = tuple(sorted(ours.keys() & theirs.keys()))
        if not seeds:
            return None, ()
        return difference_over_seeds([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]), seeds


def _check_comparable(task: str, systems: Sequence[SystemScores]) -> None:
    """All of one test set and protocol, or a table would compare what cannot be compared."""
    first = systems[0].tasks[task]
    for system in systems[1:]:
        scores = system.tasks[task]
        keys = ("protocol_hash", "data_hash", "items")
        if any(getattr(first, key) != getattr(scores, key) for key in keys):
            paths = [scores_path(each.part, each.method, each.seed) for each in (systems[0], system)]
            raise UserError(
                f"{task}: {paths[0]} and {paths[1]} were evaluated on other test sets or protocols; "
                "remove one of these files under report/scores to have it evaluated again"
            )


def _resample(
    systems: Sequence[SystemScores], task: str, metric: str
) -> tuple[dict[tuple[str, str, int], ResampledSystem], np.ndarray]:
    """Systems by part, method and seed on the items that all of them have a score for, and which items these are."""
    tasks = [system.tasks[task] for system in systems]
    scored = np.all([[row is not None for row in each.metrics[metric].rows] for each in tasks], axis=0)
    if not scored.any():
        raise UserError(f"no item has a {metric} for every system")
    matrices = [each.rows(metric) for each in tasks]
    clusters = np.asarray(tasks[0].clusters)[scored].tolist()
    rows, score = [matrix[scored] for matrix, _ in matrices], matrices[0][1]
    resampled = resample_systems(rows, score, clusters, tasks[0].metrics[metric].scale)
    keys = [(system.part, system.method, system.seed) for system in systems]
    return dict(zip(keys, resampled, strict=True)), scored

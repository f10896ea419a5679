"""Estimates of a study: every system on every task, pooled over training seeds, alone and against the baseline."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from rba_bench.errors import UserError
from rba_bench.study.curves import Curve
from rba_bench.study.folder import REFERENCE
from rba_bench.study.scores import MetricScores, SystemScores, scores_path
from rba_bench.study.seed_estimates import (
    ResampledSystem,
    SeedEstimate,
    difference_over_seeds,
    pool_seeds,
    resample_systems,
    share_over_seeds,
)
from rba_bench.study.study_recipe import BUDGETS, StudyRecipe

# What an interval of a difference says, for the method and for a claim that it is better; the words of all pages
OUTCOMES = {1: "better", -1: "worse", 0: "not told apart"}
VERDICTS = {1: "supported", -1: "contradicted", 0: "not supported"}


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

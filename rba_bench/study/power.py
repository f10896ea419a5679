"""Planning: which difference from the baseline a study can resolve, with so many items and training seeds.

The difference of item i under seed s is d + a_i + b_s + e_is: items and seeds are crossed (see `analysis`). The error
of its mean over n items and S seeds is sqrt(A/n + B/S + E/(nS)) with the variances A, B, E of the three terms, and a
difference is found with probability POWER where it is (t + z) such errors long. A, B and E come from a pilot, the pairs
of the study that are evaluated already. Before the first they are assumed: DISCORDANT of the items are right in one of
two trained models alone, half of these under all seeds, and runs of other seeds differ by SEED_SPREAD.

Source: the usual formula for crossed random effects, as in Judd, Westfall and Kenny 2017, "Experiments with more than
one random factor".
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

import numpy as np

from rba_bench.evaluation.metric import metric_named
from rba_bench.metrics.interval import t_quantile
from rba_bench.study.scores import SystemScores
from rba_bench.study.study_recipe import BUDGETS, StudyRecipe

POWER = 0.8
AIM = 0.03  # the difference that a study wants to resolve: 3 points
DISCORDANT, SEED_SPREAD = 0.2, 0.01
MOST_ITEMS, MOST_SEEDS = 10**6, 30  # searched


@dataclass(frozen=True)
class Variances:
    """Variances of a difference from the baseline.

    Attributes:
        items: A, between items, the same under all seeds.
        seeds: B, between seeds, the same for all items.
        rest: E, of an item under a seed.
        pairs: Pairs of methods in the pilot, 0 for an assumption.
    """

    items: float
    seeds: float
    rest: float
    pairs: int = 0


ASSUMED = Variances(DISCORDANT / 2, 2 * SEED_SPREAD**2, DISCORDANT / 2)


@dataclass(frozen=True)
class ResolvedTask:
    """What a task can resolve.

    Attributes:
        items: Items with different texts.
        seeds: Training seeds.
        detectable: Smallest difference that is found with probability POWER, as a share of the metric's scale.
        items_needed: Items that AIM needs with as many seeds; None where no number is enough.
        seeds_needed: Seeds that AIM needs with as many items; None where MOST_SEEDS are too few.
        pairs: See `Variances`.
    """

    task: str
    items: int
    seeds: int
    detectable: float
    items_needed: int | None
    seeds_needed: int | None
    pairs: int


def detectable(variances: Variances, items: int, seeds: int) -> float:
    """The smallest true difference that a 95 % interval tells from zero with probability POWER."""
    per_items = (variances.items + variances.rest / seeds) / items
    per_seeds = variances.seeds / seeds
    error = math.sqrt(per_items + per_seeds)
    if error == 0:
        return 0.0
    # Satterthwaite, as `metrics.paired.pooled_error` has it
    degrees = (per_items + per_seeds) ** 2 / (
        per_items**2 / max(items - 1, 1) + (per_seeds**2 / (seeds - 1) if seeds > 1 else 0.0)
    )
    return (t_quantile(degrees) + NormalDist().inv_cdf(POWER)) * error


def items_needed(variances: Variances, seeds: int, aim: float = AIM) -> int | None:
    """The smallest number of items with which `aim` is detectable; None where the seeds alone vary too much."""
    high = 2
    while (
        detectable(variances, high, seeds) > aim
    ):  # with very many items it can rise again: the seeds alone count
        high *= 2
        if high > MOST_ITEMS:
            return None
    low = high // 2
    while low < high:
        middle = (low + high) // 2
        if detectable(variances, middle, seeds) <= aim:
            high = middle
        else:
            low = middle + 1
    return low


def seeds_needed(variances: Variances, items: int, aim: float = AIM) -> int | None:
    """The smallest number of seeds with which `aim` is detectable; None where MOST_SEEDS are too few."""
    enough = (seeds for seeds in range(2, MOST_SEEDS + 1) if detectable(variances, items, seeds) <= aim)
    return next(enough, None)


def estimate_variances(differences: np.ndarray) -> Variances:
    """Variances from the differences [S, n] of one pair of methods, by analysis of variance; S >= 2, n >= 2."""
    seeds, items = differences.shape
    total = differences.mean()
    by_item, by_seed = differences.mean(axis=0), differences.mean(axis=1)
    rest = differences - by_item[None] - by_seed[:, None] + total
    mean_rest = float((rest**2).sum()) / ((seeds - 1) * (items - 1))
    between_items = max(0.0, float(by_item.var(ddof=1)) - mean_rest / seeds)
    between_seeds = max(0.0, float(by_seed.var(ddof=1)) - mean_rest / items)
    return Variances(between_items, between_seeds, mean_rest, 1)


def resolved_tasks(
    study: StudyRecipe, systems: Sequence[SystemScores], texts: Mapping[str, int]
) -> Iterator[ResolvedTask]:
    """What the tasks of a study resolve whose first metric is a mean over items.

    Args:
        study: The recipe.
        systems: What is evaluated already: the pilot.
        texts: Numbers of different texts of tasks that no system has answered yet.
    """
    for task, metrics in study.tasks.items():
        with_task = [
            system for system in systems if task in system.tasks and metrics[0] in system.tasks[task].metrics
        ]
        if with_task:
            scores = with_task[0].tasks[task]
            if scores.metrics[metrics[0]].aggregation != "mean":
                continue
            count = len(set(scores.clusters))
        elif task in texts and metric_named(metrics[0]).aggregation == "mean":
            count = texts[task]
        else:
            continue
        variances = pilot_variances(study, with_task, task, metrics[0])
        seeds = len(study.seeds)
        yield ResolvedTask(
            task,
            count,
            seeds,
            detectable(variances, count, seeds),
            items_needed(variances, seeds),
            seeds_needed(variances, count),
            variances.pairs,
        )


def pilot_variances(study: StudyRecipe, systems: Sequence[SystemScores], task: str, metric: str) -> Variances:
    """Mean variances over the methods that share at least two seeds with the baseline; assumed without any."""
    found = []
    for budget in BUDGETS:
        rows = {
            (system.method, system.seed): _item_scores(system, task, metric)
            for system in systems
            if system.part == budget
        }
        for method in study.methods:
            shared = [seed for seed in study.seeds if {(method, seed), (study.baseline, seed)} <= rows.keys()]
            if method == study.baseline or len(shared) < 2:
                continue
            differences = np.array([rows[method, seed] - rows[study.baseline, seed] for seed in shared])
            found.append(estimate_variances(differences[:, np.isfinite(differences).all(axis=0)]))
    if not found:
        return ASSUMED
    items, between_seeds, rest = (
        fmean(getattr(each, name) for each in found) for name in ("items", "seeds", "rest")
    )
    return Variances(items, between_seeds, rest, len(found))


def _item_scores(system: SystemScores, task: str, metric: str) -> np.ndarray:
    """[G] mean scores of the texts of a task, as shares of the metric's scale; NaN where none has a score."""
    scores = system.tasks[task]
    values = np.array(
        [np.nan if row is None else row for row in scores.metrics[metric].rows], dtype=np.float64
    )
    clusters = np.array(scores.clusters)
    kept = np.isfinite(values)
    sums = np.bincount(clusters[kept], values[kept], minlength=clusters.max() + 1)
    counts = np.bincount(clusters[kept], minlength=clusters.max() + 1)
    means: np.ndarray = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return means / scores.metrics[metric].scale

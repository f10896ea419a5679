"""Rank bands of the models of a table, from the paired differences of all pairs.

Runs that have a score for the same items are summed up and resampled once each, and compared as arrays. Pairs of which
one run lacks items that the other has (no verdict, no reply, a partial run) are compared one by one.
"""

from collections.abc import Callable, Sequence

import numpy as np

from rba_bench.evaluation.metric import largest_value
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.leaderboard.pairing import ResampledScores
from rba_bench.metrics.all_pairs import PairBounds, System, pair_bounds, rank_bands_within, summed_up
from rba_bench.metrics.bootstrap import bootstrap_corpus, cluster_sizes
from rba_bench.metrics.interval import Interval
from rba_bench.metrics.missing_scores import mean_pair_bounds
from rba_bench.metrics.paired import RankBand, difference_of_intervals


def model_bands(
    runs: Sequence[LoadedRun],
    metric: str,
    difference: Callable[[int, int], Interval | None],
    resampled: ResampledScores,
) -> list[RankBand]:
    """Bands that hold together: pairs on the same items, else (a partial run) by the scores' own intervals.

    Args:
        runs: The models.
        metric: What they are ranked by.
        difference: Score of run i minus score of run j on the items of both; None where they cannot be paired.
        resampled: Scores of the resamples of runs.
    """
    bounds = _bounds_of_means(runs, metric)
    for places in _runs_on_the_same_items(runs, metric):
        if len(places) > 1:
            systems, sizes = _summed_up([runs[place] for place in places], metric, resampled)
            found, block = pair_bounds(systems, sizes), np.ix_(places, places)
            bounds.values[block], bounds.low[block] = found.values, found.low
            bounds.high[block] = found.high
    own_scores: dict[int, tuple[Interval, int]] = {}

    def exact(i: int, j: int) -> Interval:
        paired = difference(i, j)
        if paired is not None:
            return paired
        for place in (i, j):
            if place not in own_scores:
                own_scores[place] = _own_score(runs[place], metric)
        (a, clusters_a), (b, clusters_b) = own_scores[i], own_scores[j]
        return difference_of_intervals(a, b, min(clusters_a, clusters_b))

    higher_is_better = not runs or runs[0].record.metrics[metric].higher_is_better
    return rank_bands_within(bounds, exact, higher_is_better)


def _bounds_of_means(runs: Sequence[LoadedRun], metric: str) -> PairBounds:
    """What is known of runs that lack the scores of different items, if the metric is a mean and all hold all items."""
    values = [run.record.metrics[metric] for run in runs]
    if not runs or any(value.aggregation != "mean" or value.macro for value in values):
        return PairBounds.unknown(len(runs))
    scored = np.stack([run.has_score(metric) for run in runs if run.items == runs[0].items])
    if len(scored) < len(runs) or (scored == scored[0]).all():
        return PairBounds.unknown(len(runs))
    rows = np.stack([run.item_rows(metric)[:, 0] for run in runs])
    numbers = {label: number for number, label in enumerate(dict.fromkeys(runs[0].clusters))}
    clusters = np.array([numbers[label] for label in runs[0].clusters], dtype=np.intp)
    return mean_pair_bounds(rows, scored, clusters, largest_value(metric, values[0].scale))


def _runs_on_the_same_items(runs: Sequence[LoadedRun], metric: str) -> list[list[int]]:
    """Places of runs that hold the same items and have a score for the same ones."""
    found: dict[bytes, list[list[int]]] = {}
    for place, run in enumerate(runs):
        alike = found.setdefault(run.has_score(metric).tobytes(), [])
        same = next((places for places in alike if runs[places[0]].items == run.items), None)
        if same is None:
            alike.append([place])
        else:
            same.append(place)
    return [places for alike in found.values() for places in alike]


def _summed_up(
    runs: Sequence[LoadedRun], metric: str, resampled: ResampledScores
) -> tuple[list[System], np.ndarray]:
    """The runs by cluster, and the number of items in each cluster."""
    items = np.flatnonzero(runs[0].has_score(metric))
    clusters = [runs[0].clusters[item] for item in items]
    sizes, numbers = cluster_sizes(len(items), clusters), dict[bytes, int]()

    def system(run: LoadedRun) -> System:
        rows, score = run.rows(metric)
        largest = largest_value(metric, run.record.metrics[metric].scale)
        width = score.scale(rows[items], largest).width
        return summed_up(
            resampled.summed(run, metric, items, clusters),
            sizes,
            score,
            width,
            lambda: resampled.scores(run, metric, items, clusters)[1],
            numbers,
        )

    return [system(run) for run in runs], sizes


def _own_score(run: LoadedRun, metric: str) -> tuple[Interval, int]:
    """A run's score with its interval, computed from its samples, and the number of clusters."""
    scored = run.has_score(metric)
    clusters = [cluster for cluster, keep in zip(run.clusters, scored, strict=True) if keep]
    rows, score = run.rows(metric)
    scale = largest_value(metric, run.record.metrics[metric].scale)
    return bootstrap_corpus(rows[scored], score, clusters, scale=scale), len(set(clusters))

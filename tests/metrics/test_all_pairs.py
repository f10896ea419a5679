"""Rank bands from arrays against those of one pair at a time."""

import numpy as np
import pytest

from rba_bench.metrics import paired
from rba_bench.metrics.aggregate import score_function
from rba_bench.metrics.all_pairs import PairBounds, pair_bounds, rank_bands_within, summed_up
from rba_bench.metrics.bootstrap import (
    cluster_rows,
    cluster_sizes,
    mean_rows,
    paired_difference,
    paired_rows,
    resampled_scores,
)
from rba_bench.metrics.interval import Difference, Interval

RESAMPLES = 200


def shares(rng: np.random.Generator, count: int, n: int) -> list[np.ndarray]:
    """Right-or-wrong answers; some systems hardly differ, two not at all."""
    hard, systems = rng.random(n), []
    for skill in rng.choice([0.3, 0.35, 0.5, 0.8], size=count):
        systems.append(mean_rows((hard + rng.normal(0, 0.1, n) < skill).astype(float)))
    copy = systems[0].copy()
    copy[rng.integers(n, size=min(4, n)), 0] = 1.0
    return [*systems, systems[0].copy(), copy]


def ratings(rng: np.random.Generator, count: int, n: int) -> list[np.ndarray]:
    """Means of numbers; one system is another plus a constant, one is 0/1 among numbers."""
    base = rng.random(n)
    systems = [
        mean_rows((base + rng.normal(level, 0.2, n)).clip(0, 1)) for level in rng.normal(0, 0.1, count)
    ]
    shifted = systems[0].copy()
    shifted[:, 0] = systems[0][:, 0] * 0.5 + 0.1
    half = systems[0].copy()
    half[:, 0] *= 0.5
    return [*systems, shifted, half, mean_rows((base > 0.5).astype(float))]


def errors(rng: np.random.Generator, count: int, n: int) -> list[np.ndarray]:
    """Word errors; one item differs between the last two."""
    length = rng.integers(3, 15, n)
    systems = [
        np.column_stack([rng.binomial(length, rate), length]).astype(float)
        for rate in rng.choice([0.1, 0.12, 0.3], count)
    ]
    copy = systems[-1].copy()
    copy[0, 0] += 1
    return [*systems, copy]


def sentences(rng: np.random.Generator, count: int, n: int) -> list[np.ndarray]:
    """Statistics of BLEU."""
    systems = []
    for skill in rng.choice([0.4, 0.45, 0.7], count):
        total = rng.integers(4, 12, n)[:, None] - np.arange(4)
        correct = rng.binomial(np.maximum(total, 0), skill)
        systems.append(np.column_stack([total[:, 0], total[:, 0] + 1, correct, total]).astype(float))
    return systems


KINDS = {
    "shares": (shares, "mean"),
    "ratings": (ratings, "mean"),
    "wer": (errors, "error_rate"),
    "bleu": (sentences, "bleu"),
}


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "n", "seed"), [(9, 60, 1), (6, 400, 2), (7, 14, 3), (4, 5, 4)])
def test_bands_are_those_of_one_pair_at_a_time(kind, clustered, count, n, seed):
    rng = np.random.default_rng([seed, len(kind)])
    make, aggregation = KINDS[kind]
    systems, score = make(rng, count, n), score_function(aggregation)
    clusters = [f"c{index // 2}" for index in range(n)] if clustered else [f"c{index}" for index in range(n)]
    sizes, numbers, drawn, asked = cluster_sizes(n, clusters), {}, [], []

    def difference(i: int, j: int) -> Difference:
        def draws():
            return drawn[i] - drawn[j]

        rows = paired_rows(systems[i], systems[j], score, clusters, 1.0 if aggregation == "mean" else 100.0)
        return paired.difference_interval(rows, draws, "resamples")

    def exact(i: int, j: int) -> Difference:
        asked.append((i, j))
        return difference(i, j)

    drawn += [resampled_scores(rows, score, clusters, resamples=RESAMPLES) for rows in systems]
    summed = [
        summed_up(
            cluster_rows(rows, clusters),
            sizes,
            score,
            score.scale(rows, 1.0 if aggregation == "mean" else 100.0).width,
            lambda place=place: drawn[place],
            numbers,
        )
        for place, rows in enumerate(systems)
    ]
    bounds = pair_bounds(summed, sizes)
    higher = aggregation != "error_rate"
    total = len(systems)
    for i in range(total):
        for j in range(i + 1, total):
            gap = difference(i, j)
            assert bounds.values[i, j] == pytest.approx(gap.value, abs=1e-12)
            assert bounds.low[i, j] <= gap.p <= bounds.high[i, j], (i, j)
    assert rank_bands_within(bounds, exact, higher) == paired.rank_bands(total, difference, higher)
    assert len(asked) == len(set(asked)) <= total * (total - 1) // 2


def test_a_hundred_systems_need_few_tests_of_their_own():
    """Systems that hardly differ are not told apart by arrays alone, and by none of the 5,000 single tests either."""
    rng = np.random.default_rng(0)
    n = 200
    base = rng.random(n)
    systems = []
    for _ in range(100):
        values = base.copy()
        values[rng.integers(n, size=3)] = rng.random(3)
        systems.append(mean_rows(values))
    sizes, numbers = np.ones(n), {}
    summed = [
        summed_up(
            rows, sizes, score_function("mean"), 1.0,
            lambda rows=rows: resampled_scores(rows, score_function("mean"), resamples=50), numbers,
        )
        for rows in systems
    ]  # fmt: skip
    asked = []

    def exact(i: int, j: int) -> Interval:
        asked.append((i, j))
        return paired_difference(systems[i][:, 0], systems[j][:, 0], resamples=50)

    bands = rank_bands_within(pair_bounds(summed, sizes), exact)
    assert {str(band) for band in bands} == {"1-100"} and not asked


def test_pairs_of_which_nothing_is_known_are_asked():
    gaps = {(0, 1): 0.5, (0, 2): 0.1, (1, 2): -0.4}

    def exact(i: int, j: int) -> Interval:
        return Difference(
            gaps[i, j], gaps[i, j] - 0.2, gaps[i, j] + 0.2, 100, "", 1e-6 if abs(gaps[i, j]) > 0.3 else 0.5
        )

    found = rank_bands_within(PairBounds.unknown(3), exact)
    assert [str(band) for band in found] == ["1-2", "3", "1-2"]
    assert found == paired.rank_bands(3, exact)


@pytest.mark.parametrize("n", [2, 3, 4, 7, 12])
def test_equal_pairs_are_those_of_all_partitions(n):
    """Shaffer's counts, from all ways of parting n systems into groups of equal ones."""

    def parts(total: int, largest: int):
        if not total:
            yield ()
        for first in range(min(total, largest), 0, -1):
            for rest in parts(total - first, first):
                yield (first, *rest)

    possible = {sum(size * (size - 1) // 2 for size in sizes) for sizes in parts(n, n)}
    pairs = n * (n - 1) // 2
    for place, expected in enumerate(range(pairs, -1, -1)):
        most = max(max(count for count in possible if count <= expected), 1)
        p = np.full(pairs, 1.0)
        if place < pairs:
            p[:place] = 0.0
            p[place] = 0.05 / most * (1 - 1e-12)
            assert paired.holm_shaffer(n, p).sum() == place + 1
            p[place] = 0.05 / most * (1 + 1e-9)
            assert paired.holm_shaffer(n, p).sum() == place

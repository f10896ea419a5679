"""Pairs of means that lack the scores of different items, against each pair resampled for itself."""

import numpy as np
import pytest

from rba_bench.metrics import paired
from rba_bench.metrics.all_pairs import rank_bands_within
from rba_bench.metrics.bootstrap import mean_rows, mean_score, paired_rows, resampled_scores
from rba_bench.metrics.interval import Difference
from rba_bench.metrics.missing_scores import mean_pair_bounds


def systems(kind: str, count: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Scores `[count + 2, n]`; the last two are the first one with few changes, and with a constant less."""
    hard = rng.random(n)
    if kind == "shares":
        skills = rng.choice([0.3, 0.35, 0.7], count)
        values = [(hard + rng.normal(0, 0.1, n) < skill).astype(float) for skill in skills]
    else:
        values = [
            (hard + rng.normal(level, 0.2, n)).clip(0, 1) for level in rng.choice([0.0, 0.03, 0.3], count)
        ]
    copy, less = values[0].copy(), values[0] * 0.5 + 0.2
    copy[rng.integers(n, size=min(3, n))] = 1.0
    return np.stack([*values, copy, values[0] - 0.25 if kind == "numbers" else less])


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("kind", ["shares", "numbers"])
@pytest.mark.parametrize(("count", "n", "missing"), [(7, 300, 0.05), (6, 80, 0.3), (4, 20, 0.2), (3, 8, 0.5)])
def test_bands_are_those_of_one_pair_at_a_time(kind, clustered, count, n, missing):
    rng = np.random.default_rng([count, n])
    values = systems(kind, count, n, rng)
    scored = rng.random(values.shape) > missing
    scored[:, 0] = True
    clusters = rng.permutation(np.arange(n) // 3 if clustered else np.arange(n))
    asked = []

    def difference(i: int, j: int) -> Difference:
        both = np.flatnonzero(scored[i] & scored[j])
        left, right, labels = mean_rows(values[i, both]), mean_rows(values[j, both]), clusters[both].tolist()
        rows = paired_rows(left, right, mean_score, labels, 1.0)

        def draws():
            return resampled_scores(left, mean_score, labels) - resampled_scores(right, mean_score, labels)

        return paired.difference_interval(rows, draws, "resamples")

    def exact(i: int, j: int) -> Difference:
        asked.append((i, j))
        return difference(i, j)

    bounds = mean_pair_bounds(values, scored, clusters, 1.0)
    total = len(values)
    for i in range(total):
        for j in range(i + 1, total):
            gap = difference(i, j)
            assert bounds.values[i, j] == pytest.approx(gap.value, abs=1e-12)
            assert bounds.low[i, j] <= gap.p <= bounds.high[i, j], (i, j)
    assert rank_bands_within(bounds, exact) == paired.rank_bands(total, difference)
    if kind == "shares" and not clustered and n > 100:
        assert {pair[1] for pair in asked} <= {
            total - 1
        }  # exact without resamples; the last one's are no shares


def test_few_pairs_of_many_systems_are_resampled():
    """Forty systems, each without other scores: of 780 pairs, those near the level of significance."""
    rng = np.random.default_rng(1)
    n, hard = 300, rng.random(300)
    values = np.stack([(hard + rng.normal(level, 0.2, n)).clip(0, 1) for level in np.linspace(0, 0.4, 40)])
    scored = rng.random(values.shape) > 0.02
    asked = []

    def exact(i: int, j: int) -> Difference:
        asked.append((i, j))
        both = scored[i] & scored[j]
        left, right = mean_rows(values[i, both]), mean_rows(values[j, both])
        rows = paired_rows(left, right, mean_score, None, 1.0)
        return paired.difference_interval(
            rows, lambda: resampled_scores(left, mean_score) - resampled_scores(right, mean_score), ""
        )

    bands = rank_bands_within(mean_pair_bounds(values, scored, np.arange(n), 1.0), exact, False)
    assert len({str(band) for band in bands}) > 20 and 0 < len(asked) < 150


def test_systems_without_a_common_item_stay_unknown():
    scored = np.zeros((3, 12), dtype=bool)
    scored[0, :6] = scored[1, 6:] = scored[2] = True
    bounds = mean_pair_bounds(np.ones((3, 12)), scored, np.arange(12), 1.0)
    assert np.isnan(bounds.values[0, 1]) and (bounds.low[0, 1], bounds.high[0, 1]) == (0.0, 1.0)
    assert bounds.values[0, 2] == 0.0 and bounds.low[0, 2] == pytest.approx(1.0, abs=1e-6)

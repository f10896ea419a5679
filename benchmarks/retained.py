"""Simulated controls with a known share, for `statistics.py`: how often the interval of a retained score holds it."""

from collections.abc import Iterator

import numpy as np
from simulations import SEED, Effort, Line, holds, table

from rba_bench.metrics.bootstrap import (
    Floats,
    cluster_sizes,
    mean_rows,
    mean_score,
    paired_difference,
    resampled_scores,
)
from rba_bench.metrics.interval import Clusters, Interval
from rba_bench.metrics.retained import retained_share

OVERLAP = 0.8  # share of the control's right answers that lie where the full run is right
STRAY = 0.15  # share of the items of a cluster that go their own way


def pair_of_runs(
    rng: np.random.Generator, n: int, voices: int, full: float, kept: float
) -> tuple[Floats, Floats]:
    """Control and full run `[n]` of 0/1 items in clusters of `voices`; the true share is `kept`."""

    def draws() -> Floats:
        shared = np.repeat(rng.random(n // voices), voices)
        return np.where(rng.random(n) < (STRAY if voices > 1 else 0.0), rng.random(n), shared)

    whole = (draws() < full).astype(float)
    inside, outside = min(1.0, OVERLAP * kept), (1 - OVERLAP) * kept * full / (1 - full)
    return (draws() < np.where(whole > 0, inside, outside)).astype(float), whole


def share_of(part: Floats, whole: Floats, voices: int) -> Interval | None:
    """The share that the package computes."""
    clusters = np.repeat(np.arange(len(part) // voices), voices).tolist()
    scores = [
        (float(each.mean()), resampled_scores(mean_rows(each), mean_score, clusters))
        for each in (part, whole)
    ]
    groups = Clusters.of(cluster_sizes(len(part), clusters))
    difference = paired_difference(part, whole, clusters=clusters, scale=1.0)
    return retained_share(scores[0], scores[1], groups, mean_score.scale(mean_rows(part), 1.0), difference)


def retained_coverage(effort: Effort) -> Iterator[Line]:
    """Coverage, median width and data sets without a share, by what is true."""
    rng = np.random.default_rng(SEED)
    for n, voices in ((60, 1), (200, 1), (200, 4))[: effort.columns]:
        for full in (0.2, 0.6):
            for kept in (0.0, 0.05, 0.3, 0.7, 1.0):
                found = [
                    share_of(*pair_of_runs(rng, n, voices, full, kept), voices)
                    for _ in range(effort.coverage // 2)
                ]
                shares = [share for share in found if share is not None]
                held = [holds((share.low, share.high), kept) for share in shares]
                width = np.median([share.high - share.low for share in shares])
                none = 1 - len(shares) / len(found)
                yield f"{n} in {n // voices} clusters", full, kept, float(np.mean(held)), f"{width:.3f}", none


def shares(effort: Effort) -> None:
    """The table of what a score retains."""
    print(f"{effort.coverage // 2} data sets a number.\n")
    headings = ["items", "full score", "true share", "coverage", "median width", "no share"]
    table("What a score retains, 0/1 items: coverage %", headings, retained_coverage(effort))

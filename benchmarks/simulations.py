"""Simulated tests with known truth, for `statistics.py`: what intervals, rank bands and studies make of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from rba_bench.metrics import paired
from rba_bench.metrics.aggregate import ErrorRate, score_function
from rba_bench.metrics.bootstrap import (
    Floats,
    ScoreFn,
    bootstrap_corpus,
    bootstrap_mean,
    mean_rows,
    mean_score,
    paired_difference,
    paired_rows,
    resampled_scores,
)
from rba_bench.metrics.interval import Interval
from rba_bench.metrics.paired import rank_bands, rank_bands_from_intervals
from rba_bench.metrics.paired import significant_pairs as pairs_apart
from rba_bench.study.seed_estimates import difference_over_seeds, resample_systems

SEED = 20261128
RESAMPLES = 400
SYSTEMS = 10
SMALL, FEW = (5, 10, 20, 50, 200), (5, 10, 27, 100)  # items, clusters
Line = Sequence[object]
Draw = Callable[[np.random.Generator, int, int], Floats]  # of so many systems, items: [systems, items]


@dataclass(frozen=True)
class Effort:
    """How many data sets a table is made from."""

    coverage: int
    boards: int
    quick: bool = False

    @property
    def columns(self) -> int | None:
        """How many of the sizes are shown."""
        return 2 if self.quick else None


QUICK, FULL = Effort(coverage=20, boards=2, quick=True), Effort(coverage=1000, boards=200)


def percentile(drawn: Floats) -> tuple[float, float]:
    """The interval of before."""
    low, high = np.quantile(drawn[~np.isnan(drawn)], [0.025, 0.975])
    return float(low), float(high)


def table(title: str, headings: Sequence[str], lines: Iterator[Line]) -> None:
    """Print a table, line by line as it is computed."""
    print(f"### {title}\n\n| {' | '.join(headings)} |\n|{'---|' * len(headings)}")
    for line in lines:
        cells = [f"{100 * cell:.1f}" if isinstance(cell, float) else str(cell) for cell in line]
        print(f"| {' | '.join(cells)} |", flush=True)
    print()


def holds(ends: tuple[float, float], truth: float) -> bool:
    """True if the truth lies between the ends."""
    return ends[0] - 1e-9 <= truth <= ends[1] + 1e-9


# Two systems, 0/1 items


def pairs_of_bits(rng: np.random.Generator, n: int, shares: tuple[float, float], together: float) -> Floats:
    """Two systems right with given shares, `[2, n]`; `together` is the correlation of being right."""
    (p, q), extra = shares, together * np.sqrt(np.prod([share * (1 - share) for share in shares]))
    both = p * q + extra
    kinds = rng.choice(4, size=n, p=[both, p - both, q - both, 1 - p - q + both])
    return np.array([kinds <= 1, (kinds == 0) | (kinds == 2)], dtype=np.float64)


def paired_coverage(effort: Effort) -> Iterator[Line]:
    """Paired differences of 0/1 items."""
    rng = np.random.default_rng(SEED)
    for shares, together in (
        ((0.95, 0.98), 0.0),
        ((0.95, 0.98), 0.4),
        ((0.9, 0.9), 0.0),
        ((1.0, 0.9), 0.0),
        ((0.5, 0.6), 0.3),
    ):
        for n in (5, 10, 20, 50, 100, 500)[: 3 if effort.quick else 6]:
            hits, widths = [], []
            for _ in range(effort.coverage):
                a, b = pairs_of_bits(rng, n, shares, together)
                found = paired_difference(a, b)
                before = percentile(resampled_scores(mean_rows(a - b), mean_score, resamples=RESAMPLES))
                truth = shares[0] - shares[1]
                hits.append([holds(ends, truth) for ends in (before, (found.low, found.high))])
                widths.append(found.high - found.low)
            before, now = np.mean(hits, axis=0).tolist()
            yield f"{shares[0]} against {shares[1]}", str(together), n, before, now, f"{np.mean(widths):.3f}"


# One system, or a difference, in clusters


def sizes(rng: np.random.Generator, kind: str, clusters: int) -> np.ndarray:
    """Items in each cluster."""
    if kind == "equal":
        return np.full(clusters, 8)
    if kind == "2 to 14":
        return rng.integers(2, 15, clusters)
    return np.maximum(1, np.exp(rng.normal(1.5, 1, clusters)).round()).astype(int)


def clustered(rng: np.random.Generator, kind: str, counts: np.ndarray) -> tuple[Floats, ScoreFn, float]:
    """Rows of every item, the score, and the truth."""
    label = np.repeat(np.arange(len(counts)), counts)
    n = len(label)
    if kind == "0/1 items":
        own = rng.beta(2, 1, len(counts))[label]
        return mean_rows((rng.random(n) < own).astype(float)), mean_score, 2 / 3
    if kind == "ratings":
        return (
            mean_rows(np.clip(rng.normal(0.5, 0.08, len(counts))[label] + rng.normal(0, 0.12, n), 0, 1)),
            mean_score,
            0.5,
        )
    if kind == "word errors":
        length = rng.integers(3, 20, n)
        errors = rng.poisson(length * rng.gamma(4, 0.15 / 4, len(counts))[label])
        return np.column_stack([errors, length]).astype(float), ErrorRate(), 15.0
    return bleu_rows(rng, rng.beta(6, 6, len(counts))[label]), score_function("bleu"), bleu_truth()


def bleu_rows(rng: np.random.Generator, quality: Floats) -> Floats:
    """Invented statistics of BLEU: every n-gram order matches less often, more so in bad sentences."""
    length = rng.integers(6, 25, len(quality))
    total = np.maximum(length[:, None] - np.arange(4), 0)
    correct = rng.binomial(total, np.clip(quality[:, None] ** (0.6 + 0.5 * np.arange(4)), 0, 1))
    return np.column_stack([length, length, correct, total]).astype(float)


@lru_cache
def bleu_truth() -> float:
    """BLEU of very many such sentences."""
    rng = np.random.default_rng(1)
    return score_function("bleu")(bleu_rows(rng, rng.beta(6, 6, 400_000)).sum(axis=0).tolist())


def cluster_coverage(effort: Effort) -> Iterator[Line]:
    """Scores of few clusters."""
    rng = np.random.default_rng(SEED)
    for kind in ("0/1 items", "ratings", "word errors", "BLEU"):
        for spread in ("equal", "2 to 14", "1 to 60"):
            line: list[object] = [kind, spread]
            for clusters in FEW[: effort.columns]:
                hits = []
                for _ in range(effort.coverage // 2):
                    counts = sizes(rng, spread, clusters)
                    rows, score, truth = clustered(rng, kind, counts)
                    labels = np.repeat(np.arange(clusters), counts).tolist()
                    if score is mean_score:
                        found = bootstrap_mean(rows[:, 0], labels, resamples=RESAMPLES)
                    else:
                        found = bootstrap_corpus(rows, score, labels, resamples=RESAMPLES)
                    before = percentile(resampled_scores(rows, score, labels, resamples=RESAMPLES))
                    hits.append([holds(ends, truth) for ends in (before, (found.low, found.high))])
                line += np.mean(hits, axis=0).tolist()
            yield line


def paired_cluster_coverage(effort: Effort) -> Iterator[Line]:
    """Differences of two systems of one truth apart, on shared clusters."""
    rng = np.random.default_rng(SEED)
    for kind in ("0/1 items", "ratings", "word errors", "BLEU"):
        for spread in ("equal", "1 to 60"):
            line: list[object] = [kind, spread]
            for clusters in FEW[: effort.columns]:
                hits = []
                for _ in range(effort.coverage // 2):
                    counts = sizes(rng, spread, clusters)
                    (a, score, _), (b, _, _) = (clustered(rng, kind, counts) for _ in range(2))
                    labels = np.repeat(np.arange(clusters), counts).tolist()
                    drawn = [resampled_scores(each, score, labels, resamples=RESAMPLES) for each in (a, b)]
                    found = paired_difference(a, b, score, labels, resamples=RESAMPLES)
                    ends = percentile(drawn[0] - drawn[1]), (found.low, found.high)
                    hits.append([holds(each, 0.0) for each in ends])
                line += np.mean(hits, axis=0).tolist()
            yield line


def single_coverage(effort: Effort) -> Iterator[Line]:
    """Scores of few independent items, or of items almost all equal."""
    rng = np.random.default_rng(SEED)
    kinds: dict[str, Callable[[int], Floats]] = {
        "0/1, 0.98 right": lambda n: (rng.random(n) < 0.98).astype(float),
        "0/1, 0.7 right": lambda n: (rng.random(n) < 0.7).astype(float),
        "ratings in quarters": lambda n: rng.binomial(4, 0.8, n) / 4,
        "0.75, one in 20 is 0": lambda n: np.where(rng.random(n) < 0.05, 0.0, 0.75),
        "win rate, half ties": lambda n: rng.choice([0, 0.5, 1], n, p=[0.2, 0.5, 0.3]),
    }
    truths = (0.98, 0.7, 0.8, 0.7125, 0.55)
    for (kind, draw), truth in zip(kinds.items(), truths, strict=True):
        line: list[object] = [kind]
        for n in SMALL[: effort.columns]:
            hits = []
            for _ in range(effort.coverage):
                values = draw(n)
                found = bootstrap_mean(values, resamples=RESAMPLES)
                before = percentile(resampled_scores(mean_rows(values), mean_score, resamples=RESAMPLES))
                hits.append([holds(ends, truth) for ends in (before, (found.low, found.high))])
            line += np.mean(hits, axis=0).tolist()
        yield line


# Boards


def bits(
    rng: np.random.Generator, systems: int, n: int, share: float = 0.7, apart: Floats | float = 0.0
) -> Floats:
    """Right or wrong, items of differing difficulty shared by all."""
    difficulty = rng.beta(4 * share, 4 * (1 - share), n)
    moved = np.clip(difficulty + np.broadcast_to(apart, systems)[:, None], 0, 1)
    return (rng.random((systems, n)) < moved).astype(float)


def ratings(rng: np.random.Generator, systems: int, n: int) -> Floats:
    """Continuous scores around the item's."""
    return np.clip(rng.beta(4, 2, n) + rng.normal(0, 0.2, (systems, n)), 0, 1)


def wins(rng: np.random.Generator, systems: int, n: int) -> Floats:
    """Win rates with ties: 0, 0.5 or 1, the same on 80 % of the items for all systems."""
    shared, own = rng.choice([0, 0.5, 1], n), rng.choice([0, 0.5, 1], (systems, n))
    return np.where(rng.random((systems, n)) < 0.8, shared, own)


def sentences(rng: np.random.Generator, systems: int, n: int) -> Floats:
    """Statistics of BLEU, `[systems, n, 10]`."""
    quality = rng.beta(6, 6, n)
    return np.array([bleu_rows(rng, quality) for _ in range(systems)])


KINDS: dict[str, Draw] = {
    "0/1, 0.7 right": bits,
    "0/1, 0.98 right": lambda rng, systems, n: bits(rng, systems, n, 0.98),
    "0/1 in clusters of 3": lambda rng, systems, n: np.repeat(bits(rng, systems, n // 3), 3, axis=1)[
        :, : n // 3 * 3
    ],
    "ratings": ratings,
    "win rates, many ties": wins,
    "BLEU": sentences,
}


def board(values: Floats, labels: Sequence[int] | None) -> tuple[bool, bool]:
    """Whether rank bands order a pair of systems, and whether any pairwise percentile interval of before does."""
    systems = len(values)
    score: ScoreFn = score_function("bleu") if values.ndim == 3 else mean_score
    rows = values if values.ndim == 3 else np.stack([values, np.ones_like(values)], axis=2)
    drawn = [resampled_scores(each, score, labels, resamples=RESAMPLES) for each in rows]

    def gap(i: int, j: int) -> Interval:
        pair = paired_rows(rows[i], rows[j], score, labels)
        return paired.difference_interval(pair, lambda: drawn[i] - drawn[j], f"{RESAMPLES} resamples")

    bands = rank_bands(systems, gap)
    pairs = combinations(range(systems), 2)
    before = any(not holds(percentile(drawn[i] - drawn[j]), 0.0) for i, j in pairs)
    return before, any(str(band) != f"1-{systems}" for band in bands)


def equal_boards(effort: Effort) -> Iterator[Line]:
    """Ten systems that are equal: how many boards order some pair."""
    rng = np.random.default_rng(SEED)
    for kind, draw in KINDS.items():
        for n in (6, 20, 100, 500)[: effort.columns]:
            found = []
            for _ in range(effort.boards):
                values = draw(rng, SYSTEMS, n)
                labels = [item // 3 for item in range(values.shape[1])] if "clusters" in kind else None
                found.append(board(values, labels))
            yield kind, n, *np.mean(found, axis=0).tolist()


def own_interval_boards(effort: Effort) -> Iterator[Line]:
    """The same where runs are partial and only their own intervals can be compared, each on items of its own."""
    rng = np.random.default_rng(SEED)
    for name, draw in (("0/1, 0.7 right", lambda n: (rng.random((SYSTEMS, n)) < 0.7).astype(float)),
                       ("ratings", lambda n: rng.beta(4, 2, (SYSTEMS, n)))):  # fmt: skip
        for n in (6, 20, 100)[: effort.columns]:
            ordered = []
            for _ in range(effort.boards):
                bands = rank_bands_from_intervals(
                    [bootstrap_mean(each, resamples=RESAMPLES) for each in draw(n)]
                )
                ordered.append(any(str(band) != f"1-{SYSTEMS}" for band in bands))
            yield name, n, float(np.mean(ordered))


def power(effort: Effort) -> Iterator[Line]:
    """How many pairs that differ are put in order: one system ahead of nine, and two halves."""
    rng = np.random.default_rng(SEED)
    shapes = {
        "one ahead of nine": np.arange(SYSTEMS) < 1,
        "five ahead of five": np.arange(SYSTEMS) < SYSTEMS // 2,
    }
    for name, better in shapes.items():
        differ = [(i, j) for i, j in combinations(range(SYSTEMS), 2) if better[i] != better[j]]
        for apart in (0.05, 0.1, 0.2)[: 1 if effort.quick else 3]:
            for n in (100, 500, 1000)[: 1 if effort.quick else 3]:
                found = []
                for _ in range(max(effort.boards // 4, 1)):
                    values = bits(rng, SYSTEMS, n, 0.6, better * apart)
                    gaps = {
                        (i, j): paired_difference(values[i], values[j])
                        for i, j in combinations(range(SYSTEMS), 2)
                    }
                    told = set(pairs_apart(SYSTEMS, {pair: gap.p for pair, gap in gaps.items()}))
                    found.append(
                        [
                            np.mean([gaps[p].excludes(0.0) for p in differ]),
                            np.mean([p in told for p in differ]),
                        ]
                    )
                yield name, f"{apart:.2f}", n, *np.mean(found, axis=0).tolist()


# Studies


def studies(effort: Effort) -> Iterator[Line]:
    """Marks of a method equal to the baseline, 3 seeds each, when seeds stray as far as items or further."""
    rng = np.random.default_rng(SEED)
    items, seeds, alone = 60, 3, 0.5 / np.sqrt(60)
    for times in (0, 1, 2, 4, 8):
        marks, widths = [], []
        for _ in range(effort.coverage // 2):
            difficulty = rng.normal(0, 0.3, items)
            values = [
                difficulty + rng.normal(0, times * alone) + rng.normal(0, 0.5, items)
                for _ in range(2 * seeds)
            ]
            found = resample_systems([mean_rows(each) for each in values], mean_score, range(items))
            gap = difference_over_seeds(found[:seeds], found[seeds:])
            marks.append(gap.mark != 0)
            widths.append((gap.high - gap.low) / alone)
        yield times, float(np.mean(marks)), f"{np.median(widths):.1f}"


def coverages(effort: Effort) -> None:
    """Tables of coverage."""
    print(f"{effort.coverage:,} data sets a number, half as many with clusters.\n")
    headings = ["right", "correlation", "n", "before", "now", "mean width"]
    table("Two systems, 0/1 items: coverage %", headings, paired_coverage(effort))
    headings = [f"{n} items, {when}" for n in SMALL[: effort.columns] for when in ("before", "now")]
    table("One system, independent items: coverage %", ["items", *headings], single_coverage(effort))
    headings = [f"{n} clusters, {when}" for n in FEW[: effort.columns] for when in ("before", "now")]
    headings = ["items", "cluster sizes", *headings]
    table("One system, clusters: coverage %", headings, cluster_coverage(effort))
    table("Two equal systems, clusters: coverage %", headings, paired_cluster_coverage(effort))


def boards(effort: Effort) -> None:
    """Tables of boards and of studies."""
    print(f"{effort.boards} boards a number, a quarter as many for power, {effort.coverage // 2} studies.\n")
    title = f"Boards of {SYSTEMS} equal systems that order some pair, %"
    table(title, ["items", "n", "before", "now"], equal_boards(effort))
    table("The same by own intervals, %", ["items", "n", "now"], own_interval_boards(effort))
    title = f"Power: pairs of {SYSTEMS} systems that differ and are told apart, 0/1 items, %"
    table(title, ["systems", "difference", "n", "pairwise `*`", "rank bands"], power(effort))
    headings = ["seeds stray, in standard errors of the items", "marked", "median width, in the same"]
    table("Studies of 3 seeds, equal methods: differences marked, %", headings, studies(effort))

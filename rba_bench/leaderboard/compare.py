"""Runs on the same items under the same protocol, compared in pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rba_bench.errors import UserError
from rba_bench.evaluation.records import RunRecord
from rba_bench.evaluation.registry import BENCHMARKS
from rba_bench.files import sha256_json
from rba_bench.leaderboard.load import Run
from rba_bench.metrics.bootstrap import (
    RESAMPLES,
    SEED,
    Floats,
    Interval,
    percentile_interval,
    resampled_scores,
)
from rba_bench.metrics.rank import RankBand, rank_bands, rank_bands_from_intervals

MODEL = "model"
CEILING = "ceiling"
REFERENCES = {"text": CEILING, "cascade": "cascade", "constant": "constant"}  # what was asked for: what it is
KINDS = (MODEL, *REFERENCES.values())
# The metric a task is ranked by. Spoken answers come in sentences ("it is paris"), so questions go by alias match;
# exact match, shown beside it, also punishes correct sentences.
PRIMARY = ("win_rate", "alias_match", "bleu")

GroupKey = tuple[str, str, str]  # task, protocol hash, data hash


@dataclass(frozen=True)
class Row:
    """One run in its group.

    Attributes:
        kind: `model`, or what sort of reference it is: `ceiling`, `cascade`, `constant`.
        bands: Rank band per metric among the models; empty for references.
        versus: Paired difference to the baseline row per metric; empty if there is none (or it is that row).
        gap: Paired difference to the text ceiling per metric; empty if there is none (or it is that row).
    """

    run: Run
    label: str
    kind: str
    is_baseline: bool
    bands: dict[str, RankBand]
    versus: dict[str, Interval]
    gap: dict[str, Interval]


class Group:
    """Runs that may share a table: one task, one protocol hash, one test set.

    Raises:
        UserError: the records report different metrics.
    """

    def __init__(self, key: GroupKey, runs: Sequence[Run], baseline: str) -> None:
        self.task, self.protocol_hash, self.data_hash = key
        self.baseline = baseline
        self.runs = sorted(runs, key=lambda run: (run.name, run.record.run_id))
        self.record = self.runs[0].record  # speaks for all where they must be equal
        self.metrics = list(self.record.metrics)
        self.primary = next((metric for metric in PRIMARY if metric in self.metrics), self.metrics[0])
        self._draws: dict[tuple[int, str], Floats] = {}
        if any(list(run.record.metrics) != self.metrics for run in self.runs):
            raise UserError(
                f"{self.task}: records of one protocol report different metrics; evaluate them again"
            )

    @cached_property
    def rows(self) -> list[Row]:
        """Models by falling score, then the references; ties by label."""
        bands = self._bands()
        rows = [
            self._row(index, label, bands.get(index, {})) for index, label in enumerate(labels(self.runs))
        ]
        return sorted(rows, key=lambda row: (KINDS.index(row.kind), -self._goodness(row.run), row.label))

    def difference(self, a: int, b: int, metric: str) -> Interval | None:
        """Score of run `a` minus score of run `b`, drawn together; None if a partial run makes pairing impossible.

        Raises:
            UserError: two complete runs of one test set do not hold the same items.
        """
        first, second = self.runs[a], self.runs[b]
        if first.items != second.items:
            if first.record.partial or second.record.partial:
                return None
            raise UserError(f"{first.folder} and {second.folder} name one test set but hold different items")
        drawn = self._scores(a, metric) - self._scores(b, metric)
        clusters = len({sample.cluster for sample in first.samples})
        method = (
            f"paired bootstrap percentile 95 %, {RESAMPLES} resamples of {clusters} clusters, seed {SEED}"
        )
        value = first.record.metrics[metric].value - second.record.metrics[metric].value
        return percentile_interval(value, drawn, len(first.samples), method)

    def _scores(self, index: int, metric: str) -> Floats:
        if (index, metric) not in self._draws:
            run = self.runs[index]
            rows, score = run.rows(metric)
            clusters = [sample.cluster for sample in run.samples]
            self._draws[index, metric] = resampled_scores(rows, score, clusters)
        return self._draws[index, metric]

    def _row(self, index: int, label: str, bands: dict[str, RankBand]) -> Row:
        run = self.runs[index]
        ceilings = [other for other, each in enumerate(self.runs) if kind_of(each) == CEILING]
        versus = self._differences(index, self._partner(index, self._baselines))
        gap = self._differences(index, self._partner(index, ceilings))
        return Row(run, label, kind_of(run), index in self._baselines, bands, versus, gap)

    @cached_property
    def _baselines(self) -> list[int]:
        """Runs called like the baseline, else those trained by the method of that name."""
        named = [index for index, run in enumerate(self.runs) if run.name == self.baseline]
        return named or [
            index for index, run in enumerate(self.runs) if _training(run, "method") == self.baseline
        ]

    def _partner(self, index: int, candidates: Sequence[int]) -> int | None:
        """The one candidate to compare with; of several replicates, the one with the same seeds."""
        if index in candidates:
            return None
        found = list(candidates)
        if len(found) > 1:
            found = [other for other in found if _seeds_agree(self.runs[index], self.runs[other])]
        return found[0] if len(found) == 1 else None

    def _differences(self, index: int, other: int | None) -> dict[str, Interval]:
        if other is None:
            return {}
        found = {metric: self.difference(index, other, metric) for metric in self.metrics}
        return {metric: interval for metric, interval in found.items() if interval is not None}

    def _goodness(self, run: Run) -> float:
        stated = run.record.metrics[self.primary]
        return stated.value if stated.higher_is_better else -stated.value

    def _bands(self) -> dict[int, dict[str, RankBand]]:
        models = [index for index, run in enumerate(self.runs) if kind_of(run) == MODEL]
        bands: dict[int, dict[str, RankBand]] = {index: {} for index in models}
        for metric in self.metrics:
            for index, band in zip(models, self._metric_bands(models, metric), strict=True):
                bands[index][metric] = band
        return bands

    def _metric_bands(self, models: Sequence[int], metric: str) -> list[RankBand]:
        stated = [self.runs[index].record.metrics[metric] for index in models]
        higher = self.record.metrics[metric].higher_is_better
        pairs: dict[tuple[int, int], Interval] = {}
        for i in range(len(models)):
            for j in range(i + 1, len(models)):
                difference = self.difference(models[i], models[j], metric)
                if difference is None:
                    own = [Interval(each.value, each.low, each.high, each.n, each.method) for each in stated]
                    return rank_bands_from_intervals(own, higher)
                pairs[i, j] = difference
        return rank_bands(len(models), lambda i, j: pairs[i, j], higher)


def group_runs(runs: Sequence[Run], baseline: str) -> list[Group]:
    """Runs sorted into groups by task, protocol hash and test set.

    Raises:
        UserError: the runs belong to different tracks.
    """
    tracks = sorted({run.record.track for run in runs})
    if len(tracks) > 1:
        raise UserError(
            f"records of the tracks {' and '.join(tracks)} never share a board; build one for each"
        )
    groups: dict[GroupKey, list[Run]] = {}
    for run in runs:
        key = (run.record.task, run.record.protocol_hash, data_hash(run.record))
        groups.setdefault(key, []).append(run)
    found = [Group(key, groups[key], baseline) for key in sorted(groups)]
    return sorted(found, key=lambda group: (_place(group.record.benchmark), group.task))


def data_hash(record: RunRecord) -> str:
    """Identity of the whole test set, texts and clips."""
    return sha256_json([record.data["items_sha256"], record.data["audio_set_sha256"]])


def kind_of(run: Run) -> str:
    """`model`, or the kind of reference the run is; by what was asked for, so no checkpoint can pose as one."""
    return REFERENCES.get(str(run.record.model["spec"]), MODEL)


def labels(runs: Sequence[Run]) -> list[str]:
    """Names that tell the runs apart: the model's, with the seed or else the run id where a model stands twice."""
    names = [run.name for run in runs]
    seeded = [f"{run.name} (seed {run.record.seeds.get('generation')})" for run in runs]
    return [
        name
        if names.count(name) == 1
        else seed
        if seeded.count(seed) == 1
        else f"{name} ({run.record.run_id})"
        for name, seed, run in zip(names, seeded, runs, strict=True)
    ]


def _place(benchmark: str) -> tuple[int, str]:
    known = BENCHMARKS.index(benchmark) if benchmark in BENCHMARKS else len(BENCHMARKS)
    return (known, benchmark)


def _training(run: Run, key: str) -> object:
    return (run.record.model.get("training") or {}).get(key)


def _seeds_agree(a: Run, b: Run) -> bool:
    pairs = [(_training(a, "seed"), _training(b, "seed"))]
    pairs.append((a.record.seeds.get("generation"), b.record.seeds.get("generation")))
    return all(None in pair or pair[0] == pair[1] for pair in pairs)

"""Runs on the same items under the same protocol, compared in pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rba_bench.errors import UserError
from rba_bench.evaluation.lengths import MeanLengths, mean_lengths
from rba_bench.evaluation.records import RunRecord
from rba_bench.evaluation.scorers.length_control import NONE, TRUSTED
from rba_bench.evaluation.task_registry import ORDER
from rba_bench.files import sha256_json
from rba_bench.leaderboard.loaded_runs import CEILING, KINDS, MODEL, Run, ceilings_for, kind_of, names_of
from rba_bench.leaderboard.pairing import Draws, Pair
from rba_bench.metrics.bootstrap import bootstrap_corpus
from rba_bench.metrics.interval import Interval
from rba_bench.metrics.paired import RankBand, apart_by_intervals, rank_bands
from rba_bench.metrics.wer import primary_error
from rba_bench.untrusted import plain

# The metric a task is ranked by. Spoken answers come in sentences ("it is paris"), so questions go by the judge's
# verdict or else by what a sentence asserts: exact match also punishes correct sentences, alias match pays for lists of
# candidates, and older records have no better. Of win rates: the length-controlled one in the one form
# that does not lift terse systems, else the raw one with the mean lengths beside it.
PRIMARY = (
    LC := "lc_win_rate",
    "win_rate",
    "judge_accuracy",
    "asserted_match",
    "alias_match",
    "bleu",
    "wer",
    "if_rate",
    "answer_cosine",
    "answer_agreement",
)

GroupKey = tuple[str, str, str]  # task, protocol hash, data hash


@dataclass(frozen=True)
class Row:
    """One run in its group.

    Attributes:
        kind: `model`, or what sort of reference it is: `ceiling`, `cascade`, `constant`.
        bands: Rank band per metric among the models; empty for references.
        versus: Paired difference to the baseline row per metric; empty if there is none (or it is that row).
        gap: Modality gap per metric: the text ceiling minus this row, paired; empty if there is none (or it is that
            row).
        ceiling: Label of the ceiling that the gap is measured from, "" if there is none.
        lengths: Mean lengths of answers and baseline per win rate; empty where there is none.
    """

    run: Run
    label: str
    kind: str
    is_baseline: bool
    bands: dict[str, RankBand]
    versus: dict[str, Interval]
    gap: dict[str, Interval]
    ceiling: str
    lengths: dict[str, MeanLengths]


class Group:
    """Runs that may share a table: one task, one protocol hash, one test set.

    Args:
        key: Task, protocol hash, data hash.
        runs: All runs of the group.
        baseline: Name or training method of the row that the others are compared with.
        ceiling: Name of the text ceiling that modality gaps are measured from; by default see `ceilings_for`.

    Raises:
        UserError: the records report different metrics.
    """

    def __init__(self, key: GroupKey, runs: Sequence[Run], baseline: str, ceiling: str | None = None) -> None:
        self.task, self.protocol_hash, self.data_hash = key
        self.baseline, self.ceiling = baseline, ceiling
        self.runs = sorted(runs, key=lambda run: (run.name, run.record.run_id))
        self.record = self.runs[0].record  # speaks for all where they must be equal
        self.metrics = list(self.record.metrics)
        self.primary = _primary(self.runs[0])
        self._draws = Draws()
        self._pairs: dict[tuple[int, int], Pair | None] = {}
        self._own_scores: dict[tuple[int, str], tuple[Interval, int]] = {}
        if any(list(run.record.metrics) != self.metrics for run in self.runs):
            raise UserError(
                f"{self.task}: records of one protocol report different metrics; evaluate them again"
            )

    def has_lengths(self, metric: str) -> bool:
        """Whether a metric is a win rate, which is read beside the lengths of the answers."""
        return any(metric in row.lengths for row in self.rows)

    @property
    def perturb(self) -> str:
        """What was done to every clip, "" if nothing."""
        return plain((self.record.protocol_spec.get("perturb") or {}).get("text", ""))

    @cached_property
    def rows(self) -> list[Row]:
        """Models by falling score, then the references; ties by label."""
        bands = self._bands()
        rows = [self._row(index, bands.get(index, {})) for index in range(len(self.runs))]
        return sorted(rows, key=lambda row: (KINDS.index(row.kind), -self._goodness(row.run), row.label))

    @cached_property
    def labels(self) -> list[str]:
        """Names that tell the runs apart, in the order of `runs`."""
        return labels(self.runs)

    @cached_property
    def ceilings(self) -> list[int]:
        """Runs that read the transcript."""
        return [index for index, run in enumerate(self.runs) if kind_of(run) == CEILING]

    @property
    def without_ceiling(self) -> list[str]:
        """Labels of the rows that should have a modality gap and have none, as no single ceiling stands for them."""
        rows = [index for index in range(len(self.runs)) if index not in self.ceilings]
        return [self.labels[index] for index in rows if self.ceilings and self._ceiling(index) is None]

    def difference(self, a: int, b: int, metric: str) -> Interval | None:
        """Score of run `a` minus score of run `b` on the items that both have a score for, drawn together.

        None if there are no such items, or a partial run makes pairing impossible.

        Raises:
            UserError: two complete runs of one test set do not hold the same items.
        """
        if (a, b) not in self._pairs:
            first, second = self.runs[a], self.runs[b]
            partial = first.record.partial or second.record.partial
            apart = partial and first.items != second.items
            self._pairs[a, b] = None if apart else Pair(first, second, self._draws)
        pair = self._pairs[a, b]
        return None if pair is None else pair.difference(metric)

    def _row(self, index: int, bands: dict[str, RankBand]) -> Row:
        run = self.runs[index]
        baseline, ceiling = self._partner(index, self._baselines), self._ceiling(index)
        return Row(
            run,
            self.labels[index],
            kind_of(run),
            index in self._baselines,
            bands,
            versus={} if baseline is None else self._differences(index, baseline),
            gap={} if ceiling is None else self._differences(ceiling, index),
            ceiling="" if ceiling is None else self.labels[ceiling],
            lengths={m: found for m in self.metrics if (found := mean_lengths(run.samples, m))},
        )

    def _ceiling(self, index: int) -> int | None:
        if index in self.ceilings:
            return None
        fitting = ceilings_for(self.runs[index], [self.runs[each] for each in self.ceilings], self.ceiling)
        chosen = {id(run) for run in fitting}
        return self._partner(index, [each for each in self.ceilings if id(self.runs[each]) in chosen])

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

    def _differences(self, a: int, b: int) -> dict[str, Interval]:
        found = {metric: self.difference(a, b, metric) for metric in self.metrics}
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
        """Bands that hold together: pairs on the same items, else (a partial run) by the scores' own intervals."""

        def difference(i: int, j: int) -> Interval:
            found = self.difference(models[i], models[j], metric)
            return found or self._apart(models[i], models[j], metric)

        return rank_bands(len(models), difference, self.record.metrics[metric].higher_is_better)

    def _apart(self, a: int, b: int, metric: str) -> Interval:
        """Difference of two runs that do not share their items."""
        (mine, clusters), (theirs, others) = self._own(a, metric), self._own(b, metric)
        return apart_by_intervals(mine, theirs, min(clusters, others))

    def _own(self, index: int, metric: str) -> tuple[Interval, int]:
        """A run's score with its interval, computed from its samples, and the clusters behind it."""
        if (index, metric) not in self._own_scores:
            run = self.runs[index]
            kept = run.scored(metric)
            clusters = [each.cluster for each, there in zip(run.samples, kept, strict=True) if there]
            rows, score = run.rows(metric)
            scale = run.record.metrics[metric].scale
            found = bootstrap_corpus(rows[kept], score, clusters, scale=scale)
            self._own_scores[index, metric] = (found, len(set(clusters)))
        return self._own_scores[index, metric]


def group_runs(runs: Sequence[Run], baseline: str, ceiling: str | None = None) -> list[Group]:
    """Runs sorted into groups by task, protocol hash and test set.

    Raises:
        UserError: the runs belong to different tracks, or none of them is the ceiling that was asked for.
    """
    _check_ceiling(runs, ceiling)
    tracks = sorted({run.record.track for run in runs})
    if len(tracks) > 1:
        raise UserError(
            f"records of the tracks {' and '.join(tracks)} never share a board; build one for each"
        )
    groups: dict[GroupKey, list[Run]] = {}
    for run in runs:
        groups.setdefault(group_key(run.record), []).append(run)
    found = [Group(key, groups[key], baseline, ceiling) for key in sorted(groups)]
    return sorted(found, key=lambda group: (_place(group.record.benchmark), group.task))


def group_key(record: RunRecord) -> GroupKey:
    """What runs must have in common to be compared."""
    return (record.task, record.protocol_hash, data_hash(record))


def data_hash(record: RunRecord) -> str:
    """Identity of the whole test set, texts and clips."""
    return sha256_json([record.data["items_sha256"], record.data["audio_set_sha256"]])


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


def _check_ceiling(runs: Sequence[Run], wanted: str | None) -> None:
    found = [run for run in runs if kind_of(run) == CEILING]
    if wanted is not None and not any(wanted.casefold() in names_of(run) for run in found):
        known = ", ".join(sorted({run.name for run in found})) or "none; evaluate one with --model text:<llm>"
        raise UserError(f"no text ceiling is called {wanted!r} (known: {known})")


def _primary(run: Run) -> str:
    """The metric that a task is ranked by; languages written without spaces go by characters."""
    metrics = list(run.record.metrics)
    errors = {primary_error(sample.target_lang) for sample in run.samples}
    if errors == {"cer"} and "cer" in metrics:
        return "cer"
    trusted = [metric for metric in metrics if not metric.startswith(LC) or _is_trusted(run.record, metric)]
    return next((metric for metric in PRIMARY if metric in trusted), [*trusted, *metrics][0])


def _is_trusted(record: RunRecord, metric: str) -> bool:
    """Whether a length-controlled rate has the form that boards rank by, as its signature and the protocol both say."""
    entries = record.protocol_spec.get("finish") or []
    stated = [entry["lc"].get("form") for entry in entries if isinstance(entry.get("lc"), Mapping)]
    signed = f"lc:{TRUSTED}" in record.metrics[metric].signature.split("|")
    return signed and set(stated) <= {TRUSTED, NONE}


def _place(benchmark: str) -> tuple[int, str]:
    known = ORDER.index(benchmark) if benchmark in ORDER else len(ORDER)
    return (known, benchmark)


def _training(run: Run, key: str) -> object:
    return (run.record.model.get("training") or {}).get(key)


def _seeds_agree(a: Run, b: Run) -> bool:
    pairs = [(_training(a, "seed"), _training(b, "seed"))]
    pairs.append((a.record.seeds.get("generation"), b.record.seeds.get("generation")))
    return all(None in pair or pair[0] == pair[1] for pair in pairs)

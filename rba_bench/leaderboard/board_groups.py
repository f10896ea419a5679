"""Runs of one task, protocol and test set, ranked and compared with a baseline and a text ceiling in pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from rba_bench.errors import UserError
from rba_bench.evaluation.lengths import MeanLengths, is_win_rate, mean_lengths
from rba_bench.evaluation.metric import RANKING
from rba_bench.evaluation.plan import protocol_hash
from rba_bench.evaluation.records import RunRecord
from rba_bench.evaluation.scorers.length_control import NONE, TRUSTED
from rba_bench.evaluation.task_registry import ORDER
from rba_bench.files import sha256_json
from rba_bench.leaderboard.board_ranks import model_bands
from rba_bench.leaderboard.controls import control_names, match_controls, without_full_run
from rba_bench.leaderboard.judges import ColumnJudge, group_judges, split_by_judge
from rba_bench.leaderboard.loaded_runs import (
    CEILING,
    KINDS,
    MODEL,
    LoadedRun,
    kind_of_run,
    matching_ceilings,
    reference_names,
)
from rba_bench.leaderboard.pairing import ResampledScores, RunPair
from rba_bench.metrics.interval import Interval
from rba_bench.metrics.paired import RankBand
from rba_bench.metrics.wer import primary_error
from rba_bench.untrusted import plain

LENGTH_CONTROLLED = "lc_win_rate"  # a task is ranked by it in one form alone, see `_is_trusted`

GroupKey = tuple[str, str, str]  # task, protocol hash, data hash


def data_hash(record: RunRecord) -> str:
    """Identity of the whole test set, texts and clips."""
    return sha256_json([record.data["items_sha256"], record.data["audio_set_sha256"]])


def group_key(record: RunRecord) -> GroupKey:
    """What runs must have in common to be compared."""
    return (record.task, record.protocol_hash, data_hash(record))


def full_run_key(record: RunRecord) -> GroupKey:
    """`group_key` of the runs that a control is a share of: the same protocol with the items' own clips."""
    spec = {name: value for name, value in record.protocol_spec.items() if name != "audio"}
    return (record.task, protocol_hash(spec), data_hash(record))


def table_key(record: RunRecord) -> GroupKey:
    """`group_key` of the table that a run belongs to: a control stands beside its full run."""
    return full_run_key(record) if record.audio_control else group_key(record)


@dataclass(frozen=True)
class BoardRow:
    """One run in its group.

    Attributes:
        kind: `model`, or the kind of reference: `ceiling`, `cascade`, `constant`.
        bands: Rank band per metric among the models; empty for references.
        versus: Paired difference to the baseline row per metric; empty if there is none (or it is that row).
        gap: Modality gap per metric: the text ceiling minus this row, paired; empty if there is none (or it is that
            row).
        ceiling: Label of the ceiling that the gap is measured from, "" if there is none.
        lengths: Mean lengths of answers and baseline per win rate; empty where there is none.
        controls: Runs of the same model without the speech, by the name of the control.
        retained: By the name of the control and by metric, its score as a share of this row's, paired.
    """

    run: LoadedRun
    label: str
    kind: str
    is_baseline: bool
    bands: dict[str, RankBand]
    versus: dict[str, Interval]
    gap: dict[str, Interval]
    ceiling: str
    lengths: dict[str, MeanLengths]
    controls: dict[str, LoadedRun] = field(default_factory=dict)
    retained: dict[str, dict[str, Interval]] = field(default_factory=dict)


class BoardGroup:
    """Runs that may share a table: one task, one protocol hash, one test set.

    Args:
        key: Task, protocol hash, data hash.
        runs: All runs of the group.
        baseline: Name or training method of the row that the others are compared with.
        ceiling: Name of the text ceiling that modality gaps are measured from; by default see `matching_ceilings`.
        controls: Runs of the same task and test set without the speech; they are compared with their full runs alone.

    Attributes:
        record: A record of the group, for what all of them have in common.
        primary: The metric that the group is ranked by.
        perturbation: How every clip was changed, "" if it was not.
        control: What took the speech away in all runs, "" if nothing did.
        controls: The controls that rows have, in the order of their columns.
        all_runs: `runs`, then the control runs.
        labels: Names that tell the runs apart, in the order of `runs`.
        ceilings: Positions of the runs that read the transcript.
        judges: The judge of each judged metric; of all runs it is the same one.

    Raises:
        UserError: the records report different metrics, or a control has no full run.
    """

    def __init__(
        self,
        key: GroupKey,
        runs: Sequence[LoadedRun],
        baseline: str,
        ceiling: str | None = None,
        controls: Sequence[LoadedRun] = (),
    ) -> None:
        self.task, self.protocol_hash, self.data_hash = key
        self.baseline, self.ceiling = baseline, ceiling
        self.runs = sorted(runs, key=lambda run: (run.name, run.record.run_id))
        self.record = self.runs[0].record
        self.metrics = list(self.record.metrics)
        if any(list(run.record.metrics) != self.metrics for run in self.runs):
            raise UserError(
                f"{self.task}: records of one protocol report different metrics; evaluate them again"
            )
        self.primary = _primary_metric(self.runs[0])
        self.perturbation = plain((self.record.protocol_spec.get("perturb") or {}).get("text", ""))
        self.control = self.record.audio_control
        self.all_runs = (*self.runs, *controls)
        self._controls = match_controls(controls, self.runs)
        self.controls = control_names(run for runs in self._controls for run in runs.values())
        names = [run.name for run in self.runs]
        seeded = [f"{run.name} (seed {run.record.seeds.get('generation')})" for run in self.runs]
        self.labels = []
        for name, with_seed, run in zip(names, seeded, self.runs, strict=True):
            if names.count(name) > 1:
                name = with_seed if seeded.count(with_seed) == 1 else f"{name} ({run.record.run_id})"
            self.labels.append(name)
        self.ceilings = [i for i, run in enumerate(self.runs) if kind_of_run(run) == CEILING]
        trained = [i for i, run in enumerate(self.runs) if _training(run, "method") == baseline]
        self._baselines = [i for i, run in enumerate(self.runs) if run.name == baseline] or trained
        self.judges: dict[str, ColumnJudge] = group_judges(self.runs)
        self._resampled = ResampledScores()
        self._pairs: dict[tuple[int, int], RunPair | None] = {}

    @cached_property
    def rows(self) -> list[BoardRow]:
        """Models by falling score, then the references; ties by label."""
        models = [i for i, run in enumerate(self.runs) if kind_of_run(run) == MODEL]
        bands: dict[int, dict[str, RankBand]] = {index: {} for index in models}
        for metric in self.metrics:
            for index, band in zip(models, self._rank_bands(models, metric), strict=True):
                bands[index][metric] = band
        rows = [self._row(index, bands.get(index, {})) for index in range(len(self.runs))]
        sign = 1 if self.record.metrics[self.primary].higher_is_better else -1

        def place(row: BoardRow) -> tuple[int, float, str]:
            return KINDS.index(row.kind), -sign * row.run.record.metrics[self.primary].value, row.label

        return sorted(rows, key=place)

    @cached_property
    def item_numbers(self) -> frozenset[int]:
        """Positions in the test set of the items that any run holds."""
        return frozenset(item[0] for run in self.runs for item in run.items)

    def release(self) -> None:
        """Forget what `rows` was computed from; it is computed again if another difference is asked for."""
        self._resampled, self._pairs = ResampledScores(), {}
        for run in self.all_runs:
            run.release()

    @property
    def without_ceiling(self) -> list[str]:
        """Labels of the runs that should have a modality gap and have none, as several ceilings might be theirs."""
        if not self.ceilings:
            return []
        runs = [index for index in range(len(self.runs)) if index not in self.ceilings]
        return [self.labels[index] for index in runs if self._ceiling_of(index) is None]

    def has_lengths(self, metric: str) -> bool:
        """Whether a metric is a win rate, which is read beside the lengths of the answers."""
        return any(metric in row.lengths for row in self.rows)

    def difference(self, a: int, b: int, metric: str) -> Interval | None:
        """Score of run `a` minus score of run `b` on the items that both have a score for, drawn together.

        None if there are no such items, or a partial run makes pairing impossible.

        Raises:
            UserError: two complete runs of one test set do not hold the same items.
        """
        if (a, b) not in self._pairs:
            first, second = self.runs[a], self.runs[b]
            partial = first.record.partial or second.record.partial
            unpaired = partial and first.items != second.items
            self._pairs[a, b] = None if unpaired else RunPair(first, second, self._resampled)
        pair = self._pairs[a, b]
        return None if pair is None else pair.difference(metric)

    def _row(self, index: int, bands: dict[str, RankBand]) -> BoardRow:
        run = self.runs[index]
        baseline, ceiling = self._partner(index, self._baselines), self._ceiling_of(index)
        lengths = {metric: _lengths(run, metric) for metric in self.metrics}
        return BoardRow(
            run,
            self.labels[index],
            kind_of_run(run),
            index in self._baselines,
            bands,
            versus={} if baseline is None else self._differences(index, baseline),
            gap={} if ceiling is None else self._differences(ceiling, index),
            ceiling="" if ceiling is None else self.labels[ceiling],
            lengths={metric: length for metric, length in lengths.items() if length},
            controls=self._controls[index],
            retained={name: self._retained(each, run) for name, each in self._controls[index].items()},
        )

    def _differences(self, a: int, b: int) -> dict[str, Interval]:
        intervals = {metric: self.difference(a, b, metric) for metric in self.metrics}
        return {metric: interval for metric, interval in intervals.items() if interval is not None}

    def _retained(self, control: LoadedRun, full: LoadedRun) -> dict[str, Interval]:
        pair = RunPair(control, full, self._resampled)
        shares = {name: pair.retained(name) for name in self.metrics if name in control.record.metrics}
        return {metric: share for metric, share in shares.items() if share is not None}

    def _ceiling_of(self, index: int) -> int | None:
        if index in self.ceilings:
            return None
        matching = matching_ceilings(self.runs[index], [self.runs[i] for i in self.ceilings], self.ceiling)
        ids = {id(run) for run in matching}
        return self._partner(index, [i for i in self.ceilings if id(self.runs[i]) in ids])

    def _partner(self, index: int, candidates: Sequence[int]) -> int | None:
        """The one candidate to compare with; of several replicates, the one with the same seeds."""
        if index in candidates:
            return None
        if len(candidates) > 1:  # seeds of training and of generation, as far as both runs name them
            seeds = [(_training(run, "seed"), run.record.seeds.get("generation")) for run in self.runs]
            candidates = [
                i
                for i in candidates
                if all(
                    None in pair or pair[0] == pair[1] for pair in zip(seeds[index], seeds[i], strict=True)
                )
            ]
        return candidates[0] if len(candidates) == 1 else None

    def _rank_bands(self, models: Sequence[int], metric: str) -> list[RankBand]:
        def difference(i: int, j: int) -> Interval | None:
            return self.difference(models[i], models[j], metric)

        return model_bands([self.runs[index] for index in models], metric, difference, self._resampled)


def group_runs(
    runs: Sequence[LoadedRun], baseline: str, ceiling: str | None = None, controls_apart: bool = False
) -> list[BoardGroup]:
    """Runs sorted into groups by task, protocol hash, test set and, where a judge's name stands for several, judge.

    Args:
        runs: All runs.
        baseline: See `BoardGroup`.
        ceiling: See `BoardGroup`.
        controls_apart: Controls form groups of their own, instead of going with their full runs.

    Raises:
        UserError: the runs belong to different tracks, none of them is the ceiling that was asked for, one mixes
            judges, or all are controls without a full run.
    """
    check_runs(runs, ceiling)
    return in_order(form_groups(runs, baseline, ceiling, controls_apart))


def check_runs(runs: Sequence[LoadedRun], ceiling: str | None) -> None:
    """Refuse what cannot share a board.

    Raises:
        UserError: the runs belong to different tracks, or none of them is the ceiling that was asked for.
    """
    ceilings = [run for run in runs if kind_of_run(run) == CEILING]
    if ceiling is not None and not any(ceiling.casefold() in reference_names(run) for run in ceilings):
        names = ", ".join(sorted({run.name for run in ceilings}))
        raise UserError(
            f"no text ceiling is called {ceiling!r} (known: {names or 'none; evaluate one with --model text:<llm>'})"
        )
    tracks = sorted({run.record.track for run in runs})
    if len(tracks) > 1:
        raise UserError(
            f"records of the tracks {' and '.join(tracks)} cannot share a leaderboard: build one for each track"
        )


def form_groups(
    runs: Sequence[LoadedRun], baseline: str, ceiling: str | None = None, controls_apart: bool = False
) -> list[BoardGroup]:
    """Groups of runs that were checked together; all runs of one task decide its groups, whatever the other tasks.

    Raises:
        UserError: all runs with which a control could stand are missing, or a run mixes judges.
    """
    by_key: dict[GroupKey, list[LoadedRun]] = {}
    for run in runs:
        key = group_key(run.record) if controls_apart else table_key(run.record)
        by_key.setdefault(key, []).append(run)
    groups = []
    for key in sorted(by_key):
        for part in split_by_judge(by_key[key]):  # a control stands with a full run of its own judge
            controls = [run for run in part if run.record.audio_control and not controls_apart]
            full = [run for run in part if run not in controls]
            if not full:
                raise UserError(without_full_run(min(controls, key=lambda run: run.folder)))
            groups.append(BoardGroup(key, full, baseline, ceiling, controls))
    return groups


def in_order(groups: Sequence[BoardGroup]) -> list[BoardGroup]:
    """Groups in the order of a board: benchmarks in their usual order, then by task."""

    def place(group: BoardGroup) -> tuple[int, str, str, GroupKey]:
        benchmark, key = group.record.benchmark, (group.task, group.protocol_hash, group.data_hash)
        return ORDER.index(benchmark) if benchmark in ORDER else len(ORDER), benchmark, group.task, key

    return sorted(groups, key=place)


def _primary_metric(run: LoadedRun) -> str:
    """The metric that a task is ranked by; languages written without spaces go by characters."""
    metrics = list(run.record.metrics)
    errors = {primary_error(lang) for lang in run.target_langs}
    if errors == {"cer"} and "cer" in metrics:
        return "cer"
    trusted = [m for m in metrics if not m.startswith(LENGTH_CONTROLLED) or _is_trusted(run.record, m)]
    return next((metric for metric in RANKING if metric in trusted), [*trusted, *metrics][0])


def _lengths(run: LoadedRun, metric: str) -> MeanLengths | None:
    """Of a win rate, as recorded; records of earlier versions do not say."""
    value = run.record.metrics[metric]
    if not is_win_rate(metric):
        return None
    if value.mean_length is None or value.baseline_mean_length is None:
        return mean_lengths(run.samples, metric)
    return MeanLengths(value.mean_length, value.baseline_mean_length, value.n)


def _is_trusted(record: RunRecord, metric: str) -> bool:
    """Whether a length-controlled rate has the form that boards rank by, as its signature and the protocol both say."""
    entries = record.protocol_spec.get("finish") or []
    forms = {entry["lc"].get("form") for entry in entries if isinstance(entry.get("lc"), Mapping)}
    return f"lc:{TRUSTED}" in record.metrics[metric].signature.split("|") and forms <= {TRUSTED, NONE}


def _training(run: LoadedRun, key: str) -> object:
    return (run.record.model.get("training") or {}).get(key)

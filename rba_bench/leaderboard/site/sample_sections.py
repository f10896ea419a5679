"""What a page of samples shows: the answers of several models to the same items, side by side.

A section is made of the runs of a group of a board. `rba-bench view` adds runs that are still being written: these have
samples and no record, so their metrics are those that their samples hold.
"""

import re
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rba_bench.assets import PREFIX, find_asset, is_asset
from rba_bench.errors import UserError
from rba_bench.evaluation.metric import RANKING, Metric, metric_named
from rba_bench.evaluation.records import MetricValue, Sample, sample_bytes
from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.columns import metric_heading, score_texts
from rba_bench.leaderboard.loaded_runs import KINDS, MODEL, LoadedRun, kind_of_run
from rba_bench.leaderboard.site.again import ON_BOARD, Commands
from rba_bench.leaderboard.tables import SHORT, rounded
from rba_bench.metrics.aggregate import score_function
from rba_bench.seeding import stable_seed
from rba_bench.untrusted import plain

ANSWERS = 100_000  # on the pages of a board: more would be gigabytes, and minutes of building
FEWEST = 5  # items of each section
_NUMBER = re.compile(rb'\{"doc_id": ?(\d+),')  # how a line of samples begins, as this package writes it
ALIGNED = "aligned-"  # roles of shipped models that were aligned from the one of the role `base`


@dataclass(frozen=True)
class PageMetric:
    """How the scores of a metric are read.

    Attributes:
        heading: Name with unit and direction.
        aggregation: How the rows of items become a score, see `rba_bench.metrics.aggregate`.
        scale: Largest possible value.
    """

    name: str
    heading: str
    aggregation: str
    scale: float
    higher_is_better: bool

    @classmethod
    def of(cls, name: str, facts: Metric | MetricValue) -> "PageMetric":
        """The metric of a record, or of the list of all metrics."""
        heading = metric_heading(name, facts.scale, facts.higher_is_better, facts.signature)
        return cls(name, heading, facts.aggregation, facts.scale, facts.higher_is_better)

    def item_score(self, sample: Sample) -> float | None:
        """Score of one item on a scale of 100, to one digit; None where it has none."""
        score = sample.scores.get(self.name)
        if score is None:
            return None
        if isinstance(score, int | float):
            return round(100 * score / self.scale, 1) + 0.0
        return round(rounded(100 * score_function(self.aggregation)(score) / self.scale), 1) + 0.0


@dataclass(frozen=True)
class ModelAnswers:
    """The answers of one model.

    Attributes:
        label: Tells it from the other models of the section.
        kind: `model`, or the kind of reference.
        samples: By position of the item in the test set.
        command: That lets it answer an item again, without the item; "" where there is no record yet.
        scores: Score and interval by metric as text; empty where there is no record yet.
        state: "" for a whole finished run, else what is missing.
        base: Label of the model that it was aligned from, "" where that is unknown or not in the section.
    """

    label: str
    kind: str
    samples: Mapping[int, Sample]
    command: str
    scores: Mapping[str, str]
    state: str = ""
    base: str = ""


@dataclass(frozen=True)
class UnfinishedRun:
    """A run folder with samples and without a record.

    Attributes:
        name: Of the model, as its folder is called.
        task: As the run folder is called.
        samples: What has been answered so far, in the order of the test set.
    """

    name: str
    task: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class SampleSection:
    """Answers to one test set under one protocol.

    Attributes:
        name: Folder of its page.
        facts: Protocol, decoding, date, in words.
        metrics: In the order of the records.
        primary: Name of the metric that the task is ranked by; "" where nothing is scored yet.
        models: Models by falling score, then references, then unfinished runs.
        perturbation: How every clip was changed, "" if it was not.
        test_set: Hash of the texts and clips; of an unfinished run alone, of what it has answered.
        control: What took the speech away (`eval --audio`), "" if nothing did.
        left_out: Number of items that are not shown.
        place: Where the commands that answer an item again are to be run, in a sentence.
    """

    name: str
    task: str
    facts: tuple[str, ...]
    metrics: tuple[PageMetric, ...]
    primary: str
    models: tuple[ModelAnswers, ...]
    perturbation: str
    test_set: str
    control: str = ""
    left_out: int = 0
    place: str = ""

    @cached_property
    def numbers(self) -> list[int]:
        """Positions of the items that any model answered, rising."""
        return sorted({number for model in self.models for number in model.samples})

    @cached_property
    def first_samples(self) -> dict[int, Sample]:
        """By item the sample of the first model that has it, for what all samples of an item share."""
        return {number: sample for model in reversed(self.models) for number, sample in model.samples.items()}

    @property
    def metric(self) -> PageMetric | None:
        """The primary metric."""
        return next((metric for metric in self.metrics if metric.name == self.primary), None)

    @cached_property
    def scores(self) -> list[dict[int, float | None]]:
        """By model and item, the primary score on a scale of 100."""
        metric = self.metric
        return [
            {
                number: metric.item_score(sample) if metric else None
                for number, sample in model.samples.items()
            }
            for model in self.models
        ]

    @cached_property
    def failure_limit(self) -> float:
        """Items with a worse score than this are failures: half of the scale of a mean, else the median item."""
        if self.metric is None or self.metric.aggregation == "mean":
            return 50.0
        known = [score for scores in self.scores for score in scores.values() if score is not None]
        return round(statistics.median(known), 1) if known else 50.0

    def verdict(self, model: int, number: int) -> bool | None:
        """Whether a model failed on an item: by its score, else by its status; None where nothing is known."""
        sample, metric = self.models[model].samples.get(number), self.metric
        if sample is None:
            return None
        score = self.scores[model][number]
        if score is None:
            return None if sample.status == "ok" else True
        better = metric is None or metric.higher_is_better
        return score < self.failure_limit if better else score > self.failure_limit


def items_shown(groups: Sequence[BoardGroup]) -> int:
    """Number of items of each section of a board, so that its pages hold about `ANSWERS` answers."""
    return max(FEWEST, ANSWERS // max(1, sum(len(group.runs) for group in groups)))


def board_section(
    name: str,
    group: BoardGroup,
    unfinished: Sequence[UnfinishedRun] = (),
    commands: Commands = ON_BOARD,
    limit: int | None = None,
) -> SampleSection:
    """The section of a group.

    Args:
        name: Of the section.
        group: The runs.
        unfinished: Runs of the same task that are still being written.
        commands: That let models answer an item again.
        limit: Most items; of more, some are drawn, the same for all protocols of a test set. None for all.

    Raises:
        UserError: a run was changed since it was checked.
    """
    record = group.record
    numbers = group.item_numbers
    shown = _drawn(numbers, limit, group.data_hash) if limit is not None and len(numbers) > limit else None
    sign = 1 if record.metrics[group.primary].higher_is_better else -1

    def place(index: int) -> tuple[int, float, str]:
        run = group.runs[index]
        return (
            KINDS.index(kind_of_run(run)),
            -sign * run.record.metrics[group.primary].value,
            group.labels[index],
        )

    order = sorted(range(len(group.runs)), key=place)
    by_name = _by_name(group)
    bases = {index: _aligned_from(group, index, by_name) for index in order}
    models = tuple(_finished(group, index, base, commands, shown) for index, base in bases.items())
    return SampleSection(
        name,
        group.task,
        _facts(group),
        tuple(PageMetric.of(metric, value) for metric, value in record.metrics.items()),
        group.primary,
        models + tuple(_unfinished(unfinished, {model.label for model in models})),
        group.perturbation,
        group.data_hash,
        group.control,
        0 if shown is None else len(numbers) - len(shown),
        commands.place,
    )


def unfinished_section(name: str, runs: Sequence[UnfinishedRun]) -> SampleSection:
    """The section of runs none of which is finished."""
    names = dict.fromkeys(name for run in runs for sample in run.samples for name in sample.scores)
    ranked = [name for name in RANKING if name in names]
    items = [(sample.doc_id, sample.audio_sha256) for run in runs for sample in run.samples]
    return SampleSection(
        name,
        runs[0].task,
        ("no finished run yet",),
        tuple(PageMetric.of(name, metric_named(name)) for name in names),
        [*ranked, *names, ""][0],
        tuple(_unfinished(runs, set())),
        "",
        sha256_json(sorted(set(items))),
    )


def clip_name(section: SampleSection, number: int) -> str:
    """Name of the clip of an item: the same for all protocols of a test set, and known from records alone."""
    sample = section.first_samples[number]
    key = f"{section.test_set}|{number}|{sample.audio_sha256}|{section.perturbation}"
    key += f"|{section.control}" if section.control else ""
    return sha256_bytes(key.encode())[:20]


def _facts(group: BoardGroup) -> tuple[str, ...]:
    source = plain(group.record.data.get("source", "of unknown source"))
    return (
        f"{plain(group.record.protocol)} decoding",
        f"protocol {group.protocol_hash[:SHORT]}",
        f"test set {source}, {group.data_hash[:SHORT]}",
        *([f"clips with {group.perturbation}"] if group.perturbation else []),
        *([f"control without the speech: {group.control}"] if group.control else []),
    )


def _drawn(numbers: Collection[int], limit: int, test_set: str) -> set[int]:
    return set(sorted(numbers, key=lambda number: stable_seed("shown", test_set, number))[:limit])


def _samples(run: LoadedRun, shown: set[int] | None) -> Iterator[Sample]:
    """Samples of a run that was checked; for some items only their lines are read, from the disk."""
    if shown is None:
        yield from run.samples
        return
    data = sample_bytes(run.folder)
    if sha256_bytes(data) != run.record.samples_sha256:
        raise UserError(f"{run.folder}: the samples were changed meanwhile: repeat the command")
    for line in data.split(b"\n"):
        number = _NUMBER.match(line)
        if line.strip() and (number is None or int(number[1]) in shown):
            sample = Sample.model_validate_json(line, strict=True)
            if sample.doc_id in shown:
                yield sample


def _finished(
    group: BoardGroup, index: int, base: str, commands: Commands, shown: set[int] | None
) -> ModelAnswers:
    run, label = group.runs[index], group.labels[index]
    record = run.record
    scores = {}
    for name, value in record.metrics.items():
        score, low, high = score_texts(name, value)
        scores[name] = f"{score} [{low}, {high}]"
    state = f"partial: {record.n} of {record.data['n_items']} items" if record.partial else ""
    samples = {sample.doc_id: sample for sample in _samples(run, shown)}
    return ModelAnswers(label, kind_of_run(run), samples, commands.of(run), scores, state, base)


def _unfinished(runs: Sequence[UnfinishedRun], labels: set[str]) -> Iterator[ModelAnswers]:
    for run in runs:
        label = run.name
        while label in labels:
            label += " (again)"
        labels.add(label)
        samples = {sample.doc_id: sample for sample in run.samples}
        yield ModelAnswers(label, MODEL, samples, "", {}, f"unfinished: {len(samples)} items so far")


def _by_name(group: BoardGroup) -> dict[str, set[int]]:
    """Positions of the models of a group by what they are called, by name and by `--model`."""
    places: dict[str, set[int]] = {}
    for index, run in enumerate(group.runs):
        if kind_of_run(run) == MODEL:
            for name in (run.name, str(run.record.model["spec"])):
                places.setdefault(name, set()).add(index)
    return places


def _aligned_from(group: BoardGroup, index: int, by_name: Mapping[str, set[int]]) -> str:
    """Label of the model that a run's model was trained from, "" if it is not the one such model of the group."""
    record = group.runs[index].record
    names = _base_names(record.model, record.track)
    found = {place for name in names for place in by_name.get(name, ())} - {index}
    return group.labels[found.pop()] if len(found) == 1 else ""


def _base_names(model: Mapping[str, object], track: str) -> set[str]:
    """What the base of a model may be called, by its training note, or by the list of assets."""
    training, spec = model.get("training"), str(model["spec"])
    if isinstance(training, Mapping) and training.get("base"):
        base = str(training["base"])
        if base == track:  # the world's own base, `--model base`
            return {"base", f"{PREFIX}{track}-base", f"{track}-base"}
        return {base, base.removeprefix(PREFIX), base.rstrip("/").rpartition("/")[2]}
    if is_asset(spec):
        try:
            shipped = find_asset(spec).shipped
        except UserError:  # an asset of another version
            return set()
        if shipped and shipped[1].startswith(ALIGNED):
            return {f"{PREFIX}{shipped[0]}-base", f"{shipped[0]}-base"}
    return set()

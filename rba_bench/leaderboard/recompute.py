"""What a record must say, computed again from its responses, references and votes, and compared with what it says.

Judges and other scorers of the task are made again by the code of the evaluation; only the model of a judge is replaced
by one that looks its replies up in the votes of the samples. So rules, seeds of retries, verdicts and length control
are those of the evaluation.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import scoring
from rba_bench.evaluation.lengths import VERSUS
from rba_bench.evaluation.metric import ItemScore, metric_named
from rba_bench.evaluation.model_input import scored_part
from rba_bench.evaluation.records import UNANSWERED, UNSCORED, MetricValue, RunRecord, Sample, Status
from rba_bench.evaluation.scorers.agreement import Consistency
from rba_bench.evaluation.scorers.judge import Judge
from rba_bench.evaluation.scorers.length_control import NONE
from rba_bench.evaluation.scorers.registry import JUDGES, SCORERS, add_scores
from rba_bench.evaluation.scorers.scorer import Scorer, ScorerOptions
from rba_bench.leaderboard.item_facts import ItemFacts, score_answer
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.metrics.text import is_blank
from rba_bench.textlm.judging import IN_MEMORY, JudgeModel, Message, Question, Reply
from rba_bench.untrusted import plain

# What scoring a forged item may raise; anything else is a fault of ours
UNSCORABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, UserError)
TOLERANCE = 1e-6  # of scores, in units of their scale; other processors differ in the last digits
VOLATILE = ("calls", "cached", "prompt_tokens", "completion_tokens", "answered_by", "judge_name")
SHOWN = 3


class RecordedJudge(JudgeModel):
    """A judge model whose replies are those of a record.

    Args:
        facts: How the record describes the judge model.

    Attributes:
        name: For tables.
        replies: By the messages and the seed they answer.
    """

    name = "recorded"

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)
        self.replies: dict[tuple[tuple[Message, ...], int], Reply] = {}

    def identity(self) -> dict[str, Any]:
        """As the record has it."""
        return self._facts

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """Replies that are recorded; a refusal to any other question."""
        unknown = Reply("", status="refused", error="not recorded")
        for position, question in enumerate(questions):
            yield position, self.replies.get((question.messages, question.seed), unknown)

    def load_votes(self, judge: Judge[Any], samples: Sequence[Sample]) -> None:
        """Take the replies out of the votes of samples.

        Raises:
            ValueError: the votes have another form.
        """
        for sample in samples:
            votes = ((sample.judge or {}).get(judge.name) or {}).get("votes")
            if votes is None:
                continue
            questions = judge.questions(sample)
            if not isinstance(votes, list) or len(votes) != len(questions):
                raise ValueError(f"item {sample.id} has not the {len(questions)} votes of {judge.name}")
            for question, vote in zip(questions, votes, strict=True):
                if not isinstance(vote, dict):
                    raise ValueError("a vote is no mapping")
                if "reply" in vote:
                    top = tuple((str(token), float(value)) for token, value in vote.get("top_logprobs") or ())
                    self.replies[question.messages, int(vote["seed"])] = Reply(str(vote["reply"]), top)


class _Scorers:
    """The scorers of a record, made again; `config` is `metadata.finish` of its task, None if it is not known here.

    Attributes:
        scorers: In order.
        not_computed: Metrics that need what is not here (tables, a model), and why.
        faults: Entries of the protocol that no scorer here describes itself by.
    """

    def __init__(
        self,
        record: RunRecord,
        samples: Sequence[Sample],
        config: Sequence[Mapping[str, Any]] | None,
        options: ScorerOptions,
    ) -> None:
        self._config, self._options = config, options
        self.scorers: list[Scorer] = []
        self.not_computed: dict[str, str] = {}
        self.faults: list[str] = []
        entries = record.protocol_spec.get("finish") or []
        if config is not None:
            names = [_entry_name(entry) for entry in entries]
            expected = [_config_name(each) for each in config]
            # `--judge none` leaves all judges out; anything else that is missing is a fault
            without_judges = [_config_name(each) for each in config if each.get("name") not in JUDGES]
            if names not in (expected, without_judges):
                self.faults.append(f"finished by {names or 'nothing'}, the task says {expected or 'nothing'}")
        for entry in entries:
            try:
                scorer = self._make(entry, samples)
                description, ignored = scorer.describe(), {"embedding"}
                if any(name.startswith("lc_") for name in self.not_computed):
                    ignored.add("lc")
                self.faults += [
                    f"protocol_spec.finish: {key} of {_entry_name(entry)} is not this task's"
                    for key in sorted((description.keys() | entry.keys()) - ignored)
                    if description.get(key) != entry.get(key)
                ]
                self.scorers.append(scorer)
            except (UserError, ValueError, TypeError, LookupError, AttributeError) as error:
                self.faults.append(
                    f"the entry {_entry_name(entry)!r} of protocol_spec.finish cannot be: {error}"
                )

    def _make(self, entry: Mapping[str, Any], samples: Sequence[Sample]) -> Scorer:
        name = _entry_name(entry).partition(VERSUS)[0]
        if name == "consistency":
            if entry.get("embedding"):
                self.not_computed["answer_cosine"] = "it needs the embedding model"
            return Consistency(None, "")
        config = next((each for each in self._config or () if _config_name(each) == _entry_name(entry)), None)
        settings = dict(config) if config is not None else _settings_of(name, entry)
        form = (entry.get("lc") or {}).get("form", NONE) if name == "pairwise" else None
        settings |= {} if form is None else {"lc": form}
        settings = {key: value for key, value in settings.items() if key not in ("name", "judge")}
        judge_model = RecordedJudge(entry["judge"])
        judge_class = SCORERS.get(name)
        if judge_class is None or not issubclass(judge_class, Judge):
            raise UserError(f"there is no scorer {name!r}")
        try:
            if form not in (None, NONE, "minimal") and self._options.data_dir is None:
                raise MissingPrerequisite("it needs AlpacaEval's tables: name them with --data-dir")
            judge: Judge[Any] = judge_class.from_config(settings, self._options, judge_model)
        except MissingPrerequisite as error:
            judge = judge_class.from_config({**settings, "lc": NONE}, self._options, judge_model)
            self.not_computed[f"lc_{judge.metrics[0].name}"] = str(error)
        judge.give_up = None  # what is not recorded is a fault of the record, however much it is
        judge_model.load_votes(judge, samples)
        return judge


def _entry_name(entry: Any) -> str:
    return str(entry.get("name")) if isinstance(entry, Mapping) else str(entry)


def _config_name(config: Mapping[str, Any]) -> str:
    against = config.get("against")
    return f"{config.get('name')}{VERSUS}{against}" if against else str(config.get("name"))


def _settings_of(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task that is not known here, from how its scorer described itself."""
    decoding = entry.get("decoding") or {}
    names = ("max_tokens", "temperature", "top_logprobs", "seed", "retries")
    settings = {key: decoding[key] for key in names}
    if name == "pairwise":
        settings["against"] = entry.get("against") or None
    if name in ("rating", "yesno"):
        settings["votes"] = entry.get("votes")
    if name == "yesno":
        settings["weighted"] = bool(settings["top_logprobs"])
    return settings


@dataclass(frozen=True)
class Recomputed:
    """A record as it should be; without samples where it could not be computed.

    Attributes:
        samples: Scored again, in the order of the run's.
        metrics: Of the run.
        reports: What its scorers say of themselves.
        not_computed: Metrics taken as they are recorded, and why.
        faults: What could not be computed because it cannot be.
    """

    samples: tuple[Sample, ...] = ()
    metrics: dict[str, MetricValue] = field(default_factory=dict)
    reports: dict[str, Any] = field(default_factory=dict)
    not_computed: dict[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


def recompute(
    run: LoadedRun, config: Sequence[Mapping[str, Any]] | None, data_dir: Path | None = None
) -> Recomputed:
    """Score every answer again, look up the votes of the judges, and summarise.

    Args:
        run: The run.
        config: `metadata.finish` of its task, None if the task is not known here.
        data_dir: Folder with the tables of length control.
    """
    stops = [str(stop) for stop in (run.record.protocol_spec.get("decoding") or {}).get("until") or []]
    unjudged: list[Sample] = []
    for sample, item in zip(run.samples, run.item_facts, strict=True):
        try:
            unjudged.append(_score_unjudged(sample, item, stops))
        except UNSCORABLE as error:
            return Recomputed(faults=(f"item {sample.id} cannot be scored: {error!r}",))
    options = ScorerOptions(cache=IN_MEMORY, data_dir=data_dir)
    scorers = _Scorers(run.record, run.samples, config, options)
    try:
        samples, judged, reports = add_scores(unjudged, scorers.scorers)
    except UNSCORABLE as error:
        return Recomputed(faults=(*scorers.faults, f"its votes cannot be counted: {error!r}"))
    recorded_metrics = [
        replace(metric_named(name), signature=run.record.metrics[name].signature)
        for name in scorers.not_computed
        if name in run.record.metrics
    ]
    if names := {metric.name for metric in recorded_metrics}:
        pairs = zip(samples, run.samples, strict=True)
        kept = [(sample, {k: v for k, v in own.scores.items() if k in names}) for sample, own in pairs]
        samples = [
            sample.model_copy(update={"scores": {**sample.scores, **scores}}) for sample, scores in kept
        ]
    try:
        metrics = scoring.summarise_metrics(samples, (*judged, *recorded_metrics))
    except UNSCORABLE as error:
        return Recomputed(faults=(*scorers.faults, f"its scores cannot be put together: {error}"))
    return Recomputed(tuple(samples), metrics, reports, scorers.not_computed, tuple(scorers.faults))


def _score_unjudged(sample: Sample, item: ItemFacts, stops: Sequence[str]) -> Sample:
    """A sample as it is before any judge, scored from its response."""
    parts = scored_part(sample.response, stops)
    scored = ItemScore()
    if sample.status not in UNSCORED:
        scored = score_answer(item, parts.answer)
    status: Status = "judge_failed" if scored.failure else "ok"
    if not parts.complete:
        status = "truncated"
    elif sample.status in (*UNANSWERED, "truncated"):
        status = sample.status
    elif is_blank(parts.answer):
        status = "empty"
    return sample.model_copy(
        update={
            "extracted": parts.answer,
            "scores": scored.scores,
            "judge": scored.judge,
            "status": status,
            "error": sample.error if sample.status in UNANSWERED else scored.failure,
        }
    )


def check_scores(run: LoadedRun, recomputed: Recomputed) -> Iterator[str]:
    """Samples, metrics and reports against what was computed again."""
    yield from recomputed.faults
    if not recomputed.samples:
        return
    for fault, differs in _SAMPLE_FAULTS.items():
        pairs = zip(run.samples, recomputed.samples, strict=True)
        ids = [recorded.id for recorded, computed in pairs if differs(recorded, computed)]
        yield from items_fault(fault, ids)
    recorded_metrics, metrics = run.record.metrics, recomputed.metrics
    if list(recorded_metrics) != list(metrics):
        yield f"its metrics are {', '.join(recorded_metrics)}; the task has {', '.join(metrics)}"
    for name in (name for name in recorded_metrics if name in metrics):
        yield from _metric_faults(name, recorded_metrics[name].model_dump(), metrics[name].model_dump())
    recorded_reports, reports = run.record.finish, recomputed.reports
    if recorded_reports.keys() != reports.keys():
        yield f"finish reports of {sorted(recorded_reports)}, the protocol names {sorted(reports)}"
    for name in recorded_reports.keys() & reports.keys():
        a, b = recorded_reports[name], reports[name]
        keys = sorted((a.keys() | b.keys()) - set(VOLATILE))
        if differing := [key for key in keys if not equal_values(a.get(key), b.get(key))]:
            yield f"finish.{plain(name)}: {plain(', '.join(differing))} does not follow from the votes"
    yield from exploit_faults(run)


def exploit_faults(run: LoadedRun) -> Iterator[str]:
    """The recorded scores of uninformed answers, against the questions."""
    recorded, computed = run.record.exploits, scoring.exploit_table(run.samples)
    if not equal_values(recorded and recorded.model_dump(), computed and computed.model_dump()):
        yield "its exploit table is not what its questions give"


def items_fault(fault: str, ids: Sequence[str]) -> Iterator[str]:
    """A sentence about items, if there are any."""
    examples = plain(", ".join(ids[:SHOWN]))
    if len(ids) > 1:
        yield f"{len(ids)} items, each of which {fault} ({examples})"
    elif ids:
        yield f"item {examples} {fault}"


def equal_values(a: Any, b: Any, scale: float = 1.0) -> bool:
    """Equal JSON values, numbers but for their last digits."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE * scale)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal_values(a[key], b[key], scale) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(equal_values(x, y, scale) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _metric_faults(name: str, recorded: dict[str, Any], computed: dict[str, Any]) -> Iterator[str]:
    scale = float(computed["scale"])
    for key in computed:
        a, b = recorded[key], computed[key]
        if equal_values(a, b, scale):
            continue
        if key == "breakdown":
            groups = sorted(
                group for group in a.keys() | b.keys() if not equal_values(a.get(group), b.get(group), scale)
            )
            yield f"{name}.breakdown of {plain(', '.join(groups[:SHOWN]))} does not follow from the samples"
        else:
            texts = [f"{value:.6g}" if isinstance(value, float) else plain(value) for value in (a, b)]
            yield f"{name}.{key} is recorded as {texts[0]}, its samples give {texts[1]}"


def _equal_votes(recorded: Any, computed: Any) -> bool:
    """Equal, but for the words of a failure."""
    if isinstance(recorded, dict) and isinstance(computed, dict):
        if "failures" in recorded and "failures" in computed:
            return bool(recorded["failures"])
        return recorded.keys() == computed.keys() and all(
            _equal_votes(recorded[key], computed[key]) for key in recorded
        )
    if isinstance(recorded, list) and isinstance(computed, list):
        return len(recorded) == len(computed) and all(map(_equal_votes, recorded, computed))
    return equal_values(recorded, computed)


_SAMPLE_FAULTS: dict[str, Callable[[Sample, Sample], bool]] = {
    "has an extracted answer that is not its response's": lambda recorded, computed: (
        recorded.extracted != computed.extracted
    ),
    "has scores that do not follow from its response": lambda recorded, computed: (
        recorded.scores != computed.scores and not equal_values(recorded.scores, computed.scores)
    ),
    "has a status that does not follow from its response": lambda recorded, computed: (
        recorded.status != computed.status
    ),
    "has votes that do not add up": lambda recorded, computed: (
        # as texts they are compared at once, and 1 is not True there
        repr(recorded.judge) != repr(computed.judge) and not _equal_votes(recorded.judge, computed.judge)
    ),
    "gives no reason": lambda recorded, computed: bool(computed.error.strip()) and not recorded.error.strip(),
}

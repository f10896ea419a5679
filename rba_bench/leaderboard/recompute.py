"""Judges and other finishers of a record, made again to say what they are recorded to have said.

The finisher is the one that the evaluation makes; only its judge is replaced by one that looks its replies up in the
votes of the samples. So rules, seeds of retries, verdicts and length control are those of the evaluation's own code.

What a record must say, computed again from its responses and references alone.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import scoring
from rba_bench.evaluation.lengths import VERSUS
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.model_input import scored_part
from rba_bench.evaluation.records import UNANSWERED, UNSCORED, MetricValue, RunRecord, Sample, Status
from rba_bench.evaluation.scorers import agreement
from rba_bench.evaluation.scorers import registry as finishers
from rba_bench.evaluation.scorers.judge import Judge
from rba_bench.evaluation.scorers.length_control import NONE
from rba_bench.evaluation.scorers.registry import finish
from rba_bench.evaluation.scorers.scorer import Finisher, FinishOptions
from rba_bench.leaderboard.loaded_runs import Run
from rba_bench.metrics.text import is_blank
from rba_bench.textlm.judging import JudgeModel, Message, Question, Reply
from rba_bench.textlm.replies import ReplyParts

Asked = tuple[tuple[Message, ...], int]


class RecordedJudge(JudgeModel):
    """A judge whose replies are those of a record.

    Attributes:
        name: For tables.
        replies: By the messages and the seed they answer.
    """

    name = "recorded"

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)
        self.replies: dict[Asked, Reply] = {}

    def identity(self) -> dict[str, Any]:
        """As the record has it."""
        return self._facts

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """Replies that are recorded; a refusal to any other question."""
        for position, question in enumerate(questions):
            yield (
                position,
                self.replies.get(_asked(question), Reply("", status="refused", error="not recorded")),
            )

    def learn(self, judge: Judge[Any], samples: Sequence[Sample]) -> None:
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
                self._keep(question, vote)

    def _keep(self, question: Question, vote: Any) -> None:
        if not isinstance(vote, dict):
            raise ValueError("a vote is no mapping")
        if "reply" in vote:
            odds = tuple((str(token), float(value)) for token, value in vote.get("top_logprobs") or ())
            self.replies[question.messages, int(vote["seed"])] = Reply(str(vote["reply"]), odds)


@dataclass(frozen=True)
class Replay:
    """What finishes a record again.

    Attributes:
        finishers: In order.
        not_computed: Metrics that need what is not here (tables, a model), and why.
        faults: Entries of the protocol that no finisher here describes itself by.
    """

    finishers: tuple[Finisher, ...]
    not_computed: dict[str, str]
    faults: tuple[str, ...]


def replay(
    record: RunRecord,
    samples: Sequence[Sample],
    config: Sequence[Mapping[str, Any]] | None,
    options: FinishOptions,
) -> Replay:
    """The finishers of a record.

    Args:
        record: Its `protocol_spec` lists them.
        samples: With their votes.
        config: `metadata.finish` of the task, None if it is not known here.
        options: Where votes and tables lie.
    """
    made: list[Finisher] = []
    missing: dict[str, str] = {}
    faults: list[str] = []
    entries = record.protocol_spec.get("finish") or []
    faults += _left_out(entries, config)
    for entry in entries:
        try:
            finisher = _finisher(entry, config, options, missing, record)
            if isinstance(finisher, Judge):
                finisher.give_up = None  # what is not recorded is a fault of the record, however much it is
                finisher.asker.learn(finisher, samples)  # type: ignore[attr-defined]
            faults += _described(finisher, entry, missing)
            made.append(finisher)
        except (UserError, ValueError, TypeError, LookupError, AttributeError) as error:
            faults.append(f"the entry {_name(entry)!r} of protocol_spec.finish cannot be: {error}")
    return Replay(tuple(made), missing, tuple(faults))


def _asked(question: Question) -> Asked:
    return question.messages, question.seed


def _name(entry: Any) -> str:
    return str(entry.get("name")) if isinstance(entry, Mapping) else str(entry)


def _left_out(entries: Sequence[Any], config: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """`--judge none` leaves all judges out; anything else that is missing is a fault."""
    if config is None:
        return []
    wanted = [_full_name(each) for each in config]
    judges = [_full_name(each) for each in config if each.get("name") in finishers.JUDGES]
    found = [_name(entry) for entry in entries]
    allowed = (wanted, [name for name in wanted if name not in judges])
    return (
        [] if found in allowed else [f"finished by {found or 'nothing'}, the task says {wanted or 'nothing'}"]
    )


def _full_name(config: Mapping[str, Any]) -> str:
    against = config.get("against")
    return f"{config.get('name')}{VERSUS}{against}" if against else str(config.get("name"))


def _finisher(
    entry: Mapping[str, Any],
    config: Sequence[Mapping[str, Any]] | None,
    options: FinishOptions,
    missing: dict[str, str],
    record: RunRecord,
) -> Finisher:
    name = _name(entry).partition(VERSUS)[0]
    if name == "consistency":
        if (record.protocol_spec.get("finish") or []) and entry.get("embedding"):
            missing["answer_cosine"] = "it needs the embedding model"
        return agreement.Consistency(None, "")
    known = next((each for each in config or () if _full_name(each) == _name(entry)), None)
    chosen = dict(known) if known is not None else _derived(name, entry)
    form = (entry.get("lc") or {}).get("form", NONE) if name == "pairwise" else None
    if form is not None:
        chosen["lc"] = form
    judge = RecordedJudge(entry["judge"])
    chosen = {key: value for key, value in chosen.items() if key not in ("name", "judge")}
    if name not in finishers.FACTORIES:
        raise UserError(f"there is no finisher {name!r}")
    make = import_module(finishers.FACTORIES[name]).make
    try:
        if form not in (None, NONE, "minimal") and options.data_dir is None:
            raise MissingPrerequisite("it needs AlpacaEval's tables: name them with --data-dir")
        made: Finisher = make(chosen, options, asker=judge)
    except MissingPrerequisite as error:
        made = make({**chosen, "lc": NONE}, options, asker=judge)
        missing[f"lc_{made.metrics[0].name}"] = str(error)
    return made


def _derived(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task that is not known here, from how its finisher described itself."""
    decoding = entry.get("decoding") or {}
    found = {key: decoding[key] for key in ("max_tokens", "temperature", "top_logprobs", "seed", "retries")}
    if name == "pairwise":
        found["against"] = entry.get("against") or None
    if name in ("rating", "yesno"):
        found["votes"] = entry.get("votes")
    if name == "yesno":
        found["weighted"] = bool(found["top_logprobs"])
    return found


def _described(finisher: Finisher, entry: Mapping[str, Any], missing: Mapping[str, str]) -> list[str]:
    own = finisher.describe()
    skipped = {"embedding"} | ({"lc"} if any(name.startswith("lc_") for name in missing) else set())
    keys = sorted((own.keys() | entry.keys()) - skipped)
    differing = [key for key in keys if own.get(key) != entry.get(key)]
    return [f"protocol_spec.finish: {key} of {_name(entry)} is not this task's" for key in differing]


# What scoring a forged item may raise; anything else is a fault of ours.
UNSCORABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, UserError)


@dataclass(frozen=True)
class Recomputed:
    """A record as it should be.

    Attributes:
        samples: Scored again, in the order of the run's.
        metrics: Of the run.
        reports: What its finishers say of themselves.
        not_computed: Metrics taken as they are recorded, and why.
        faults: What could not be computed because it cannot be.
    """

    samples: tuple[Sample, ...]
    metrics: dict[str, MetricValue]
    reports: dict[str, Any]
    not_computed: dict[str, str]
    faults: tuple[str, ...]


def recompute(
    run: Run, config: Sequence[Mapping[str, Any]] | None, data_dir: Path | None = None
) -> Recomputed:
    """Score every answer again, ask the recorded judges again, and summarise.

    Args:
        run: The run.
        config: `metadata.finish` of its task, None if the task is not known here.
        data_dir: Folder with the tables of length control.
    """
    until = _until(run)
    plain: list[Sample] = []
    for sample in run.samples:
        try:
            plain.append(unjudged(sample, until))
        except UNSCORABLE as error:
            return Recomputed((), {}, {}, {}, (f"item {sample.id} cannot be scored: {error!r}",))
    with tempfile.TemporaryDirectory() as place:
        options = FinishOptions(cache=Path(place), data_dir=data_dir)
        again = replay(run.record, run.samples, config, options)
        try:
            samples, judged, reports = finish(plain, again.finishers)
        except UNSCORABLE as error:
            return Recomputed((), {}, {}, {}, (*again.faults, f"its votes cannot be counted: {error!r}"))
    kept = [_recorded_metric(run, name) for name in again.not_computed if name in run.record.metrics]
    samples = [_with_recorded(sample, own, kept) for sample, own in zip(samples, run.samples, strict=True)]
    try:
        metrics = scoring.summarise(samples, (*judged, *kept))
    except UNSCORABLE as error:
        return Recomputed((), {}, {}, {}, (*again.faults, f"its scores cannot be put together: {error}"))
    return Recomputed(tuple(samples), metrics, reports, again.not_computed, again.faults)


def unjudged(sample: Sample, until: Sequence[str]) -> Sample:
    """A sample as it is before any judge, scored from its response."""
    parts = scored_part(sample.response, until)
    text = parts.answer
    unscored = sample.status in UNSCORED
    scored = scoring.ItemScore({}) if unscored else scoring.score_item(sample.model_dump(), text)
    return sample.model_copy(
        update={
            "extracted": text,
            "scores": scored.scores,
            "judge": scored.judge,
            "status": _status(sample, parts, scored),
            "error": sample.error if sample.status in UNANSWERED else scored.judge_failed,
        }
    )


def _status(sample: Sample, parts: ReplyParts, scored: scoring.ItemScore) -> Status:
    if not parts.complete:
        return "truncated"
    if sample.status in (*UNANSWERED, "truncated"):
        return sample.status
    if is_blank(parts.answer):
        return "empty"
    return "judge_failed" if scored.judge_failed else "ok"


def _until(run: Run) -> list[str]:
    found = (run.record.protocol_spec.get("decoding") or {}).get("until") or []
    return [str(stop) for stop in found]


def _recorded_metric(run: Run, name: str) -> Metric:
    return replace(scoring.by_name(name), signature=run.record.metrics[name].signature)


def _with_recorded(sample: Sample, own: Sample, kept: Sequence[Metric]) -> Sample:
    scores = {metric.name: own.scores[metric.name] for metric in kept if metric.name in own.scores}
    return sample.model_copy(update={"scores": {**sample.scores, **scores}}) if scores else sample

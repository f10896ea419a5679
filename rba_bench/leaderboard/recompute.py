"""What a record must say, computed again from its responses and references alone."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import scoring
from rba_bench.evaluation.asking import scored_part
from rba_bench.evaluation.finishers.base import FinishOptions
from rba_bench.evaluation.finishing import finish
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import UNANSWERED, UNSCORED, MetricValue, Sample, Status
from rba_bench.leaderboard.load import Run
from rba_bench.leaderboard.replay import replay
from rba_bench.metrics.text import is_blank
from rba_bench.textlm.replies import ReplyParts

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

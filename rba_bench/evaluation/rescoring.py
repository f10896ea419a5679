"""Scores again from the responses that a run kept: after a change of metric or judge, without the model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rba_bench.evaluation import registry, scoring
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.protocol import protocol_hash
from rba_bench.evaluation.records import (
    RUN_FILE,
    SAMPLES_FILE,
    MetricValue,
    RunRecord,
    Sample,
    Status,
    read_record,
    read_samples,
)
from rba_bench.evaluation.runner import status_counts
from rba_bench.files import sha256_file, write_atomic, write_json


def rescore(folder: Path | str) -> RunRecord:
    """Score a finished run again and rewrite its files if anything changed.

    The protocol hash follows the metric signatures and the judge of the code that scores now; the run id stays.

    Raises:
        UserError: there is no finished run in `folder`.
    """
    place = Path(folder)
    record, kept = read_record(place), read_samples(place)
    own = {metric.name for metric in scoring.METRICS[kept[0].kind]}
    judged = [_metric(name, value) for name, value in record.metrics.items() if name not in own]
    samples = [_rescored(sample, [metric.name for metric in judged]) for sample in kept]
    protocol = _current_protocol(record, samples)
    fresh = record.model_copy(
        update={
            "metrics": scoring.summarise(samples, judged),
            "statuses": status_counts(samples),
            "protocol_spec": protocol,
            "protocol_hash": protocol_hash(protocol),
            "judge": protocol["judge"],
        }
    )
    if samples != kept:
        write_atomic(place / SAMPLES_FILE, "".join(sample.line() for sample in samples))
        fresh = fresh.model_copy(update={"samples_sha256": sha256_file(place / SAMPLES_FILE)})
    if fresh != record:
        write_json(place / RUN_FILE, fresh.model_dump(mode="json"))
    return fresh


def _current_protocol(record: RunRecord, samples: Sequence[Sample]) -> dict[str, Any]:
    shipped = {spec.name: spec for spec in registry.list_tasks()}.get(record.task)
    judge = (shipped.config.get("metadata") or {}).get("judge") if shipped else record.judge
    signed = scoring.signatures(samples[0].kind, [sample.target_lang for sample in samples])
    return {**record.protocol_spec, "metrics": signed, "judge": judge}


def _metric(name: str, value: MetricValue) -> Metric:
    return Metric(name, value.aggregation, value.scale, value.higher_is_better, value.macro, value.signature)


def _rescored(sample: Sample, judged: Sequence[str]) -> Sample:
    """What is computed from the answer is computed again; what a judge said stays."""
    scored = scoring.score_item(sample.model_dump(), sample.extracted)
    said = {name: sample.scores[name] for name in judged if name in sample.scores}
    status, error = sample.status, sample.error
    if status in ("ok", "judge_failed") and not judged:
        status = _judged(scored)
        error = scored.judge_failed
    return sample.model_copy(
        update={
            "scores": {**scored.scores, **said},
            "judge": sample.judge if judged else scored.judge,
            "status": status,
            "error": error,
        }
    )


def _judged(scored: scoring.ItemScore) -> Status:
    return "judge_failed" if scored.judge_failed else "ok"

"""After the answers: judges and other finishers add their scores, each vote kept as it comes."""

import json
from collections.abc import Sequence
from typing import Any

from rba_bench.evaluation.finishers.base import Addition, Finisher
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import UNSCORED, Sample


def finish(
    samples: Sequence[Sample], finishers: Sequence[Finisher]
) -> tuple[list[Sample], tuple[Metric, ...], dict[str, Any]]:
    """Samples with all scores.

    Args:
        samples: All answers of a run. Items that may not be scored are not shown to finishers.
        finishers: Of its task, in order.

    Returns:
        The samples, the metrics that were added, and what the finishers report of themselves by name.
    """
    finished, metrics = list(samples), tuple[Metric, ...]()
    scored = [index for index, sample in enumerate(finished) if sample.status not in UNSCORED]
    reports: dict[str, Any] = {}
    for finisher in finishers:
        additions = finisher.finish([finished[index] for index in scored])
        for index, addition in zip(scored, additions, strict=True):
            finished[index] = _with(finished[index], addition)
        metrics = (*metrics, *finisher.metrics)
        reports[str(finisher.describe().get("name", type(finisher).__name__))] = finisher.report()
    return finished, metrics, json.loads(json.dumps(reports))


def _with(sample: Sample, addition: Addition) -> Sample:
    judge = {**(sample.judge or {}), **(addition.judge or {})}
    failed = bool(addition.failed)
    return sample.model_copy(
        update={
            "scores": {**sample.scores, **addition.scores},
            "judge": judge or None,
            "status": "judge_failed" if failed and sample.status == "ok" else sample.status,
            "error": sample.error or addition.failed,
        }
    )

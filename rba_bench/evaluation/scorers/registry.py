"""From `metadata.finish` of a task to finishers.

metadata:
  finish:
    - {name: pairwise, judge: "openai:https://api.openai.com/v1#gpt-4.1-2025-04-14"}
    - {name: rating, votes: 3}

After the answers: judges and other finishers add their scores, each vote kept as it comes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.plan import EvalRequest
from rba_bench.evaluation.records import UNSCORED, Sample
from rba_bench.evaluation.scorers import length_control
from rba_bench.evaluation.scorers.scorer import Addition, Finisher, FinishOptions
from rba_bench.evaluation.task_registry import TaskSpec
from rba_bench.textlm.endpoints.address import parse_endpoint
from rba_bench.textlm.endpoints.keys import VENDORS, ApiKey, host_of, where_to_set

NO_JUDGE = "none"
# Name in the YAML -> where `make(config, options) -> Finisher` is
FACTORIES = {
    "pairwise": "rba_bench.evaluation.scorers.pairwise",
    "rating": "rba_bench.evaluation.scorers.rating",
    "yesno": "rba_bench.evaluation.scorers.yesno",
    "consistency": "rba_bench.evaluation.scorers.agreement",
    "reasoning": "rba_bench.evaluation.scorers.reasoning",
}
JUDGES = ("pairwise", "rating", "yesno", "reasoning")
METRICS = {  # of each finisher, at most
    "pairwise": ("win_rate", "lc_win_rate"),
    "rating": ("rating",),
    "yesno": ("judge_accuracy",),
    "consistency": ("answer_agreement", "answer_overlap", "answer_cosine"),
    "reasoning": ("if_rate_with_cot",),
}


def metrics_of(config: Mapping[str, Any], options: FinishOptions | None = None) -> tuple[str, ...]:
    """What the finisher of an entry adds; known without making it, which may need a key or a model.

    Args:
        config: The entry.
        options: What the user chose: where the tables of a length control are looked for.
    """
    names = METRICS[str(config["name"])]
    if config["name"] == "pairwise":
        form = length_control.settled(config, options or FinishOptions(cache=Path()))["lc"]
        return names[:1] if form == length_control.NONE else names
    return names[:2] if str(config.get("embedding")) == "none" else names


def settled(config: Mapping[str, Any], options: FinishOptions) -> dict[str, Any]:
    """The entry with what depends on the files at hand decided, so that whoever reads it decides alike."""
    return length_control.settled(config, options) if config.get("name") == "pairwise" else dict(config)


def of(spec: TaskSpec, request: EvalRequest, asking: bool = True) -> tuple[Finisher, ...]:
    """The finishers of a task; judges are left out where the user says `--judge none`.

    Args:
        spec: The task.
        request: What the user chose.
        asking: False if judges will not be asked anything, so that they need no key.

    Raises:
        UserError: the task names an unknown finisher or option.
        MissingPrerequisite: a judge needs a key or a package.
    """
    options = FinishOptions(
        cache=request.out / "votes",
        judge=request.judge,
        baseline=request.baseline,
        data_dir=request.data_dir,
        device=request.device or "auto",
        batch_size=request.batch_size,
    )
    configs = (spec.config.get("metadata") or {}).get("finish") or []
    wanted = [c for c in configs if not (request.judge == NO_JUDGE and c.get("name") in JUDGES)]
    for config in wanted if asking else ():
        _need_key(str(request.judge or config.get("judge") or ""))
    return tuple(make(config, options) for config in wanted)


def _need_key(judge: str) -> None:
    """The shipped judges are hosted ones: without a key nothing would be judged after hours of answering."""
    address = parse_endpoint(judge)
    host = host_of(address[0]) if address else ""
    if address and VENDORS["OPENAI_API_KEY"].fullmatch(host) and not ApiKey.of(address[0]).known:
        raise MissingPrerequisite(
            f"the judge {address[1]} needs a key: set {where_to_set(host)}; or name another judge with "
            "--judge openai:URL#NAME or --judge FOLDER, or leave judged metrics out with --judge none"
        )


def make(config: Mapping[str, Any], options: FinishOptions) -> Finisher:
    """One finisher.

    Args:
        config: Its entry in the YAML: `name` and options of its own.
        options: What the user chose.

    Raises:
        UserError: unknown name.
    """
    name = str(config.get("name"))
    if name not in FACTORIES:
        raise UserError(f"unknown finisher {name!r} in metadata.finish; known: {', '.join(FACTORIES)}")
    factory: Callable[..., Finisher] = import_module(FACTORIES[name]).make
    return factory({key: value for key, value in config.items() if key != "name"}, options)


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

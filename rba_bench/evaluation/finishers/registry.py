"""From `metadata.finish` of a task to finishers.

metadata:
  finish:
    - {name: pairwise, judge: "openai:https://api.openai.com/v1#gpt-4.1-2025-04-14"}
    - {name: rating, votes: 3}
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.finishers.base import Finisher, FinishOptions
from rba_bench.evaluation.judges import length
from rba_bench.evaluation.registry import TaskSpec
from rba_bench.evaluation.request import EvalRequest
from rba_bench.textlm.endpoint_address import parse_endpoint
from rba_bench.textlm.endpoint_keys import VENDORS, ApiKey, host_of, where_to_set

NO_JUDGE = "none"
# Name in the YAML -> where `make(config, options) -> Finisher` is
FACTORIES = {
    "pairwise": "rba_bench.evaluation.judges.pairwise",
    "rating": "rba_bench.evaluation.judges.rating",
    "yesno": "rba_bench.evaluation.judges.yesno",
    "consistency": "rba_bench.evaluation.finishers.consistency",
    "reasoning": "rba_bench.evaluation.finishers.reasoning",
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
        form = length.settled(config, options or FinishOptions(cache=Path()))["lc"]
        return names[:1] if form == length.NONE else names
    return names[:2] if str(config.get("embedding")) == "none" else names


def settled(config: Mapping[str, Any], options: FinishOptions) -> dict[str, Any]:
    """The entry with what depends on the files at hand decided, so that whoever reads it decides alike."""
    return length.settled(config, options) if config.get("name") == "pairwise" else dict(config)


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

"""From `metadata.finish` of a task to scorers, and from answers to samples with all scores.

metadata:
  finish:
    - {name: pairwise, judge: "openai:https://api.openai.com/v1#gpt-4.1-2025-04-14"}
    - {name: rating, votes: 3}
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import UNSCORED, Sample
from rba_bench.evaluation.scorers.agreement import Consistency
from rba_bench.evaluation.scorers.judge import Judge
from rba_bench.evaluation.scorers.pairwise import PairwiseJudge
from rba_bench.evaluation.scorers.rating import RatingJudge
from rba_bench.evaluation.scorers.reasoning import ReasoningJudge
from rba_bench.evaluation.scorers.scorer import Scorer, ScorerOptions
from rba_bench.evaluation.scorers.yesno import YesNoJudge
from rba_bench.evaluation.task_registry import TaskSpec
from rba_bench.textlm.endpoints.address import parse_endpoint
from rba_bench.textlm.endpoints.keys import VENDORS, ApiKey, host_of, where_to_set

if TYPE_CHECKING:
    from rba_bench.evaluation.plan import EvalRequest

NO_JUDGE = "none"
SCORERS: dict[str, type[Scorer]] = {
    scorer.name: scorer for scorer in (PairwiseJudge, RatingJudge, YesNoJudge, Consistency, ReasoningJudge)
}
JUDGES = tuple(name for name, scorer in SCORERS.items() if issubclass(scorer, Judge))


def scorer_class(config: Mapping[str, Any]) -> type[Scorer]:
    """The class of an entry of `metadata.finish`. Raises UserError for an unknown name."""
    name = str(config.get("name"))
    if name not in SCORERS:
        raise UserError(f"unknown scorer {name!r} in metadata.finish; known: {', '.join(SCORERS)}")
    return SCORERS[name]


def make_scorer(config: Mapping[str, Any], options: ScorerOptions) -> Scorer:
    """One scorer.

    Args:
        config: Its entry in the YAML: `name` and options of its own.
        options: What the user chose.

    Raises:
        UserError: unknown name or option.
    """
    own_options = {key: value for key, value in config.items() if key != "name"}
    return scorer_class(config).from_config(own_options, options)


def make_scorers(spec: TaskSpec, request: "EvalRequest", needs_key: bool = True) -> tuple[Scorer, ...]:
    """The scorers of a task; judges are left out where the user says `--judge none`.

    Args:
        spec: The task.
        request: What the user chose.
        needs_key: False if judges will not be asked anything, so that they need no key.

    Raises:
        UserError: the task names an unknown scorer or option.
        MissingPrerequisite: a judge needs a key or a package.
    """
    options = ScorerOptions(
        cache=request.out / "votes",
        judge=request.judge,
        data_dir=request.data_dir,
        device=request.device or "auto",
        batch_size=request.batch_size,
    )
    configs = spec.scorer_configs
    if request.judge == NO_JUDGE:
        configs = [config for config in configs if config.get("name") not in JUDGES]
    for config in configs if needs_key else ():
        check_judge_key(str(request.judge or config.get("judge") or ""))
    return tuple(make_scorer(config, options) for config in configs)


def check_judge_key(spec: str) -> None:
    """A hosted judge without a key would be found out after hours of answering that nobody could judge.

    Raises:
        MissingPrerequisite: `spec` names a judge that needs a key, and there is none.
    """
    address = parse_endpoint(spec)
    host = host_of(address[0]) if address else ""
    if address and VENDORS["OPENAI_API_KEY"].fullmatch(host) and not ApiKey.of(address[0]).known:
        raise MissingPrerequisite(
            f"the judge {address[1]} needs a key: set {where_to_set(host)}; or name another judge with "
            "--judge openai:URL#NAME or --judge FOLDER, or leave judged metrics out with --judge none"
        )


def add_scores(
    samples: Sequence[Sample], scorers: Sequence[Scorer]
) -> tuple[list[Sample], tuple[Metric, ...], dict[str, Any]]:
    """Samples with the scores of all scorers.

    Args:
        samples: All answers of a run. Items that may not be scored are not shown to scorers.
        scorers: Of its task, in order.

    Returns:
        The samples, the metrics that were added, and what the scorers report of themselves by name.
    """
    scored, metrics = list(samples), tuple[Metric, ...]()
    places = [place for place, sample in enumerate(scored) if sample.status not in UNSCORED]
    reports: dict[str, Any] = {}
    for scorer in scorers:
        for place, score in zip(places, scorer.score([scored[i] for i in places]), strict=True):
            sample = scored[place]
            failed = bool(score.failure) and sample.status == "ok"
            scored[place] = sample.model_copy(
                update={
                    "scores": {**sample.scores, **score.scores},
                    "judge": {**(sample.judge or {}), **(score.judge or {})} or None,
                    "status": "judge_failed" if failed else sample.status,
                    "error": sample.error or score.failure,
                }
            )
        metrics = (*metrics, *scorer.metrics)
        reports[scorer.name] = scorer.report()
    return scored, metrics, json.loads(json.dumps(reports))

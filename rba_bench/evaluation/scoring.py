"""From answers to scores: per item when it is answered, per run from the samples alone.

Kinds and their metrics:

    instruct  win_rate (preferred to the stored baseline answer by the rule judge; a tie is 0.5),
              rating (the judge's score in [0, 1]), valid_rate (share of answers the judge accepts)
    qa        exact_match, alias_match (both after Whisper's normaliser)
    s2tt      bleu, chrf++ (corpus scores per direction, then the unweighted mean over directions)

An item's score is a number, or a row of sufficient statistics for the corpus metrics. Everything a run reports is a
function of these, so it can be recomputed, resampled and compared in pairs without the model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from rba_bench.errors import UserError
from rba_bench.evaluation.documents import user_text
from rba_bench.evaluation.records import MetricPart, MetricValue, Sample
from rba_bench.metrics.aggregate import macro_rows, macro_score, score_function
from rba_bench.metrics.bleu import ChrfPP, CorpusBleu
from rba_bench.metrics.bootstrap import Interval, ScoreFn, bootstrap_corpus, bootstrap_mean, resampled_scores
from rba_bench.metrics.qa import alias_match, exact_match
from rba_bench.metrics.winrate import preference

METRICS: dict[str, tuple[str, ...]] = {
    "instruct": ("win_rate", "rating", "valid_rate"),
    "qa": ("exact_match", "alias_match"),
    "s2tt": ("bleu", "chrf++"),
}
CORPUS = ("bleu", "chrf++")  # 0 to 100; all others are means in [0, 1]


@dataclass(frozen=True)
class ItemScore:
    """Scores of one answer; `judge` holds votes with reasons, `judge_failed` why there is none."""

    scores: dict[str, float | list[int]]
    judge: dict[str, Any] | None = None
    judge_failed: str = ""


def score_item(doc: Mapping[str, Any], response: str) -> ItemScore:
    """Score one answer to one document (or to a `Sample.model_dump()`).

    Raises:
        UserError: the document is of an unknown kind.
    """
    scorer = _SCORERS.get(doc["kind"])
    if scorer is None:
        raise UserError(f"item {doc['id']} is of kind {doc['kind']!r}; known: {', '.join(_SCORERS)}")
    return scorer(doc, response)


def _instruct(doc: Mapping[str, Any], response: str) -> ItemScore:
    from rba_bench.micro import world

    item = world.parse(user_text(doc))
    if item is None:  # counted as the worst score, never dropped
        reason = "the judge does not know this instruction"
        return ItemScore({"win_rate": 0.0, "rating": 0.0, "valid_rate": 0.0}, None, reason)
    own, base = world.grade(item, response), world.grade(item, doc["baseline"])
    preferred = preference(own.score, base.score)
    votes = {
        "response": {"score": own.score, "valid": own.valid, "reason": own.reason},
        "baseline": {"score": base.score, "valid": base.valid, "reason": base.reason},
        "preferred": {1.0: "response", 0.0: "baseline"}.get(preferred, "tie"),
    }
    return ItemScore({"win_rate": preferred, "rating": own.score, "valid_rate": float(own.valid)}, votes)


def _qa(doc: Mapping[str, Any], response: str) -> ItemScore:
    aliases, lang = doc["references"], doc["target_lang"]
    return ItemScore(
        {
            "exact_match": exact_match(response, aliases, lang),
            "alias_match": alias_match(response, aliases, lang),
        }
    )


def _s2tt(doc: Mapping[str, Any], response: str) -> ItemScore:
    return ItemScore(
        {
            metric.name: metric.statistics(response, doc["references"])
            for metric in (_corpus("bleu", doc["target_lang"]), _corpus("chrf++", doc["target_lang"]))
        }
    )


_SCORERS: dict[str, Callable[[Mapping[str, Any], str], ItemScore]] = {
    "instruct": _instruct,
    "qa": _qa,
    "s2tt": _s2tt,
}


@lru_cache(maxsize=64)
def _corpus(name: str, target_lang: str) -> CorpusBleu | ChrfPP:
    return CorpusBleu(target_lang) if name == "bleu" else ChrfPP(target_lang)


def signatures(kind: str, target_langs: Sequence[str]) -> dict[str, str]:
    """What exactly is computed, per metric of a kind: part of the protocol."""
    return {metric: _signature(metric, sorted(set(target_langs))) for metric in METRICS[kind]}


def _signature(metric: str, langs: Sequence[str]) -> str:
    from importlib.metadata import version

    if metric in CORPUS:
        return (
            "; ".join(f"{lang} {_corpus(metric, lang).signature}" for lang in langs)
            + "; macro over directions"
        )
    if metric in METRICS["qa"]:
        return f"{metric}|lang:{','.join(langs)}|whisper-normalizer:{version('openai-whisper')}"
    return {"win_rate": "win_rate|against:stored baseline|tie:0.5"}.get(metric, metric)


def rows(metric: str, scores: Sequence[float | Sequence[int]]) -> np.ndarray:
    """Per-item scores of one metric as a matrix of summable rows `[n, k]`."""
    if metric in CORPUS:
        return np.asarray(scores, dtype=np.float64)
    return np.array([[float(value), 1.0] for value in scores])  # type: ignore[arg-type]


def aggregation(metric: str) -> str:
    """Name of the metric's aggregation in `rba_bench.metrics.aggregate`."""
    return metric if metric in CORPUS else "mean"


def interval(metric: str, scores: Sequence[Any], groups: Sequence[str], clusters: Sequence[str]) -> Interval:
    """Score of a metric over all items with its 95 % interval; corpus metrics are averaged over `groups`."""
    if metric not in CORPUS:
        return bootstrap_mean([float(value) for value in scores], clusters)
    matrix, score = _summable(metric, scores, groups)
    return bootstrap_corpus(matrix, score, clusters)


def point(metric: str, scores: Sequence[Any], groups: Sequence[str]) -> float:
    """Score of a metric over all items, without an interval."""
    matrix, score = _summable(metric, scores, groups)
    return score(matrix.sum(axis=0).tolist())


def standard_error(
    metric: str, scores: Sequence[Any], groups: Sequence[str], clusters: Sequence[str]
) -> float:
    """Standard deviation of the score over the same resamples that make the interval."""
    matrix, score = _summable(metric, scores, groups)
    return float(resampled_scores(matrix, score, clusters).std(ddof=1))


def _summable(metric: str, scores: Sequence[Any], groups: Sequence[str]) -> tuple[np.ndarray, ScoreFn]:
    matrix = rows(metric, scores)
    if metric not in CORPUS:
        return matrix, score_function("mean")
    return macro_rows(matrix, groups), macro_score(score_function(metric), matrix.shape[1])


def summarise(samples: Sequence[Sample]) -> dict[str, MetricValue]:
    """Every metric of a run from its samples.

    Raises:
        UserError: no samples, or samples of several kinds.
    """
    kinds = {sample.kind for sample in samples}
    if len(kinds) != 1:
        raise UserError(f"a task has items of one kind, these are of {sorted(kinds) or 'none'}")
    kind = kinds.pop()
    signed = signatures(kind, [sample.target_lang for sample in samples])
    return {metric: _metric_value(metric, samples, signed[metric]) for metric in METRICS[kind]}


def _metric_value(metric: str, samples: Sequence[Sample], signature: str) -> MetricValue:
    scores = [sample.scores[metric] for sample in samples]
    groups = [sample.group for sample in samples]
    clusters = [sample.cluster for sample in samples]
    whole = interval(metric, scores, groups, clusters)
    return MetricValue(
        **whole.to_dict(),
        stderr=standard_error(metric, scores, groups, clusters),
        aggregation=aggregation(metric),
        macro=metric in CORPUS,
        scale=100.0 if metric in CORPUS else 1.0,
        signature=signature,
        breakdown={group: _part(metric, samples, group) for group in sorted(set(groups))},
    )


def _part(metric: str, samples: Sequence[Sample], group: str) -> MetricPart:
    members = [sample for sample in samples if sample.group == group]
    part = interval(
        metric,
        [sample.scores[metric] for sample in members],
        [group] * len(members),
        [sample.cluster for sample in members],
    )
    return MetricPart(value=part.value, low=part.low, high=part.high, n=part.n)

"""From answers to scores: per item when it is answered, per run from the samples alone.

Kinds and the metrics scored here; judged metrics come from finishers (`rba_bench.evaluation.scorers`):

    instruct  win_rate (preferred to the stored baseline answer by the rule judge; a tie is 0.5),
              rating (the judge's score in [0, 1]), valid_rate (share of answers the judge accepts)
    chat      none: judges score it
    qa        asserted_match (the answer is asserted and no other), exact_match, alias_match (it occurs)
    s2tt      bleu, chrf++ (corpus scores per direction, then the unweighted mean over directions)
    asr       wer, cer (both after Whisper's normaliser; errors over reference length, per language, then the mean)
    ifeval    if_rate (share of an item's constraints that are followed; the mean over the parts of the set)

An item's score is a number, or a row of sufficient statistics for the corpus metrics. Everything a run reports is a
function of these, so it can be recomputed, resampled and compared in pairs without the model. An item that could
not be heard, got no reply from a server, or whose judge failed has no score: it is counted, never scored as 0.

What answers that know nothing would score on a task's own questions, under each metric of the task.

Printed by `rba-bench eval`, kept in the run record and shown on boards, so that nobody has to trust that a metric
cannot be gamed. Metrics of judges are left out: they cost money, and are asked only about the model's own answers.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from rba_bench.assets import load_world
from rba_bench.errors import UserError
from rba_bench.evaluation.documents import user_text
from rba_bench.evaluation.lengths import mean_lengths
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import ExploitTable, MetricPart, MetricValue, Sample
from rba_bench.metrics import qa
from rba_bench.metrics.aggregate import macro_rows, macro_score, score_function
from rba_bench.metrics.bleu import ChrfPP, CorpusBleu
from rba_bench.metrics.bootstrap import (
    ScoreFn,
    bootstrap_corpus,
    bootstrap_error,
    bootstrap_mean,
    cluster_sizes,
    resampled_scores,
)
from rba_bench.metrics.interval import Clusters, Interval, Z
from rba_bench.metrics.qa.matching import STRATEGIES, Asked, chosen
from rba_bench.metrics.text import VERSION as TEXT_VERSION
from rba_bench.metrics.win_rate import preference

METRICS: dict[str, tuple[Metric, ...]] = {
    "instruct": (Metric("win_rate"), Metric("rating"), Metric("valid_rate")),
    "chat": (),
    "qa": (Metric("asserted_match"), Metric("exact_match"), Metric("alias_match")),
    "s2tt": (
        Metric("bleu", "bleu", 100.0, macro=True),
        Metric("chrf++", "chrf++", 100.0, macro=True),
    ),
    "asr": (
        Metric("wer", "error_rate", 100.0, higher_is_better=False, macro=True),
        Metric("cer", "error_rate", 100.0, higher_is_better=False, macro=True),
    ),
    "ifeval": (Metric("if_rate", macro=True),),
}
_BY_NAME = {metric.name: metric for metrics in METRICS.values() for metric in metrics}
_BY_NAME["if_rate_with_cot"] = Metric("if_rate_with_cot", macro=True)  # of a finisher, yet no plain mean
CORPUS = tuple(name for name, metric in _BY_NAME.items() if metric.aggregation != "mean" or metric.macro)


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
    world = load_world("grammar")
    item = world.parse(user_text(doc))
    if item is None:
        return ItemScore({}, None, "the judge does not know this instruction")
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
            "asserted_match": qa.asserted_match(response, aliases, lang, question(doc)),
            "exact_match": qa.exact_match(response, aliases, lang),
            "alias_match": qa.alias_match(response, aliases, lang),
        }
    )


def question(doc: Mapping[str, Any]) -> str:
    """What was asked, as far as the data set tells the words: the prompt, then what is spoken."""
    return f"{doc.get('prompt', '')} {doc.get('instruction', '')}".strip()


def _s2tt(doc: Mapping[str, Any], response: str) -> ItemScore:
    return ItemScore(
        {
            metric.name: metric.statistics(response, doc["references"])
            for metric in (_corpus("bleu", doc["target_lang"]), _corpus("chrf++", doc["target_lang"]))
        }
    )


def _chat(doc: Mapping[str, Any], response: str) -> ItemScore:
    del doc, response  # a judge will see them
    return ItemScore({})


def _asr(doc: Mapping[str, Any], response: str) -> ItemScore:
    from rba_bench.metrics import wer

    reference, lang = doc["references"][0], doc["target_lang"]
    return ItemScore(
        {
            "wer": list(wer.word_statistics(response, reference, lang)),
            "cer": list(wer.character_statistics(response, reference, lang)),
        }
    )


def _ifeval(doc: Mapping[str, Any], response: str) -> ItemScore:
    from rba_bench.metrics import ifeval

    return ItemScore({**ifeval.score(json.loads(doc["extra"]), response)})


_SCORERS: dict[str, Callable[[Mapping[str, Any], str], ItemScore]] = {
    "instruct": _instruct,
    "qa": _qa,
    "s2tt": _s2tt,
    "chat": _chat,
    "asr": _asr,
    "ifeval": _ifeval,
}


@lru_cache(maxsize=64)
def _corpus(name: str, target_lang: str) -> CorpusBleu | ChrfPP:
    return CorpusBleu(target_lang) if name == "bleu" else ChrfPP(target_lang)


def metrics_of(kind: str, target_langs: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of a kind, each with the signature of what exactly is computed: part of the protocol."""
    langs = sorted(set(target_langs))
    return tuple(replace(metric, signature=_signature(metric, langs)) for metric in METRICS[kind])


def signatures(kind: str, target_langs: Sequence[str]) -> dict[str, str]:
    """Signature per metric of a kind."""
    return {metric.name: metric.signature for metric in metrics_of(kind, target_langs)}


def _signature(metric: Metric, langs: Sequence[str]) -> str:
    from importlib.metadata import version

    whisper = f"whisper-normalizer:{version('openai-whisper')}"
    normaliser = f"{metric.name}|lang:{','.join(langs)}|{whisper}|text:{TEXT_VERSION}"
    if metric.name in ("bleu", "chrf++"):
        parts = "; ".join(f"{lang} {_corpus(metric.name, lang).signature}" for lang in langs)
        return f"{parts}; macro over directions"
    if metric.name in ("wer", "cer"):
        return f"{normaliser}|jiwer:{version('jiwer')}"
    if metric in METRICS["qa"]:
        return f"{metric.name}|rules:{qa.VERSION}|lang:{','.join(langs)}|whisper-spelling:{version('openai-whisper')}"
    if metric.name == "if_rate":
        from rba_bench.metrics.ifeval import VERSION

        return f"{metric.name}|rules:{VERSION}|mean of parts"
    return {"win_rate": "win_rate|against:stored baseline|tie:0.5"}.get(metric.name, metric.name)


def by_name(name: str) -> Metric:
    """The metric of a name, without signature; a name that is not scored here is a mean of per-item scores."""
    return _BY_NAME.get(name, Metric(name))


def rows(metric: Metric, scores: Sequence[float | Sequence[int]]) -> np.ndarray:
    """Per-item scores of one metric as a matrix of summable rows `[n, k]`."""
    if metric.aggregation != "mean":
        return np.asarray(scores, dtype=np.float64)
    return np.array([[float(value), 1.0] for value in scores])  # type: ignore[arg-type]


def interval(
    metric: Metric, scores: Sequence[Any], groups: Sequence[str], clusters: Sequence[str]
) -> Interval:
    """Score of a metric over items with its 95 % interval; macro metrics are averaged over `groups`."""
    if metric.aggregation == "mean" and not metric.macro:
        return bootstrap_mean([float(value) for value in scores], clusters, scale=metric.scale)
    matrix, score = _summable(metric, scores, groups)
    return bootstrap_corpus(matrix, score, clusters, scale=metric.scale)


def point(metric: Metric, scores: Sequence[Any], groups: Sequence[str]) -> float:
    """Score of a metric over items, without an interval."""
    matrix, score = _summable(metric, scores, groups)
    return score(matrix.sum(axis=0).tolist())


def standard_error(
    metric: Metric, scores: Sequence[Any], groups: Sequence[str], clusters: Sequence[str]
) -> float:
    """Standard error of the score from the same resamples that make the interval.

    Where these do not differ, nothing but the interval says how sure the score is: half of it as a normal law has it.
    """
    matrix, score = _summable(metric, scores, groups)
    found = Clusters.of(cluster_sizes(len(matrix), clusters))
    error = bootstrap_error(resampled_scores(matrix, score, clusters), found)
    if error > 0:
        return error
    stated = interval(metric, scores, groups, clusters)
    return (stated.high - stated.low) / (2 * Z)


def _summable(metric: Metric, scores: Sequence[Any], groups: Sequence[str]) -> tuple[np.ndarray, ScoreFn]:
    matrix, score = rows(metric, scores), score_function(metric.aggregation)
    if not metric.macro:
        return matrix, score
    return macro_rows(matrix, groups), macro_score(score, matrix.shape[1])


def summarise(samples: Sequence[Sample], judged: Sequence[Metric] = ()) -> dict[str, MetricValue]:
    """Every metric of a run from its samples.

    Args:
        samples: All samples of the run.
        judged: Metrics that finishers have added.

    Raises:
        UserError: no samples, samples of several kinds, or a metric that no sample has.
    """
    kinds = {sample.kind for sample in samples}
    if len(kinds) != 1:
        raise UserError(f"a task has items of one kind, these are of {sorted(kinds) or 'none'}")
    own = metrics_of(kinds.pop(), [sample.target_lang for sample in samples])
    scored = {name for sample in samples for name in sample.scores}
    if any(metric.name in scored for metric in own):  # one that is younger than all the samples is left out
        own = tuple(metric for metric in own if metric.name in scored)
    return {metric.name: _metric_value(metric, samples) for metric in (*own, *judged)}


def _metric_value(metric: Metric, samples: Sequence[Sample]) -> MetricValue:
    scored = [sample for sample in samples if metric.name in sample.scores]
    if not scored:
        reasons = sorted({sample.error for sample in samples if sample.error})
        raise UserError(f"no item has a {metric.name}: {reasons[0] if reasons else 'the judge scored none'}")
    scores = [sample.scores[metric.name] for sample in scored]
    groups = [sample.group for sample in scored]
    clusters = [sample.cluster for sample in scored]
    whole = interval(metric, scores, groups, clusters)
    lengths = mean_lengths(samples, metric.name)
    return MetricValue(
        **whole.to_dict(),
        stderr=standard_error(metric, scores, groups, clusters),
        aggregation=metric.aggregation,
        macro=metric.macro,
        scale=metric.scale,
        signature=metric.signature,
        higher_is_better=metric.higher_is_better,
        n_missing=len(samples) - len(scored),
        mean_length=lengths.answer if lengths else None,
        baseline_mean_length=lengths.baseline if lengths else None,
        breakdown={group: _part(metric, scored, group) for group in sorted(set(groups))},
    )


def _part(metric: Metric, samples: Sequence[Sample], group: str) -> MetricPart:
    members = [sample for sample in samples if sample.group == group]
    part = interval(
        metric,
        [sample.scores[metric.name] for sample in members],
        [group] * len(members),
        [sample.cluster for sample in members],
    )
    return MetricPart(value=part.value, low=part.low, high=part.high, n=part.n)


def exploits(samples: Sequence[Sample]) -> ExploitTable | None:
    """The exploit table of a run on questions, None for other kinds.

    Args:
        samples: All samples of the run; questions, references and languages are taken from them.
    """
    asked = {sample.cluster: sample for sample in samples if sample.kind == "qa" and sample.references}
    distinct = list(asked.values())
    if not distinct:
        return None
    tried = tuple(
        (question(item.model_dump()), tuple(item.references), item.target_lang)
        for item in (distinct[place] for place in chosen(len(distinct)))
    )
    return ExploitTable(n=len(tried), scores=_scores(tried))


@lru_cache(maxsize=32)  # boards read many runs on the same questions
def _scores(tried: tuple[tuple[str, tuple[str, ...], str], ...]) -> dict[str, dict[str, float]]:
    items = [Asked(question, references) for question, references, _ in tried]
    docs = [
        {"id": "", "kind": "qa", "instruction": question, "references": list(references), "target_lang": lang}
        for question, references, lang in tried
    ]
    return {
        name: _mean(
            [score_item(doc, strategy(item, items)).scores for doc, item in zip(docs, items, strict=True)]
        )
        for name, strategy in STRATEGIES.items()
    }


def _mean(scores: Sequence[dict[str, float | list[int]]]) -> dict[str, float]:
    """Mean of each metric over items; question metrics are numbers."""
    return {name: sum(_number(item[name]) for item in scores) / len(scores) for name in scores[0]}


def _number(score: float | list[int]) -> float:
    return 0.0 if isinstance(score, list) else float(score)

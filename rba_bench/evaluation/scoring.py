"""From answers to scores: per item when it is answered, per run from its samples alone.

An item's score under each metric of `rba_bench.evaluation.metric` is a number, or a row of sufficient statistics for a
corpus metric. Everything a run reports is a function of these, so it can be computed again, resampled and compared in
pairs without the model. An item whose clip cannot be decoded, that got no reply from a server, or whose judge failed
has no score: it is counted, never scored as 0.

The exploit table says what answers without any knowledge would score on a task's own questions. It is printed by
`rba-bench eval`, kept in the run record and shown on boards, so that readers see how far a metric can be gamed.
Metrics of judges are left out: they cost money, and judges are asked only about the model's own answers.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rba_bench.assets import load_world
from rba_bench.errors import UserError
from rba_bench.evaluation.documents import user_text
from rba_bench.evaluation.lengths import mean_lengths
from rba_bench.evaluation.metric import KINDS, ItemScore, Metric, largest_value, metrics_of, signed
from rba_bench.evaluation.records import ExploitTable, MetricPart, MetricValue, Sample
from rba_bench.metrics.aggregate import resampling_rows
from rba_bench.metrics.bootstrap import (
    Floats,
    ScoreFn,
    bootstrap_corpus,
    bootstrap_error,
    bootstrap_mean,
    clusters_of,
    resampled_scores,
)
from rba_bench.metrics.interval import Interval, Z
from rba_bench.metrics.qa.matching import STRATEGIES, QuestionItem, spread_positions
from rba_bench.metrics.win_rate import preference


def score_item(item: Mapping[str, Any], response: str) -> ItemScore:
    """Score one answer to one document (or to a `Sample.model_dump()`).

    Raises:
        UserError: the document is of an unknown kind.
    """
    kind = item["kind"]
    if kind not in KINDS:
        raise UserError(f"item {item['id']} is of kind {kind!r}; known: {', '.join(KINDS)}")
    if kind == "instruct":
        return _graded_by_rules(item, response)
    scores = {m.name: m.score(item, response) for m in metrics_of(kind) if m.score is not None}
    return ItemScore({name: score for name, score in scores.items() if score is not None})


def _graded_by_rules(item: Mapping[str, Any], response: str) -> ItemScore:
    """All metrics of the kind `instruct` at once: the rules of the micro world grade the answer and the baseline."""
    world, text = load_world("grammar"), user_text(item)
    instruction = world.parse(text)
    if instruction is None:
        return ItemScore({}, None, "the judge does not know this instruction")
    answer, baseline = world.grade(instruction, response), _baseline_grade(text, item["baseline"])
    preferred = preference(answer.score, baseline.score)
    votes = {
        "response": {"score": answer.score, "valid": answer.valid, "reason": answer.reason},
        "baseline": {"score": baseline.score, "valid": baseline.valid, "reason": baseline.reason},
        "preferred": {1.0: "response", 0.0: "baseline"}.get(preferred, "tie"),
    }
    return ItemScore(
        {"win_rate": preferred, "rating": answer.score, "valid_rate": float(answer.valid)}, votes
    )


@lru_cache(maxsize=1024)  # many models are compared with it
def _baseline_grade(text: str, baseline: str) -> Any:
    world = load_world("grammar")
    return world.grade(world.parse(text), baseline)


def signatures(kind: str, target_langs: Sequence[str]) -> dict[str, str]:
    """Signature of each metric of an item kind: part of the protocol."""
    return {metric.name: metric.signature for metric in signed(metrics_of(kind), target_langs)}


def metric_value(metric: Metric, scores: Sequence[Any], groups: Sequence[str]) -> float:
    """Score of a metric over items, without an interval; macro metrics are averaged over `groups`."""
    matrix, score = _resampling_rows(metric, _summable(metric, scores), groups)
    return score(matrix.sum(axis=0).tolist())


def metric_interval(
    metric: Metric, scores: Sequence[Any], groups: Sequence[str], clusters: Sequence[str]
) -> tuple[Interval, float]:
    """Score of a metric over items with its 95 % interval, and its standard error from the same resamples.

    Macro metrics are averaged over `groups`. Where the resamples do not differ, only the interval says how sure the
    score is: the error is then its half width over 1.96.
    """
    return _interval_and_error(metric, _summable(metric, scores), groups, clusters)


def _summable(metric: Metric, scores: Sequence[Any]) -> Floats:
    """Item scores as a matrix of summable rows `[n, k]`."""
    if metric.aggregation == "mean":
        return np.array([[float(value), 1.0] for value in scores])
    return np.asarray(scores, dtype=np.float64)


def _resampling_rows(metric: Metric, rows: Floats, groups: Sequence[str]) -> tuple[Floats, ScoreFn]:
    return resampling_rows(rows, metric.aggregation, groups if metric.macro else None)


def _interval_and_error(
    metric: Metric, rows: Floats, groups: Sequence[str], clusters: Sequence[str]
) -> tuple[Interval, float]:
    matrix, score = _resampling_rows(metric, rows, groups)
    draws = resampled_scores(matrix, score, clusters)
    interval = _interval(metric, matrix, score, clusters, draws)
    error = bootstrap_error(draws, clusters_of(len(matrix), clusters))
    return interval, error if error > 0 else (interval.high - interval.low) / (2 * Z)


def _interval(
    metric: Metric, matrix: Floats, score: ScoreFn, clusters: Sequence[str], draws: Floats | None = None
) -> Interval:
    """Interval of a score of resampling rows `[n, k]`; `draws` are the scores of their resamples if these are known."""
    if metric.is_corpus:
        return bootstrap_corpus(matrix, score, clusters, scale=metric.scale, draws=draws)
    largest = largest_value(metric.name, metric.scale)
    return bootstrap_mean(matrix[:, 0], clusters, scale=largest, draws=draws)


def summarise_metrics(samples: Sequence[Sample], added: Sequence[Metric] = ()) -> dict[str, MetricValue]:
    """Every metric of a run from its samples.

    Args:
        samples: All samples of the run.
        added: Metrics that scorers have added.

    Raises:
        UserError: no samples, samples of several kinds, or a metric that no sample has.
    """
    kinds = {sample.kind for sample in samples}
    if len(kinds) != 1:
        raise UserError(f"a task has items of one kind, these are of {sorted(kinds) or 'none'}")
    metrics = signed(metrics_of(kinds.pop()), [sample.target_lang for sample in samples])
    present = {name for sample in samples for name in sample.scores}
    if any(metric.name in present for metric in metrics):  # one that is newer than the samples is left out
        metrics = tuple(metric for metric in metrics if metric.name in present)
    return {metric.name: _summarise(metric, samples) for metric in (*metrics, *added)}


def _summarise(metric: Metric, samples: Sequence[Sample]) -> MetricValue:
    scored = [sample for sample in samples if metric.name in sample.scores]
    if not scored:
        reasons = sorted({sample.error for sample in samples if sample.error})
        raise UserError(f"no item has a {metric.name}: {reasons[0] if reasons else 'the judge scored none'}")
    scores = [sample.scores[metric.name] for sample in scored]
    rows = _summable(metric, scores)
    groups = tuple(sample.group for sample in scored)
    clusters = tuple(sample.cluster for sample in scored)
    (whole, error), breakdown = _interval_and_error(metric, rows, groups, clusters), {}
    for group, places, own in (parts := _parts(groups, clusters)):
        part = whole
        if len(parts) > 1:
            part = _interval(metric, *_resampling_rows(metric, rows[places], [group] * len(places)), own)
        breakdown[group] = MetricPart(value=part.value, low=part.low, high=part.high, n=part.n)
    lengths = mean_lengths(samples, metric.name)
    return MetricValue(
        **whole.to_dict(),
        stderr=error,
        aggregation=metric.aggregation,
        macro=metric.macro,
        scale=metric.scale,
        signature=metric.signature,
        higher_is_better=metric.higher_is_better,
        n_missing=len(samples) - len(scored),
        mean_length=lengths.answer if lengths else None,
        baseline_mean_length=lengths.baseline if lengths else None,
        breakdown=breakdown,
    )


@lru_cache(maxsize=32)  # many models are scored on the same items
def _parts(
    groups: tuple[str, ...], clusters: tuple[str, ...]
) -> list[tuple[str, NDArray[np.intp], tuple[str, ...]]]:
    """Each group of items with their places and their clusters, by name."""
    places = {group: [i for i, name in enumerate(groups) if name == group] for group in sorted(set(groups))}
    return [(group, np.array(own), tuple(clusters[i] for i in own)) for group, own in places.items()]


def exploit_table(samples: Sequence[Sample]) -> ExploitTable | None:
    """What answers without knowledge would score in a run on questions; None for other kinds of items.

    Args:
        samples: All samples of the run; questions, references and languages are taken from them.
    """
    by_cluster = {sample.cluster: sample for sample in samples if sample.kind == "qa" and sample.references}
    distinct = list(by_cluster.values())
    if not distinct:
        return None
    questions = tuple(
        (_user_text(sample), tuple(sample.references), sample.target_lang)
        for sample in (distinct[place] for place in spread_positions(len(distinct)))
    )
    return ExploitTable(n=len(questions), scores=_exploit_scores(questions))


def _user_text(sample: Sample) -> str:
    return user_text({"prompt": sample.prompt, "instruction": sample.instruction})


@lru_cache(maxsize=32)  # boards read many runs on the same questions
def _exploit_scores(questions: tuple[tuple[str, tuple[str, ...], str], ...]) -> dict[str, dict[str, float]]:
    """Mean score of every strategy under every metric of the kind `qa`."""
    items = [QuestionItem(question, references) for question, references, _ in questions]
    docs = [
        {"id": "", "kind": "qa", "instruction": question, "references": list(references), "target_lang": lang}
        for question, references, lang in questions
    ]
    table = {}
    for name, strategy in STRATEGIES.items():
        answers = [strategy(item, items) for item in items]
        scores = [score_item(doc, answer).scores for doc, answer in zip(docs, answers, strict=True)]
        table[name] = {m: float(np.mean([item[m] for item in scores])) for m in scores[0]}
    return table

"""What the exchange of a judge does, from the verdicts of both on the same answers.

Intervals are 95 % and draw whole clusters of items, with the answers of all models to them (`rba_bench.metrics`). A
difference is the new judge (B) minus the old one (A), paired. Agreement, consistency and biases count the answers that
both judges have judged; scores and the order of the models also count those decided by rule (an answer that failed
loses, equal answers tie, no answer is wrong), as boards do.

Consistency is the share of pairs with one verdict in both orders, position bias the preference for the answer in front
(Zheng et al. 2023, arXiv:2306.05685, section 3.3); where votes are drawn anew, consistency is the share of answers on
which all say the same. Judges are known to like long answers (Dubois et al. 2024, arXiv:2404.04475) and those of models
of their own family (Panickssery et al. 2024, arXiv:2404.13076). One judge alone does not tell such a bias from quality,
so both are differences between two judges on the same answers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from rba_bench.leaderboard.judge_transfer.judged_pairs import JudgedPairs
from rba_bench.leaderboard.judge_transfer.judging import Verdict
from rba_bench.leaderboard.judge_transfer.kinds import Kind
from rba_bench.leaderboard.judge_transfer.pair_set import Pair
from rba_bench.metrics import judge_agreement, paired
from rba_bench.metrics.bootstrap import (
    RESAMPLES,
    SEED,
    bootstrap_mean,
    mean_rows,
    mean_score,
    paired_difference,
    paired_rows,
    resampled_scores,
)
from rba_bench.metrics.interval import Clusters, Difference, Floats, Interval

_FAMILY = re.compile(r"[a-z]{3,}")
# Words of names that say nothing about who made a model
_COMMON = {
    "answered", "asset", "audio", "awq", "base", "cascade", "chat", "constant", "data", "distill", "fast", "flash",
    "gguf", "gptq", "instruct", "judge", "large", "latest", "lite", "llm", "local", "max", "medium", "mini", "model",
    "models", "nano", "new", "old", "omni", "openai", "plus", "preview", "pro", "rba", "realtime", "reward", "runs",
    "server", "sft", "small", "speech", "test", "text", "the", "thinking", "tiny", "turbo", "vision", "voice",
}  # fmt: skip
ONE_GRADE = 1.0
AnyInterval = TypeVar("AnyInterval", bound=Interval)


def _rescaled(interval: AnyInterval, factor: float, shift: float = 0.0) -> AnyInterval:
    """The same with other units."""
    value, low, high = (shift + factor * end for end in (interval.value, interval.low, interval.high))
    return replace(interval, value=value, low=low, high=high)


def _maybe(interval: Interval | None, factor: float) -> Interval | None:
    return None if interval is None else _rescaled(interval, factor)


def agreement_facts(pairs: JudgedPairs) -> dict[str, Any]:
    """Agreement of the verdicts, alone and corrected for chance; of the values, with the mean difference B - A."""
    facts: dict[str, Any] = {"n": len(pairs)}
    if not len(pairs):
        return facts
    a, b, clusters, span = pairs.a, pairs.b, pairs.clusters, pairs.kind.span
    facts |= _graded_facts(pairs) if pairs.kind.graded else _nominal_facts(pairs)
    facts["weighted_kappa"] = judge_agreement.correlation(a, b, clusters, weighted=True)
    facts["pearson"] = judge_agreement.correlation(a, b, clusters)
    facts["mean_distance"] = _rescaled(bootstrap_mean(np.abs(a - b), clusters), span)
    facts["mean_difference"] = _rescaled(paired_difference(b, a, clusters=clusters), span)
    return facts


def _graded_facts(pairs: JudgedPairs) -> dict[str, Any]:
    distance = np.abs(pairs.a - pairs.b) * pairs.kind.span
    near = {"raw": judge_agreement.SAME, "within_one": ONE_GRADE + judge_agreement.SAME}
    shares = {
        name: bootstrap_mean((distance <= most).astype(float), pairs.clusters) for name, most in near.items()
    }
    return {**shares, "spearman": judge_agreement.rank_correlation(pairs.a, pairs.b, pairs.clusters)}


def _nominal_facts(pairs: JudgedPairs) -> dict[str, Any]:
    facts: dict[str, Any] = {
        form: judge_agreement.agreement(pairs.a, pairs.b, pairs.clusters, form)
        for form in ("raw", "kappa", "ac1")
    }
    table = np.zeros((3, 3), dtype=int)
    np.add.at(table, (judge_agreement.verdicts(pairs.a), judge_agreement.verdicts(pairs.b)), 1)
    names = pairs.kind.names
    facts["table"] = {
        x: dict(zip(names, row, strict=True)) for x, row in zip(names, table.tolist(), strict=True)
    }
    both_steady = (pairs.steady(pairs.a_votes) == 1) & (pairs.steady(pairs.b_votes) == 1)
    consistent = pairs.where(both_steady)
    if len(consistent):  # judges that contradict themselves cannot agree with anybody
        facts["raw_where_consistent"] = judge_agreement.agreement(
            consistent.a, consistent.b, consistent.clusters
        )
        facts["n_consistent"] = len(consistent)
    return facts


def vote_facts(pairs: JudgedPairs) -> dict[str, Any]:
    """How often the votes on one answer say the same; of pairs, how much a judge prefers the answer in front."""
    known, values = {}, {}
    for name, votes in (("a", pairs.a_votes), ("b", pairs.b_votes)):
        measured = {"consistency": pairs.steady(votes)}
        known[name] = ~np.isnan(measured["consistency"])
        if pairs.kind.in_pairs and known[name].any():
            measured["position_bias"] = (1 - votes[:, 0] + votes[:, 1]) / 2 - 0.5
        values[name] = measured
    means = {"consistency": bootstrap_mean, "position_bias": _centred_mean}
    facts: dict[str, Any] = {}
    for name, measured in values.items():
        keep = known[name]
        if keep.any():
            clusters = pairs.where(keep).clusters
            facts[name] = {key: means[key](each[keep], clusters) for key, each in measured.items()}
    both = known["a"] & known["b"]
    if both.any():
        clusters = pairs.where(both).clusters
        facts["difference"] = {
            key: paired_difference(values["b"][key][both], values["a"][key][both], clusters=clusters)
            for key in values["b"]
        }
    return facts


def _centred_mean(values: Floats, clusters: Sequence[str]) -> Interval:
    """Mean of values in [-0.5, 0.5]."""
    return _rescaled(bootstrap_mean(values + 0.5, clusters), 1.0, -0.5)


def length_facts(pairs: JudgedPairs) -> dict[str, Any]:
    """Points for each doubling of the length, within models; of pairs also the preference for the longer answer.

    A good answer may need more words, so a slope is no bias by itself; that one judge's is steeper than the other's
    on the same answers is.
    """
    facts: dict[str, Any] = {"a": {}, "b": {}, "difference": {}}
    span = pairs.kind.span
    for name, values in (("a", pairs.a), ("b", pairs.b), ("difference", pairs.b - pairs.a)):
        slope = (
            judge_agreement.slope(pairs.doublings, values, pairs.model, pairs.clusters)
            if len(pairs)
            else None
        )
        facts[name]["slope"] = _maybe(slope, span)
    unequal = pairs.where(np.abs(pairs.doublings) > 0)
    if pairs.kind.in_pairs and len(unequal):
        longer = np.sign(unequal.doublings)
        a, b = ((values - 0.5) * longer for values in (unequal.a, unequal.b))
        facts["a"]["longer_preferred"] = _centred_mean(a, unequal.clusters)
        facts["b"]["longer_preferred"] = _centred_mean(b, unequal.clusters)
        facts["difference"]["longer_preferred"] = paired_difference(b, a, clusters=unequal.clusters)
    return facts


def missing_facts(
    kind: Kind, pairs: Sequence[Pair], a: Sequence[Verdict], b: Sequence[Verdict]
) -> dict[str, Any]:
    """Answers without a verdict of B, and what A gives them more than the others: whether B leaves out at random."""
    known = [
        (pair, x.value, y.value is None)
        for pair, x, y in zip(pairs, a, b, strict=True)
        if x.value is not None
    ]
    missing = np.array([gone for *_, gone in known], dtype=bool)
    if not missing.any() or missing.all():
        return {"n": int(missing.sum())}
    values = [kind.part(value) for _, value, _ in known]
    gap = judge_agreement.contrast(values, missing, [pair.sample.cluster for pair, *_ in known])
    return {"n": int(missing.sum()), "a_difference": _maybe(gap, kind.span)}


def families(names: Iterable[object]) -> set[str]:
    """Words of names that tell who made a model: `gpt` of `gpt-4o`, `qwen` of `Qwen/Qwen2-Audio-7B`."""
    return {word for name in names for word in _FAMILY.findall(str(name).casefold()) if word not in _COMMON}


def self_preference_facts(pairs: JudgedPairs, kin: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    """What the models of a judge's family gain by that judge, over what the other models gain.

    Args:
        pairs: Judged answers.
        kin: For judge `a` and `b`, which models are of its family.
    """
    facts: dict[str, Any] = {}
    for name, gain in (("a", pairs.a - pairs.b), ("b", pairs.b - pairs.a)):
        marked = np.array(kin[name], dtype=bool)
        found = [label for label, of_family in zip(pairs.labels, marked, strict=True) if of_family]
        facts[name] = {"models": found}
        if found and not marked.all() and len(pairs):
            contrast = judge_agreement.contrast(gain, marked[pairs.model], pairs.clusters)
            facts[name]["gain"] = _maybe(contrast, pairs.kind.span)
    return facts


def score_facts(pairs: JudgedPairs) -> list[dict[str, Any]]:
    """Score of each model under both judges on its answers, and the paired difference; best under A first."""
    rows: list[dict[str, Any]] = []
    span, low = pairs.kind.span, pairs.kind.low
    for place, label in enumerate(pairs.labels):
        part = pairs.where(pairs.model == place)
        if not len(part):
            continue
        rows.append(
            {
                "model": label,
                "n": len(part),
                "a": _rescaled(bootstrap_mean(part.a, part.clusters), span, low),
                "b": _rescaled(bootstrap_mean(part.b, part.clusters), span, low),
                "difference": _rescaled(paired_difference(part.b, part.a, clusters=part.clusters), span),
            }
        )
    for name in ("a", "b"):
        values = [row[name].value for row in rows]
        for row in rows:
            row[f"rank_{name}"] = 1 + sum(value > row[name].value + judge_agreement.SAME for value in values)
    return sorted(rows, key=lambda row: (row["rank_a"], row["model"]))


def order_of_models_facts(pairs: JudgedPairs) -> dict[str, Any]:
    """Kendall's tau of the two orders, and the pairs of models that each judge tells apart.

    Pairs are told apart as in rank bands: with probability 0.95 no judge orders any pair of equal models.
    """
    a, b, clusters = pairs.matrices
    under_a, under_b = _told_apart(a, clusters), _told_apart(b, clusters)
    named = pairs.labels

    def listed(chosen: Iterable[tuple[int, int]]) -> list[list[str]]:
        return [[named[better], named[worse]] for better, worse in sorted(chosen)]

    reverse = {(worse, better) for better, worse in under_a}
    return {
        "models": len(named),
        "tau": judge_agreement.rank_agreement(a, b, clusters),
        "kept": listed(under_a & under_b),
        "reversed": listed((better, worse) for worse, better in reverse & under_b),
        "lost": listed(pair for pair in under_a - under_b if pair[::-1] not in under_b),
        "gained": listed(pair for pair in under_b - under_a if pair[::-1] not in under_a),
    }


def _told_apart(scores: Floats, clusters: Sequence[str]) -> set[tuple[int, int]]:
    """`(better, worse)` of the models that one judge tells apart, from verdicts `[items, models]`."""
    n = scores.shape[1]
    drawn: dict[tuple[int, bytes], Floats] = {}

    def draws(model: int, keep: np.ndarray, labels: Sequence[str]) -> Floats:
        key = (model, keep.tobytes())
        if key not in drawn:
            drawn[key] = resampled_scores(mean_rows(scores[keep, model]), mean_score, labels)
        return drawn[key]

    def difference(i: int, j: int) -> Difference | None:
        keep = ~np.isnan(scores[:, i]) & ~np.isnan(scores[:, j])
        if not keep.any():
            return None
        labels = [cluster for cluster, kept in zip(clusters, keep, strict=True) if kept]
        left, right = mean_rows(scores[keep, i]), mean_rows(scores[keep, j])
        rows = paired_rows(left, right, mean_score, labels, 1.0)
        source = f"{RESAMPLES} resamples of {Clusters.of(rows.sizes)}, seed {SEED}"
        return paired.difference_interval(
            rows, lambda: draws(i, keep, labels) - draws(j, keep, labels), source
        )

    gaps = {(i, j): gap for i in range(n) for j in range(i + 1, n) if (gap := difference(i, j)) is not None}
    p_values = {(i, j): gaps[i, j].p if (i, j) in gaps else 1.0 for i in range(n) for j in range(i + 1, n)}
    return {(i, j) if gaps[i, j].value > 0 else (j, i) for i, j in paired.significant_pairs(n, p_values)}


def all_effects(pairs: JudgedPairs, kin: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    """Everything about the answers of one section that both judges have judged."""
    judged = pairs.where(~pairs.by_rule)
    return {
        "agreement": agreement_facts(judged),
        "votes": vote_facts(judged),
        "length": length_facts(judged),
        "self_preference": self_preference_facts(judged, kin),
        "scores": score_facts(pairs),
        "order_of_models": order_of_models_facts(pairs),
    }

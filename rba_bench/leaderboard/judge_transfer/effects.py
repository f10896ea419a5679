"""What the exchange of a judge does, from the verdicts of both on the same pairs.

Intervals are 95 % and draw whole clusters of items, with the answers of all models to them (`rba_bench.metrics`). A
difference is the new judge (B) minus the old one (A), paired. Agreement, consistency and biases count the pairs that
both judges have judged; win rates and the order of the models also count pairs decided by rule (an answer that failed
loses, equal answers tie), as boards do.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rba_bench.leaderboard.judge_transfer.judging import Verdict
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
    "answered", "asset", "audio", "base", "cascade", "chat", "constant", "data", "gguf", "instruct", "judge", "large",
    "llm", "local", "model", "models", "openai", "rba", "reward", "runs", "server", "sft", "small", "speech", "test",
    "text", "the", "tiny",
}  # fmt: skip


@dataclass(frozen=True)
class JudgedPairs:
    """Pairs with the verdicts of both judges; a pair without one of them is not among them.

    Attributes:
        labels: Of the models.
        model: Position of each pair's model, `[n]`.
        item: Position of each pair's item in the test set, `[n]`.
        clusters: Cluster of each pair.
        a: Preferences for the model's answer under judge A, `[n]`.
        b: Under judge B.
        a_orders: The same by order, `[n, 2]`: the baseline's answer in front, the model's in front; NaN without.
        b_orders: Under judge B.
        by_rule: Pairs that no judge was asked about, `[n]`.
        doublings: How often the length of the baseline's answer doubles to that of the model's, `[n]`.
    """

    labels: Sequence[str]
    model: np.ndarray
    item: np.ndarray
    clusters: Sequence[str]
    a: Floats
    b: Floats
    a_orders: Floats
    b_orders: Floats
    by_rule: np.ndarray
    doublings: Floats

    @classmethod
    def of(
        cls, labels: Sequence[str], pairs: Sequence[Pair], a: Sequence[Verdict], b: Sequence[Verdict]
    ) -> "JudgedPairs":
        """From verdicts in the order of the pairs."""
        both = [
            (pair, x, y)
            for pair, x, y in zip(pairs, a, b, strict=True)
            if x.preference is not None and y.preference is not None
        ]
        lengths = [(len(pair.sample.extracted), len(pair.baseline)) for pair, _, _ in both]
        return cls(
            labels,
            np.array([pair.model for pair, _, _ in both], dtype=np.intp),
            np.array([pair.sample.doc_id for pair, _, _ in both], dtype=np.intp),
            [pair.sample.cluster for pair, _, _ in both],
            np.array([x.preference for _, x, _ in both], dtype=np.float64),
            np.array([y.preference for _, _, y in both], dtype=np.float64),
            np.array([x.orders or (math.nan,) * 2 for _, x, _ in both]).reshape(-1, 2),
            np.array([y.orders or (math.nan,) * 2 for _, _, y in both]).reshape(-1, 2),
            np.array([x.by_rule or y.by_rule for _, x, y in both], dtype=bool),
            np.array([math.log2((answer + 1) / (baseline + 1)) for answer, baseline in lengths]),
        )

    def __len__(self) -> int:
        return len(self.a)

    def where(self, keep: np.ndarray) -> "JudgedPairs":
        """Some of the pairs."""
        arrays = (self.a, self.b, self.a_orders, self.b_orders, self.by_rule, self.doublings)
        clusters = [cluster for cluster, kept in zip(self.clusters, keep, strict=True) if kept]
        return JudgedPairs(
            self.labels, self.model[keep], self.item[keep], clusters, *(array[keep] for array in arrays)
        )

    @cached_property
    def matrices(self) -> tuple[Floats, Floats, list[str]]:
        """Preferences under A and B `[items, models]`, NaN where there is none, and the cluster of each item."""
        items = {item: place for place, item in enumerate(dict.fromkeys(self.item.tolist()))}
        places = [items[item] for item in self.item.tolist()]
        a, b = (np.full((len(items), len(self.labels)), np.nan) for _ in range(2))
        a[places, self.model], b[places, self.model] = self.a, self.b
        clusters = dict(zip(places, self.clusters, strict=True))
        return a, b, [clusters[place] for place in range(len(items))]


def agreement_facts(pairs: JudgedPairs) -> dict[str, Any]:
    """Agreement of the verdicts, alone and corrected for chance, and of the preferences."""
    facts: dict[str, Any] = {"n": len(pairs)}
    if not len(pairs):
        return facts
    for form in ("raw", "kappa", "ac1"):
        facts[form] = judge_agreement.agreement(pairs.a, pairs.b, pairs.clusters, form)
    facts["mean_distance"] = bootstrap_mean(np.abs(pairs.a - pairs.b), pairs.clusters)
    table = np.zeros((3, 3), dtype=int)
    np.add.at(table, (judge_agreement.verdicts(pairs.a), judge_agreement.verdicts(pairs.b)), 1)
    names = ("loss", "tie", "win")
    facts["table"] = {
        x: dict(zip(names, row, strict=True)) for x, row in zip(names, table.tolist(), strict=True)
    }
    consistent = pairs.where(_consistent(pairs.a_orders) & _consistent(pairs.b_orders))
    if len(consistent):  # judges that contradict themselves cannot agree with anybody
        facts["raw_where_consistent"] = judge_agreement.agreement(
            consistent.a, consistent.b, consistent.clusters
        )
        facts["n_consistent"] = len(consistent)
    return facts


def _consistent(orders: Floats) -> np.ndarray:
    """Whether both orders prefer the same answer, `[n]`; False without orders."""
    known = ~np.isnan(orders).any(axis=1)
    first, second = (judge_agreement.verdicts(np.nan_to_num(orders[:, place])) for place in (0, 1))
    return np.asarray(known & (first == second))


def order_facts(pairs: JudgedPairs) -> dict[str, Any]:
    """How often swapping the answers changes a judge's mind, and how much it prefers the answer in front."""
    facts: dict[str, Any] = {}
    known, front, same = {}, {}, {}
    for name, orders in (("a", pairs.a_orders), ("b", pairs.b_orders)):
        known[name] = np.asarray(~np.isnan(orders).any(axis=1))
        front[name] = (1 - orders[:, 0] + orders[:, 1]) / 2 - 0.5
        same[name] = _consistent(orders).astype(float)
        part = pairs.where(known[name])
        if len(part):
            facts[name] = {
                "consistency": bootstrap_mean(same[name][known[name]], part.clusters),
                "position_bias": _shifted_mean(front[name][known[name]], part.clusters),
            }
    both = np.asarray(known["a"] & known["b"])
    if both.any():
        clusters = pairs.where(both).clusters
        facts["difference"] = {
            "consistency": paired_difference(same["b"][both], same["a"][both], clusters=clusters),
            "position_bias": paired_difference(front["b"][both], front["a"][both], clusters=clusters),
        }
    return facts


def _shifted_mean(values: Floats, clusters: Sequence[str]) -> Interval:
    """Mean of values in [-0.5, 0.5]."""
    shifted = bootstrap_mean(values + 0.5, clusters)
    ends = (shifted.value - 0.5, shifted.low - 0.5, shifted.high - 0.5)
    return Interval(*ends, shifted.n, shifted.method)


def length_facts(pairs: JudgedPairs) -> dict[str, Any]:
    """Preference for the longer answer, and points of preference for each doubling of the length.

    A good answer may need more words, so a slope is no bias by itself; that one judge's is steeper than the other's
    on the same answers is.
    """
    facts: dict[str, Any] = {}
    unequal = pairs.where(np.abs(pairs.doublings) > 0)
    if not len(unequal):
        return facts
    longer = np.sign(unequal.doublings)
    for name, values in (("a", unequal.a), ("b", unequal.b)):
        facts[name] = {
            "longer_preferred": _shifted_mean((values - 0.5) * longer, unequal.clusters),
            "slope": judge_agreement.slope(unequal.doublings, values, unequal.model, unequal.clusters),
        }
    facts["difference"] = {
        "longer_preferred": paired_difference(
            (unequal.b - 0.5) * longer, (unequal.a - 0.5) * longer, clusters=unequal.clusters
        ),
        "slope": judge_agreement.slope(
            unequal.doublings, unequal.b - unequal.a, unequal.model, unequal.clusters
        ),
    }
    return facts


def families(names: Iterable[object]) -> set[str]:
    """Words of names that tell who made a model: `gpt` of `gpt-4o`, `qwen` of `Qwen/Qwen2-Audio-7B`."""
    return {word for name in names for word in _FAMILY.findall(str(name).casefold()) if word not in _COMMON}


def self_preference_facts(pairs: JudgedPairs, kin: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    """What the models of a judge's family gain by that judge, over what the other models gain.

    Args:
        pairs: Judged pairs.
        kin: For judge `a` and `b`, which models are of its family.
    """
    facts: dict[str, Any] = {}
    for name, gain in (("a", pairs.a - pairs.b), ("b", pairs.b - pairs.a)):
        marked = np.array(kin[name], dtype=bool)
        found = [label for label, of_family in zip(pairs.labels, marked, strict=True) if of_family]
        facts[name] = {"models": found}
        if found and not marked.all() and len(pairs):
            facts[name]["gain"] = judge_agreement.contrast(gain, marked[pairs.model], pairs.clusters)
    return facts


def win_rate_facts(pairs: JudgedPairs) -> list[dict[str, Any]]:
    """Win rate of each model under both judges on its pairs, and the paired difference; best under A first."""
    rows: list[dict[str, Any]] = []
    for place, label in enumerate(pairs.labels):
        part = pairs.where(pairs.model == place)
        if not len(part):
            continue
        rows.append(
            {
                "model": label,
                "n": len(part),
                "a": bootstrap_mean(part.a, part.clusters),
                "b": bootstrap_mean(part.b, part.clusters),
                "difference": paired_difference(part.b, part.a, clusters=part.clusters),
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
    """`(better, worse)` of the models that one judge tells apart, from preferences `[items, models]`."""
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
    """Everything about the pairs of one section."""
    judged = pairs.where(~pairs.by_rule)
    return {
        "agreement": agreement_facts(judged),
        "order": order_facts(judged),
        "length": length_facts(judged),
        "self_preference": self_preference_facts(judged, kin),
        "win_rates": win_rate_facts(pairs),
        "order_of_models": order_of_models_facts(pairs),
    }

"""The verdicts of both judges on the same answers, as arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rba_bench.leaderboard.judge_transfer.judging import Verdict
from rba_bench.leaderboard.judge_transfer.kinds import PAIRS, Kind
from rba_bench.leaderboard.judge_transfer.pair_set import Pair
from rba_bench.metrics import judge_agreement
from rba_bench.metrics.interval import Floats

ONE_VOTE = 2  # votes are compared from two on


@dataclass(frozen=True)
class JudgedPairs:
    """Answers with the verdicts of both judges; an answer without one of them is not among them.

    Verdicts are shares of the way from the worst to the best, in [0, 1], whatever their kind.

    Attributes:
        labels: Of the models.
        model: Position of each answer's model, `[n]`.
        item: Position of each answer's item in the test set, `[n]`.
        clusters: Cluster of each answer.
        a: Verdicts of judge A, `[n]`.
        b: Of judge B.
        a_votes: Single votes of A, `[n, k]`, NaN where there is none; of pairs, with the baseline's answer in front,
            then with the model's.
        b_votes: Of B.
        by_rule: Answers that no judge was asked about, `[n]`.
        doublings: How often the length of the baseline's answer doubles to that of the model's, `[n]`; where an answer
            is judged alone, binary logarithm of its length in characters, and one.
        kind: Of the verdicts.
    """

    labels: Sequence[str]
    model: np.ndarray
    item: np.ndarray
    clusters: Sequence[str]
    a: Floats
    b: Floats
    a_votes: Floats
    b_votes: Floats
    by_rule: np.ndarray
    doublings: Floats
    kind: Kind = PAIRS

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        pairs: Sequence[Pair],
        a: Sequence[Verdict],
        b: Sequence[Verdict],
        kind: Kind = PAIRS,
    ) -> "JudgedPairs":
        """From verdicts in the order of the answers."""
        both = [
            (pair, x, y, x.value, y.value)
            for pair, x, y in zip(pairs, a, b, strict=True)
            if x.value is not None and y.value is not None
        ]
        return cls(
            labels,
            np.array([pair.model for pair, *_ in both], dtype=np.intp),
            np.array([pair.sample.doc_id for pair, *_ in both], dtype=np.intp),
            [pair.sample.cluster for pair, *_ in both],
            np.array([kind.part(x) for *_, x, _ in both], dtype=np.float64),
            np.array([kind.part(y) for *_, y in both], dtype=np.float64),
            _vote_matrix([verdict for _, verdict, *_ in both], kind),
            _vote_matrix([verdict for _, _, verdict, *_ in both], kind),
            np.array([x.by_rule or y.by_rule for _, x, y, *_ in both], dtype=bool),
            np.array([_doublings(pair) for pair, *_ in both], dtype=np.float64),
            kind,
        )

    def __len__(self) -> int:
        return len(self.a)

    def where(self, keep: np.ndarray) -> "JudgedPairs":
        """Some of the answers."""
        return JudgedPairs(
            self.labels,
            self.model[keep],
            self.item[keep],
            [cluster for cluster, kept in zip(self.clusters, keep, strict=True) if kept],
            self.a[keep],
            self.b[keep],
            self.a_votes[keep],
            self.b_votes[keep],
            self.by_rule[keep],
            self.doublings[keep],
            self.kind,
        )

    @cached_property
    def matrices(self) -> tuple[Floats, Floats, list[str]]:
        """Verdicts of A and B `[items, models]`, NaN where there is none, and the cluster of each item."""
        items = {item: place for place, item in enumerate(dict.fromkeys(self.item.tolist()))}
        places = [items[item] for item in self.item.tolist()]
        a, b = (np.full((len(items), len(self.labels)), np.nan) for _ in range(2))
        a[places, self.model], b[places, self.model] = self.a, self.b
        clusters = dict(zip(places, self.clusters, strict=True))
        return a, b, [clusters[place] for place in range(len(items))]

    def steady(self, votes: Floats) -> Floats:
        """1 where all votes on an answer say the same, 0 where they do not, NaN where there are fewer than two, `[n]`.

        Votes say the same if they are on one side of the middle, and of grades, if they are equal.
        """
        said = votes if self.kind.graded else judge_agreement.verdicts(np.nan_to_num(votes)).astype(float)
        said = np.where(np.isnan(votes), np.nan, said)
        known = (~np.isnan(votes)).sum(axis=1) >= ONE_VOTE
        result = np.full(len(votes), np.nan)
        part = said[known]
        same = np.nanmax(part, axis=1) - np.nanmin(part, axis=1) < judge_agreement.SAME if len(part) else []
        result[known] = same
        return result


def _vote_matrix(verdicts: Sequence[Verdict], kind: Kind) -> Floats:
    matrix = np.full((len(verdicts), max((len(each.parts) for each in verdicts), default=0)), np.nan)
    for row, verdict in zip(matrix, verdicts, strict=True):
        row[: len(verdict.parts)] = [kind.part(value) for value in verdict.parts]
    return matrix


def _doublings(pair: Pair) -> float:
    of_baseline = 0 if pair.baseline is None else len(pair.baseline)
    return math.log2((len(pair.sample.extracted) + 1) / (of_baseline + 1))

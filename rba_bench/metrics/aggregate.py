"""The aggregations a record may name, in one place: a board recomputes exactly what an evaluation computed.

`mean`   rows `(value, 1)` from per-item scores
`bleu`   rows from `CorpusBleu.statistics`
`chrf++` rows from `ChrfPP.statistics`
"""

from collections.abc import Hashable, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from rba_bench.metrics.bleu import corpus_score
from rba_bench.metrics.bootstrap import Floats, ScoreFn, mean_score

AGGREGATIONS = ("mean", "bleu", "chrf++")


def score_function(aggregation: str) -> ScoreFn:
    """Score of a summed row under `aggregation`.

    Raises:
        ValueError: unknown aggregation.
    """
    if aggregation == "mean":
        return mean_score
    if aggregation in AGGREGATIONS:
        return partial(corpus_score, aggregation)
    raise ValueError(f"unknown aggregation {aggregation!r}, known: {', '.join(AGGREGATIONS)}")


def macro_rows(rows: ArrayLike, groups: Sequence[Hashable]) -> Floats:
    """Spread rows `[n, k]` into `[n, groups * k]`, one block per group in sorted order; for `macro_score`.

    Corpus scores of different languages are averaged, not pooled: BLEU over two tokenizers has no meaning.
    """
    data = np.asarray(rows, dtype=np.float64)
    names = sorted(set(groups), key=str)
    width = data.shape[1]
    spread = np.zeros((len(data), len(names) * width))
    for index, name in enumerate(names):
        member = np.array([label == name for label in groups])
        spread[member, index * width : (index + 1) * width] = data[member]
    return spread


def macro_score(score_fn: ScoreFn, width: int) -> ScoreFn:
    """Unweighted mean of `score_fn` over the blocks of `macro_rows`; a block drawn empty is left out."""

    def score(total: Sequence[float]) -> float:
        blocks = [total[start : start + width] for start in range(0, len(total), width)]
        scores = [score_fn(block) for block in blocks if any(block)]
        return sum(scores) / len(scores)

    return score

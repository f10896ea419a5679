"""The aggregations a record may name, in one place: a board recomputes exactly what an evaluation computed.

    mean        rows `(value, 1)` from per-item scores
    bleu        rows from `CorpusBleu.statistics`
    chrf++      rows from `ChrfPP.statistics`
    error_rate  rows `(errors, reference length)` from `rba_bench.metrics.wer`; lower is better

An item without a score has a row of zeros, which weighs nothing in any of them. A score is called with one summed row
and gives sacrebleu's own number. `many` scores a matrix of summed rows at once for the bootstrap, a hundred times
faster, and agrees with the call to twelve digits.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rba_bench.metrics.bleu import BLEU_WIDTH, CHRF_WIDTH, corpus_score
from rba_bench.metrics.bootstrap import Floats, ScoreFn, mean_score
from rba_bench.metrics.interval import Scale

CHRF_BETA = 2
WIDTHS = {"mean": 2, "bleu": BLEU_WIDTH, "chrf++": CHRF_WIDTH, "error_rate": 2}  # columns of a row


@dataclass(frozen=True)
class CorpusScore(ScoreFn):
    """Corpus score in [0, 100] of `bleu` or `chrf++` from summed statistics."""

    name: str

    def __call__(self, total: Sequence[float]) -> float:
        """Score of one summed row, computed by sacrebleu."""
        return corpus_score(self.name, total)

    def many(self, totals: Floats) -> Floats:
        """Scores `[m]` of summed rows `[m, k]`."""
        return _MANY[self.name](totals)

    def scale(self, rows: Floats, width: float | None) -> Scale:
        """0 to 100."""
        return Scale(100.0, 0.0, 100.0)


@dataclass(frozen=True)
class ErrorRate(ScoreFn):
    """Errors per hundred reference tokens from a summed `(errors, reference length)` row; can exceed 100.

    Where all references together are empty there is no rate: 0 without errors, else 100.
    """

    def many(self, totals: Floats) -> Floats:
        """Rates `[m]` of summed rows `[m, 2]`."""
        errors, length = totals[:, 0], totals[:, 1]
        undefined = np.where(errors > 0, 100.0, 0.0)
        return np.divide(100.0 * errors, length, out=undefined, where=length > 0)

    def scale(self, rows: Floats, width: float | None) -> Scale:
        """From 0, with no upper end; a hundred errors more in a hundred tokens where all go wrong."""
        return Scale(100.0, 0.0)


@dataclass(frozen=True)
class MacroScore(ScoreFn):
    """Unweighted mean of `inner` over blocks of `width` columns (see `macro_rows`).

    Empty blocks are left out; with nothing but empty blocks the score is 0.
    """

    inner: ScoreFn
    width: int

    def __call__(self, total: Sequence[float]) -> float:
        """Score of one summed row."""
        blocks = [total[start : start + self.width] for start in range(0, len(total), self.width)]
        scores = [self.inner(block) for block in blocks if any(block)]
        return sum(scores) / max(len(scores), 1)

    def many(self, totals: Floats) -> Floats:
        """Scores `[m]` of summed rows `[m, k]`."""
        blocks = totals.reshape(len(totals), -1, self.width)
        filled = blocks.any(axis=2)
        if filled.all():  # nearly always, and without copies of the blocks
            scores = self.inner.many(blocks.reshape(-1, self.width)).reshape(filled.shape)
        else:
            scores = np.zeros(filled.shape)
            scores[filled] = self.inner.many(blocks[filled])
        return np.asarray(scores.sum(axis=1) / np.maximum(filled.sum(axis=1), 1))

    def scale(self, rows: Floats, width: float | None) -> Scale:
        """That of the parts."""
        return self.inner.scale(rows.reshape(-1, self.width), width)


def score_function(aggregation: str) -> ScoreFn:
    """Score of a summed row under `aggregation`.

    Raises:
        ValueError: unknown aggregation.
    """
    if aggregation == "mean":
        return mean_score
    if aggregation == "error_rate":
        return ErrorRate()
    if aggregation in _MANY:
        return CorpusScore(aggregation)
    raise ValueError(f"unknown aggregation {aggregation!r}, known: {', '.join(AGGREGATIONS)}")


def item_scores(aggregation: str, rows: ArrayLike) -> Floats:
    """Score `[n]` of every row `[n, k]` alone, to tell which of two answers to an item is better.

    BLEU of single sentences leaves out the n-gram orders that the hypothesis is too short for, as sacrebleu's own
    `sentence_bleu` does; otherwise every answer of three words would be a zero. A row of zeros has score 0 or NaN.

    Raises:
        ValueError: unknown aggregation.
    """
    data = np.asarray(rows, dtype=np.float64)
    if aggregation == "bleu":
        return _bleu_many(data, effective_order=True)
    return score_function(aggregation).many(data)


def macro_rows(rows: ArrayLike, groups: Sequence[Hashable]) -> Floats:
    """Spread rows `[n, k]` into `[n, groups * k]`, one block per group in sorted order; for `MacroScore`.

    Corpus scores of different languages are averaged, not pooled: BLEU over two tokenizers has no meaning.
    """
    data = np.asarray(rows, dtype=np.float64)
    names = {name: place for place, name in enumerate(sorted(set(groups), key=str))}
    spread = np.zeros((len(data), len(names), data.shape[1]))
    spread[np.arange(len(data)), [names[label] for label in groups]] = data
    return spread.reshape(len(data), len(names) * data.shape[1])


def summable_rows(scores: Sequence[float | Sequence[int] | None], aggregation: str) -> Floats:
    """Item scores as rows `[n, k]` whose sum gives the corpus score; an item without a score is a row of zeros.

    Raises:
        ValueError: an unknown aggregation, or statistics of another width.
    """
    score_function(aggregation)  # refuses an unknown one
    width = WIDTHS[aggregation]
    rows = np.zeros((len(scores), width))
    places = [place for place, score in enumerate(scores) if score is not None]
    known = [
        [score, 1.0] if isinstance(score, int | float) else score for score in scores if score is not None
    ]
    for row in known:
        if len(row) != width:
            raise ValueError(f"a row of {len(row)} statistics where {width} are needed")
    if known:
        rows[places] = known
    return rows


def resampling_rows(
    rows: Floats, aggregation: str, groups: Sequence[int | str] | None
) -> tuple[Floats, ScoreFn]:
    """Rows as they are resampled, and the score of their sum; a macro average has a block of columns per group.

    Args:
        rows: Summable rows `[n, k]`.
        aggregation: How sums become a score.
        groups: Group of each item `[n]` for the mean over groups, None for one score over all items.
    """
    score = score_function(aggregation)
    if groups is None:
        return rows, score
    return macro_rows(rows, groups), MacroScore(score, rows.shape[1])


def _bleu_many(totals: Floats, effective_order: bool = False) -> Floats:
    """BLEU with sacrebleu's brevity penalty and exponential smoothing; rows as in `CorpusBleu.statistics`."""
    hypothesis, reference = totals[:, 0], totals[:, 1]
    correct, total = totals[:, 2:6], totals[:, 6:10]
    present = total > 0
    scored = correct.any(axis=1) & (effective_order | present.all(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        penalty = np.exp(np.minimum(0.0, 1.0 - reference / hypothesis))
        missed = correct == 0
        if missed.any():
            smooth = 2.0 ** np.cumsum(missed, axis=1)  # each order without a match halves the next substitute
            correct = np.where(missed, 1.0 / smooth, correct)
        precision = 100.0 * correct / total
        logs = np.where(present, np.log(precision), 0.0).sum(axis=1) / present.sum(axis=1)
        score = penalty * np.exp(logs)
    return np.where(scored, score, 0.0)


def _chrf_many(totals: Floats) -> Floats:
    """chrF++ averaged over the orders present on both sides; rows as in `ChrfPP.statistics`."""
    hypothesis, reference, matched = totals[:, 0::3], totals[:, 1::3], totals[:, 2::3]
    present = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(present.sum(axis=1), 1)
    precision = np.divide(matched, hypothesis, out=np.zeros_like(matched), where=present).sum(axis=1) / orders
    recall = np.divide(matched, reference, out=np.zeros_like(matched), where=present).sum(axis=1) / orders
    factor = CHRF_BETA**2
    below = factor * precision + recall
    above = 100 * (1 + factor) * precision * recall
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)


_MANY: dict[str, Callable[[Floats], Floats]] = {"bleu": _bleu_many, "chrf++": _chrf_many}
AGGREGATIONS = tuple(WIDTHS)

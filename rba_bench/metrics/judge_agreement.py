"""How far two judges agree on the same answers, and two rankings of the same models.

Everything is a function of a sum of rows, as in `rba_bench.metrics.bootstrap`, so its intervals draw whole clusters. A
judge's verdict is a loss, a tie or a win of the model's answer (wrong, undecided, right): a value below, at or above
one half.

    raw       p, the share of answers with the same verdict
    kappa     (p - e) / (1 - e), e = sum over verdicts of the product of both judges' shares (Cohen 1960, Educational
              and Psychological Measurement 20:37)
    ac1       the same with e = sum of s (1 - s) / (q - 1), s the mean of both shares, q verdicts that occur (Gwet 2008,
              British Journal of Mathematical and Statistical Psychology 61:29). Where nearly all verdicts are alike,
              kappa falls to 0 though the judges agree; AC1 does not
    weighted  Cohen's kappa with quadratic weights (Cohen 1968, Psychological Bulletin 70:213): 1 - D / E, D the mean of
              (a - b)^2, E what it would be if values of A met values of B by chance. Of values that are no categories
              it is Lin's concordance correlation with variances over n (Lin 1989, Biometrics 45:255)
    pearson   correlation of the values
    spearman  correlation of their ranks, equal values sharing the mean rank
    slope     points for each doubling of the length of an answer (least squares)
    tau       Kendall's tau-b of two lists of scores: 1 for the same order, -1 for the opposite one, 0 for no relation
"""

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rba_bench.metrics.bootstrap import ScoreFn, bootstrap_corpus, bootstrap_mean, resampled_sums
from rba_bench.metrics.interval import LEVEL, Floats, Interval, Scale

VERDICTS = 3  # loss, tie, win
SAME = 1e-9  # preferences closer than this are equal
_CHUNK = 64  # resamples whose pairs of models are held at once

Form = Literal["raw", "kappa", "ac1"]


def verdicts(preferences: ArrayLike) -> NDArray[np.intp]:
    """0 for a loss, 1 for a tie, 2 for a win, of preferences `[n]` in [0, 1]."""
    values = np.asarray(preferences, dtype=np.float64)
    return np.asarray((values > 0.5 + SAME).astype(np.intp) - (values < 0.5 - SAME) + 1)


class _Agreement(ScoreFn):
    """Agreement corrected for chance from summed 3 x 3 tables `[m, 9]`; NaN where chance alone would agree."""

    def __init__(self, form: Form, categories: int) -> None:
        self.form, self.categories = form, categories

    def many(self, totals: Floats) -> Floats:
        """Agreement `[m]`."""
        tables = totals.reshape(-1, VERDICTS, VERDICTS)
        tables = tables / tables.sum(axis=(1, 2), keepdims=True)
        same = np.trace(tables, axis1=1, axis2=2)
        a, b = tables.sum(axis=2), tables.sum(axis=1)
        if self.form == "kappa":
            chance = (a * b).sum(axis=1)
        else:
            share = (a + b) / 2
            chance = (share * (1 - share)).sum(axis=1) / max(self.categories - 1, 1)
        room = 1 - chance
        return np.divide(same - chance, room, out=np.full(len(same), np.nan), where=room > SAME)

    def scale(self, rows: Floats, width: float | None) -> Scale:
        """From -1 to 1."""
        del rows, width
        return Scale(2.0, -1.0, 1.0)


def agreement(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable], form: Form = "raw"
) -> Interval | None:
    """Agreement of the verdicts of two judges; None where chance alone would make them agree.

    Args:
        a: Preferences of one judge, `[n]`.
        b: Of the other.
        clusters: Cluster of each pair.
        form: See the module.
    """
    first, second = verdicts(a), verdicts(b)
    if form == "raw":
        return bootstrap_mean((first == second).astype(float), clusters)
    rows = np.zeros((len(first), VERDICTS * VERDICTS))
    rows[np.arange(len(first)), VERDICTS * first + second] = 1.0
    return _interval(rows, _Agreement(form, len(np.unique([first, second]))), clusters)


class _Correlation(ScoreFn):
    """Weighted kappa or Pearson's correlation from summed rows `(1, a, b, a a, b b, a b)`; NaN without spread."""

    def __init__(self, weighted: bool) -> None:
        self.weighted = weighted

    def many(self, totals: Floats) -> Floats:
        """Correlations `[m]`."""
        n = totals[:, :1]
        a, b, aa, bb, ab = np.divide(totals[:, 1:], n, out=np.zeros((len(n), 5)), where=n > 0).T
        both, left, right = ab - a * b, aa - a * a, bb - b * b
        if self.weighted:
            return _ratio(2 * both, left + right + (a - b) ** 2)
        return _ratio(both, np.sqrt(np.maximum(left, 0.0) * np.maximum(right, 0.0)))

    def scale(self, rows: Floats, width: float | None) -> Scale:
        """From -1 to 1."""
        del rows, width
        return Scale(2.0, -1.0, 1.0)


def _ratio(above: Floats, below: Floats) -> Floats:
    """Correlations; NaN where there is nothing to divide by."""
    found = np.divide(above, below, out=np.full(len(above), np.nan), where=below > SAME)
    return np.clip(found, -1.0, 1.0)


def correlation(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable], weighted: bool = False
) -> Interval | None:
    """Pearson's correlation of two judges' values, or kappa with quadratic weights; None where they do not vary.

    Args:
        a: Values of one judge, `[n]`.
        b: Of the other, on the same scale.
        clusters: Cluster of each answer.
        weighted: Kappa, which also falls where one judge gives more than the other.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (a, b))
    rows = np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y])
    return _interval(rows, _Correlation(weighted), clusters)


class _RankCorrelation(ScoreFn):
    """Spearman's correlation from how often each distinct pair of values occurs, `[m, k]`; NaN without spread.

    Args:
        left: Number of the value of A in each pair, in order of size, `[k]`; every number up to the largest occurs.
        right: Of B.
    """

    def __init__(self, left: NDArray[np.intp], right: NDArray[np.intp]) -> None:
        self.places = (left, right)
        self.orders = tuple(np.argsort(each, kind="stable") for each in self.places)
        self.starts = tuple(
            np.searchsorted(each[order], np.arange(each.max() + 1))
            for each, order in zip(self.places, self.orders, strict=True)
        )

    def many(self, totals: Floats) -> Floats:
        """Correlations `[m]`."""
        n = totals.sum(axis=1, keepdims=True)
        x, y = (
            _mean_ranks(np.add.reduceat(totals[:, order], starts, axis=1))[:, place] - (n + 1) / 2
            for place, order, starts in zip(self.places, self.orders, self.starts, strict=True)
        )  # less the mean rank
        shares = totals / np.where(n > 0, n, 1.0)
        both, left, right = ((shares * product).sum(axis=1) for product in (x * y, x * x, y * y))
        return _ratio(both, np.sqrt(left * right))

    def scale(self, rows: Floats, width: float | None) -> Scale:
        """From -1 to 1."""
        del rows, width
        return Scale(2.0, -1.0, 1.0)


def _mean_ranks(counts: Floats) -> Floats:
    """Rank of each value from how often the values occur, smallest first, `[m, k]`."""
    return np.asarray(counts.cumsum(axis=1) - (counts - 1) / 2)


def rank_correlation(a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable]) -> Interval | None:
    """Spearman's correlation of two judges' values; None where they do not vary.

    Every resample is ranked anew.

    Args:
        a: Values of one judge, `[n]`.
        b: Of the other.
        clusters: Cluster of each answer.
    """
    values = np.column_stack([np.asarray(each, dtype=np.float64).round(9) for each in (a, b)])
    pairs, place = np.unique(values, axis=0, return_inverse=True)
    left, right = (np.unique(column, return_inverse=True)[1] for column in pairs.T)
    rows = np.zeros((len(values), len(pairs)))
    rows[np.arange(len(values)), place.reshape(-1)] = 1.0
    return _interval(rows, _RankCorrelation(left, right), clusters)


class _Slope(ScoreFn):
    """Least-squares slope from summed rows `(1, x, y, x x, x y)`; NaN where x does not vary."""

    def many(self, totals: Floats) -> Floats:
        """Slopes `[m]`."""
        n, x, y, xx, xy = totals.T
        spread = n * xx - x * x
        return np.divide(n * xy - x * y, spread, out=np.full(len(n), np.nan), where=spread > SAME)

    def scale(self, rows: Floats, width: float | None) -> Scale:
        """No ends."""
        del rows, width
        return Scale(1.0)


def slope(x: ArrayLike, y: ArrayLike, groups: ArrayLike, clusters: Sequence[Hashable]) -> Interval | None:
    """Slope of `y` on `x` within groups (both less the mean of their group); None where x does not vary.

    Args:
        x: `[n]`.
        y: `[n]`.
        groups: Group of each, such as the model.
        clusters: Cluster of each.
    """
    x, y = (_within(np.asarray(values, dtype=np.float64), np.asarray(groups)) for values in (x, y))
    return _interval(np.column_stack([np.ones(len(x)), x, y, x * x, x * y]), _Slope(), clusters)


def _within(values: Floats, groups: NDArray[np.generic]) -> Floats:
    centred = values.copy()
    for group in np.unique(groups):
        centred[groups == group] -= values[groups == group].mean()
    return centred


class _Contrast(ScoreFn):
    """Mean of some less mean of the others, from summed rows `(value, 1, 0, 0)` and `(0, 0, value, 1)`."""

    def many(self, totals: Floats) -> Floats:
        """Contrasts `[m]`."""
        some, n, others, m = totals.T
        value = np.full(len(n), np.nan)
        both = (n > 0) & (m > 0)
        value[both] = some[both] / n[both] - others[both] / m[both]
        return value

    def scale(self, rows: Floats, width: float | None) -> Scale:
        """Differences of values in [-1, 1]."""
        del rows, width
        return Scale(2.0, -2.0, 2.0)


def contrast(values: ArrayLike, some: ArrayLike, clusters: Sequence[Hashable]) -> Interval | None:
    """Mean of the values marked in `some` less the mean of the others; None where one of them has none."""
    data, marked = np.asarray(values, dtype=np.float64), np.asarray(some, dtype=bool)
    rows = np.column_stack([data * marked, marked, data * ~marked, ~marked])
    return _interval(rows, _Contrast(), clusters)


def kendall_tau(a: Floats, b: Floats) -> Floats:
    """Tau-b of lists of scores of the same models, `[m, models]` each; NaN where all scores of a list are equal."""
    left, right = np.triu_indices(a.shape[1], 1)
    signs = [
        np.sign(np.where(np.abs(gap) > SAME, gap, 0.0)) for gap in (x[:, left] - x[:, right] for x in (a, b))
    ]
    untied = np.sqrt(np.abs(signs[0]).sum(axis=1) * np.abs(signs[1]).sum(axis=1))
    agree = (signs[0] * signs[1]).sum(axis=1)
    return np.divide(agree, untied, out=np.full(len(agree), np.nan), where=untied > 0)


def rank_agreement(a: Floats, b: Floats, clusters: Sequence[Hashable]) -> Interval | None:
    """Kendall's tau of the models' means under two judges; None with fewer than three models.

    The interval holds the middle 95 % of the resamples. Drawing adds noise to both orders, so it leans to 0.

    Args:
        a: Preferences under one judge, `[items, models]`, NaN where there is none.
        b: Under the other.
        clusters: Cluster of each item.
    """
    models = a.shape[1]
    known = ~np.isnan(a) & ~np.isnan(b)
    if models < 3 or not known.any(axis=0).all():
        return None
    rows = np.hstack([np.where(known, a, 0.0), np.where(known, b, 0.0), known.astype(np.float64)])
    tau = _tau_of(rows.sum(axis=0)[None], models)[0]
    draws = resampled_sums(rows, clusters)
    parts = [_tau_of(draws[start : start + _CHUNK], models) for start in range(0, len(draws), _CHUNK)]
    drawn = np.concatenate(parts)
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(tau) or not len(drawn):
        return None
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    method = f"middle 95 % of {len(drawn)} resamples of {len(dict.fromkeys(clusters))} clusters"
    return Interval(
        float(tau), min(low, float(tau)), max(high, float(tau)), int(known.any(axis=1).sum()), method
    )


def _tau_of(sums: Floats, models: int) -> Floats:
    a, b, n = sums[:, :models], sums[:, models : 2 * models], sums[:, 2 * models :]
    means = [np.divide(x, n, out=np.full(n.shape, np.nan), where=n > 0) for x in (a, b)]
    taus = kendall_tau(*means)
    taus[(n == 0).any(axis=1)] = np.nan
    return taus


def _interval(rows: Floats, score: ScoreFn, clusters: Sequence[Hashable]) -> Interval | None:
    if not len(rows) or np.isnan(score(rows.sum(axis=0).tolist())) or len(set(clusters)) < 2:
        return None
    return bootstrap_corpus(rows, score, clusters)

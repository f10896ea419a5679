"""Pairwise preferences, and the length-controlled win rate of AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475).

The length-controlled win rate is the win rate at equal length, from a logistic regression of the preferences for one
model over the baseline:

    preference_i = sigmoid(a * tanh(d_i / sd(d)) + b * difficulty_i + c),    d_i = len(baseline_i) - len(answer_i)

with lengths in characters. The length-controlled win rate is the mean prediction with d_i = 0. It is fitted as the
`alpaca_eval` package does: L1 penalty whose strength is chosen by five-fold cross-validation on the log loss,
liblinear, no intercept (c stands for it), each item twice with labels 1 and 0 and weights p and 1 - p. Three forms:

    length_controlled_minimal  without b: needs nothing but the comparisons
    length_controlled_noreg    with a difficulty for every item
    length_controlled_v1       and regularised by two gamed copies of the baseline; AlpacaEval's board

Per item the package predicts, at equal length, the same number for all items (minimal) or one that follows difficulty
alone. The spread of these predictions says nothing about how sure the rate is: its `lc_standard_error` is 0 in the
minimal form. `LengthControlled.values` are therefore linearised (infinitesimal jackknife: prediction plus the item's
influence on the fitted coefficients). Their mean is exactly the rate; their bootstrap is that of the refitted rate; the
mean over a group of items is the group's preference, adjusted for length.
"""

import csv
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rba_bench.errors import MissingPrerequisite, UserError

Floats = NDArray[np.float64]

FOLDS = 5
SEED = 123
STRENGTHS = np.logspace(-4, 4, 10)  # inverse strength of the penalty, weakest last
GAMED_WEIGHT = 0.2 / 2  # there are two gamed baselines
CLIP = 1e-15
WILD = 10.0  # spread of linearised values, in that of the preferences, beyond which they are not believed
TRACE = 1e-12  # weight of a label that does not occur


def preference(score_a: float, score_b: float, tie: float = 1e-9) -> float:
    """1.0 if A is better than B, 0.0 if worse, 0.5 if the scores differ by at most `tie`.

    Raises:
        ValueError: a score is not a number, so a broken judge cannot pass as a tie.
    """
    if not (math.isfinite(score_a) and math.isfinite(score_b)):
        raise ValueError(f"cannot compare scores {score_a} and {score_b}")
    if abs(score_a - score_b) <= tie:
        return 0.5
    return 1.0 if score_a > score_b else 0.0


@dataclass(frozen=True)
class Gamed:
    """Comparisons of gamed copies of the baseline (verbose, concise) with it: `df_gamed.csv` of AlpacaEval.

    Attributes:
        preferences: For the gamed copy, in [0, 1].
        std_delta_len: Standardised length differences, baseline minus copy.
        difficulty: Of each comparison's instruction.
        by_index: Difficulty of each of the 805 instructions, by position in the set.
    """

    preferences: Floats
    std_delta_len: Floats
    difficulty: Floats
    by_index: Mapping[int, float]


@dataclass(frozen=True)
class LengthControlled:
    """A fitted length-controlled win rate.

    Attributes:
        rate: In [0, 1].
        predicted: Predicted preference of each item at equal length, `[n]`.
        values: Linearised values, `[n]`: their mean is `rate`, and their spread is its uncertainty. May leave [0, 1].
        weights: Fitted coefficients: `length`, `difficulty` (where used), `model`.
        strength: Inverse strength of the penalty that cross-validation chose; 0 where there was nothing to fit.
    """

    rate: float
    predicted: Floats
    values: Floats
    weights: dict[str, float]
    strength: float


def length_controlled(
    preferences: ArrayLike,
    lengths: ArrayLike,
    baseline_lengths: ArrayLike,
    difficulty: ArrayLike | None = None,
    gamed: Gamed | None = None,
) -> LengthControlled:
    """The length-controlled win rate of one model.

    Where all preferences are 0 or all are 1, or there are fewer than two items, there is nothing to fit and the rate is
    the plain win rate.

    Args:
        preferences: For the model over the baseline, in [0, 1], `[n]`.
        lengths: Of the model's answers, in characters, `[n]`.
        baseline_lengths: Of the baseline's answers, `[n]`.
        difficulty: Of each item, `[n]`; None for the minimal form.
        gamed: Comparisons to regularise with (form `v1`); only with `difficulty`.

    Raises:
        ValueError: no items, arrays of different lengths, or a preference outside [0, 1].
    """
    preferred = np.asarray(preferences, dtype=np.float64)
    features = _features(preferred, lengths, baseline_lengths, difficulty)
    if len(preferred) < 2 or np.ptp(preferred) == 0 and preferred[0] in (0.0, 1.0):
        return LengthControlled(float(preferred.mean()), preferred, preferred, {}, 0.0)
    names = ["length", *([] if difficulty is None else ["difficulty"]), "model"]
    rows, labels, weight = features, preferred, np.ones(len(preferred))
    if gamed is not None:
        if difficulty is None:
            raise ValueError("gamed baselines are used with difficulties only")
        # The gamed ones first, for the folds go by order
        extra = [np.tanh(gamed.std_delta_len), gamed.difficulty, np.zeros_like(gamed.difficulty)]
        rows = np.concatenate([np.column_stack(extra), features])
        labels = np.concatenate([gamed.preferences, preferred])
        weight = np.concatenate([np.full(len(gamed.preferences), GAMED_WEIGHT), weight])
    coefficients, strength = _fit(rows, labels, weight)
    predicted, values = _linearised(coefficients, rows, weight, features, preferred)
    weights = dict(zip(names, map(float, coefficients), strict=True))
    return LengthControlled(float(predicted.mean()), predicted, values, weights, strength)


def read_difficulty(path: Path | str) -> dict[int, float]:
    """Difficulty by position in the 805: a CSV whose first column is the index and whose last is the value.

    Raises:
        MissingPrerequisite: no such file.
        UserError: not such a table.
    """
    rows = _table(path)
    try:
        return {int(float(row[0])): float(row[-1]) for row in rows[1:]}
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is not a table of index and difficulty: {error}") from error


def read_gamed(path: Path | str) -> Gamed:
    """The gamed baselines: `df_gamed.csv` of the data set `tatsu-lab/alpaca_eval`.

    Raises:
        MissingPrerequisite: no such file.
        UserError: a column is missing or a value is no number.
    """
    rows = _table(path)
    header = {name: column for column, name in enumerate(rows[0])}
    try:
        columns = [header[n] for n in ("preference", "std_delta_len", "instruction_difficulty", "index")]
        table = np.array([[float(row[c] or "nan") for c in columns] for row in rows[1:]], dtype=np.float64)
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path} is not the table of gamed baselines: {error}") from error
    by_index = {int(index): float(value) for value, index in table[::-1, 2:]}  # the first of equal ones
    judged = table[~np.isnan(table[:, 0])]
    return Gamed(judged[:, 0], judged[:, 1], judged[:, 2], by_index)


def difficulties(indices: Sequence[int], by_index: Mapping[int, float]) -> Floats:
    """Difficulty of each item.

    Raises:
        UserError: an index is not in the table.
    """
    if absent := sorted({index for index in indices if index not in by_index}):
        raise UserError(
            f"no difficulty for {len(absent)} instructions (first: index {absent[0]}): take the table of all 805, "
            "or the form without difficulty"
        )
    return np.array([by_index[index] for index in indices], dtype=np.float64)


def _table(path: Path | str) -> list[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            rows = [row for row in csv.reader(handle) if row]
    except FileNotFoundError as error:
        raise MissingPrerequisite(
            f"no file {path}: download it from the data set tatsu-lab/alpaca_eval"
        ) from error
    if len(rows) < 2:
        raise UserError(f"{path} is empty: download it again")
    return rows


def _features(
    preferred: Floats, lengths: ArrayLike, baseline_lengths: ArrayLike, difficulty: ArrayLike | None
) -> Floats:
    """Design matrix `[n, 2 or 3]`: tanh of the standardised length difference, difficulty, 1."""
    answer, baseline = (np.asarray(side, dtype=np.float64) for side in (lengths, baseline_lengths))
    extra = [] if difficulty is None else [np.asarray(difficulty, dtype=np.float64)]
    if not len(preferred) or any(column.shape != preferred.shape for column in (answer, baseline, *extra)):
        raise ValueError("preferences, lengths and difficulties are of different lengths, or empty")
    if not ((preferred >= 0) & (preferred <= 1)).all():
        raise ValueError("preferences lie between 0 and 1")
    longer = baseline - answer
    spread = longer.std(ddof=1) if len(longer) > 1 else 0.0
    # Equal differences everywhere: length explains nothing. The package divides by zero here.
    length = np.tanh(longer / spread) if spread > 0 else np.zeros_like(longer)
    return np.column_stack([length, *extra, np.ones_like(preferred)])


def _fit(rows: Floats, labels: Floats, weight: Floats) -> tuple[Floats, float]:
    """Coefficients and the chosen strength, as LogisticRegressionCV chooses it from soft labels."""
    from sklearn.model_selection import GroupKFold

    count = len(rows)
    twice, binary = np.concatenate([rows, rows]), np.repeat([1, 0], count)
    soft = np.concatenate([labels, 1 - labels]) * np.concatenate([weight, weight])
    groups = np.tile(np.arange(count), 2)
    scores = np.zeros(len(STRENGTHS))
    for train, test in GroupKFold(n_splits=min(FOLDS, count)).split(twice, binary, groups):
        held = test[test < count]
        stream = np.random.RandomState(SEED)  # one for all strengths of a fold, as the package's path draws
        for position, strength in enumerate(STRENGTHS):
            coefficients = _solve(twice[train], binary[train], soft[train], float(strength), stream)
            predicted = np.clip(_sigmoid(rows[held] @ coefficients), CLIP, 1 - CLIP)
            loss = labels[held] * np.log(predicted) + (1 - labels[held]) * np.log(1 - predicted)
            scores[position] += float((loss * weight[held]).mean())
    best = float(STRENGTHS[int(scores.argmax())])
    return _solve(twice, binary, soft, best, np.random.RandomState(SEED)), best


def _solve(
    rows: Floats, binary: NDArray[np.int64], soft: Floats, strength: float, stream: np.random.RandomState
) -> Floats:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    heavy = soft > 0  # liblinear drops the others too
    if len(set(binary[heavy])) < 2:  # all preferences of a fold are 0, or all are 1: keep the other label
        heavy, soft = np.ones_like(heavy), np.maximum(soft, TRACE)
    model: Any = LogisticRegression(
        C=strength, l1_ratio=1, solver="liblinear", fit_intercept=False, random_state=stream
    )
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # the package stops there too
        model.fit(rows[heavy], binary[heavy], sample_weight=soft[heavy])
    return np.asarray(model.coef_[0], dtype=np.float64)


def _linearised(
    coefficients: Floats, rows: Floats, weight: Floats, features: Floats, preferred: Floats
) -> tuple[Floats, Floats]:
    """Predictions at equal length, and each plus n times the item's influence on the rate; the mean is the rate."""
    at_equal_length = features.copy()
    at_equal_length[:, 0] = 0.0
    predicted = _sigmoid(at_equal_length @ coefficients)
    fitted = _sigmoid(rows @ coefficients)
    curvature = (rows * (weight * fitted * (1 - fitted))[:, None]).T @ rows
    gradient = (predicted * (1 - predicted)) @ at_equal_length / len(predicted)
    # The pseudo-inverse leaves a column of zeros (no difference in length) without influence.
    direction = np.linalg.pinv(curvature, hermitian=True) @ gradient
    influence = (features @ direction) * (preferred - _sigmoid(features @ coefficients))
    values = predicted + len(predicted) * (influence - influence.mean())
    # With a handful of items the fit may hang on one of them, and no first-order step says anything: then the spread of
    # the plain preferences stands in, around the same rate.
    if values.std() > WILD * max(float(preferred.std()), TRACE):
        values = predicted.mean() + (preferred - preferred.mean())
    return predicted, values


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0.0, -values)))

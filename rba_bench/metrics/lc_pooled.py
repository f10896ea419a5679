"""Win rates at equal length for the systems of one board, with difficulties estimated from the systems themselves.

One logistic model of all preferences of a board, fitted by maximum likelihood with a normal prior on the difficulties
whose spread is estimated too (Laplace approximation, as in a Rasch model of test items):

    preference_mi = sigmoid(slope * tanh(d_mi / sd_m(d)) + difficulty_i + skill_m)
    d_mi = len(baseline_i) - len(answer_mi)

The rate of a system is its mean prediction with d = 0. What length does is one number for all systems: it is the taste
of the judge, and learnt from how the same item fares under answers of different length. So the terseness of one system
cannot be taken for the reason why it loses, which is where `lc_winrate` without AlpacaEval's tables goes wrong. It
takes several systems whose lengths differ; `benchmarks/length_control.py` simulates how many.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from rba_bench.metrics.bootstrap import SEED, Floats, Interval

RESAMPLES = 200
STEPS = 200
TOLERANCE = 1e-5
LONGEST_STEP = 2.0
EDGE = 0.01  # keeps the first guess of a skill finite
FEWEST_SYSTEMS = 12
LARGEST_ERROR = 0.35  # of the slope, which is about -1.5: beyond it lengths do not tell systems apart enough


@dataclass(frozen=True)
class PooledFit:
    """A fitted board.

    Attributes:
        rates: Win rate of each system at equal length, `[m]`, in [0, 1].
        slope: Effect of the standardised length difference; below 0 the judge likes long answers.
        slope_error: Standard error of the slope from comparisons within items alone, without the prior: infinite where
            all systems answer at the same length.
        skill: Of each system, in logits, `[m]`.
        difficulty: Of each item, in logits, mean about 0, `[n]`.
        spread: Standard deviation of the difficulties' prior.
        taste_spread: Standard deviation of the slope between systems, as far as it is more than chance.
        reach: Change of each system's rate with its own slope, `[m]`.
    """

    rates: Floats
    slope: float
    slope_error: float
    skill: Floats
    difficulty: Floats
    spread: float
    taste_spread: float
    reach: Floats

    @property
    def is_enough(self) -> bool:
        """Whether the board holds systems enough, of lengths different enough, for the rates to be shown."""
        return len(self.rates) >= FEWEST_SYSTEMS and self.slope_error <= LARGEST_ERROR


def fit_pooled(
    preferences: ArrayLike, lengths: ArrayLike, baseline_lengths: ArrayLike, start: PooledFit | None = None
) -> PooledFit:
    """Win rates at equal length of all systems of a board.

    Args:
        preferences: For each system over the baseline, in [0, 1], `[m, n]`; NaN where there is none.
        lengths: Of the systems' answers, in characters, `[m, n]`.
        baseline_lengths: Of the baseline's answers, `[n]`.
        start: A fit of similar data, of the same shape, to begin with; its spread of difficulties is kept.

    Raises:
        ValueError: shapes that do not fit, a preference outside [0, 1], or a system or item without any.
    """
    preferred = np.asarray(preferences, dtype=np.float64)
    longer = np.asarray(baseline_lengths, dtype=np.float64) - np.asarray(lengths, dtype=np.float64)
    present = ~np.isnan(preferred)
    if preferred.ndim != 2 or longer.shape != preferred.shape:
        raise ValueError("preferences and lengths are not two tables of systems and items")
    if not present.any(axis=1).all() or not present.any(axis=0).all():
        raise ValueError("a system or an item has no preference at all")
    if not ((preferred[present] >= 0) & (preferred[present] <= 1)).all():
        raise ValueError("preferences lie between 0 and 1")
    pairs = zip(longer, present, strict=True)
    spread = np.array([row[mask].std(ddof=1) if mask.sum() > 1 else 0.0 for row, mask in pairs])[:, None]
    # Differences in units of their standard deviation; 0 where they are all equal
    length = np.tanh(np.divide(longer, spread, out=np.zeros_like(longer), where=spread > 0))
    filled = np.where(present, preferred, 0.0)
    return _fit(filled, length, present.astype(np.float64), start)


def _fit(preferred: Floats, length: Floats, present: Floats, start: PooledFit | None) -> PooledFit:
    """Newton steps to the maximum of the likelihood, and what the fit says; arrays `[m, n]`."""
    systems, items = preferred.shape
    mean = preferred.sum(axis=1) / present.sum(axis=1)
    skill = np.log((mean + EDGE) / (1 + EDGE - mean)) if start is None else start.skill.copy()
    difficulty = np.zeros(items) if start is None else start.difficulty.copy()
    slope, variance = (0.0, 1.0) if start is None else (start.slope, start.spread**2)
    for _ in range(STEPS):
        fitted = _sigmoid(slope * length + difficulty + skill[:, None])
        weight = present * fitted * (1 - fitted)
        residual = present * (preferred - fitted)
        step, difficulty_step = _newton(length, weight, residual, difficulty, variance)
        slope, skill = slope + float(step[0]), skill + step[1:]
        difficulty = difficulty + difficulty_step
        change = max(np.abs(step).max(), np.abs(difficulty_step).max())
        if start is None:
            new = float(np.mean(difficulty**2 + 1 / (weight.sum(axis=0) + 1 / variance)))
            change, variance = max(change, abs(new - variance)), new
        if change < TOLERANCE:
            break
    fitted = _sigmoid(slope * length + difficulty + skill[:, None])
    weight = present * fitted * (1 - fitted)
    predicted = _sigmoid(difficulty + skill[:, None])
    rates = (predicted * present).sum(axis=1) / present.sum(axis=1)
    taste_spread, turn = _tastes(length, weight, present * (preferred - fitted))
    reach = turn * (predicted * (1 - predicted) * present).sum(axis=1) / present.sum(axis=1)
    error = _slope_error(length, weight)
    return PooledFit(rates, slope, error, skill, difficulty, float(np.sqrt(variance)), taste_spread, reach)


def _tastes(length: Floats, weight: Floats, residual: Floats) -> tuple[float, Floats]:
    """Spread of the slope between systems, and how far each system's skill turns with its own slope `[m]`.

    The spread is that of one step from the common slope to each system's own, less its robust errors.
    """
    total = np.maximum(weight.sum(axis=1), np.finfo(float).tiny)
    turn = -(weight * length).sum(axis=1) / total
    centred = length + turn[:, None]
    information = (weight * centred**2).sum(axis=1)
    informative = information > 1e-9 * total
    if not informative.any():
        return 0.0, turn
    steps = (residual * centred).sum(axis=1)[informative] / information[informative]
    errors = ((residual * centred) ** 2).sum(axis=1)[informative] / information[informative] ** 2
    trust = 1 / (errors + errors.mean())
    return float(np.sqrt(max(0.0, np.average(steps**2 - errors, weights=trust)))), turn


def _newton(
    length: Floats, weight: Floats, residual: Floats, difficulty: Floats, variance: float
) -> tuple[Floats, Floats]:
    """One step in slope and skills `[1 + m]`, and in difficulties `[n]`, which are solved for item by item."""
    item_weight = weight.sum(axis=0) + 1 / variance
    ascent = residual.sum(axis=0) - difficulty / variance
    cross = np.vstack([(weight * length).sum(axis=0), weight])
    gradient = np.concatenate([[(residual * length).sum()], residual.sum(axis=1)])
    reduced = _information(length, weight) - (cross / item_weight) @ cross.T
    step = np.linalg.pinv(reduced, hermitian=True) @ (gradient - (cross / item_weight) @ ascent)
    step = np.clip(step, -LONGEST_STEP, LONGEST_STEP)
    return step, np.clip((ascent - step @ cross) / item_weight, -LONGEST_STEP, LONGEST_STEP)


def _information(length: Floats, weight: Floats) -> Floats:
    """Of slope and skills, difficulties given, `[1 + m, 1 + m]`."""
    mixed = (weight * length).sum(axis=1)
    matrix = np.diag(np.concatenate([[(weight * length**2).sum()], weight.sum(axis=1)]))
    matrix[0, 1:] = matrix[1:, 0] = mixed
    return matrix


def _slope_error(length: Floats, weight: Floats) -> float:
    """Standard error of the slope from comparisons within items; infinite where there are none."""
    item_weight = np.maximum(weight.sum(axis=0), np.finfo(float).tiny)
    cross = np.vstack([(weight * length).sum(axis=0), weight])
    reduced = _information(length, weight) - (cross / item_weight) @ cross.T
    # The sum of the skills is free: difficulties have no prior here.
    skills = np.linalg.pinv(reduced[1:, 1:], hermitian=True)
    information = reduced[0, 0] - reduced[0, 1:] @ skills @ reduced[1:, 0]
    smallest = 1e-9 * max(1.0, float((weight * length**2).sum()))
    return float(1 / np.sqrt(information)) if information > smallest else float("inf")


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-values)))


def pooled_intervals(
    preferences: ArrayLike,
    lengths: ArrayLike,
    baseline_lengths: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[PooledFit, list[Interval]]:
    """The fit, and every system's rate with a 95 % interval.

    The board is fitted again to drawn items, and each system is given a slope of its own around the common one.

    Args:
        preferences: See `fit_pooled`.
        lengths: See `fit_pooled`.
        baseline_lengths: See `fit_pooled`.
        clusters: Items of one cluster are drawn together; by default each stands alone.
        resamples: Number of fits.
        seed: Of the draws.
    """
    tables = np.asarray(preferences, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    baseline = np.asarray(baseline_lengths, dtype=np.float64)
    whole = fit_pooled(*tables, baseline)
    members: dict[Hashable, list[int]] = {}
    for item, label in enumerate(range(len(baseline)) if clusters is None else clusters):
        members.setdefault(label, []).append(item)
    parts = [np.array(items) for items in members.values()]
    rng, draws = np.random.default_rng(seed), []
    for _ in range(resamples):
        items = np.concatenate([parts[part] for part in rng.integers(0, len(parts), len(parts))])
        start = replace(whole, difficulty=whole.difficulty[items])
        if np.isnan(tables[0][:, items]).all(axis=1).any():
            continue  # a system without any answer in this draw
        rates = fit_pooled(tables[0][:, items], tables[1][:, items], baseline[items], start).rates
        draws.append(rates + whole.taste_spread * rng.standard_normal(len(rates)) * whole.reach)
    low, high = np.clip(np.quantile(np.array(draws), [0.025, 0.975], axis=0), 0, 1)
    method = (
        f"bootstrap percentile 95 %, {len(draws)} fits to {len(parts)} clusters, seed {seed}, "
        f"slopes between systems differ by {whole.taste_spread:.2f}"
    )
    counts = (~np.isnan(tables[0])).sum(axis=1)
    return whole, [
        Interval(float(rate), float(min(rate, a)), float(max(rate, b)), int(n), method)
        for rate, a, b, n in zip(whole.rates, low, high, counts, strict=True)
    ]

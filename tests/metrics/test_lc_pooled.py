"""Win rates at equal length from a board of systems: known truths, an independent optimiser, and what is refused."""

import numpy as np
import pytest
from scipy.optimize import minimize

from rba_bench.metrics.lc_pooled import FEWEST_SYSTEMS, fit_pooled, pooled_intervals


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def board(seed=0, systems=14, items=300, taste=-1.8):
    """Preferences, lengths, the baseline's lengths, and rates at equal length. System 0 answers in 68 characters."""
    rng = np.random.default_rng(seed)
    wish, difficulty = rng.normal(0, 1, items), rng.normal(0, 1.5, items)
    baseline = np.exp(7.3 + 0.6 * wish + rng.normal(0, 0.4, items)).round()
    lengths = np.exp(
        rng.uniform(5.5, 7.5, systems)[:, None] + 0.6 * wish + rng.normal(0, 0.4, (systems, items))
    )
    lengths[0] = 68 + rng.integers(-5, 6, items)
    skill = rng.normal(-1, 1, systems)
    skill[0] = -2.5
    longer = baseline - lengths
    shown = np.tanh(longer / longer.std(axis=1, ddof=1, keepdims=True))
    equal = difficulty + skill[:, None] + rng.normal(0, 1, (systems, items))
    equal[0] -= 0.6 * wish  # where much is to be said, two words lose by what they do not say
    return sigmoid(equal + taste * shown), lengths, baseline, sigmoid(equal).mean(axis=1)


def test_what_the_judge_would_say_at_equal_length_is_found():
    wins, lengths, baseline, truth = board()
    found = fit_pooled(wins, lengths, baseline)
    raw = np.abs(wins.mean(axis=1) - truth).mean()
    assert np.abs(found.rates - truth).mean() < 0.025 < 0.05 < raw
    assert found.is_enough and found.slope < -1.2 and found.slope_error < 0.2


def test_a_terse_system_is_not_lifted_above_its_worth():
    for seed in range(4):
        wins, lengths, baseline, truth = board(seed)
        found = fit_pooled(wins, lengths, baseline)
        assert wins[0].mean() < truth[0] and abs(found.rates[0] - truth[0]) < 0.05


def test_where_length_changes_nothing_the_rates_are_the_raw_ones():
    wins, lengths, baseline, _ = board(taste=0.0)
    found = fit_pooled(wins, lengths, baseline)
    assert found.rates == pytest.approx(wins.mean(axis=1), abs=0.02) and abs(found.slope) < 0.2
    alike = fit_pooled(
        wins, np.tile(baseline, (len(wins), 1)), baseline
    )  # as long as the baseline, all of them
    assert alike.rates == pytest.approx(wins.mean(axis=1), abs=1e-4)
    assert alike.slope == 0 and alike.slope_error == float("inf") and not alike.is_enough


def test_the_fit_is_where_another_optimiser_ends():
    wins, lengths, baseline, _ = board(systems=4, items=30)
    found = fit_pooled(wins, lengths, baseline)
    longer = baseline - lengths
    shown = np.tanh(longer / longer.std(axis=1, ddof=1, keepdims=True))

    def loss(point):
        fitted = sigmoid(point[0] * shown + point[1:5, None] + point[5:])
        fit = -(wins * np.log(fitted) + (1 - wins) * np.log(1 - fitted)).sum()
        return fit + (point[5:] ** 2).sum() / (2 * found.spread**2)

    other = minimize(loss, np.zeros(35), method="BFGS", options={"gtol": 1e-6})
    assert found.slope == pytest.approx(other.x[0], abs=2e-3)
    assert found.skill == pytest.approx(other.x[1:5], abs=2e-3)
    assert found.difficulty == pytest.approx(other.x[5:], abs=2e-3)


def test_scores_that_are_missing_count_for_nothing():
    wins, lengths, baseline, truth = board()
    holes = wins.copy()
    holes[3, :60] = np.nan
    lengths[3, :60] = 10**6
    found = fit_pooled(holes, lengths, baseline)
    assert np.isfinite(found.rates).all() and np.abs(found.rates - truth).mean() < 0.03


def test_copies_of_one_system_say_nothing_of_length():
    wins, lengths, baseline, _ = board()
    copies = fit_pooled(np.tile(wins[1], (20, 1)), np.tile(lengths[1], (20, 1)), baseline)
    assert copies.slope_error == float("inf") and not copies.is_enough
    few = fit_pooled(wins[: FEWEST_SYSTEMS - 1], lengths[: FEWEST_SYSTEMS - 1], baseline)
    assert np.isfinite(few.slope_error) and not few.is_enough


def test_intervals_hold_the_rate_and_widen_with_clusters():
    wins, lengths, baseline, _ = board(items=120)
    found, alone = pooled_intervals(wins, lengths, baseline, resamples=60)
    assert all(each.low < rate < each.high for each, rate in zip(alone, found.rates, strict=True))
    assert alone[0].n == 120 and "60 fits to 120 clusters" in alone[0].method
    twice = [np.repeat(table, 2, axis=-1) for table in (wins, lengths, baseline)]
    _, apart = pooled_intervals(*twice, resamples=200)
    _, together = pooled_intervals(*twice, clusters=[item // 2 for item in range(240)], resamples=200)
    width = [np.mean([each.high - each.low for each in some]) for some in (apart, together)]
    assert (
        width[1] > 1.1 * width[0]
    )  # less than the root of two: the spread of slopes does not shrink with items


@pytest.mark.parametrize(
    ("wins", "lengths", "baseline", "message"),
    [
        ([0.5, 0.5], [1, 2], [1, 2], "two tables"),
        ([[0.5, 0.5]], [[1, 2, 3]], [1, 2, 3], "two tables"),
        ([[0.5, np.nan], [0.5, np.nan]], [[1, 2], [1, 2]], [1, 2], "no preference at all"),
        ([[np.nan, np.nan], [0.5, 0.5]], [[1, 2], [1, 2]], [1, 2], "no preference at all"),
        ([[0.5, 1.5]], [[1, 2]], [1, 2], "between 0 and 1"),
    ],
)
def test_wrong_input(wins, lengths, baseline, message):
    with pytest.raises(ValueError, match=message):
        fit_pooled(wins, lengths, baseline)

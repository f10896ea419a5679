"""Pairwise preferences from per-item scores, and the win rate over them."""

import math
from collections.abc import Sequence


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


def win_rate(preferences: Sequence[float]) -> float:
    """Mean preference in [0, 1]: wins plus half the ties.

    Raises:
        ValueError: no preferences, or one outside [0, 1].
    """
    if not preferences:
        raise ValueError("a win rate needs at least one comparison")
    if not all(0.0 <= value <= 1.0 for value in preferences):
        raise ValueError("preferences lie between 0 and 1")
    return math.fsum(preferences) / len(preferences)

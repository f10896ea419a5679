"""What is said of a run whose pairs are saturated or whose samples are cut off."""

from typing import Any

import pytest

from rba_bench.training.callbacks.step_metrics import REST, Alarms
from rba_bench.training.training_recipe import TrainingRecipe


def said(figures: list[dict[str, float]], first: int = 1, **values: Any) -> list[tuple[int, str]]:
    """Steps and lines."""
    alarms = Alarms(TrainingRecipe(**{"steps": 5000, **values}))
    return [(step, line) for step, one in enumerate(figures, first) for line in alarms(step, one)]


def test_most_pairs_saturated_is_said_once_and_names_the_key() -> None:
    sums = {"preference_reduction": "sequence"}
    [(step, line)] = said([{"saturated": 0.6}] * 50, **sums)
    assert step == 10 and "60% of the pairs" in line
    assert "preference_reduction to token, or lower beta (0.1)" in line
    [(_, line)] = said([{"saturated": 1.0}] * 50)
    assert line.endswith("lower beta (2)")
    [(_, line)] = said([{"saturated": 1.0}] * 50, method="tdpo")
    assert line.endswith("lower beta (0.1)")  # it knows sums alone


def test_half_of_them_or_a_single_bad_step_is_no_alarm() -> None:
    assert said([{"saturated": 0.5, "truncated": 0.5}] * 50) == []
    assert said([{"truncated": 0.1}] * 12 + [{"truncated": 1.0}] + [{"truncated": 0.1}] * 12) == []
    assert said([{"loss": 1.0}] * 50) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "compared as far as they go"),
        ({"truncated": "keep"}, "learned from as if they were whole"),
        ({"truncated": "drop"}, "left out"),
        ({"method": "grpo"}, "left out"),
        ({"method": "rba-group"}, "left out"),
        ({"method": "gkd"}, "learned from as they are"),
    ],
)
def test_most_samples_cut_off_is_said_with_what_becomes_of_them(values: dict[str, Any], words: str) -> None:
    [(step, line)] = said([{"truncated": 0.75}] * 50, max_new_tokens=48, **values)
    assert step == 10 and "75% of the samples were cut off" in line and words in line
    assert "raise max_new_tokens (48)" in line


def test_a_short_run_is_told_too_and_a_long_one_seldom() -> None:
    assert [step for step, _ in said([{"truncated": 1.0}] * 4, steps=4)] == [4]
    assert [step for step, _ in said([{"truncated": 1.0}] * (REST + 30))] == [10, 10 + REST]

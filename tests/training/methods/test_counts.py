"""What the losses are divided by, by hand: counted by the methods, summed over a step by the trainer."""

import math
from typing import Any

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.pairs import Sample
from rba_bench.training.methods import make_method
from rba_bench.training.training_recipe import TrainingRecipe
from tests.training.given import rated_of, step_of

TEACHER = (7, 8, 4)


def counted(rows: list[AlignmentRow], samples: list[Sample], rewards: list[float], **values: Any) -> Any:
    """Counts of a batch of one group of two clips."""
    method = make_method(TrainingRecipe(**values), [4])
    outcome = method.outcome(samples, rewards, [TEACHER] * len(samples), 0)
    batch = method.batch(rows[:2], [outcome], lambda _: TEACHER)  # type: ignore[arg-type]
    return method.counts(batch, None)  # type: ignore[arg-type]


def test_pairs_that_there_could_have_been_count(rows: list[AlignmentRow]) -> None:
    same = [Sample(rows[0], TEACHER, True, "a"), Sample(rows[1], (5, 4), True, "b")]
    assert counted(rows, same, [0.0, 0.0], method="rba-single") == {
        "teacher": 2, "teacher_tokens": 6, "items": 2, "pairs": 1, "rated": 0
    }  # fmt: skip
    assert counted(rows, same, [1.0, 1.0], method="rba-group")["items"] == 1


def test_only_what_was_judged_counts(rows: list[AlignmentRow]) -> None:
    drawn = [Sample(rows[n % 2], (9,) * n + (4,), True, f"{n}", logprobs=(-1.0,) * (n + 1)) for n in range(4)]
    rewards = [0.0, 1.0, math.nan, 3.0]
    assert counted(rows, drawn, rewards, method="dapo") == {
        "teacher": 0, "teacher_tokens": 0, "items": 3, "pairs": 0, "rated": 3, "tokens": 1 + 2 + 4
    }  # fmt: skip
    lists = counted(rows, drawn, rewards, method="mrt", samples_per_clip=2)
    assert (lists["rated"], lists["lists"], lists["teacher"]) == (3, 2, 2)


def test_minimum_risk_is_a_mean_over_lists(rows: list[AlignmentRow]) -> None:
    method = make_method(TrainingRecipe(method="mrt", sft_weight=0.0), [4])
    values, mask = torch.tensor([[-1.0], [-2.0]]), torch.ones(2, 1, dtype=torch.bool)
    step = step_of(method, rated_of(rows[0], mask, [1.0, 5.0], [0.0, 0.0], values), values, mask)
    one = float(method.loss(step).loss)
    step.counts = {
        **step.counts,
        "lists": 3,
    }  # two more lists elsewhere in the step, of any number of samples
    assert float(method.loss(step).loss) == pytest.approx(one / 3) and one != 0

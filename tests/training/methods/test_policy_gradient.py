"""What policy gradients make of given log-probabilities and rewards, by hand."""

import math
from typing import Any

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.methods import make_method
from rba_bench.training.training_recipe import TrainingRecipe
from tests.training.given import rated_of, step_of

MASK = torch.tensor([[True, True, False, False], [True] * 4])
POLICY = torch.tensor([[-1.0, -2.0, 9.0, 9.0], [-0.5, -0.5, -1.0, -3.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[-1.0, -1.0, 9.0, 9.0], [-0.5, -1.0, -1.0, -3.0]], dtype=torch.float64)
K3 = (
    math.e - 2,
    math.exp(-0.5) - 0.5,
)  # exp(d) - d - 1 of the two tokens on which they differ, d = 1 and -0.5


def loss_of(
    row: AlignmentRow, advantages: list[float], old: torch.Tensor, reference: bool = True, **values: Any
) -> Any:
    method = make_method(TrainingRecipe(**values), [4])
    batch = rated_of(row, MASK, [1.0, 5.0], advantages, old)
    return method.loss(step_of(method, batch, POLICY, MASK, reference=REFERENCE if reference else None))


@pytest.mark.parametrize("name", ["grpo", "dapo"])
def test_the_price_of_leaving_the_reference(rows: list[AlignmentRow], name: str) -> None:
    # ratios are 1: -A a token; GRPO: mean of the answers' means, DAPO: mean of six tokens
    given = loss_of(
        rows[0], [2.0, -1.0], POLICY, method=name, policy_gradient={"kl_weight": 0.5}, sft_weight=0.0
    )
    if name == "grpo":
        expected = ((-2 + 0.5 * K3[0] / 2) + (1 + 0.5 * K3[1] / 4)) / 2
    else:
        expected = (-2 * 2 + 1 * 4 + 0.5 * sum(K3)) / 6
    assert float(given.loss) == pytest.approx(expected)
    assert given.notes["kl"] == pytest.approx(sum(K3) / 6)


@pytest.mark.parametrize(
    ("reduction", "expected"), [("sequence", 0.5 * (-2 + 1)), ("token", (-2 * 2 + 4) / 6)]
)
def test_grpo_over_answers_or_over_tokens(rows: list[AlignmentRow], reduction: str, expected: float) -> None:
    values: dict[str, Any] = {"method": "grpo", "policy_gradient": {"kl_weight": 0}, "sft_weight": 0}
    given = loss_of(rows[0], [2.0, -1.0], POLICY, False, policy_reduction=reduction, **values)
    assert float(given.loss) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "upper"), [("grpo", 1.2), ("dapo", 1.28)])
def test_how_far_a_token_may_rise_and_fall(rows: list[AlignmentRow], name: str, upper: float) -> None:
    old = POLICY.clone()
    old[0, 0] -= 1  # rose by e: counts as `upper` for its advantage of 2
    old[1, 0] += 1  # fell to 1 / e: counts as 0.8 for its advantage of -1
    given = loss_of(
        rows[0], [2.0, -1.0], old, False, method=name, refresh_every=2, policy_gradient={"kl_weight": 0.0}
    )
    first, second = -2 * (upper + 1), 0.8 + 3
    expected = (first / 2 + second / 4) / 2 if name == "grpo" else (first + second) / 6
    assert float(given.loss) == pytest.approx(expected)


def test_a_token_that_rose_counts_at_most_the_cap(rows: list[AlignmentRow]) -> None:
    """Of older samples, where the clip leaves it free: worse than average, and more likely by now."""
    old = POLICY.clone()
    old[1, 0] -= 3  # e^3 times as likely as when it was drawn
    options = {"kl_weight": 0.0, "ratio_cap": 5.0}
    given = loss_of(rows[0], [2.0, -1.0], old, False, method="dapo", refresh_every=2, policy_gradient=options)
    assert float(given.loss) == pytest.approx((-2 * 2 + 5 + 3) / 6)
    assert given.notes["ratio_capped"] == pytest.approx(1 / 6)
    assert given.notes["ratio"] == pytest.approx((math.exp(3) + 5) / 6, rel=1e-6)
    assert given.notes["clipped"] == 0


def test_another_engines_samples_weigh_by_how_likely_they_were_there(rows: list[AlignmentRow]) -> None:
    """Of this very policy, drawn with other log-probabilities: weights up to the cap, and nothing is clipped."""
    there = POLICY.clone()
    there[0, 0] -= 3
    there[1, 0] += 1
    given = loss_of(rows[0], [2.0, -1.0], there, False, method="grpo", policy_gradient={"kl_weight": 0.0})
    first, second = -2 * (2 + 1), math.exp(-1) + 3
    assert float(given.loss) == pytest.approx((first / 2 + second / 4) / 2)
    assert given.notes["ratio_capped"] == pytest.approx(1 / 6) and given.notes["clipped"] == 0


def test_what_the_log_says_of_the_weights(rows: list[AlignmentRow]) -> None:
    old = POLICY.clone()
    old[0, 0] -= math.log(1.5)  # rises beyond the clip
    old[1, 3] += math.log(4.0)  # falls beyond it
    options = {"kl_weight": 0.0}
    method = make_method(TrainingRecipe(method="grpo", refresh_every=2, policy_gradient=options), [4])
    batch = rated_of(rows[0], MASK, [1.0, 5.0], [2.0, -1.0], old)
    step = step_of(method, batch, POLICY, MASK, entropy=torch.where(MASK, 0.5, 9.0))
    found = method.log_figures(dict(method.loss(step).notes))
    mean, square = (1.5 + 0.25 + 4) / 6, (2.25 + 0.0625 + 4) / 6
    assert found["ratio"] == pytest.approx(mean) and "ratio_square" not in found
    assert found["effective_samples"] == pytest.approx(mean**2 / square)
    assert (found["clipped"], found["entropy"]) == (pytest.approx(2 / 6), pytest.approx(0.5))


def test_older_samples_weigh_in_self_critical_training(rows: list[AlignmentRow]) -> None:
    old = POLICY.clone()
    old[0, 1] -= 3  # log-probability -2: counts twice, the cap; the other token of the answer counts once
    given = loss_of(
        rows[0], [2.0, -1.0], old, False, method="scst", refresh_every=2, policy_reduction="sequence"
    )
    assert float(given.loss) == pytest.approx((2 * (1 + 2 * 2) - 1 * 5) / 2)


def test_self_critical_training(rows: list[AlignmentRow]) -> None:
    # sums -3 and -5; rewards 1 and 5 against greedy ones of -1 and 6
    given = loss_of(rows[0], [2.0, -1.0], POLICY, False, method="scst", policy_reduction="sequence")
    assert float(given.loss) == pytest.approx((2 * 3 - 1 * 5) / 2)
    given = loss_of(rows[0], [2.0, -1.0], POLICY, False, method="scst", policy_reduction="token")
    assert float(given.loss) == pytest.approx((2 * 3 - 1 * 5) / 6)


@pytest.mark.parametrize(("reduction", "apart"), [("sequence", -3 + 5), ("token", -1.5 + 1.25)])
def test_minimum_risk_over_lists(rows: list[AlignmentRow], reduction: str, apart: float) -> None:
    # Q = softmax(0.5 x (-3, -5)), or of the means -1.5 and -1.25; rewards 1 and 5 around their mean 3; one list, and
    # another elsewhere in the step
    recipe = TrainingRecipe(
        method="mrt", policy_reduction=reduction, sft_weight=0.0, policy_gradient={"mrt_sharpness": 0.5}
    )
    method = make_method(recipe, [4])
    step = step_of(method, rated_of(rows[0], MASK, [1.0, 5.0], [0.0, 0.0], POLICY), POLICY, MASK)
    assert step.counts["lists"] == 1
    step.counts = {**step.counts, "lists": 2}
    share = 1 / (1 + math.exp(-0.5 * apart))
    assert float(method.loss(step).loss) == pytest.approx((2 * share - 2 * (1 - share)) / 2)

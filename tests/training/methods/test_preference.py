"""What each method with pairs makes of given log-probabilities, with a reference and without, by hand; what it asks of
a real reference."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.batch import assemble_batch
from rba_bench.training.data.clips import ResponseTokens
from rba_bench.training.data.pairs import AnswerTokens, PreferencePair
from rba_bench.training.losses.distillation import divergence
from rba_bench.training.losses.likelihood import sequence_logprobs
from rba_bench.training.methods import make_method
from rba_bench.training.methods.method import Step
from rba_bench.training.methods.preference import saturated
from rba_bench.training.model.building import make_reference
from rba_bench.training.model.frozen_models import FrozenModels
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.training_recipe import TrainingRecipe
from tests.training.given import pairs_of, step_of

# one pair, y+ of two tokens, y- of four; the teacher's answer is y+
MASK = torch.tensor([[True, True, False, False], [True] * 4])
POLICY = torch.tensor([[-1.0, -2.0, 9.0, 9.0], [-0.5, -0.5, -1.0, -3.0]], dtype=torch.float64)  # sums -3, -5
REFERENCE = torch.tensor([[-3.0, -4.0, 9.0, 9.0], [-1.0, -1.0, -1.0, -1.0]], dtype=torch.float64)  # -7, -4
FAR = torch.tensor([[0.5, 0.25, 9.0, 9.0], [1.0, 0.25, 0.0, 0.25]], dtype=torch.float64)  # 0.75, 1.5
# log-ratios: -3 + 7 = 4 and -5 + 4 = -1, margin 5; without a reference -3 + 5 = 2. A token: 2 and -0.25, without -1.5
# and -1.25


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


TOKEN = {"preference_reduction": "token"}
SEQUENCE = {"preference_reduction": "sequence"}
BY_HAND: dict[str, tuple[dict[str, Any], float, float]] = {
    # recipe, loss with the reference, loss without
    "dpo": ({"method": "dpo"}, softplus(-0.2 * 5), softplus(-0.2 * 2)),
    "dpo-means": ({"method": "dpo", **TOKEN}, softplus(-0.2 * 2.25), softplus(0.2 * 0.25)),
    "spin": ({"method": "spin"}, softplus(-0.2 * 5), softplus(-0.2 * 2)),
    "spin-means": ({"method": "spin", **TOKEN}, softplus(-0.2 * 2.25), softplus(0.2 * 0.25)),
    # 1 / (2 beta) = 2.5; means over tokens: 2.25, and -0.25 without
    "ipo": ({"method": "ipo"}, 0.25**2, 2.75**2),
    # the offset: 0.5 x log(e^2) = 1
    "odpo": (
        {"method": "odpo", "preference": {"odpo_alpha": 0.5}},
        softplus(-0.2 * 5 + 1),
        softplus(-0.2 * 2 + 1),
    ),
    "odpo-means": (
        {"method": "odpo", "preference": {"odpo_alpha": 0.5}, **TOKEN},
        softplus(-0.2 * 2.25 + 1),
        softplus(0.2 * 0.25 + 1),
    ),
    # 0.2 x (5 - (1.5 - 0.75)), and half of it
    "tdpo1": (
        {"method": "tdpo", "preference": {"tdpo_version": 1}},
        softplus(-0.2 * 4.25),
        softplus(-0.2 * 1.25),
    ),
    "tdpo2": ({"method": "tdpo"}, softplus(-0.2 * 4.625), softplus(-0.2 * 1.625)),
    # Eq. (5): the preference term and w = 0.3 times the teacher's cross entropy, 3
    "rba-single": (
        {"method": "rba-single", "reference": "base", "sft_weight": 0.3, **SEQUENCE},
        softplus(-0.2 * 5) + 0.9,
        softplus(-0.2 * 2) + 0.9,
    ),
    # and its mean over tokens, 1.5
    "rba-group-means": (
        {"method": "rba-group", "reference": "base", "sft_weight": 0.3},
        softplus(-0.2 * 2.25) + 0.45,
        softplus(0.2 * 0.25) + 0.45,
    ),
    "rba-group": (
        {"method": "rba-group", "reference": "base", "sft_weight": 0.3, **SEQUENCE},
        softplus(-0.2 * 5) + 0.9,
        softplus(-0.2 * 2) + 0.9,
    ),
}
WITHOUT: dict[str, tuple[dict[str, Any], float]] = {
    "cpo": ({"method": "cpo"}, softplus(0.2 * 0.25) + 1.5),
    "cpo-sums": ({"method": "cpo", **SEQUENCE}, softplus(-0.2 * 2) + 3.0),
    "rba-single": ({"method": "rba-single", "sft_weight": 0.3}, softplus(0.2 * 0.25) + 0.45),
    "rba-single-sums": (
        {"method": "rba-single", "sft_weight": 0.3, **SEQUENCE},
        softplus(-0.2 * 2) + 0.9,
    ),
    "sft-sums-beside-means": (
        {"method": "rba-single", "sft_weight": 0.3, "sft_reduction": "sequence"},
        softplus(0.2 * 0.25) + 0.9,
    ),
    "sft-means-beside-sums": (
        {"method": "rba-single", "sft_weight": 0.3, "sft_reduction": "token", **SEQUENCE},
        softplus(-0.2 * 2) + 0.45,
    ),
    # means -1.5 and -1.25: 0.2 x -0.25 - 0.5
    "simpo": ({"method": "simpo"}, softplus(0.2 * 0.25 + 0.5)),
}


def step(recipe: TrainingRecipe, row: AlignmentRow, policy: Tensor, reference: Tensor | None) -> Step:
    method = make_method(recipe, [4])
    batch = pairs_of(row, MASK, [math.exp(2)], teacher=[0] if method.supervised else [])
    return step_of(method, batch, policy, MASK, reference=reference, divergence=FAR)


@pytest.mark.parametrize("name", BY_HAND)
def test_losses_with_a_reference_by_hand(rows: list[AlignmentRow], name: str) -> None:
    values, with_reference, without = BY_HAND[name]
    recipe = TrainingRecipe(**values, beta=0.2)
    assert recipe.uses_reference
    method = make_method(recipe, [4])
    policy = POLICY.clone().requires_grad_()
    loss = method.loss(step(recipe, rows[0], policy, REFERENCE)).loss
    assert float(loss.detach()) == pytest.approx(with_reference, rel=1e-9)
    assert abs(with_reference - without) > 1e-2
    assert float(method.loss(step(recipe, rows[0], POLICY, None)).loss) == pytest.approx(without, rel=1e-9)
    (slope,) = torch.autograd.grad(loss, policy)
    assert not slope[~MASK].any() and (slope[0, :2] < 0).all() and (slope[1] > 0).all()


def test_ipo_as_its_equation_is_printed(rows: list[AlignmentRow]) -> None:
    recipe = TrainingRecipe(method="ipo", beta=0.2, **SEQUENCE)
    assert float(
        make_method(recipe, [4]).loss(step(recipe, rows[0], POLICY, REFERENCE)).loss
    ) == pytest.approx(2.5**2)


@pytest.mark.parametrize("name", WITHOUT)
def test_losses_without_a_reference_by_hand(rows: list[AlignmentRow], name: str) -> None:
    values, expected = WITHOUT[name]
    recipe = TrainingRecipe(**values, beta=0.2)
    assert not recipe.uses_reference
    assert float(make_method(recipe, [4]).loss(step(recipe, rows[0], POLICY, None)).loss) == pytest.approx(
        expected
    )


def test_notes_of_pairs_by_hand(rows: list[AlignmentRow]) -> None:
    recipe = TrainingRecipe(method="dpo", beta=0.2)
    one = step(recipe, rows[0], POLICY, REFERENCE)
    one.counts = {**one.counts, "items": 4, "pairs": 2}  # three more items elsewhere, one of them with a pair
    notes = make_method(recipe, [4]).loss(one).notes
    assert notes["preference"] == pytest.approx(softplus(-1) / 4)
    assert notes["margin"] == pytest.approx((-3 + 5) / 2) and notes["accuracy"] == 0.5


CUT = torch.tensor([[True] * 4, [True, True, True, False]])  # y+ of four tokens, y- cut off after three
SHORT = torch.tensor([[True, True, False, False], [True] * 4])  # y+ ends before y- was cut


def cut_loss(row: AlignmentRow, mask: Tensor, **values: Any) -> tuple[float, Tensor]:
    """Loss of a pair whose rejected answer was cut off, and its slope."""
    method = make_method(TrainingRecipe(beta=0.2, sft_weight=0, **values), [4])
    batch = pairs_of(row, mask)
    said = batch.pairs[0].rejected
    cut = AnswerTokens(row, (*said.tokens[:-1], 11))
    batch.responses[1] = replace(batch.responses[1], tokens=cut.tokens)
    batch.pairs = [replace(batch.pairs[0], rejected=cut)]
    policy = torch.where(mask, torch.tensor([[-1.0, -2.0, -4.0, -8.0], [-0.5, -0.5, -1.0, -3.0]]), 9.0)
    policy = policy.double().requires_grad_()
    reference = torch.where(mask, -1.0, 9.0).double() if method.recipe.uses_reference else None
    far = torch.where(mask, torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 0.0, 0.5, 0.25]]), 9.0).double()
    loss = method.loss(step_of(method, batch, policy, mask, reference=reference, divergence=far)).loss
    return float(loss.detach()), torch.autograd.grad(loss, policy)[0]


@pytest.mark.parametrize(
    ("values", "kept", "masked"),
    [
        # sums -15 and -2, of the first three tokens -7 and -2
        ({"method": "rba-single", **SEQUENCE}, softplus(0.2 * 13), softplus(0.2 * 5)),
        ({"method": "rba-single"}, softplus(0.2 * (15 / 4 - 2 / 3)), softplus(0.2 * 5 / 3)),
        # log-ratios -11 and 1; -4 and 1
        ({"method": "dpo"}, softplus(0.2 * 12), softplus(0.2 * 5)),
        ({"method": "ipo"}, (11 / 4 + 1 / 3 + 2.5) ** 2, (5 / 3 + 2.5) ** 2),
        # and divergences of 15 and 1.5; 7 and 1.5
        (
            {"method": "tdpo", "preference": {"tdpo_version": 1}},
            softplus(0.2 * (12 - 13.5)),
            softplus(0.2 * (5 - 5.5)),
        ),
    ],
    ids=["sums", "means", "dpo", "ipo", "tdpo"],
)
def test_beginnings_of_one_length_are_compared_where_a_sample_was_cut_off(
    rows: list[AlignmentRow], values: dict[str, Any], kept: float, masked: float
) -> None:
    loss, slope = cut_loss(rows[0], CUT, **values, truncated="keep")
    assert loss == pytest.approx(kept) and slope[0, 3] < 0
    loss, slope = cut_loss(rows[0], CUT, **values, truncated="mask")
    assert loss == pytest.approx(masked) and slope[0, 3] == 0 and (slope[0, :3] < 0).all()


def test_a_chosen_answer_that_ended_before_the_cut_is_compared_with_its_end(rows: list[AlignmentRow]) -> None:
    for truncated in ("keep", "mask"):
        loss, slope = cut_loss(rows[0], SHORT, method="rba-single", **SEQUENCE, truncated=truncated)
        assert loss == pytest.approx(softplus(-0.2 * 2)) and slope[0, 1] < 0 and (slope[1] > 0).all()


def test_pairs_are_saturated_when_won_or_lost_by_far() -> None:
    margins = torch.tensor([-50.0, -4.7, -4.5, 0.0, 4.5, 4.7, 50.0], dtype=torch.float64)
    won_or_lost = saturated(torch.nn.functional.softplus(-margins))
    assert won_or_lost.tolist() == [True, True, False, False, False, True, True]


def test_the_share_of_saturated_pairs_is_noted(rows: list[AlignmentRow]) -> None:
    for beta, share in ((2.0, 0.0), (4.0, 0.5)):  # the margin is 2, one more pair is elsewhere in the step
        recipe = TrainingRecipe(method="rba-single", beta=beta, sft_weight=0, **SEQUENCE)
        one = step(recipe, rows[0], POLICY, None)
        one.counts = {**one.counts, "pairs": 2}
        assert make_method(recipe, [4]).loss(one).notes["saturated"] == share
    recipe = TrainingRecipe(method="ipo", beta=4.0)
    assert "saturated" not in make_method(recipe, [4]).loss(step(recipe, rows[0], POLICY, REFERENCE)).notes


def test_items_without_a_pair_weigh_as_zero_and_no_pair_leaves_the_sft_term(rows: list[AlignmentRow]) -> None:
    recipe = TrainingRecipe(method="rba-group", beta=0.2, sft_weight=0.3, preference_reduction="sequence")
    method = make_method(recipe, [4])
    one = step(recipe, rows[0], POLICY, None)
    one.counts = {**one.counts, "items": 4}
    assert float(method.loss(one).loss) == pytest.approx(softplus(-0.4) / 4 + 0.9)
    one.batch.pairs, one.batch.chosen, one.batch.rejected = [], [], []
    policy = POLICY.clone().requires_grad_()
    one.scores = one.scores._replace(logprobs=policy)
    loss = method.loss(one).loss
    assert float(loss.detach()) == pytest.approx(0.9)
    (slope,) = torch.autograd.grad(loss, policy)
    assert slope.tolist() == [[pytest.approx(-0.3), pytest.approx(-0.3), 0, 0], [0] * 4]


@pytest.mark.parametrize("name", BY_HAND)
def test_a_real_reference_is_asked_about_the_pairs_and_compared_with(
    rows: list[AlignmentRow], family: Any, store_for: Callable[..., Any], name: str
) -> None:
    """Policy, reference (another model by now) and method as in training; log-probabilities added up here."""
    recipe = TrainingRecipe(**BY_HAND[name][0], beta=0.02)
    policy = SpeechPolicy(family)
    for parameter in policy.parameters():
        parameter.requires_grad_()
    reference = make_reference(policy)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    frozen_models = FrozenModels(store_for(family), reference)
    method, tokens = make_method(recipe, [4]), ResponseTokens(family)
    texts = [("the lake", "a tree and water"), ("pack a map", "paris")]
    pairs = [
        PreferencePair(AnswerTokens(row, tokens(chosen)), AnswerTokens(row, tokens(rejected)), 2.0)
        for row, (chosen, rejected) in zip(rows[:2], texts, strict=True)
    ]
    batch = assemble_batch(rows[:2], pairs, teacher_tokens=tokens if method.supervised else None, items=2)
    with torch.no_grad():
        targets = method.targets(batch, frozen_models)
        scores = policy(
            frozen_models.store.inputs(batch.prompts),
            batch.responses,
            targets.distributions,
            targets.measure,
            method.extra_outputs,
        )
        told = reference(
            frozen_models.store.inputs(batch.prompts), batch.responses, extra_outputs=("hidden",)
        )
        own = policy(frozen_models.store.inputs(batch.prompts), batch.responses, extra_outputs=("hidden",))
    mask, ends = scores.mask, [*batch.chosen, *batch.rejected]
    ours = Step(batch, scores, targets, method.counts(batch, frozen_models))
    normal = recipe.preference_reduction
    apart = (sequence_logprobs(own.logprobs, mask, normal) - sequence_logprobs(told.logprobs, mask, normal))[
        ends
    ]
    margin = apart[:2] - apart[2:]
    if recipe.method == "tdpo":
        logits = (reference.family.head(told.hidden), family.head(own.hidden))
        each = divergence(logits[1].flatten(0, 1), logits[0].flatten(0, 1)).view(mask.shape)
        along = (each * mask).sum(-1)[ends]
        margin = margin - (1 if recipe.preference.tdpo_version == 1 else 0.5) * (along[2:] - along[:2])
    expected = torch.nn.functional.softplus(-0.02 * margin).mean()
    if recipe.method == "ipo":
        expected = (margin - 1 / 0.04).square().mean()
    if recipe.method == "odpo":
        expected = torch.nn.functional.softplus(-0.02 * margin + 0.5 * math.log(2)).mean()
    assert apart.abs().min() > 1e-3  # the two models differ
    notes = method.loss(ours).notes
    assert notes["preference"] == pytest.approx(expected.item(), rel=1e-5)

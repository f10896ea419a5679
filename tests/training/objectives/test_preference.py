"""Every loss of pairs against numbers worked out by hand, its gradients and its limits."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from rba_bench.training.objectives import (
    composed,
    dpo,
    hinge,
    ipo,
    odpo,
    preference,
    rba,
    sequence_logprobs,
    simpo,
    spin,
    tdpo,
)

LOG1PEXP = {x: math.log1p(math.exp(-x)) for x in (0.0, 0.2, 0.5, 1.0, 1.5)}  # -log sigmoid(x)


def column(*values: float, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def test_reference_free_preference_by_hand() -> None:
    # beta 0.1, log-probs -2 against -12: sigmoid(0.1 * 10) = 0.7310585786; -log of it = 0.3132616875
    losses = preference(torch.tensor([-2.0, -12.0]), torch.tensor([-12.0, -2.0]), beta=0.1)
    assert losses.tolist() == pytest.approx([0.3132616875, 1.3132616875])


def test_dpo_closed_form() -> None:
    # log-ratios: chosen -2 + 3 = 1, rejected -5 + 4 = -1; 0.5 * 2 = 1; log(1 + e^-1) = 0.3132616875
    values = [torch.tensor([x]) for x in (-2.0, -5.0, -3.0, -4.0)]
    assert dpo(*values, beta=0.5).tolist() == pytest.approx([math.log1p(math.exp(-1.0))])


def test_dpo_with_the_policy_as_reference_is_log_two() -> None:
    chosen, rejected = torch.tensor([-7.0, -1.0]), torch.tensor([-3.0, -20.0])
    assert dpo(chosen, rejected, chosen, rejected, beta=0.3).tolist() == pytest.approx([math.log(2.0)] * 2)


def test_spin_by_hand() -> None:
    # against the opponent: real answer -6 + 8 = 2 up, own sample -3 + 2 = 1 down; 0.5 * (2 - -1)
    loss = spin(column(-6.0), column(-3.0), column(-8.0), column(-2.0), beta=0.5)
    assert loss.tolist() == pytest.approx([LOG1PEXP[1.5]])


def test_hinge_by_hand() -> None:
    # margins 20, 5, -10 at beta 0.1: 1 - 2 -> 0; 1 - 0.5; 1 + 1
    assert hinge(column(0.0, 0.0, 0.0), column(-20.0, -5.0, 10.0), beta=0.1).tolist() == [0.0, 0.5, 2.0]


def test_ipo_by_hand_and_its_minimum_is_the_target_margin() -> None:
    # beta 0.1: target 1 / 0.2 = 5; margin 2 -> 9, margin 5 -> 0, margin 6 -> 1
    chosen = column(2.0, 5.0, 6.0, grad=True)
    losses = ipo(chosen, column(0.0, 0.0, 0.0), beta=0.1)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([9.0, 0.0, 1.0])
    assert chosen.grad is not None and chosen.grad.tolist() == pytest.approx([-6.0, 0.0, 2.0])


def test_simpo_by_hand() -> None:
    # two tokens of mean -1 against four of mean -2: 2.0 * 1 - 0.5
    mask = torch.ones(1, 4, dtype=torch.bool)
    chosen = sequence_logprobs(torch.full((1, 4), -1.0), mask & (torch.arange(4) < 2), length_normalized=True)
    rejected = sequence_logprobs(torch.full((1, 4), -2.0), mask, length_normalized=True)
    assert simpo(chosen, rejected, beta=2.0, gamma=0.5).tolist() == pytest.approx([LOG1PEXP[1.5]])
    assert simpo(chosen, rejected, 2.0, 0.0).tolist() == preference(chosen, rejected, 2.0).tolist()


def test_odpo_by_hand() -> None:
    # margin 10 at beta 0.1 is 1; a gap of e at alpha 0.5 takes off log(e) / 2, a linear gap of 0.5 as much
    scores = column(0.0), column(-10.0)
    assert odpo(*scores, 0.1, column(math.e), alpha=0.5).tolist() == pytest.approx([LOG1PEXP[0.5]])
    assert odpo(*scores, 0.1, column(0.5), scale="linear").tolist() == pytest.approx([LOG1PEXP[0.5]])


def test_odpo_limits() -> None:
    scores = column(-3.0), column(-5.0)
    plain = preference(*scores, 0.1).tolist()
    zero = column(0.0)
    assert odpo(*scores, 0.1, column(1.0)).tolist() == plain  # log 1 = 0
    assert odpo(*scores, 0.1, zero, scale="linear").tolist() == plain
    assert odpo(*scores, 0.1, zero, alpha=0.0).tolist() == plain  # and not 0 * infinity
    assert odpo(*scores, 0.1, column(-2.0), scale="linear").tolist() == plain
    chosen = column(-3.0, grad=True)
    vanished = odpo(chosen, scores[1], 0.1, zero)
    vanished.sum().backward()
    assert vanished.item() < 1e-30 and chosen.grad is not None and abs(chosen.grad.item()) < 1e-30


def test_odpo_asks_for_more_where_the_gap_is_wider() -> None:
    for scale in ("log", "linear"):
        losses = odpo(
            column(0.0).repeat(4), column(0.0).repeat(4), 0.1, column(0.1, 1.0, 2.0, 8.0), scale=scale
        )
        assert losses.diff().min() > 0


KL = {
    "chosen_kl": torch.tensor([[0.5, 0.25, 9.0]], dtype=torch.float64),
    "chosen_mask": torch.tensor([[True, True, False]]),
    "rejected_kl": torch.tensor([[1.0, 0.5]], dtype=torch.float64),
    "rejected_mask": torch.tensor([[True, True]]),
}


def test_tdpo_by_hand() -> None:
    # D(y+) = 0.75, D(y-) = 1.5; margin 2.75. TDPO1: 0.25 * (2.75 - 0.75); TDPO2, alpha 1: the same value
    scores = column(2.0), column(-0.75)
    assert tdpo(*scores, 0.25, alpha=None, **KL).tolist() == pytest.approx([LOG1PEXP[0.5]])
    assert tdpo(*scores, 0.25, alpha=1.0, **KL).tolist() == pytest.approx([LOG1PEXP[0.5]])
    # alpha 0.5 halves the difference: 0.25 * (2.75 - 0.375)
    expected = math.log1p(math.exp(-0.25 * 2.375))
    assert tdpo(*scores, 0.25, alpha=0.5, **KL).tolist() == pytest.approx([expected])


def test_tdpo_stops_the_gradient_on_the_chosen_side_only_in_its_second_form() -> None:
    def slopes(alpha: float | None) -> tuple[list[float] | None, list[float]]:
        kl: dict[str, Any] = {name: value.clone() for name, value in KL.items()}
        kl["chosen_kl"].requires_grad_()
        kl["rejected_kl"].requires_grad_()
        tdpo(column(2.0), column(-0.75), 0.25, alpha=alpha, **kl).sum().backward()
        ours = kl["chosen_kl"].grad
        return None if ours is None else ours[0].tolist(), kl["rejected_kl"].grad[0].tolist()

    # d loss / d margin = -beta * sigmoid(-0.5); the KL of y- pulls against the margin, that of y+ with it
    slope = 0.25 / (1 + math.exp(0.5))
    assert slopes(None) == (pytest.approx([-slope, -slope, 0.0]), pytest.approx([slope, slope]))
    assert slopes(1.0) == (None, pytest.approx([slope, slope]))


def test_tdpo_without_divergence_is_dpo() -> None:
    none = {name: value * 0 if name.endswith("kl") else value for name, value in KL.items()}
    for alpha in (None, 0.5):
        assert tdpo(column(-1.0), column(-3.0), 0.1, alpha=alpha, **none).tolist() == pytest.approx(
            [LOG1PEXP[0.2]]
        )


FORMS = {
    "preference": preference,
    "hinge": hinge,
    "ipo": ipo,
    "simpo": partial(simpo, gamma=0.3),
    "odpo": partial(odpo, gap=column(0.5, 2.0, 3.0)),
    "tdpo": partial(tdpo, **{name: value.expand(3, -1) for name, value in KL.items()}),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_raises_the_chosen_and_lowers_the_rejected(name: str) -> None:
    chosen, rejected = column(-1.0, -5.0, -3.0, grad=True), column(-2.0, -1.0, -3.0, grad=True)
    losses = FORMS[name](chosen, rejected, 0.2)
    losses.sum().backward()
    assert losses.shape == (3,) and chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.max() < 0 and torch.equal(rejected.grad, -chosen.grad)
    assert torch.autograd.gradcheck(lambda a, b: FORMS[name](a, b, 0.2), (chosen, rejected))
    assert FORMS[name](chosen.detach() + 7, rejected.detach() + 7, 0.2).tolist() == pytest.approx(
        losses.tolist()
    )


@pytest.mark.parametrize("name", ["preference", "hinge", "ipo", "simpo", "odpo"])
def test_no_pairs_and_extreme_pairs_stay_finite(name: str) -> None:
    empty = torch.empty(0)
    form = partial(odpo, gap=empty) if name == "odpo" else FORMS[name]
    assert form(empty, empty, 0.1).shape == (0,)
    form = partial(odpo, gap=torch.tensor([0.0, 1e30])) if name == "odpo" else FORMS[name]
    chosen = torch.tensor([-1e4, 0.0], requires_grad=True)
    losses = form(chosen, torch.tensor([0.0, -1e4]), 0.1)
    losses.sum().backward()
    assert losses.isfinite().all() and chosen.grad is not None and chosen.grad.isfinite().all()


def test_rba_by_hand() -> None:
    # pair: beta * (-1 - -3) = 0.1 * 2 = 0.2, loss log(1 + e^-0.2) = 0.5981388694
    # SFT: mean(2, 4) = 3; total 0.5981388694 + 0.2 * 3
    terms = rba(
        torch.tensor([-1.0]), torch.tensor([-3.0]), torch.tensor([-2.0, -4.0]), beta=0.1, sft_weight=0.2
    )
    assert terms.preference.item() == pytest.approx(0.5981388694)
    assert terms.sft.item() == pytest.approx(3.0)
    assert terms.loss.item() == pytest.approx(1.1981388694)


def test_rba_gradient_by_hand() -> None:
    # d/d chosen = -beta * sigmoid(-0.2) = -0.1 * 0.4501660027; d/d teacher = -w
    chosen, rejected, teacher = (torch.tensor([x], requires_grad=True) for x in (-1.0, -3.0, -2.0))
    rba(chosen, rejected, teacher, beta=0.1, sft_weight=0.2).loss.backward()
    gradients = [float(x.grad) for x in (chosen, rejected, teacher) if x.grad is not None]
    assert gradients == pytest.approx([-0.04501660027, 0.04501660027, -0.2])


def test_rba_with_reference_is_dpo_plus_sft() -> None:
    values = [torch.tensor([x]) for x in (-2.0, -5.0, -3.0, -4.0)]
    reference = {"ref_chosen": values[2], "ref_rejected": values[3]}
    terms = rba(*values[:2], torch.tensor([-6.0]), beta=0.5, sft_weight=0.1, **reference)
    assert terms.loss.item() == pytest.approx(math.log1p(math.exp(-1.0)) + 0.6)


@pytest.mark.parametrize("name", ["hinge", "ipo", "simpo", "odpo"])
def test_any_form_stands_in_rba_with_and_without_reference(name: str) -> None:
    form = FORMS[name]
    chosen, rejected, teacher = column(-1.0, -5.0, -3.0), column(-2.0, -1.0, -3.0), column(-4.0)
    ref = column(-2.0, -2.0, -2.0), column(-1.0, -1.0, -1.0)
    plain = rba(chosen, rejected, teacher, beta=0.2, sft_weight=0.5, form=form)
    assert plain.loss.item() == pytest.approx(form(chosen, rejected, 0.2).mean().item() + 2.0)
    held = rba(
        chosen, rejected, teacher, beta=0.2, sft_weight=0.5, ref_chosen=ref[0], ref_rejected=ref[1], form=form
    )
    assert held.preference.item() == pytest.approx(
        form(chosen - ref[0], rejected - ref[1], 0.2).mean().item()
    )
    assert held.preference.item() != pytest.approx(plain.preference.item())


def test_losses_of_any_making_are_composed() -> None:
    terms = composed(column(1.0, 3.0), column(-2.0), sft_weight=0.5, n_pairs=8)
    assert (terms.loss.item(), terms.preference.item(), terms.sft.item()) == (1.5, 0.5, 2.0)
    assert composed(column(1.0, 3.0), torch.empty(0), sft_weight=0.5).loss.item() == 2.0


def test_items_without_a_pair_count_in_the_mean() -> None:
    chosen, rejected = torch.tensor([0.0]), torch.tensor([0.0])
    terms = rba(chosen, rejected, torch.empty(0), beta=0.1, sft_weight=0.2, n_pairs=4)
    assert terms.loss.item() == pytest.approx(math.log(2.0) / 4)


def test_no_pair_at_all_leaves_the_sft_term() -> None:
    teacher = torch.tensor([-3.0], requires_grad=True)
    terms = rba(torch.empty(0), torch.empty(0), teacher, beta=0.1, sft_weight=0.2, n_pairs=2)
    terms.loss.backward()
    assert terms.loss.item() == pytest.approx(0.6) and teacher.grad is not None
    assert teacher.grad.tolist() == pytest.approx([-0.2])

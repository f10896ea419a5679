"""Every loss of pairs against numbers worked out by hand, its gradients and its limits."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from rba_bench.training.losses.likelihood import sequence_logprobs
from rba_bench.training.losses.preference import ipo, odpo, preference_loss, simpo, tdpo

LOG1PEXP = {x: math.log1p(math.exp(-x)) for x in (0.0, 0.2, 0.5, 1.0, 1.5)}  # -log sigmoid(x)


def column(*values: float, grad: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def test_reference_free_preference_by_hand() -> None:
    # beta 0.1, log-probs -2 against -12: sigmoid(0.1 * 10) = 0.7310585786; -log of it = 0.3132616875
    losses = preference_loss(torch.tensor([-2.0, -12.0]), torch.tensor([-12.0, -2.0]), beta=0.1)
    assert losses.tolist() == pytest.approx([0.3132616875, 1.3132616875])


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
    chosen = sequence_logprobs(torch.full((1, 4), -1.0), mask & (torch.arange(4) < 2), "token")
    rejected = sequence_logprobs(torch.full((1, 4), -2.0), mask, "token")
    assert simpo(chosen, rejected, beta=2.0, gamma=0.5).tolist() == pytest.approx([LOG1PEXP[1.5]])
    assert simpo(chosen, rejected, 2.0, 0.0).tolist() == preference_loss(chosen, rejected, 2.0).tolist()


def test_odpo_by_hand() -> None:
    # margin 10 at beta 0.1 is 1; a gap of e at alpha 0.5 takes off log(e) / 2, a linear gap of 0.5 as much
    scores = column(0.0), column(-10.0)
    assert odpo(*scores, 0.1, column(math.e), alpha=0.5).tolist() == pytest.approx([LOG1PEXP[0.5]])
    assert odpo(*scores, 0.1, column(0.5), scale="linear").tolist() == pytest.approx([LOG1PEXP[0.5]])


def test_odpo_limits() -> None:
    scores = column(-3.0), column(-5.0)
    plain = preference_loss(*scores, 0.1).tolist()
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
    "preference": preference_loss,
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


@pytest.mark.parametrize("name", ["preference", "ipo", "simpo", "odpo"])
def test_no_pairs_and_extreme_pairs_stay_finite(name: str) -> None:
    empty = torch.empty(0)
    form = partial(odpo, gap=empty) if name == "odpo" else FORMS[name]
    assert form(empty, empty, 0.1).shape == (0,)
    form = partial(odpo, gap=torch.tensor([0.0, 1e30])) if name == "odpo" else FORMS[name]
    chosen = torch.tensor([-1e4, 0.0], requires_grad=True)
    losses = form(chosen, torch.tensor([0.0, -1e4]), 0.1)
    losses.sum().backward()
    assert losses.isfinite().all() and chosen.grad is not None and chosen.grad.isfinite().all()

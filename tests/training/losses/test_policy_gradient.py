"""Advantages and the losses of sampled answers, by hand, by finite differences and at their limits."""

import math

import pytest
import torch
from torch import Tensor

from rba_bench.training.losses.likelihood import sequence_logprobs, sequence_mean, token_mean
from rba_bench.training.losses.policy_gradient import (
    beyond_clip,
    clipped_ratio,
    group_advantages,
    importance_weights,
    kl_estimate,
    leave_one_out,
    minimum_risk,
    modality_advantages,
    overlong_punishment,
    self_critical,
)

NAN = math.nan


def values(*numbers: float, grad: bool = False) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=grad)


# groups 7 and 3, interleaved: rewards 1, 2, 3 and 10, 14
REWARDS = values(1, 10, 2, 14, 3)
GROUPS = torch.tensor([7, 3, 7, 3, 7])


def test_group_advantages_by_hand() -> None:
    # group 7: mean 2, std 1; group 3: mean 12, std sqrt(8)
    plain = group_advantages(REWARDS, GROUPS, scale="none")
    assert plain.tolist() == [-1.0, -2.0, 0.0, 2.0, 1.0]
    scaled = group_advantages(REWARDS, GROUPS, eps=0.0)
    half = math.sqrt(0.5)
    assert scaled.tolist() == pytest.approx([-1.0, -half, 0.0, half, 1.0])
    softened = group_advantages(REWARDS, GROUPS, eps=1.0)
    assert softened[0].item() == pytest.approx(-0.5)


def test_leave_one_out_by_hand() -> None:
    assert leave_one_out(REWARDS, GROUPS).tolist() == pytest.approx(
        [1 - 2.5, 10 - 14, 2 - 2, 14 - 10, 3 - 1.5]
    )
    bigger = torch.tensor([1.5, 2.0, 1.5, 2.0, 1.5]).double()  # n / (n - 1)
    torch.testing.assert_close(
        leave_one_out(REWARDS, GROUPS), bigger * group_advantages(REWARDS, GROUPS, scale="none")
    )


def test_modality_advantages_by_hand() -> None:
    # one group: speech 0 and 1 (mean 0.5), text 3 and 5 (mean 4); another: one speech answer alone
    rewards, groups = values(0, 3, 1, 5, 9), torch.tensor([0, 0, 0, 0, 1])
    advantages = modality_advantages(rewards, groups, torch.tensor([0, 1, 0, 1, 0]))
    assert advantages.tolist() == [-0.5, -1.0, 0.5, 1.0, 0.0]
    same = modality_advantages(rewards, groups, torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(same, group_advantages(rewards, groups, scale="none"))


@pytest.mark.parametrize("advantages", [group_advantages, leave_one_out])
def test_ties_loners_and_empty_batches_have_no_advantage(advantages: object) -> None:
    assert callable(advantages)
    third = torch.full((3,), 0.1, dtype=torch.float32)  # a mean of three 0.1 is not 0.1 in float32
    assert (
        advantages(torch.cat([third, torch.tensor([5.0])]), torch.tensor([0, 0, 0, 1])).tolist() == [0.0] * 4
    )
    assert advantages(torch.empty(0), torch.empty(0, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize("advantages", [group_advantages, leave_one_out])
def test_unscored_answers_stand_aside(advantages: object) -> None:
    assert callable(advantages)
    rewards, groups = values(1, NAN, 3, NAN, NAN, 4), torch.tensor([0, 0, 0, 1, 1, 2])
    kept = advantages(rewards[[0, 2]], groups[[0, 2]])
    assert advantages(rewards, groups).tolist() == pytest.approx(
        [kept[0].item(), 0.0, kept[1].item(), 0.0, 0.0, 0.0]
    )


@pytest.mark.parametrize("advantages", [group_advantages, leave_one_out])
def test_advantages_do_not_depend_on_order_level_or_names(advantages: object) -> None:
    assert callable(advantages)
    plain = advantages(REWARDS, GROUPS)
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(advantages(REWARDS[order], GROUPS[order]), plain[order])
    torch.testing.assert_close(advantages(REWARDS + 100, GROUPS), plain)
    torch.testing.assert_close(advantages(REWARDS, -GROUPS * 5), plain)
    torch.testing.assert_close(plain[GROUPS == 7].sum(), values(0.0)[0])


MASK = torch.tensor([[True, True, False]])


def ratios(*numbers: float, grad: bool = False) -> tuple[Tensor, Tensor]:
    """New and old log-probabilities [1, 3] of the given ratios; padding of infinities."""
    old = torch.tensor([[-1.0, -2.0, -math.inf]], dtype=torch.float64)
    new = old + torch.tensor([[*numbers, 1.0]], dtype=torch.float64).log()
    return new.requires_grad_(grad), old


@pytest.mark.parametrize(
    ("advantage", "losses", "moves"),
    [
        # gain 2: ratio 1.5 is clipped at 1.28; ratio 0.5 is not, as the minimum is the pessimistic one
        (2.0, [-2.56, -1.0], [False, True]),
        # gain -2: ratio 0.5 is clipped at 0.8; ratio 1.5 is not
        (-2.0, [3.0, 1.6], [True, False]),
    ],
)
def test_clipped_ratio_by_hand(advantage: float, losses: list[float], moves: list[bool]) -> None:
    new, old = ratios(1.5, 0.5, grad=True)
    out = clipped_ratio(new, old, values(advantage), MASK, clip_low=0.2, clip_high=0.28)
    out.sum().backward()
    assert out[0].tolist() == pytest.approx([*losses, 0.0])
    assert new.grad is not None and [bool(x) for x in new.grad[0] != 0] == [*moves, False]


@pytest.mark.parametrize(("advantage", "loss"), [(2.0, -2.56), (-2.0, 6.0)])
def test_a_ratio_beyond_the_cap_counts_and_pulls_as_much_as_the_cap(advantage: float, loss: float) -> None:
    new, old = ratios(1e30, 1e-30, grad=True)
    out = clipped_ratio(new, old, values(advantage), MASK, clip_low=0.2, clip_high=0.28, cap=3.0)
    out.sum().backward()
    assert float(out[0, 0]) == pytest.approx(loss) and new.grad is not None
    assert float(new.grad[0, 0]) == pytest.approx(0.0 if advantage > 0 else 6.0)
    stuck = beyond_clip(new, old, values(advantage), MASK, clip_low=0.2, clip_high=0.28)
    assert stuck.tolist() == [[advantage > 0, advantage < 0, False]]


def test_importance_weights_are_ratios_up_to_a_cap_without_gradient() -> None:
    new, old = ratios(1.5, 0.25, grad=True)
    assert importance_weights(new, old, MASK, 2.0)[0].tolist() == pytest.approx([1.5, 0.25, 0])
    found = importance_weights(new, old, MASK, 1.2)
    assert found[0].tolist() == pytest.approx([1.2, 0.25, 0]) and not found.requires_grad
    assert importance_weights(new, old, MASK, math.inf)[0].tolist() == pytest.approx([1.5, 0.25, 0])


def test_the_punishment_of_long_answers_by_hand() -> None:
    """DAPO's own numbers: 0 up to 16,384 tokens, -1 at 20,480, half way between them -1/2."""
    lengths = torch.tensor([1, 16_384, 16_385, 18_432, 20_480, 30_000])
    found = overlong_punishment(lengths, 20_480, 4_096)
    assert found.tolist() == pytest.approx([0, 0, -1 / 4096, -0.5, -1, -1])


def test_right_after_sampling_the_gradient_is_that_of_reinforce() -> None:
    new = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.tensor([[True, True, True], [True, False, False]])
    advantages = values(0.5, -2.0)
    (ours,) = torch.autograd.grad(clipped_ratio(new, new.detach(), advantages, mask).sum(), new)
    (reinforce,) = torch.autograd.grad((-advantages * sequence_logprobs(new, mask)).sum(), new)
    torch.testing.assert_close(ours, reinforce)


def test_grpo_and_dapo_weigh_a_long_answer_differently() -> None:
    # one answer of one token, one of three, ratio 1: losses -A on each token
    mask = torch.tensor([[True, False, False], [True, True, True]])
    zero = torch.zeros(2, 3, dtype=torch.float64)
    losses = clipped_ratio(zero, zero, values(1.0, -1.0), mask)
    assert sequence_mean(losses, mask, 2).item() == 0.0
    assert token_mean(losses, mask, 4).item() == pytest.approx((-1 + 3) / 4)


def test_kl_estimate_by_hand_and_its_minimum() -> None:
    # ref / pi = 2: 2 - log 2 - 1; ref / pi = 1: 0
    new, reference = values(-1.0, -3.0, -math.inf)[None], values(-1.0 + math.log(2), -3.0, -math.inf)[None]
    assert kl_estimate(new, reference, MASK)[0].tolist() == pytest.approx([1 - math.log(2), 0.0, 0.0])
    start = values(-0.5, -2.0, -1.0, grad=True)[None]
    full = torch.ones(1, 3, dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda x: kl_estimate(x, values(-1.0, -1.0, -1.0)[None], full), start)


def test_kl_estimate_is_the_kl_on_average() -> None:
    pi, ref = values(0.5, 0.3, 0.2).log(), values(0.2, 0.2, 0.6).log()
    each = kl_estimate(pi[:, None], ref[:, None], torch.ones(3, 1, dtype=torch.bool))[:, 0]
    assert (each >= 0).all()
    assert (pi.exp() * each).sum().item() == pytest.approx((pi.exp() * (pi - ref)).sum().item())


def test_self_critical_by_hand() -> None:
    logprobs = values(-3.0, -3.0, -3.0, -3.0, grad=True)
    losses = self_critical(logprobs, values(0.9, 0.1, 0.5, NAN), values(0.4, 0.4, 0.5, 0.4))
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([1.5, -0.9, 0.0, 0.0])
    # better than greedy rises, worse falls, equal stays
    assert logprobs.grad is not None and logprobs.grad.tolist() == pytest.approx([-0.5, 0.3, 0.0, 0.0])


def test_minimum_risk_by_hand() -> None:
    # list 2: probabilities in the ratio 3 : 1, rewards 1 and 0, mean 1/2: -(3/4 * 1/2 - 1/4 * 1/2) = -1/4
    # list 5: 1 : 1, rewards 4 and 2: 0
    logprobs = values(math.log(0.3), math.log(0.01), math.log(0.1), math.log(0.01), grad=True)
    rewards, groups = values(1.0, 4.0, 0.0, 2.0), torch.tensor([2, 5, 2, 5])
    losses = minimum_risk(logprobs, rewards, groups)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([-0.25, 0.0])
    # d loss / d log p_i = -Q_i (r_i - expected r): -3/4 * 1/4, 1/4 * 3/4, and -1/2, 1/2
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-3 / 16, -0.5, 3 / 16, 0.5])


def test_minimum_risk_is_sharpened_by_alpha() -> None:
    logprobs, rewards, groups = values(math.log(0.9), math.log(0.1)), values(1.0, 0.0), torch.tensor([0, 0])
    assert minimum_risk(logprobs, rewards, groups, alpha=0.0).tolist() == pytest.approx([0.0])  # uniform
    half = 3 / 4 - 1 / 2  # sqrt(0.9) : sqrt(0.1) = 3 : 1
    assert minimum_risk(logprobs, rewards, groups, alpha=0.5).tolist() == pytest.approx([-half])
    assert minimum_risk(logprobs, rewards, groups, alpha=100.0).tolist() == pytest.approx([-0.5])


def test_minimum_risk_gradients() -> None:
    generator = torch.Generator().manual_seed(1)
    logprobs = torch.randn(7, dtype=torch.float64, generator=generator).requires_grad_()
    rewards = torch.randn(7, dtype=torch.float64, generator=generator)
    groups = torch.tensor([0, 1, 0, 1, 0, 1, 1])
    assert torch.autograd.gradcheck(lambda x: minimum_risk(x, rewards, groups, 0.7), logprobs)
    slopes = [
        torch.autograd.grad(minimum_risk(logprobs, r, groups).sum(), logprobs)[0]
        for r in (rewards, rewards + 9)
    ]
    torch.testing.assert_close(*slopes)
    far = torch.autograd.grad(minimum_risk(logprobs * 1e4 - 1e6, rewards, groups).sum(), logprobs)[0]
    assert far.isfinite().all()


def test_minimum_risk_of_lists_that_teach_nothing() -> None:
    # equal rewards; a list of one; nothing scored; one of three not scored
    rewards = torch.tensor([0.1, 0.1, 0.1, 5.0, NAN, NAN, 1.0, NAN, 0.0])
    groups = torch.tensor([0, 0, 0, 1, 2, 2, 3, 3, 3])
    logprobs = torch.tensor([-1.0, -2.0, -3.0, -1.0, -1.0, -2.0, -1.0, -0.1, -1.0], requires_grad=True)
    losses = minimum_risk(logprobs, rewards, groups)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0])
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0.0] * 6 + [-0.25, 0.0, 0.25])
    assert minimum_risk(torch.empty(0), torch.empty(0), torch.empty(0, dtype=torch.int64)).shape == (0,)

"""Losses of sampled answers weighted by their rewards: GRPO and its variants, self-critical training, minimum risk.

    N answers, sampled from the policy (`old`) for G groups: the spoken versions of one instruction, or several samples
    of one clip. `groups` [N] holds the group of each answer: any integers, in any order, groups of any sizes.

Rewards of NaN mean "could not be scored": such an answer is left out of every mean and has advantage 0.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from rba_bench.training.losses.likelihood import masked


class _GroupStatistics:
    """Statistics of the rewards of each group, broadcast to its answers; unscored answers do not count."""

    def __init__(self, rewards: Tensor, groups: Tensor) -> None:
        names, self.place = torch.unique(groups, return_inverse=True)
        self.size = len(names)
        self.scored = ~rewards.isnan()
        self.rewards = rewards.detach().nan_to_num(nan=0.0)
        self.count = self.sum(torch.ones_like(self.rewards))

    def sum(self, values: Tensor) -> Tensor:
        """[N] -> [N]: each answer gets the sum of its group."""
        values = masked(values, self.scored)
        return values.new_zeros(self.size).index_add(0, self.place, values)[self.place]

    def mean(self) -> Tensor:
        """[N] mean reward of the group of each answer; 0 where nothing is scored."""
        return self.sum(self.rewards) / self.count.clamp(min=1)

    def differ(self) -> Tensor:
        """[N] bool: scored, in a group whose rewards are not all equal. Exact, unlike a difference of means."""
        low, high = (self.extreme(self.rewards, how) for how in ("amin", "amax"))
        return self.scored & (low < high)

    def extreme(self, values: Tensor, how: Literal["amin", "amax"]) -> Tensor:
        """[N] -> [N]: the smallest or largest of the group of each answer, among the scored; no gradient."""
        start = torch.inf if how == "amin" else -torch.inf
        values = torch.where(self.scored, values.detach(), start)
        return values.new_full((self.size,), start).scatter_reduce(0, self.place, values, how)[self.place]


def group_advantages(
    rewards: Tensor, groups: Tensor, *, scale: Literal["std", "none"] = "std", eps: float = 1e-4
) -> Tensor:
    """A = (r - mean of the group) / (std of the group + eps): GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    Args:
        rewards: [N], any unit; NaN: not scored.
        groups: [N] int.
        scale: "none" leaves the division out: Dr. GRPO (arXiv 2503.20783), which thus does not favour groups that are
            nearly solved or nearly hopeless.
        eps: as in TRL. The std is that of a sample (n - 1), as in TRL and verl.

    Returns:
        [N]; exactly 0 where all rewards of a group are equal, in groups of one, and for the unscored.
    """
    grouped = _GroupStatistics(rewards, groups)
    deviation = grouped.rewards - grouped.mean()
    if scale == "std":
        spread = (grouped.sum(deviation.square()) / (grouped.count - 1).clamp(min=1)).sqrt()
        deviation = deviation / (spread + eps)
    return masked(deviation, grouped.differ())


def modality_advantages(
    rewards: Tensor, groups: Tensor, modality: Tensor, *, scale: Literal["std", "none"] = "none"
) -> Tensor:
    """A = r - mean over the answers of the group *in the same modality*: TARS (arXiv 2601.05543).

    A group holds answers to the spoken and to the written instruction. Their rewards differ in level (speech is harder,
    and has terms of its own), so a common mean would only reward having the instruction as text.

    Args:
        rewards: [N].
        groups: [N] int.
        modality: [N] int, such as 0 speech, 1 text.
        scale: TARS does not divide by the std.

    Returns:
        [N]; exactly 0 where all rewards of a group in a modality are equal.
    """
    pairs = torch.stack([groups, modality.to(groups.dtype)])
    return group_advantages(rewards, torch.unique(pairs, dim=1, return_inverse=True)[1], scale=scale)


def leave_one_out(rewards: Tensor, groups: Tensor) -> Tensor:
    """A_i = r_i - mean of the *other* rewards of the group: RLOO (Kool et al. 2019; arXiv 2402.14740).

    n / (n - 1) times the group advantage without std: unbiased, as no reward is in its own baseline.

    Args:
        rewards: [N]; NaN: not scored.
        groups: [N] int.

    Returns:
        [N]; exactly 0 where all rewards of a group are equal, in groups of one, and for the unscored.
    """
    grouped = _GroupStatistics(rewards, groups)
    others = (grouped.sum(grouped.rewards) - grouped.rewards) / (grouped.count - 1).clamp(min=1)
    return masked(grouped.rewards - others, grouped.differ())


def overlong_punishment(lengths: Tensor, longest: int, cache: int) -> Tensor:
    """DAPO's soft overlong punishment (arXiv 2503.14476, Eq. 13).

    0 up to L_max - L_cache tokens, (L_max - L_cache - |y|) / L_cache up to L_max, -1 beyond. Added to the reward.

    Args:
        lengths: [N] tokens of the answers, end token included.
        longest: L_max.
        cache: L_cache, at least 1.

    Returns:
        [N] in [-1, 0].
    """
    return ((longest - cache - lengths) / cache).clamp(-1.0, 0.0)


def importance_weights(logprobs: Tensor, old: Tensor, mask: Tensor, cap: float) -> Tensor:
    """min(pi / b, C) of each sampled token: truncated importance sampling (Ionides 2008; in RLHF: Yao et al. 2025).

    Makes up for answers that another policy drew (an older one, or the same one in another engine), with bounded
    variance: the weight of a token never exceeds C.

    Args:
        logprobs: [N, L] log pi now, nats; no gradient goes there.
        old: [N, L] log b, at which the answers were sampled.
        mask: [N, L] bool.
        cap: C, at least 1; infinity does not truncate.

    Returns:
        [N, L], 0 at padding.
    """
    log_ratio = masked(logprobs.detach() - old, mask).clamp(max=math.log(cap))
    return masked(log_ratio.exp(), mask)


def clipped_ratio(
    logprobs: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    cap: float = math.inf,
) -> Tensor:
    """-min(ratio * A, clip(ratio, 1 - low, 1 + high) * A), ratio = pi / old of a token.

    GRPO (arXiv 2402.03300, Eq. 3) with low = high; DAPO (arXiv 2503.14476, Eq. 8) with 0.2 and 0.28, so that rare
    tokens can rise. The mean over tokens is part of the method and the caller's: `sequence_mean` for GRPO,
    `token_mean` for DAPO (the paper, and IBM's GRPO for speech, arXiv 2509.16990).

    Args:
        logprobs: [N, L] log pi(y_t | y_<t, x), nats.
        old: [N, L] the same under the policy that sampled. `logprobs.detach()` on the first step after sampling, where
            the ratio is 1 and the gradient REINFORCE's, -A * grad log pi.
        advantages: [N].
        mask: [N, L] bool.
        clip_low: epsilon_low.
        clip_high: epsilon_high.
        cap: C, as which larger ratios count, their gradient too. The minimum bounds ratios above only where A > 0; this
            does where A < 0, too (see `importance_weights`).

    Returns:
        [N, L] losses, 0 at padding.
    """
    log_ratio = masked(logprobs - old.detach(), mask)
    # pi / old for values up to the cap, C beyond; its gradient is this value times that of the log-probability
    ratio = log_ratio.detach().clamp(max=math.log(cap)).exp() * (log_ratio - log_ratio.detach()).exp()
    gain = advantages.detach()[:, None]
    return masked(-torch.minimum(ratio * gain, ratio.clamp(1 - clip_low, 1 + clip_high) * gain), mask)


def beyond_clip(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """[N, L] bool: tokens to which `clipped_ratio` with the same arguments gives no gradient."""
    ratio = masked(logprobs.detach() - old.detach(), mask).exp()
    gain = advantages[:, None]
    return mask & (((ratio > 1 + clip_high) & (gain > 0)) | ((ratio < 1 - clip_low) & (gain < 0)))


def kl_estimate(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """ref/pi - log(ref/pi) - 1 of each sampled token: KL(pi || ref), estimator k3 (arXiv 2402.03300, Eq. 4).

    Never negative, and unbiased for tokens sampled from pi; its gradient, as everywhere, treats the samples as given.

    Args:
        logprobs: [N, L] log pi, nats.
        reference: [N, L] log ref; no gradient goes there.
        mask: [N, L] bool.

    Returns:
        [N, L] nats, 0 at padding. To be added to `clipped_ratio` with the weight of the KL.
    """
    log_ratio = masked(reference.detach() - logprobs, mask)
    return masked(log_ratio.expm1() - log_ratio, mask)


def self_critical(logprobs: Tensor, rewards: Tensor, greedy: Tensor) -> Tensor:
    """-(r(sample) - r(greedy)) * log pi(sample): self-critical sequence training, SCST.

    Rennie et al. 2017 (arXiv 1612.00563). The policy's own greedy answer to the same clip is the baseline, so samples
    that are better than what would be decoded rise.

    Args:
        logprobs: [N] log pi(y|x) summed over tokens, nats.
        rewards: [N] of the samples; NaN: not scored.
        greedy: [N] of the greedy answers to the same clips.

    Returns:
        [N] losses; 0 where the rewards are equal or one is missing.
    """
    return -(rewards - greedy).detach().nan_to_num(nan=0.0) * logprobs


def minimum_risk(logprobs: Tensor, rewards: Tensor, groups: Tensor, alpha: float = 1.0) -> Tensor:
    """-sum_i Q_i (r_i - mean r) over an n-best list, Q_i = pi(y_i|x)^alpha / sum_j pi(y_j|x)^alpha.

    Minimum risk training (Shen et al. 2016, arXiv 1512.02433, Eq. 10 and 11, with alpha the sharpness of Q) in the form
    of MWER (Prabhavalkar et al. 2018, arXiv 1712.01818): alpha 1, the mean subtracted, the word errors there being any
    -reward here. Subtracting the mean changes the value, not the gradient, as Q sums to 1.

    Args:
        logprobs: [N] log pi(y|x) summed over tokens, nats. The answers of a list should be distinct: a duplicate counts
            its mass twice.
        rewards: [N]; NaN: not scored, not in the list.
        groups: [N] int, whose list each answer is in.
        alpha: sharpness; Shen et al. use 0.005, because raw Q is nearly all on one answer.

    Returns:
        [G] losses, one a list, in ascending order of group; 0 for lists of one, of equal rewards, or unscored.
    """
    grouped = _GroupStatistics(rewards, groups)
    sharp = alpha * logprobs
    mass = masked(
        sharp - grouped.extreme(sharp, "amax"), grouped.scored
    ).exp()  # the largest is 1: no underflow to 0 / 0
    shares = mass / torch.where(grouped.scored, grouped.sum(mass), 1.0)
    risks = -shares * masked(grouped.rewards - grouped.mean(), grouped.differ())
    return risks.new_zeros(grouped.size).index_add(0, grouped.place, risks)

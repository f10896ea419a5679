"""Log-probability of whole answers, and the two means that turn losses of tokens into one loss.

A mask [N, L] is True at the tokens of an answer (end token included, padding not). Values at padding, infinities and
NaN included, reach neither a result nor a gradient.
"""

import torch
from torch import Tensor

from rba_bench.training.options.presets import Reduction


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """`values` [N, L] with zeros, and no gradient, where `mask` [N, L] is False."""
    return torch.where(mask, values, values.new_zeros(()))


def sequence_logprobs(token_logprobs: Tensor, mask: Tensor, reduction: Reduction = "sequence") -> Tensor:
    """Log-probability of each response from those of its tokens.

    Args:
        token_logprobs: [N, L] log pi(y_t | y_<t, x) in nats.
        mask: [N, L] bool, True at response tokens (end token included, padding not).
        reduction: `sequence` sums over the response tokens, `token` is their mean.

    Returns:
        [N] nats (`token`: nats a token); 0 for an empty response.
    """
    summed = masked(token_logprobs, mask).sum(-1)
    return summed / mask.sum(-1).clamp(min=1) if reduction == "token" else summed


def token_mean(values: Tensor, mask: Tensor, count: int) -> Tensor:
    """Every token weighs the same, long answers more than short ones: the normaliser of DAPO, Ultravox and GKD.

    Args:
        values: [N, L] losses of tokens.
        mask: [N, L] bool.
        count: tokens the sum is divided by: those of the whole optimiser step, of which these may be a part.

    Returns:
        A scalar; 0 without any token.
    """
    return masked(values, mask).sum() / max(count, 1)


def sequence_mean(values: Tensor, mask: Tensor, count: int) -> Tensor:
    """Every answer weighs the same: mean over its tokens, then over answers. The normaliser of GRPO (its Eq. 3).

    Args:
        values: [N, L] losses of tokens.
        mask: [N, L] bool.
        count: answers the sum is divided by: those of the whole optimiser step, of which these may be a part.

    Returns:
        A scalar; 0 without any answer. An empty answer counts, with value 0.
    """
    return sequence_logprobs(values, mask, "token").sum() / max(count, 1)

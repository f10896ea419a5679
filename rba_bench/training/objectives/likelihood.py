"""Log-probability of whole answers, cross entropy of the teacher's answer, and how values of tokens become one loss.

A mask [N, L] is True at the tokens of an answer (end token included, padding not). What stands at padding never reaches
a value or a gradient, infinities and NaN included.
"""

import torch
from torch import Tensor


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """`values` [N, L] with zeros, and no gradient, where `mask` [N, L] is False."""
    return torch.where(mask, values, values.new_zeros(()))


def sequence_logprobs(token_logprobs: Tensor, mask: Tensor, length_normalized: bool = False) -> Tensor:
    """Log-probability of each response from those of its tokens.

    Args:
        token_logprobs: [N, L] log pi(y_t | y_<t, x) in nats.
        mask: [N, L] bool, True at response tokens (end token included, padding not).
        length_normalized: mean over the response tokens instead of their sum.

    Returns:
        [N] nats (per token if normalised); 0 for an empty response.
    """
    summed = masked(token_logprobs, mask).sum(-1)
    return summed / mask.sum(-1).clamp(min=1) if length_normalized else summed


def sft(teacher: Tensor) -> Tensor:
    """Cross entropy of the teacher's answer, Eq. (1) of RBA: -log pi(y*|x). `teacher`: [N] nats; returns [N] losses."""
    return -teacher


def token_mean(values: Tensor, mask: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Every token weighs the same, long answers more than short ones: the normaliser of DAPO, Ultravox and GKD.

    Args:
        values: [N, L] losses of tokens.
        mask: [N, L] bool.
        count: tokens the sum is divided by; default those of `mask`. With gradient accumulation or several processes
            the number in the whole step, so that the split of a batch does not change the loss.

    Returns:
        A scalar; 0 without any token.
    """
    return masked(values, mask).sum() / _at_least_one(mask.sum() if count is None else count)


def sequence_mean(values: Tensor, mask: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Every answer weighs the same: mean over its tokens, then over answers. The normaliser of GRPO (its Eq. 3).

    Args:
        values: [N, L] losses of tokens.
        mask: [N, L] bool.
        count: answers the sum is divided by; default N (an empty answer counts, with value 0).

    Returns:
        A scalar; 0 without any answer.
    """
    return sequence_logprobs(values, mask, True).sum() / _at_least_one(
        len(values) if count is None else count
    )


def budget_mean(values: Tensor, mask: Tensor, budget: int, count: float | Tensor | None = None) -> Tensor:
    """Sum over tokens / (answers * `budget`): free of a length bias, the normaliser of Dr. GRPO (arXiv 2503.20783).

    Args:
        values: [N, L] losses of tokens.
        mask: [N, L] bool.
        budget: longest answer that sampling allows, in tokens; a constant.
        count: answers; default N.

    Returns:
        A scalar; 0 without any answer.
    """
    return masked(values, mask).sum() / (budget * _at_least_one(len(values) if count is None else count))


def _at_least_one(count: float | Tensor) -> float | Tensor:
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)

"""Log-probability of whole answers, and cross entropy of the teacher's answer."""

import torch
from torch import Tensor


def sequence_logprobs(token_logprobs: Tensor, mask: Tensor, length_normalized: bool = False) -> Tensor:
    """Log-probability of each response from those of its tokens.

    Args:
        token_logprobs: [N, L] log pi(y_t | y_<t, x) in nats.
        mask: [N, L] bool, True at response tokens (end token included, padding not).
        length_normalized: mean over the response tokens instead of their sum.

    Returns:
        [N] nats (per token if normalised); 0 for an empty response.
    """
    summed = torch.where(mask, token_logprobs, token_logprobs.new_zeros(())).sum(-1)
    return summed / mask.sum(-1).clamp(min=1) if length_normalized else summed


def sft(teacher: Tensor) -> Tensor:
    """Cross entropy of the teacher's answer, Eq. (1). `teacher`: [N] log-probabilities; returns [N] losses."""
    return -teacher

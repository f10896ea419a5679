"""Log-probabilities of given tokens from logits, with one [K, V] tensor where autograd's own would hold three.

The logits are turned into probabilities in place, and those into the gradient, also in place: with a large vocabulary
the logits are the peak of a step's memory. Autograd notices a second backward pass, or a head whose last operation
needs its own result, and raises.
"""

from typing import Any

import torch
from torch import Tensor

BLOCK_ELEMENTS = {
    "cpu": 2**18
}  # turned at once: a processor's cache; elsewhere large enough to be few launches
BLOCK_DEFAULT = 2**25


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """[K] log-probabilities in nats.

    Args:
        logits: [K, V], float32; used up, not to be read afterwards.
        targets: [K] token ids.
    """
    found: Tensor = _TokenLogProbs.apply(logits, targets)
    return found


@torch.no_grad()
def token_entropies(logits: Tensor) -> Tensor:
    """[K] entropies in nats of softmax(logits) [K, V]; the logits stay as they are, no gradient."""
    found = torch.empty_like(logits[:, 0])
    rows = max(1, BLOCK_ELEMENTS.get(logits.device.type, BLOCK_DEFAULT) // logits.shape[1])
    for block, out in zip(logits.split(rows), found.split(rows), strict=True):
        apart = block - block.amax(-1, keepdim=True)
        odds = apart.exp()
        total = odds.sum(-1)
        out.copy_(total.log() - (odds * apart).sum(-1) / total)
    return found


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        found = torch.empty_like(logits[:, 0])
        needed = ctx.needs_input_grad[0]
        rows = max(1, BLOCK_ELEMENTS.get(logits.device.type, BLOCK_DEFAULT) // logits.shape[1])
        for block, tokens, out in zip(
            logits.split(rows), targets.split(rows), found.split(rows), strict=True
        ):
            most = block.amax(-1, keepdim=True)
            picked = block.gather(1, tokens[:, None]) - most
            odds = block.sub_(most).exp_() if needed else (block - most).exp_()
            total = odds.sum(-1, keepdim=True)
            out.copy_((picked - total.log()).squeeze(1))
            if needed:
                odds.div_(total)
        if needed:
            ctx.save_for_backward(logits, targets)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        probabilities, targets = ctx.saved_tensors
        probabilities.mul_(-grad[:, None])
        probabilities.scatter_add_(1, targets[:, None], grad[:, None])
        return probabilities, None

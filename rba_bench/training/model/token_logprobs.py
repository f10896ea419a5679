"""Log-probabilities of given tokens from logits, in little memory.

With a large vocabulary the logits are the peak of a step's memory. `token_logprobs` holds one [K, V] tensor where
autograd's own would hold three: the logits become probabilities in place, and those the gradient, also in place.
Autograd notices a second backward pass, or a head whose last operation needs its own result, and raises.

`score_rows_once` is for a head that does not train. A score of one token depends on one state alone, so its gradient is
computed at once, a chunk of logits at a time, and only scaled in the backward pass. Kept are [K, H] numbers instead of
[K, V] logits, and nothing is computed twice, as recomputing chunks in the backward pass would.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# turned at once: a processor's cache; elsewhere large enough to be few launches
BLOCK_ELEMENTS = {"cpu": 2**18}
BLOCK_DEFAULT = 2**25


def token_logprobs(logits: Tensor, targets: Tensor) -> Tensor:
    """[K] log-probabilities in nats.

    Args:
        logits: [K, V], float32; used up, not to be read afterwards.
        targets: [K] token ids.
    """
    return _TokenLogProbs.apply(logits, targets)


@torch.no_grad()
def token_entropies(logits: Tensor) -> Tensor:
    """[K] entropies in nats of softmax(logits) [K, V]; the logits stay as they are, no gradient."""
    entropies = torch.empty_like(logits[:, 0])
    rows = max(1, BLOCK_ELEMENTS.get(logits.device.type, BLOCK_DEFAULT) // logits.shape[1])
    for block, out in zip(logits.split(rows), entropies.split(rows), strict=True):
        apart = block - block.amax(-1, keepdim=True)
        odds = apart.exp()
        total = odds.sum(-1)
        out.copy_(total.log() - (odds * apart).sum(-1) / total)
    return entropies


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        logprobs = torch.empty_like(logits[:, 0])
        needed = ctx.needs_input_grad[0]
        rows = max(1, BLOCK_ELEMENTS.get(logits.device.type, BLOCK_DEFAULT) // logits.shape[1])
        for block, tokens, out in zip(
            logits.split(rows), targets.split(rows), logprobs.split(rows), strict=True
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
        return logprobs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        probabilities, targets = ctx.saved_tensors
        probabilities.mul_(-grad[:, None])
        probabilities.scatter_add_(1, targets[:, None], grad[:, None])
        return probabilities, None


# chunk [C, H], number of its first row -> [C], [C] or [0]
Score = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def score_rows_once(score: Score, states: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """[K] scores of [K, H] states, with gradient to the states, and [K] or [0] notes without one.

    Args:
        score: row by row, and with no other input that wants a gradient.
        states: [K, H].
        size: rows of a chunk.
    """
    scores, notes = _RowsOnce.apply(states, score, size)
    return scores, notes


class _RowsOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, score: Score, size: int) -> tuple[Tensor, Tensor]:
        parts, slopes = [], torch.empty_like(states)
        for start in range(0, len(states), size):
            chunk = states[start : start + size].detach().requires_grad_(True)
            with torch.enable_grad():
                # a view: what counts or wraps modules hooks into their inputs, and autograd.grad refuses hooked leaves
                values, notes = score(chunk.view_as(chunk), start)
            (slopes[start : start + len(chunk)],) = torch.autograd.grad(
                values, chunk, torch.ones_like(values)
            )
            parts.append((values.detach(), notes.detach()))
        ctx.save_for_backward(slopes)
        scores, notes = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.mark_non_differentiable(notes)
        return scores, notes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * grad[:, None].to(slopes.dtype), None, None

"""Scores of states under a head that does not train: logits are turned into their gradient at once and thrown away.

A score of one token depends on one state alone, so its gradient does not wait for what comes later: in backward it is
only scaled. Kept are [K, H] numbers instead of [K, V] logits, and nothing is computed twice, as recomputing chunks in
backward would.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Score = Callable[
    [Tensor, int], tuple[Tensor, Tensor]
]  # chunk [C, H], number of its first row -> [C], [C] or [0]


def rows_once(score: Score, states: Tensor, size: int) -> tuple[Tensor, Tensor]:
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

"""Log-probability of whole answers, means over tokens and answers, and divergences over the vocabulary.

A mask [N, L] is True at the tokens of an answer (end token included, padding not). What stands at padding never reaches
a value or a gradient, infinities and NaN included.

`FullDivergence` and `Collapse` reduce over the vocabulary with gradients written out by hand. Autograd would keep
several tensors of [C, V] for each: with 150 000 tokens that, not the model, fills the memory. Here rows are taken a
block at a time and nothing of size [C, V] exists beside the inputs and the gradient, so what is kept for the backward
pass are the inputs themselves. Half precision is computed in float32, float64 in float64. Not differentiable twice.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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


Kind = Literal["forward", "reverse", "jsd"]

BLOCK = 1 << 22
"""Numbers in a block of rows: 16 MiB of float32, a few of which are alive at a time."""


def _expectation(probs: Tensor, values: Tensor) -> Tensor:
    """sum_v p_v x_v over the last axis, where 0 * infinity is 0."""
    return torch.where(probs > 0, probs * values, probs.new_zeros(())).sum(-1)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """A new tensor: logits / T, in at least float32."""
    return logits.to(_work_type(logits)) / temperature


def _work_type(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _blocks(logits: Tensor) -> Iterator[slice]:
    rows, width = logits.shape
    step = max(1, BLOCK // max(width, 1))
    yield from (slice(start, start + step) for start in range(0, rows, step))


def _mixture(teacher: Tensor, student: Tensor, weight: float) -> Tensor:
    """log(w p_teacher + (1 - w) p_student) from log-probabilities."""
    shares = torch.tensor([weight, 1 - weight], dtype=student.dtype, device=student.device).log()
    return torch.logaddexp(teacher + shares[0], student + shares[1])


def _value(student: Tensor, teacher: Tensor, kind: Kind, weight: float) -> Tensor:
    """Divergence between rows of log-probabilities [C, V]; [C] nats."""
    if kind == "forward":
        return _expectation(teacher.exp(), teacher - student)
    if kind == "reverse":
        return _expectation(student.exp(), student - teacher)
    mixture = _mixture(teacher, student, weight)
    return weight * _expectation(teacher.exp(), teacher - mixture) + (1 - weight) * _expectation(
        student.exp(), student - mixture
    )


def _slope(student: Tensor, teacher: Tensor, kind: Kind, weight: float) -> Tensor:
    """Gradient of `_value` for the student's logits. Log-probabilities [C, V]; returns [C, V].

    q - p for the forward KL. For the others q * (g - sum_v q_v g_v), with g = d value / d q up to a constant: log q -
    log p for the reverse KL, (1 - w) * (log q - log m) for the JSD, whose terms from the mixture add up to a constant.
    """
    probs = student.exp()
    if kind == "forward":
        return probs.sub_(teacher.exp())
    towards = teacher if kind == "reverse" else _mixture(teacher, student, weight)
    slope = torch.where(probs > 0, student - towards, probs.new_zeros(()))
    if kind == "jsd":
        slope.mul_(1 - weight)
    return slope.sub_((probs * slope).sum(-1, keepdim=True)).mul_(probs)


class FullDivergence(torch.autograd.Function):
    """[C, V] logits of student and teacher -> [C] divergence; a gradient for the student only."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, kind: Kind, weight: float, temperature: float
    ) -> Tensor:
        """Logits [C, V] -> [C] nats."""
        ctx.save_for_backward(student, teacher)
        ctx.setting = kind, weight, temperature
        losses = student.new_empty(len(student), dtype=_work_type(student))
        for rows in _blocks(student):
            ours, theirs = FullDivergence._logprobs(student[rows], teacher[rows], temperature)
            losses[rows] = _value(ours, theirs, kind, weight)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """[C] -> [C, V] for the student."""
        student, teacher = ctx.saved_tensors
        kind, weight, temperature = ctx.setting
        gradient = torch.empty_like(student)
        for rows in _blocks(student):
            ours, theirs = FullDivergence._logprobs(student[rows], teacher[rows], temperature)
            gradient[rows] = _slope(ours, theirs, kind, weight).mul_(upstream[rows, None] / temperature)
        return gradient, None, None, None, None

    @staticmethod
    def _logprobs(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        ours = _scaled(student, temperature).log_softmax(-1)
        return ours, _scaled(teacher.to(ours.dtype), temperature).log_softmax(-1)


class Collapse(torch.autograd.Function):
    """[C, V] logits and [C, k] distinct ids -> [C, k + 1]: log-probabilities of the ids, and of all others together."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
        """Logits [C, V] -> [C, k + 1] nats; the last is -inf where the ids are the whole vocabulary."""
        ctx.save_for_backward(logits, ids)
        ctx.temperature = temperature
        collapsed = logits.new_empty(len(logits), ids.shape[1] + 1, dtype=_work_type(logits))
        for rows in _blocks(logits):
            scaled = _scaled(logits[rows], temperature)
            total = scaled.logsumexp(-1, keepdim=True)
            collapsed[rows, :-1] = scaled.gather(-1, ids[rows]) - total
            # not log(1 - sum of the others): that difference has no digits left when the ids hold all the mass
            others = scaled.scatter_(-1, ids[rows], -torch.inf).logsumexp(-1, keepdim=True)
            collapsed[rows, -1:] = others - total
        return collapsed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """[C, k + 1] -> [C, V]."""
        logits, ids = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for rows in _blocks(logits):
            scaled = _scaled(logits[rows], ctx.temperature)
            slope = scaled.log_softmax(-1).exp_().mul_(-upstream[rows].sum(-1, keepdim=True))
            slope.scatter_add_(-1, ids[rows], upstream[rows, :-1])
            others = scaled.scatter_(-1, ids[rows], -torch.inf)
            total = others.logsumexp(-1, keepdim=True)
            within = others.sub_(torch.where(total.isinf(), total.new_zeros(()), total)).exp_()
            gradient[rows] = slope.addcmul_(within, upstream[rows, -1:]).div_(ctx.temperature)
        return gradient, None, None

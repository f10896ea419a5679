"""Losses between the student's and a teacher's predictions at the same positions of the same answer.

A position is where one token of an answer is predicted: C of them, answer after answer. The student gets the
instruction as audio, the teacher gets it as text. With p the teacher's next-token distribution and q the student's,
both at temperature T (logits / T):

    forward   KL(p || q)                                          Ultravox, BLSP-KD's response loss
    reverse   KL(q || p)
    jsd       w KL(p || m) + (1 - w) KL(q || m),  m = w p + (1 - w) q           GKD (arXiv 2306.13649, Eq. 1)

**No factor T^2** anywhere, as in Ultravox and BLSP-KD: gradients shrink about as 1 / T^2. For Hinton's convention
multiply by T^2.

**The weight of the JSD** is on the teacher's side, as in GKD's definition with P the teacher, and in TRL's `beta`. For
w -> 0, JSD / w -> KL(p || q); for w -> 1, JSD / (1 - w) -> KL(q || p). The JSD itself is 0 at both ends, so w = 0
stands for `forward` and w = 1 for `reverse`, without the division: TRL's convention.

**Memory.** Autograd would keep several tensors of [C, V] for each divergence: with 150 000 tokens that, not the model,
fills the memory. So the reductions over the vocabulary have gradients written out by hand: rows are taken a block at a
time, nothing of size [C, V] exists beside the inputs and the gradient, and only the inputs are kept for the backward
pass. Half precision is computed in float32, float64 in float64. Not differentiable twice.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rba_bench.training.losses.likelihood import masked
from rba_bench.training.options.presets import Reduction

DivergenceKind = Literal["forward", "reverse", "jsd"]

BLOCK = 1 << 22  # numbers in a block of rows: 16 MiB of float32, a few of which are alive at a time


def divergence(
    student: Tensor,
    teacher: Tensor,
    kind: DivergenceKind = "forward",
    *,
    weight: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """Divergence between two next-token distributions at each position, over the whole vocabulary.

    Keeps nothing of size [C, V] but the two inputs, and makes nothing of that size but the gradient; safe inside
    activation checkpointing. Differentiable once, for the student only.

    Args:
        student: [C, V] logits.
        teacher: [C, V] logits over the same vocabulary; no gradient goes there.
        kind: see above.
        weight: w of the JSD, 0 to 1.
        temperature: T, > 0.

    Returns:
        [C] nats, float32 (float64 if the student is).

    Raises:
        ValueError: shapes that differ, or a setting that is out of range.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student and teacher differ in shape: {[*student.shape]} and {[*teacher.shape]}")
    return DivergenceFunction.apply(
        student, teacher.detach(), _effective_kind(kind, weight, temperature), weight, temperature
    )


def top_k(teacher: Tensor, k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """What `topk_divergence` needs of a teacher, computed from its logits [C, V], so that it can be cached.

    Returns:
        ids [C, k] int64 of the likeliest tokens; their log-probabilities [C, k] at temperature T; [C] the log of the
        probability of all other tokens (-inf if k = V). Nats.
    """
    ids = teacher.topk(k, dim=-1).indices
    collapsed = CollapseFunction.apply(teacher.detach(), ids, temperature)
    return ids, collapsed[:, :-1], collapsed[:, -1]


def topk_divergence(
    student: Tensor,
    ids: Tensor,
    logprobs: Tensor,
    log_rest: Tensor,
    kind: DivergenceKind = "forward",
    *,
    weight: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """`divergence` from a cached top k of the teacher: all other tokens are one bucket, for both sides.

    Exact for k = V. Otherwise a lower bound, of all three kinds, because joining outcomes cannot raise an f-divergence;
    the difference is the divergence *within* the bucket. Memory as for `divergence`. The teacher is normalised again:
    a cache in half precision makes no divergence negative.

    Args:
        student: [C, V] logits.
        ids: [C, k] int64, distinct in a row.
        logprobs: [C, k] teacher's log-probabilities of `ids` *at this temperature*, nats.
        log_rest: [C] log of the teacher's probability of all other tokens.
        kind: see above.
        weight: w of the JSD.
        temperature: T; of the student here, and what the cache was made at.

    Returns:
        [C] nats.

    Raises:
        ValueError: shapes that do not fit, or a setting that is out of range.
    """
    if not len(student) == len(ids) == len(log_rest) or ids.shape != logprobs.shape:
        shapes = ", ".join(str([*x.shape]) for x in (student, ids, logprobs, log_rest))
        raise ValueError(f"student, ids, logprobs and log_rest do not fit together: {shapes}")
    kind = _effective_kind(kind, weight, temperature)
    student_logprobs = CollapseFunction.apply(student, ids, temperature)
    teacher_logprobs = torch.cat([logprobs, log_rest[:, None]], -1).detach()
    return DivergenceFunction.apply(student_logprobs, teacher_logprobs, kind, weight, 1.0)  # as logits


def _effective_kind(kind: DivergenceKind, weight: float, temperature: float) -> DivergenceKind:
    """The kind to compute: a JSD with weight 0 or 1 is a KL. Raises ValueError for a setting out of range."""
    if kind not in ("forward", "reverse", "jsd"):
        raise ValueError(f"divergence {kind!r} is none of forward, reverse, jsd")
    if not 0 <= weight <= 1:
        raise ValueError(f"the weight of the JSD is {weight}, not between 0 and 1")
    if not temperature > 0:
        raise ValueError(f"the temperature is {temperature}, not above 0")
    ends: dict[float, DivergenceKind] = {0.0: "forward", 1.0: "reverse"}
    return ends.get(float(weight), kind) if kind == "jsd" else kind


def _expectation(probs: Tensor, values: Tensor) -> Tensor:
    """sum_v p_v x_v over the last axis, where 0 * infinity is 0."""
    return torch.where(probs > 0, probs * values, probs.new_zeros(())).sum(-1)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """A new tensor: logits / T, in at least float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature


def _row_blocks(logits: Tensor) -> Iterator[slice]:
    """Slices of the rows of `logits` [C, V], of at most `BLOCK` numbers each (or one row)."""
    rows, width = logits.shape
    step = max(1, BLOCK // max(width, 1))
    yield from (slice(start, start + step) for start in range(0, rows, step))


def _mixture(teacher: Tensor, student: Tensor, weight: float) -> Tensor:
    """log(w p_teacher + (1 - w) p_student) from log-probabilities."""
    shares = torch.tensor([weight, 1 - weight], dtype=student.dtype, device=student.device).log()
    return torch.logaddexp(teacher + shares[0], student + shares[1])


def _divergence_value(student: Tensor, teacher: Tensor, kind: DivergenceKind, weight: float) -> Tensor:
    """Divergence between rows of log-probabilities [C, V]. Returns [C] nats."""
    if kind == "forward":
        return _expectation(teacher.exp(), teacher - student)
    if kind == "reverse":
        return _expectation(student.exp(), student - teacher)
    mixture = _mixture(teacher, student, weight)
    return weight * _expectation(teacher.exp(), teacher - mixture) + (1 - weight) * _expectation(
        student.exp(), student - mixture
    )


def _divergence_gradient(student: Tensor, teacher: Tensor, kind: DivergenceKind, weight: float) -> Tensor:
    """Gradient of `_divergence_value` for the student's logits. Log-probabilities [C, V]; returns [C, V].

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


class DivergenceFunction(torch.autograd.Function):
    """[C, V] logits of student and teacher -> [C] divergence; a gradient for the student only."""

    @staticmethod
    def forward(
        ctx: Any, student: Tensor, teacher: Tensor, kind: DivergenceKind, weight: float, temperature: float
    ) -> Tensor:
        """Logits [C, V] -> [C] nats."""
        ctx.save_for_backward(student, teacher)
        ctx.setting = kind, weight, temperature
        losses = student.new_empty(len(student), dtype=torch.promote_types(student.dtype, torch.float32))
        for rows in _row_blocks(student):
            logprobs = DivergenceFunction._logprobs(student[rows], teacher[rows], temperature)
            losses[rows] = _divergence_value(*logprobs, kind, weight)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """[C] -> [C, V] for the student."""
        student, teacher = ctx.saved_tensors
        kind, weight, temperature = ctx.setting
        gradient = torch.empty_like(student)
        for rows in _row_blocks(student):
            logprobs = DivergenceFunction._logprobs(student[rows], teacher[rows], temperature)
            slope = _divergence_gradient(*logprobs, kind, weight)
            gradient[rows] = slope.mul_(upstream[rows, None] / temperature)
        return gradient, None, None, None, None

    @staticmethod
    def _logprobs(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        ours = _scaled(student, temperature).log_softmax(-1)
        return ours, _scaled(teacher.to(ours.dtype), temperature).log_softmax(-1)


class CollapseFunction(torch.autograd.Function):
    """[C, V] logits and [C, k] distinct ids -> [C, k + 1]: log-probabilities of the ids, and of all others together."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
        """Logits [C, V] -> [C, k + 1] nats; the last is -inf where the ids are the whole vocabulary."""
        ctx.save_for_backward(logits, ids)
        ctx.temperature = temperature
        work_type = torch.promote_types(logits.dtype, torch.float32)
        collapsed = logits.new_empty(len(logits), ids.shape[1] + 1, dtype=work_type)
        for rows in _row_blocks(logits):
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
        for rows in _row_blocks(logits):
            scaled = _scaled(logits[rows], ctx.temperature)
            slope = scaled.log_softmax(-1).exp_().mul_(-upstream[rows].sum(-1, keepdim=True))
            slope.scatter_add_(-1, ids[rows], upstream[rows, :-1])
            others = scaled.scatter_(-1, ids[rows], -torch.inf)
            total = others.logsumexp(-1, keepdim=True)
            within = others.sub_(torch.where(total.isinf(), total.new_zeros(()), total)).exp_()
            gradient[rows] = slope.addcmul_(within, upstream[rows, -1:]).div_(ctx.temperature)
        return gradient, None, None


def first_positions(mask: Tensor) -> Tensor:
    """[N, L] bool: the first True of each row of `mask` [N, L]; none in an empty row."""
    return mask & (mask.cumsum(-1) == 1)


def last_positions(mask: Tensor) -> Tensor:
    """[N, L] bool: the last True of each row of `mask` [N, L]; none in an empty row."""
    return mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)


def end_weights(
    mask: Tensor, end_weight: float, *, ended: Tensor, count: int, ends: int, reduction: Reduction = "token"
) -> Tensor:
    """Ultravox's weights of positions: the sum of weights times divergences is its loss.

    Mean over all positions of all answers (the end of turn among them) + `end_weight` * mean over the positions that
    predict the end of turn (`_compute_kl_loss` of fixie-ai/ultravox). The two normalisers belong to the method.

    Args:
        mask: [N, L] bool, True at the tokens of an answer, its end token last.
        end_weight: weight of the second mean; 1 in Ultravox, 0 turns it off.
        ended: [N] bool, whether the answer ends with its end token; those cut off have no second term.
        count: normaliser of the first mean: positions in the whole optimiser step, of which these may be a part; with
            `sequence` answers.
        ends: normaliser of the second mean: ends in the whole step.
        reduction: `token` as above; `sequence` is the mean over answers of their means, as GKD has it (arXiv
            2306.13649: the divergence of an answer is divided by its length).

    Returns:
        [N, L] float32 weights, 0 at padding.
    """
    last = last_positions(mask) & ended[:, None]
    lengths = 1 if reduction == "token" else mask.sum(-1, keepdim=True).clamp(min=1)
    return mask / lengths / max(count, 1) + end_weight * last / max(ends, 1)


def hidden_l2(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """||h_student - h_teacher||_2 of the last hidden states at each position: DiVA's distillation (arXiv 2410.02678).

    With a frozen output matrix it bounds how far the logits can be apart, and needs no vocabulary. DiVA takes the first
    predicted token only: `mask = first_positions(mask)`; `sequence_mean` or `token_mean` then give its mean over items.

    Args:
        student: [N, L, H] states that answer tokens are predicted from.
        teacher: [N, L, H] the same, the instruction read; no gradient goes there.
        mask: [N, L] bool, positions to compare.

    Returns:
        [N, L] norms (not squared), float32 or wider; 0, without gradient, outside the mask.
    """
    wide = torch.promote_types(student.dtype, torch.float32)
    difference = student.to(wide) - teacher.detach().to(wide)
    difference = masked(difference, mask[..., None])  # before the norm: no NaN from padding
    return torch.linalg.vector_norm(difference, dim=-1)


class Alignment(NamedTuple):
    """Distances of aligned tokens, `values` [C, N], and where there are any, `mask` [C, N]."""

    values: Tensor
    mask: Tensor


def token_alignment(sound: Tensor, n_sound: Tensor, text: Tensor, n_text: Tensor) -> Alignment:
    """sum_n ||t_n - a_(Q - N + n)||_2, summand by summand: DiVA's alignment of sound and transcript (arXiv 2410.02678).

    The last N of a clip's Q audio tokens are to be the embeddings of the N tokens of its transcript. The paper sums
    over n (`values.sum(-1)`), the released code averages over all pairs of the batch (`token_mean`). Where a clip has
    fewer audio tokens than its transcript has tokens, which does not happen to DiVA's 448 queries, the last Q tokens
    of the transcript are aligned and the others are left out (they still count in the mean over tokens).

    Args:
        sound: [C, A, H] audio tokens as the language model gets them, left-aligned.
        n_sound: [C] int, Q of each clip, at most A.
        text: [C, N, H] input embeddings of the transcript's tokens, left-aligned; no gradient goes there.
        n_text: [C] int, N of each transcript.

    Returns:
        [C, N] norms, 0 without gradient where the mask [C, N] is False.
    """
    steps = torch.arange(text.shape[1], device=text.device)
    partner = steps + (n_sound - n_text)[:, None]  # of text token n: Q - N + n, counted from 0
    mask = (steps < n_text[:, None]) & (partner >= 0)
    place = partner.clamp(0, max(sound.shape[1] - 1, 0))[..., None].expand(-1, -1, sound.shape[-1])
    aligned = sound.gather(1, place) if sound.shape[1] else torch.zeros_like(text)
    return Alignment(hidden_l2(aligned, text, mask), mask)

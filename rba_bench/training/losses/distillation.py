"""Losses between the student's and a teacher's predictions at the same positions of the same answer.

A position is where one token of an answer is predicted: C of them, answer after answer. The student gets the
instruction as audio, the teacher as text. With p the teacher's next-token distribution and q the student's, both at
temperature T (logits / T):

    forward   KL(p || q)                                          Ultravox, BLSP-KD's response loss
    reverse   KL(q || p)
    jsd       w KL(p || m) + (1 - w) KL(q || m),  m = w p + (1 - w) q           GKD (arXiv 2306.13649, Eq. 1)

**No factor T^2** anywhere, as in Ultravox and BLSP-KD: gradients shrink about as 1 / T^2. For Hinton's convention
multiply by T^2.

**The weight of the JSD** is on the teacher's side, as in GKD's definition with P the teacher, and in TRL's `beta`. For
w -> 0, JSD / w -> KL(p || q); for w -> 1, JSD / (1 - w) -> KL(q || p). The JSD itself is 0 at both ends, so w = 0
stands for `forward` and w = 1 for `reverse`, without the division: TRL's convention.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rba_bench.training.losses.likelihood import Collapse, FullDivergence, Kind
from rba_bench.training.options.presets import Reduction


def divergence(
    student: Tensor, teacher: Tensor, kind: Kind = "forward", *, weight: float = 0.5, temperature: float = 1.0
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
    return FullDivergence.apply(
        student, teacher.detach(), _checked(kind, weight, temperature), weight, temperature
    )


def top_k(teacher: Tensor, k: int, temperature: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """What `topk_divergence` needs to know of a teacher, from its logits [C, V]: to be cached.

    Returns:
        ids [C, k] int64 of the likeliest tokens; their log-probabilities [C, k] at temperature T; [C] the log of the
        probability of all other tokens (-inf if k = V). Nats.
    """
    ids = teacher.topk(k, dim=-1).indices
    collapsed = Collapse.apply(teacher.detach(), ids, temperature)
    return ids, collapsed[:, :-1], collapsed[:, -1]


def topk_divergence(
    student: Tensor,
    ids: Tensor,
    logprobs: Tensor,
    log_rest: Tensor,
    kind: Kind = "forward",
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
    kind = _checked(kind, weight, temperature)
    ours = Collapse.apply(student, ids, temperature)
    theirs = torch.cat([logprobs, log_rest[:, None]], -1).detach()
    return FullDivergence.apply(ours, theirs, kind, weight, 1.0)  # log-probabilities are logits, too


def _checked(kind: Kind, weight: float, temperature: float) -> Kind:
    """The kind to compute: a JSD with its weight at an end is a KL."""
    if kind not in ("forward", "reverse", "jsd"):
        raise ValueError(f"divergence {kind!r} is none of forward, reverse, jsd")
    if not 0 <= weight <= 1:
        raise ValueError(f"the weight of the JSD is {weight}, not between 0 and 1")
    if not temperature > 0:
        raise ValueError(f"the temperature is {temperature}, not above 0")
    ends: dict[float, Kind] = {0.0: "forward", 1.0: "reverse"}
    return ends.get(float(weight), kind) if kind == "jsd" else kind


# positions of an answer


def first_positions(mask: Tensor) -> Tensor:
    """[N, L] bool: the first True of each row of `mask` [N, L]; none in an empty row."""
    return mask & (mask.cumsum(-1) == 1)


def last_positions(mask: Tensor) -> Tensor:
    """[N, L] bool: the last True of each row of `mask` [N, L]; none in an empty row."""
    return mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)


def end_weights(
    mask: Tensor,
    end_weight: float,
    *,
    ended: Tensor,
    count: int,
    ends: int,
    reduction: Reduction = "token",
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


# DiVA


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
    apart = student.to(wide) - teacher.detach().to(wide)
    apart = torch.where(mask[..., None], apart, apart.new_zeros(()))  # before the norm: no NaN from padding
    return torch.linalg.vector_norm(apart, dim=-1)


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

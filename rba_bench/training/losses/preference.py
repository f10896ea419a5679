"""Losses of pairs: a chosen answer y+ against a rejected one y-.

    x_s  the instruction spoken by speaker s        pi   the speech model
    beta preference temperature                     ref  a frozen policy: the base, or SPIN's opponent

    preference  -log sigmoid(beta * [score(y+) - score(y-)])                       CPO, DPO, SPIN, RBA Eq. (5)
    odpo        -log sigmoid(beta * [.] - alpha * f(reward gap))
    ipo         ([.] - 1 / (2 beta))^2                                             per token
    simpo       -log sigmoid(beta * [.] - gamma)                                   per token, no reference
    tdpo        -log sigmoid(beta * [. - alpha * difference of sequential KLs])

A score is log pi(y|x_s), or log pi(y|x_s) - log ref(y|x_s) where the method has a reference: `methods.preference` makes
them, averages the losses and adds RBA's SFT term. The RBA paper (arXiv 2509.03526; equation bodies rebuilt from the
prose) does not say whether log pi(y|x) is summed over tokens or averaged; `preference_reduction` offers both.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rba_bench.training.losses.likelihood import sequence_logprobs


def preference_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta * (chosen - rejected)), reference-free on log-probabilities (CPO, arXiv 2401.08417, Eq. 3).

    Args:
        chosen: [P] score of y+, nats.
        rejected: [P] score of y-, nats.
        beta: preference temperature, 1 / nats.

    Returns:
        [P] losses.
    """
    return -F.logsigmoid(beta * (chosen - rejected))


def ipo(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """(chosen - rejected - 1 / (2 beta))^2: IPO (arXiv 2310.12036, Eq. 17; beta is its tau).

    The equation sums over tokens; the authors' results are for means over tokens (said in TRL, whose `ipo` does the
    same), which keeps the target 1 / (2 beta) comparable between lengths. So `token` is the method's
    `preference_reduction`; with `sequence` the loss is the equation as printed.

    Args:
        chosen: [P] log pi/ref(y+|x), nats a token (or nats, see above).
        rejected: [P] the same of y-.
        beta: strength of the regularisation, > 0.

    Returns:
        [P] losses, nats^2.
    """
    return (chosen - rejected - 1 / (2 * beta)).square()


def simpo(chosen: Tensor, rejected: Tensor, beta: float, gamma: float = 0.0) -> Tensor:
    """-log sigmoid(beta * (chosen - rejected) - gamma): SimPO (arXiv 2405.14734, Eq. 6), without a reference.

    Args:
        chosen: [P] log pi(y+|x) / |y+|, nats a token (`sequence_logprobs(..., "token")`).
        rejected: [P] the same of y-.
        beta: scale of the reward beta * log pi / |y|; 2.0 to 2.5 in the paper.
        gamma: target margin of the rewards, outside beta (TRL's `simpo_gamma`); inside it would be gamma / beta.

    Returns:
        [P] losses.
    """
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def odpo(
    chosen: Tensor,
    rejected: Tensor,
    beta: float,
    gap: Tensor,
    alpha: float = 1.0,
    scale: Literal["log", "linear"] = "log",
) -> Tensor:
    """-log sigmoid(beta * (chosen - rejected) - alpha * f(gap)): DPO with an offset (arXiv 2402.10571; rycolab/odpo).

    A pair whose rewards differ much needs a larger margin. With f = log (the release) a gap below 1 lowers the margin,
    and the loss vanishes with the gap: a pair of equal rewards teaches nothing. With f linear, gap 0 is DPO. So with
    `log` the unit of the reward matters, and alpha with it.

    Args:
        chosen: [P] scores of y+, nats.
        rejected: [P] scores of y-.
        beta: preference temperature.
        gap: [P] reward(y+) - reward(y-), >= 0 (less counts as 0); no gradient goes there.
        alpha: weight of the offset; 0 is DPO.
        scale: f.

    Returns:
        [P] losses.
    """
    gap = gap.detach().to(chosen.dtype)
    # the smallest normal number stands for 0, whose log would make 0 * inf of alpha = 0
    offset = gap.clamp(min=torch.finfo(gap.dtype).tiny).log() if scale == "log" else gap.clamp(min=0)
    return -F.logsigmoid(beta * (chosen - rejected) - alpha * offset)


def tdpo(
    chosen: Tensor,
    rejected: Tensor,
    beta: float,
    *,
    chosen_kl: Tensor,
    chosen_mask: Tensor,
    rejected_kl: Tensor,
    rejected_mask: Tensor,
    alpha: float | None = 0.5,
) -> Tensor:
    """Token-level DPO (Zeng et al. 2024, arXiv 2404.11999; `tdpo_loss` of their release).

    With D(y) = sum_t KL(ref(.|y_<t, x) || pi(.|y_<t, x)), the sequential *forward* KL along an answer:

        TDPO1  -log sigmoid(beta * (chosen - rejected) - beta * (D(y-) - D(y+)))
        TDPO2  -log sigmoid(beta * (chosen - rejected) - beta * alpha * (D(y-) - stop_gradient(D(y+))))

    Args:
        chosen: [P] log pi/ref(y+|x), summed over tokens, nats.
        rejected: [P] log pi/ref(y-|x).
        beta: preference temperature.
        chosen_kl: [P, L] KL(ref || pi) at each position of y+, nats: `divergence(policy, reference, "forward")`.
        chosen_mask: [P, L] bool.
        rejected_kl: [P, M] the same along y-.
        rejected_mask: [P, M] bool.
        alpha: weight of the KLs, TDPO2 (0.5 in the release); None: TDPO1.

    Returns:
        [P] losses.
    """
    along_chosen = sequence_logprobs(chosen_kl, chosen_mask)
    along_rejected = sequence_logprobs(rejected_kl, rejected_mask)
    if alpha is None:
        return preference_loss(chosen + along_chosen, rejected + along_rejected, beta)
    return preference_loss(chosen + alpha * along_chosen.detach(), rejected + alpha * along_rejected, beta)

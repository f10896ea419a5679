"""The losses, as pure functions of log-probabilities. No model, no tokenizer, no batch layout in here.

Notation of the RBA paper (arXiv 2509.03526, sections 2 and 3; equation bodies rebuilt from the prose):

    x_s  the instruction spoken by speaker s        y*  the teacher's answer to the text instruction
    pi   the speech model                           beta, w  preference temperature and weight of the SFT term

    sft   L = -log pi(y*|x_s)                                                                         Eq. (1)
    dpo   L = -log sigmoid(beta * [log pi/ref (y+|x) - log pi/ref (y-|x)])             with a reference model
    rba   L = -log sigmoid(beta * [log pi(y+|x) - log pi(y-|x)]) + w * L_sft                          Eq. (5)

The paper does not say whether log pi(y|x) is summed over tokens or averaged; `sequence_logprobs` offers both.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from rba_bench.training.objectives.likelihood import sft


def preference(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """Reference-free preference loss. `chosen`, `rejected`: [P] log pi(y|x); returns [P] losses."""
    return -F.logsigmoid(beta * (chosen - rejected))


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Tensor:
    """DPO (Rafailov et al. 2023, Eq. 7): `preference` on log-ratios to a frozen reference. All [P]; returns [P]."""
    return preference(chosen - ref_chosen, rejected - ref_rejected, beta)


@dataclass(frozen=True)
class Terms:
    """A loss and what it is made of (scalars; the parts are detached)."""

    loss: Tensor
    preference: Tensor
    sft: Tensor


def rba(
    chosen: Tensor,
    rejected: Tensor,
    teacher: Tensor,
    *,
    beta: float,
    sft_weight: float,
    n_pairs: int | None = None,
    ref_chosen: Tensor | None = None,
    ref_rejected: Tensor | None = None,
) -> Terms:
    """Preference on pairs plus weighted SFT on the teacher's text, Eq. (5).

    Args:
        chosen: [P] log pi(y+|x).
        rejected: [P] log pi(y-|x).
        teacher: [N] log pi(y*|x); N = 0 leaves the SFT term out.
        beta: preference temperature.
        sft_weight: w.
        n_pairs: number the preference losses are averaged over; more than P when some items had no pair (all
            samples equally good), so that those items weigh as zero instead of boosting the others. Default P.
        ref_chosen: [P] log ref(y+|x), for the form with a reference model.
        ref_rejected: [P] log ref(y-|x).
    """
    if ref_chosen is not None and ref_rejected is not None:
        losses = dpo(chosen, rejected, ref_chosen, ref_rejected, beta)
    else:
        losses = preference(chosen, rejected, beta)
    pairs = losses.sum() / max(len(losses) if n_pairs is None else n_pairs, 1)
    likelihood = sft(teacher).mean() if len(teacher) else pairs.new_zeros(())
    return Terms(pairs + sft_weight * likelihood, pairs.detach(), likelihood.detach())

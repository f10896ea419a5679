"""The losses, as pure functions of tensors. No model, no tokenizer, no batch layout in here.

    likelihood       log-probability of answers, and the means that turn losses of tokens into one
    preference       pairs: sigmoid (CPO, DPO, SPIN, RBA), IPO, SimPO, ODPO, TDPO
    distillation     a teacher's distributions (forward, reverse, JSD; full or top k), DiVA's hidden states
    policy_gradient  advantages, GRPO, DAPO, RLOO, self-critical training, minimum risk
    vocabulary       what distillation computes over the vocabulary, sparing memory

Losses come back one a pair, an answer, a token or a position, not averaged: the methods know what a whole optimiser
step is to be divided by. Nothing is in here that no method calls.
"""

from rba_bench.training.losses.distillation import (
    Alignment,
    divergence,
    end_weights,
    first_positions,
    hidden_l2,
    last_positions,
    token_alignment,
    top_k,
    topk_divergence,
)
from rba_bench.training.losses.likelihood import (
    Kind,
    masked,
    sequence_logprobs,
    sequence_mean,
    token_mean,
)
from rba_bench.training.losses.policy_gradient import (
    beyond_clip,
    clipped_ratio,
    group_advantages,
    importance_weights,
    kl_estimate,
    leave_one_out,
    minimum_risk,
    modality_advantages,
    overlong_punishment,
    self_critical,
)
from rba_bench.training.losses.preference import (
    ipo,
    odpo,
    preference_loss,
    simpo,
    tdpo,
)

__all__ = [
    "Alignment",
    "Kind",
    "beyond_clip",
    "clipped_ratio",
    "divergence",
    "end_weights",
    "first_positions",
    "group_advantages",
    "hidden_l2",
    "importance_weights",
    "ipo",
    "kl_estimate",
    "last_positions",
    "leave_one_out",
    "masked",
    "minimum_risk",
    "modality_advantages",
    "odpo",
    "overlong_punishment",
    "preference_loss",
    "self_critical",
    "sequence_logprobs",
    "sequence_mean",
    "simpo",
    "tdpo",
    "token_alignment",
    "token_mean",
    "top_k",
    "topk_divergence",
]

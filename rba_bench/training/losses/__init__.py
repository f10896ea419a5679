"""The losses, as pure functions of tensors: they know no model, no tokenizer and no layout of a batch.

    likelihood       log-probability of answers, and the means that turn losses of tokens into one loss
    preference       pairs: sigmoid (CPO, DPO, SPIN, RBA), IPO, SimPO, ODPO, TDPO
    distillation     a teacher's distributions (forward, reverse, JSD; full or top k), DiVA's hidden states
    policy_gradient  advantages, GRPO, DAPO, RLOO, self-critical training, minimum risk

A function returns one loss for each pair, answer, token or position, not their mean: the methods know by what a whole
optimiser step is divided. Every function is called by a method.
"""

from rba_bench.training.losses.distillation import (
    Alignment,
    DivergenceKind,
    divergence,
    end_weights,
    first_positions,
    hidden_l2,
    last_positions,
    token_alignment,
    top_k,
    topk_divergence,
)
from rba_bench.training.losses.likelihood import masked, sequence_logprobs, sequence_mean, token_mean
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
from rba_bench.training.losses.preference import ipo, odpo, preference_loss, simpo, tdpo

__all__ = [
    "Alignment",
    "DivergenceKind",
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

"""The losses, as pure functions of tensors. No model, no tokenizer, no batch layout in here."""

from rba_bench.training.objectives.likelihood import sequence_logprobs, sft
from rba_bench.training.objectives.preference import Terms, dpo, preference, rba

__all__ = ["Terms", "dpo", "preference", "rba", "sequence_logprobs", "sft"]

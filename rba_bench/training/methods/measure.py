"""How far logits are from a teacher's distributions, whichever form those have."""

from dataclasses import dataclass

from torch import Tensor

from rba_bench.training.data.targets import StateTargets, Targets
from rba_bench.training.losses.distillation import divergence, topk_divergence
from rba_bench.training.losses.vocabulary import Kind


@dataclass(frozen=True)
class Divergence:
    """A `policy.Measure`; see `objectives.distillation` for kinds, temperature and weight.

    Where student and teacher have padding rows behind the vocabulary, only what both have is compared.
    """

    kind: Kind = "forward"
    temperature: float = 1.0
    weight: float = 0.5

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Student's logits [C, V] and as many targets to [C] nats."""
        if isinstance(targets, StateTargets):
            teacher = targets.logits()
            size = min(logits.shape[-1], teacher.shape[-1])
            return divergence(
                logits[:, :size],
                teacher[:, :size],
                self.kind,
                weight=self.weight,
                temperature=self.temperature,
            )
        return topk_divergence(
            logits,
            targets.ids,
            targets.logits,
            targets.log_rest,
            self.kind,
            weight=self.weight,
            temperature=self.temperature,
        )

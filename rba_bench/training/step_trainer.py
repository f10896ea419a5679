"""Training of a part of a model step by step, with checkpoints: what `connector` and `decoder_adaptation` share.

A killed run goes on from its last checkpoint with the same numbers, because everything random in a step follows from
the seed and the step.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rba_bench import files
from rba_bench.progress import bar, say
from rba_bench.training.machine import reuse_memory

CHECKPOINT, STEP = "checkpoint.safetensors", "step"
LOG = "train_log.jsonl"
STATE = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each parameter
LOG_EVERY = 50


def warm_cosine(step: int, total: int, warmup: int) -> float:
    """Share of the peak learning rate: a linear warm-up, then a cosine down to a hundredth."""
    warm = min(1.0, (step + 1) / warmup)
    return warm * (0.01 + 0.495 * (1 + math.cos(math.pi * step / total)))


class StepTrainer(ABC):
    """Trains parameters in place, and goes on where an earlier call in the same folder stopped.

    Args:
        parameters: what trains, by names that checkpoints use; float32.
        total: steps.
        lr: peak of the learning rate, see `warm_cosine`.
        warmup: steps of the warm-up.
        weight_decay: of matrices.
        out: folder of checkpoints and log, claimed by the caller.
        save_every: steps between checkpoints.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        total: int,
        lr: float,
        warmup: int,
        weight_decay: float,
        out: Path,
        save_every: int,
    ) -> None:
        self.parameters, self.total, self.out, self.save_every = dict(parameters), total, out, save_every
        self.lr, self.warmup = lr, warmup
        matrices = [p for p in self.parameters.values() if p.ndim > 1]
        vectors = [p for p in self.parameters.values() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
        self.step = 0
        if (out / CHECKPOINT).is_file():
            self._restore()

    @abstractmethod
    def loss(self) -> tuple[torch.Tensor, float]:
        """Of step `self.step`: what is minimised, and the number that the log shows."""

    def rate(self) -> float:
        """Learning rate of the step."""
        return self.lr * warm_cosine(self.step, self.total, self.warmup)

    def run(self, note: Callable[[int, float], None] = lambda step, loss: None) -> None:
        """Train to the end; `note` gets the step and the mean loss of the steps since it was last called."""
        reuse_memory()
        losses, begun = [], time.monotonic()
        with files.JsonlAppender(self.out / LOG) as log:
            while self.step < self.total:
                losses.append(self._train_step())
                self.step += 1
                if self.step % LOG_EVERY == 0 or self.step == self.total:
                    loss, losses = sum(losses) / len(losses), []
                    elapsed = time.monotonic() - begun
                    log.write({"step": self.step, "loss": loss, "lr": self.rate(), "elapsed_s": elapsed})
                    note(self.step, loss)
                if self.step % self.save_every == 0 or self.step == self.total:
                    self._save()

    def run_with_progress(self, label: str) -> None:
        """Train to the end, and show how far it is."""
        reached = self.step
        with bar(label, self.total, reached, "steps") as advance:

            def note(step: int, loss: float) -> None:
                nonlocal reached
                advance(step - reached)
                reached = step
                say(f"{label}: step {step}/{self.total}, loss {loss:.3f}")

            self.run(note)

    def _train_step(self) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss, shown = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        return shown

    def _save(self) -> None:
        from safetensors.torch import save

        tensors = {STEP: torch.tensor(self.step)}
        for name, parameter in self.parameters.items():
            tensors[f"model.{name}"] = parameter.detach()
            state: dict[str, Any] = self.optimizer.state[parameter]
            tensors |= {f"{key}.{name}": state[key] for key in state}
        files.write_atomic(self.out / CHECKPOINT, save({n: t.contiguous() for n, t in tensors.items()}))

    def _restore(self) -> None:
        from safetensors.torch import load_file

        tensors = load_file(self.out / CHECKPOINT)
        self.step = int(tensors[STEP])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"model.{name}"])
                known = {key: tensors[f"{key}.{name}"] for key in STATE if f"{key}.{name}" in tensors}
                if known:
                    self.optimizer.state[parameter] = known
        say(f"training goes on from step {self.step} of {self.total}")

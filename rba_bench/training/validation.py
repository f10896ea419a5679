"""Held-out items of each kind, watched while training: which weights were best, and when to stop looking for better."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.files import read_json, write_json
from rba_bench.training.checkpoints import load_weights, save_weights
from rba_bench.training.clips import ResponseTokens
from rba_bench.training.collect import Collector
from rba_bench.training.layout import Branch
from rba_bench.training.objectives import sequence_logprobs
from rba_bench.training.pairs import Voice
from rba_bench.training.recipe import TrainingRecipe
from rba_bench.training.rewards import Reward

BEST = "best"
STATE = "validation.json"


class Validator:
    """Validates, remembers the best weights on disk, and says when patience is at its end.

    The figure that decides is the mean over kinds, so that a frequent kind does not outvote a rare one: the mean
    negative log-probability (nats per answer) of the teacher's answers, or the mean reward of greedy answers.

    Args:
        recipe: `validation`, `select`, `eval_every`.
        rows: held-out clips of each kind.
        collector: policy, clips and sampling.
        reward: judges greedy answers, for `validation.metric: reward`.
        folder: where the best weights are kept.
        writes: whether this process keeps them.
        agree: one process's figure for all: several may differ in rounding.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        rows: Mapping[str, Sequence[AlignmentRow]],
        collector: Collector,
        reward: Reward | None,
        folder: Path,
        writes: bool = True,
        agree: Callable[[float], float] = float,
    ) -> None:
        self.recipe = recipe
        self.rows = rows
        self.collector = collector
        self.reward = reward
        self.folder = folder
        self.writes = writes
        self.agree = agree
        self.history: list[tuple[int, float]] = []

    def __call__(self, step: int) -> dict[str, Any]:
        """Validate now; what to write into the step log: `validation_loss` or `validation_reward`, also by kind."""
        name = f"validation_{self.recipe.validation.metric}"
        measure = self._loss if self.recipe.validation.metric == "loss" else self._reward
        policy = self.collector.policy
        training = policy.training
        policy.eval()
        with torch.no_grad():
            found = {kind: measure(rows) for kind, rows in sorted(self.rows.items())}
        policy.train(training)
        value = self.agree(sum(found.values()) / len(found))
        self.history.append((step, value))
        if self.best[0] == step and self.recipe.select == "best":
            save_weights(policy, self.folder / BEST, self.writes)
        if self.writes:
            write_json(self.folder / STATE, {"history": self.history})
        return {name: value, **{f"{name}_{kind}": number for kind, number in found.items()}}

    def resume(self, step: int) -> None:
        """Take over the validations up to `step` of the attempt before."""
        if (self.folder / STATE).is_file():
            kept = read_json(self.folder / STATE)["history"]
            self.history = [(at, value) for at, value in kept if at <= step]

    def restore_best(self) -> None:
        """Put the best weights into the policy."""
        load_weights(self.collector.policy, self.folder / BEST)

    @property
    def best(self) -> tuple[int, float]:
        """Step and figure of the best validation so far; of equal ones the first."""
        sign = 1 if self.recipe.validation.metric == "loss" else -1
        every = self.recipe.eval_every
        asked = [
            (at, value) for at, value in self.history if every and at and at % every == 0
        ]  # not of the ends
        return min(
            asked or [one for one in self.history if one[0]] or self.history,
            key=lambda seen: (sign * seen[1], seen[0]),
        )

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        patience = self.recipe.validation.patience
        if patience is None or not self.history:
            return False
        return sum(at > self.best[0] for at, _ in self.history) >= patience

    def _loss(self, rows: Sequence[AlignmentRow]) -> float:
        responder: ResponseTokens = self.collector.responder
        total = 0.0
        for start in range(0, len(rows), self.recipe.batch_size):
            batch = rows[start : start + self.recipe.batch_size]
            branches = [Branch(i, responder(row.response)) for i, row in enumerate(batch)]
            scores = self.collector.policy(self.collector.store.get(batch), branches)
            total -= float(sequence_logprobs(scores.logprobs, scores.mask).sum())
        return total / len(rows)

    def _reward(self, rows: Sequence[AlignmentRow]) -> float:
        assert self.reward is not None  # the run made one
        samples = self.collector.answer([Voice(row, 0, 0.0) for row in rows], 0)
        rewards = self.reward(list(rows), [one.text for one in samples])
        judged = [reward for reward in rewards if reward == reward]  # NaN: not judged
        return sum(judged) / max(len(judged), 1)

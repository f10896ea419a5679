"""Held-out items of each kind, watched while training: which weights were best, and when to stop looking for better."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.files import read_json, write_json
from rba_bench.training.data.clips import ResponseTokens
from rba_bench.training.data.packing import Response
from rba_bench.training.data.pairs import SampleRequest
from rba_bench.training.losses import sequence_logprobs
from rba_bench.training.model.checkpoints import load_weights, save_weights
from rba_bench.training.model.sharding import CollectiveSync
from rba_bench.training.rewards import Reward
from rba_bench.training.rollouts.buffer import RolloutBuffer
from rba_bench.training.training_recipe import TrainingRecipe

BEST = "best"
STATE = "validation.json"
# Figures of items: by kind and place among the kind's rows
Figures = dict[tuple[str, int], float]


class Validator:
    """Validates, remembers the best weights on disk, and says when patience is at its end.

    The figure that decides is the mean over kinds, so that a frequent kind does not outvote a rare one: the mean
    negative log-probability (nats per answer) of the teacher's answers, or the mean reward of greedy answers.

    Args:
        recipe: `validation`, `select`, `eval_every`.
        rows: held-out clips of each kind.
        rollout_buffer: policy, clips and sampling.
        reward: judges greedy answers, for `validation.metric: reward`.
        folder: where the best weights are kept.
        writes: whether this process keeps them.
        process: which of the processes this is, and how many there are. They share the items out, batch by batch, so
            that a batch holds the same items whoever measures it, and the figures are those of one process.
        gather: what all processes have found, for all of them.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        rows: Mapping[str, Sequence[AlignmentRow]],
        rollout_buffer: RolloutBuffer,
        reward: Reward | None,
        folder: Path,
        writes: bool = True,
        process: tuple[int, int] = (0, 1),
        gather: Callable[[Figures], Sequence[Figures]] = lambda found: [found],
    ) -> None:
        self.recipe = recipe
        self.rows = rows
        self.rollout_buffer = rollout_buffer
        self.reward = reward
        self.folder = folder
        self.writes = writes
        self.process = process
        self.gather = gather
        self.sync = CollectiveSync()  # of the processes, where they share weights out
        self.history: list[tuple[int, float]] = []

    def __call__(self, step: int) -> dict[str, Any]:
        """Validate now; what to write into the step log: `validation_loss` or `validation_reward`, also by kind."""
        name = f"validation_{self.recipe.validation.metric}"
        policy = self.rollout_buffer.policy
        training = policy.training
        policy.eval()
        with torch.no_grad():
            figures = self._figures()
        policy.train(training)
        found = {kind: _mean(figures, kind) for kind in sorted(self.rows)}
        value = sum(found.values()) / len(found)
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
        load_weights(self.rollout_buffer.policy, self.folder / BEST)
        self.rollout_buffer.rollout.renew()

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

    def _figures(self) -> Figures:
        """What every item was found to be worth, by all processes.

        All of them take equally many turns, as they must where they share weights out; a turn may have no items.
        """
        mine, size = self.process
        batches, found = self._batches(), Figures()
        measure = self._losses if self.recipe.validation.metric == "loss" else self._rewards
        for turn in range(math.ceil(len(batches) / size)):
            batch = batches[turn * size + mine] if turn * size + mine < len(batches) else []
            rows = [self.rows[kind][place] for kind, place in batch]
            found.update(zip(batch, measure(rows), strict=True))
        if self.recipe.validation.metric == "loss":
            self.sync.leave(self._any_loss)
        return {item: figure for part in self.gather(found) for item, figure in part.items()}

    def _batches(self) -> list[list[tuple[str, int]]]:
        """Items of one kind that are measured together."""
        size = self.recipe.batch_size
        return [
            [(kind, place) for place in range(start, min(start + size, len(self.rows[kind])))]
            for kind in sorted(self.rows)
            for start in range(0, len(self.rows[kind]), size)
        ]

    def _losses(self, rows: Sequence[AlignmentRow]) -> list[float]:
        """Negative log-probabilities of the teacher's answers, in nats."""
        if not rows:
            return []
        responder: ResponseTokens = self.rollout_buffer.responder
        clips = self.rollout_buffer.store.get(rows)
        responses = [Response(i, responder(row.response)) for i, row in enumerate(rows)]
        self.sync.enter()
        scores = self.rollout_buffer.policy(clips, responses)
        return [-float(one) for one in sequence_logprobs(scores.logprobs, scores.mask)]

    def _any_loss(self) -> None:
        """One forward pass whose result nobody needs."""
        row = next(iter(self.rows.values()))[0]
        self.rollout_buffer.policy(
            self.rollout_buffer.store.get([row]), [Response(0, self.rollout_buffer.responder(row.response))]
        )

    def _rewards(self, rows: Sequence[AlignmentRow]) -> list[float]:
        """Rewards of greedy answers, NaN where one could not be judged; asked by all processes, also for no rows."""
        assert self.reward is not None  # the run made one
        samples = self.rollout_buffer.answer([SampleRequest(row, 0, 0.0) for row in rows], 0)
        return self.reward(list(rows), [one.text for one in samples]) if rows else []


def _mean(figures: Figures, kind: str) -> float:
    """Mean over the items of a kind, those not judged left out; added in one order whoever found them."""
    values = [figures[item] for item in sorted(figures) if item[0] == kind and not math.isnan(figures[item])]
    return sum(values) / max(len(values), 1)

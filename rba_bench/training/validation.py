"""Validation on held-out items while a run trains: which weights are best, when to stop, and answers to read.

The figure that decides is the mean over kinds, so that a frequent kind does not outvote a rare one: the mean negative
log-probability (nats per answer) of the teacher's answers, or the mean reward of greedy answers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import UserError
from rba_bench.files import read_json, write_json
from rba_bench.progress import say
from rba_bench.training.callbacks.samples import bounded
from rba_bench.training.data.groups import TrainingData, validation_rows
from rba_bench.training.data.packing import Response
from rba_bench.training.data.pairs import SampleRequest
from rba_bench.training.losses.likelihood import sequence_logprobs
from rba_bench.training.model.checkpoints import load_weights, save_weights
from rba_bench.training.model.sharding import CollectiveSync
from rba_bench.training.rewards import Reward
from rba_bench.training.rollouts.buffer import RolloutBuffer
from rba_bench.training.training_recipe import TrainingRecipe

BEST = "best"
STATE = "validation.json"
ITEMS_SHOWN = 10  # that are answered before and after training, for people to read
# Figures of items: by kind and place among the kind's rows
Figures = dict[tuple[str, int], float]


@dataclass(eq=False)
class Validator:
    """Validates, keeps the best weights on disk, and says when patience is at its end. All processes must call.

    Attributes:
        recipe: `validation`, `select`, `eval_every`.
        rows: held-out clips of each kind.
        rollout_buffer: policy, clips and sampling.
        reward: of greedy answers; None where the run has no reward.
        folder: where the best weights are kept.
        writes: whether this process writes; the others keep no weights and do not judge the answers for people.
        process: which of the processes this is, and how many there are. They share the items, batch by batch, so that a
            batch holds the same items in whichever process, and the figures are those of one process.
        gather: the figures of all processes, for all of them.
        sync: of the processes, where they share weights out.
        history: step and figure of every validation.
    """

    recipe: TrainingRecipe
    rows: Mapping[str, Sequence[AlignmentRow]]
    rollout_buffer: RolloutBuffer
    reward: Reward | None
    folder: Path
    writes: bool = True
    process: tuple[int, int] = (0, 1)
    gather: Callable[[Figures], Sequence[Figures]] = lambda figures: [figures]
    sync: CollectiveSync = field(default_factory=CollectiveSync)
    history: list[tuple[int, float]] = field(default_factory=list, init=False)

    def __call__(self, step: int) -> dict[str, Any]:
        """Validate now; what to write into the step log: `validation_loss` or `validation_reward`, also by kind."""
        policy = self.rollout_buffer.policy
        training = policy.training
        policy.eval()
        with torch.no_grad():
            figures = self._figures()
        policy.train(training)
        means = {}
        for kind in sorted(self.rows):
            # without those not judged; added in one order, whichever process computed them
            items = [item for item in sorted(figures) if item[0] == kind and not math.isnan(figures[item])]
            means[kind] = sum(figures[item] for item in items) / max(len(items), 1)
        value = sum(means.values()) / len(means)
        self.history.append((step, value))
        if self.best[0] == step and self.recipe.select == "best":
            save_weights(policy, self.folder / BEST, self.writes)
        if self.writes:
            write_json(self.folder / STATE, {"history": self.history})
        name = f"validation_{self.recipe.validation.metric}"
        return {name: value, **{f"{name}_{kind}": mean for kind, mean in means.items()}}

    def answers(self) -> list[dict[str, Any]]:
        """Greedy answers of the policy to some items, taken from the kinds in turn, as JSON values.

        `teacher_nats` is the negative log-probability of the teacher's answer.
        """
        turns = zip_longest(*(self.rows[kind] for kind in sorted(self.rows)))
        rows = [row for turn in turns for row in turn if row is not None][:ITEMS_SHOWN]
        policy = self.rollout_buffer.policy
        training = policy.training
        policy.eval()
        with torch.no_grad():
            samples = self.rollout_buffer.answer([SampleRequest(row, 0, 0.0) for row in rows], 0)
            nats = (-self._forward(rows)).tolist()
        policy.train(training)
        rewards: Sequence[float] = [math.nan] * len(samples)
        if self.reward is not None and self.writes:
            rewards = self.reward(rows, [sample.text for sample in samples])
        return [
            {
                "group": row.group_id,
                "clip": row.id,
                "kind": row.kind,
                "voice": row.voice,
                "prompt": bounded(row.prompt),
                "instruction": bounded(row.instruction),
                "teacher": bounded(row.response),
                "teacher_nats": round(cost, 4),
                "answer": bounded(sample.text),
                "tokens": len(sample.tokens),
                "cut": not sample.ended,
                "reward": None if math.isnan(reward) else reward,
            }
            for row, sample, cost, reward in zip(rows, samples, nats, rewards, strict=True)
        ]

    def resume(self, step: int) -> None:
        """Take over the validations up to `step` of the attempt before."""
        if (self.folder / STATE).is_file():
            history = read_json(self.folder / STATE)["history"]
            self.history = [(at, value) for at, value in history if at <= step]

    def restore_best(self) -> None:
        """Put the best weights into the policy."""
        load_weights(self.rollout_buffer.policy, self.folder / BEST)
        self.rollout_buffer.rollout.renew()

    @property
    def best(self) -> tuple[int, float]:
        """Step and figure of the best validation so far; of equal ones the first."""
        sign = 1 if self.recipe.validation.metric == "loss" else -1
        every = self.recipe.eval_every
        scheduled = [(at, value) for at, value in self.history if every and at and at % every == 0]
        after_start = [(at, value) for at, value in self.history if at]
        return min(scheduled or after_start or self.history, key=lambda pair: (sign * pair[1], pair[0]))

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        patience = self.recipe.validation.patience
        if patience is None or not self.history:
            return False
        return sum(at > self.best[0] for at, _ in self.history) >= patience

    def _figures(self) -> Figures:
        """The figure of every item, computed by all processes together.

        All of them take equally many turns, as they must where they share weights out; a turn may have no items.
        """
        index, size = self.process
        batch_size = self.recipe.batch_size
        batches = [
            [(kind, place) for place in range(start, min(start + batch_size, len(self.rows[kind])))]
            for kind in sorted(self.rows)
            for start in range(0, len(self.rows[kind]), batch_size)
        ]
        figures = Figures()
        by_loss = self.recipe.validation.metric == "loss"
        for turn in range(math.ceil(len(batches) / size)):
            batch = batches[turn * size + index] if turn * size + index < len(batches) else []
            rows = [self.rows[kind][place] for kind, place in batch]
            values: Sequence[float] = []
            if not by_loss:  # all processes ask for answers, also without rows
                assert self.reward is not None  # the run made one
                samples = self.rollout_buffer.answer([SampleRequest(row, 0, 0.0) for row in rows], 0)
                values = self.reward(rows, [sample.text for sample in samples]) if rows else []
            elif rows:
                self.sync.enter()
                values = [-float(logprob) for logprob in self._forward(rows)]
            figures.update(zip(batch, values, strict=True))
        if by_loss:
            row = next(iter(self.rows.values()))[0]
            self.sync.leave(lambda: self._forward([row]))
        return {item: figure for part in self.gather(figures) for item, figure in part.items()}

    def _forward(self, rows: Sequence[AlignmentRow]) -> torch.Tensor:
        """[N] log-probabilities of the teacher's answers, in nats."""
        buffer = self.rollout_buffer
        responses = [Response(index, buffer.responder(row.response)) for index, row in enumerate(rows)]
        scores = buffer.policy(buffer.store.get(rows), responses)
        return sequence_logprobs(scores.logprobs, scores.mask)


def make_validator(
    recipe: TrainingRecipe,
    data: TrainingData,
    rollout_buffer: RolloutBuffer,
    reward: Reward | None,
    folder: Path,
    sync: CollectiveSync,
) -> Validator | None:
    """The validation of a run; None where the recipe has none, or no item is held out.

    Args:
        recipe: `eval_every`, `validate_ends`, `validation`.
        data: whose held-out rows are used.
        rollout_buffer: policy, clips and sampling.
        reward: of the run, if it has one.
        folder: where the best weights are kept.
        sync: of the processes, where they share weights out.

    Raises:
        UserError: no item is held out, and `eval_every` needs some.
    """
    state = PartialState()
    if not recipe.eval_every and not recipe.validate_ends:
        return None
    rows = validation_rows(data.validation, recipe.validation_items, recipe.seed)
    if not rows:
        if recipe.eval_every:
            raise UserError(
                "the alignment set has no validation rows: set eval_every to 0, or validation_fraction when the set is "
                "made"
            )
        if state.is_main_process:
            say("the alignment set has no validation rows: start and end of the run are not compared")
        return None
    return Validator(
        recipe,
        rows,
        rollout_buffer,
        reward,
        folder,
        state.is_main_process,
        (state.process_index, state.num_processes),
        lambda figures: gather_object([figures]),
        sync,
    )

"""Before and after: a few held-out items answered at the start of a run and at its end, to read side by side.

What a run writes for people while it trains, and what it looks at between steps.

OUT/rba_start.json     recipe with its paths, hashes and data, for who looks at a run that is not finished
OUT/train_log.jsonl    one record per optimiser step
OUT/validation.jsonl   figures of every validation, also of the one before the first step; answers at both ends
OUT/samples.jsonl      some groups as they were trained on
OUT/report.html        all of it on one page, at the end and on Ctrl-C
OUT/README.md          the card: what the checkpoint is and came from, when it is finished

A run's numbers in TensorBoard and Weights & Biases, through the Trainer's own callbacks.
"""

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.cards import CARD
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import JsonlAppender, read_jsonl, write_atomic
from rba_bench.installing import extra
from rba_bench.outputs import TRAIN_LOG
from rba_bench.progress import say
from rba_bench.training.callbacks.samples import bounded
from rba_bench.training.data.packing import Response
from rba_bench.training.data.pairs import SampleRequest
from rba_bench.training.losses import sequence_logprobs
from rba_bench.training.rewards import Reward
from rba_bench.training.rollouts.buffer import RolloutBuffer

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainingArguments

    from rba_bench.training.data.groups import TrainingData
    from rba_bench.training.rewards import RewardByKind
    from rba_bench.training.training_recipe import TrainingRecipe
    from rba_bench.training.validation import Validator


ITEMS = 10


class HeldOutAnswers:
    """Greedy answers to the same held-out items, with what speaks for them.

    Args:
        rows: held-out clips of each kind; items are taken from the kinds in turn.
        rollout_buffer: policy, clips and sampling.
        reward: judges the answers; None where the run has no reward, or another process judges.
    """

    def __init__(
        self, rows: Mapping[str, Sequence[AlignmentRow]], rollout_buffer: RolloutBuffer, reward: Reward | None
    ) -> None:
        turns = zip_longest(*(rows[kind] for kind in sorted(rows)))
        self.rows = [row for turn in turns for row in turn if row is not None][:ITEMS]
        self.rollout_buffer = rollout_buffer
        self.reward = reward

    def __call__(self) -> list[dict[str, Any]]:
        """The items with the policy's answers now, as JSON values. All processes must call.

        `teacher_nats` is the negative log-probability of the teacher's answer.
        """
        policy = self.rollout_buffer.policy
        training = policy.training
        policy.eval()
        with torch.no_grad():
            samples = self.rollout_buffer.answer([SampleRequest(row, 0, 0.0) for row in self.rows], 0)
            responses = [
                Response(number, self.rollout_buffer.responder(row.response))
                for number, row in enumerate(self.rows)
            ]
            scores = policy(self.rollout_buffer.store.get(self.rows), responses)
            nats = (-sequence_logprobs(scores.logprobs, scores.mask)).tolist()
        policy.train(training)
        rewards: Sequence[float] = [math.nan] * len(samples)
        if self.reward is not None:
            rewards = self.reward(self.rows, [one.text for one in samples])
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
            for row, sample, cost, reward in zip(self.rows, samples, nats, rewards, strict=True)
        ]


START = "rba_start.json"
VALIDATION = "validation.jsonl"
SAMPLES = "samples.jsonl"
REPORT = "report.html"


class StepLog:
    """A JSON-lines file of records with a `step`; those that are added are written every few steps.

    Opening it for a run that resumes behind `step` drops the records of later steps: they will be made again. A run
    that starts anew (`step` 0) makes those of step 0 again too.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [record for record in read_jsonl(path) if record["step"] <= step and step]
        write_atomic(path, "".join(_line(record) for record in kept))
        self._file = JsonlAppender(path)
        self._pending: list[dict[str, Any]] = []

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record for the next `flush`."""
        self._pending.append(record)

    def flush(self) -> None:
        """Write what is pending."""
        if self._pending:
            self._file.write(*self._pending)
            self._pending = []

    def write(self, *records: dict[str, Any]) -> None:
        """Write records now."""
        self._pending += records
        self.flush()

    def close(self) -> None:
        """Write what is pending and close the file."""
        self.flush()
        self._file.close()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


class RunFiles:
    """The files that a run appends to.

    Args:
        out: its folder.
        done: steps of earlier attempts.
    """

    def __init__(self, out: Path, done: int) -> None:
        self.log = StepLog(out / TRAIN_LOG, done)
        self.validation = StepLog(out / VALIDATION, done)
        self.samples = StepLog(out / SAMPLES, done)

    def close(self) -> None:
        """Write what is pending and close them."""
        for file in (self.log, self.validation, self.samples):
            file.close()


def write_report(out: Path, groups: "Mapping[str, Sequence[AlignmentRow]] | None" = None) -> None:
    """Write a run's report; what is in the way of it is one line, never the end of the run.

    Args:
        out: the run's folder.
        groups: rows by group id, for the clips.
    """
    from rba_bench.training.report.page import write_page

    try:
        path, _ = write_page(out, groups=groups)
    except RbaError as error:
        say(f"no report: {error}")
    else:
        say(f"report: {path}")


def complete_files(out: Path, report: bool, base: Path) -> None:
    """Write what a run lacks that was killed behind its record: report and card.

    Args:
        out: the run's folder.
        report: whether it shall have a report.
        base: folder of its base model.
    """
    from rba_bench.training.model_card import write_run_card

    if report and (out / START).is_file() and not (out / REPORT).is_file():
        write_report(out)
    if not (out / CARD).is_file():
        write_run_card(out, base)


@dataclass
class Watch:
    """What looks at the policy between steps. All processes must call.

    Attributes:
        validator: compares the weights on held-out items.
        ends: answers some of them.
    """

    validator: "Validator"
    ends: "HeldOutAnswers"

    @property
    def exhausted(self) -> bool:
        """Whether the last validations brought nothing better."""
        return self.validator.exhausted


def make_watch(
    recipe: "TrainingRecipe",
    data: "TrainingData",
    rollout_buffer: "RolloutBuffer",
    reward: "RewardByKind | None",
    folder: Path,
    args: "TrainingArguments",
) -> Watch | None:
    """What a run watches; None where nobody asks for it or nothing is held out.

    Args:
        recipe: `eval_every`, `validate_ends`, `validation`.
        data: whose held-out rows are used.
        rollout_buffer: policy, clips and sampling.
        reward: of the run, if it has one.
        folder: where the best weights are kept.
        args: which process this is; the first one keeps weights and has answers judged.

    Raises:
        UserError: nothing is held out, and `eval_every` asks for it.
    """
    from accelerate.utils import gather_object

    from rba_bench.training.data.groups import validation_rows
    from rba_bench.training.validation import Validator

    writes = args.should_save
    if not recipe.eval_every and not recipe.validate_ends:
        return None
    rows = validation_rows(data.validation, recipe.validation_items, recipe.seed)
    if not rows:
        if recipe.eval_every:
            raise UserError(
                "the alignment set has no validation rows: set eval_every to 0, or "
                "validation_fraction when the set is made"
            )
        if writes:
            say("the alignment set has no validation rows: start and end of the run are not compared")
        return None
    process = (args.process_index, args.world_size)
    validator = Validator(
        recipe, rows, rollout_buffer, reward, folder, writes, process, lambda one: gather_object([one])
    )
    return Watch(validator, HeldOutAnswers(rows, rollout_buffer, reward if writes else None))


Reporter = Literal["tensorboard", "wandb"]
EVENTS = "tensorboard"


def check_reporters(names: Collection[Reporter]) -> None:
    """Refuse a run whose reporters are not installed, before anything is loaded.

    Raises:
        MissingPrerequisite: a package is missing.
    """
    for name in names:
        if find_spec(name) is None:
            raise MissingPrerequisite(
                f"report_to {name} needs a package: {extra(name)}, or drop it from report_to"
            )


def reporters(names: Collection[Reporter], out: Path, done: int, writes: bool) -> "list[TrainerCallback]":
    """The callbacks of a run.

    Args:
        names: `report_to` of the recipe.
        out: the run's folder. TensorBoard's files go to `tensorboard` in it, those of Weights & Biases to `wandb`
            unless `WANDB_DIR` says otherwise.
        done: steps of earlier attempts; what an attempt that was cut off reported of later ones is dropped.
        writes: whether this process reports.
    """
    found: list[TrainerCallback] = []
    if "tensorboard" in names and writes:
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        # purging at step 0 would hide nothing, and a later step only what comes again
        writer = SummaryWriter(str(out / EVENTS), purge_step=done + 1 if done else None)
        found.append(TensorBoardCallback(writer))
    if "wandb" in names and writes:
        from transformers.integrations import WandbCallback

        os.environ.setdefault("WANDB_DIR", str(out))
        os.environ.setdefault("WANDB_PROJECT", "rba-bench")
        found.append(WandbCallback())
    return found

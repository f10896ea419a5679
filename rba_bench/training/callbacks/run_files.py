"""What a run writes for people while it trains, and what it looks at between steps.

OUT/rba_start.json     recipe with its paths, hashes and data, for who looks at a run that is not finished
OUT/train_log.jsonl    one record per optimiser step
OUT/validation.jsonl   figures of every validation, also of the one before the first step; answers at both ends
OUT/samples.jsonl      some groups as they were trained on
OUT/report.html        all of it on one page, at the end and on Ctrl-C
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.errors import RbaError, UserError
from rba_bench.files import JsonlAppender, read_jsonl, write_atomic
from rba_bench.progress import say

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from rba_bench.audio.alignment_set import AlignmentRow
    from rba_bench.training.callbacks.before_and_after import Ends
    from rba_bench.training.data.groups import TrainingData
    from rba_bench.training.recipe import TrainingRecipe
    from rba_bench.training.rewards import RewardByKind
    from rba_bench.training.rollouts.buffer import RolloutBuffer
    from rba_bench.training.validation import Validator

START = "rba_start.json"
LOG = "train_log.jsonl"
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
        self.log = StepLog(out / LOG, done)
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
    from rba_bench.training.report.page import write

    try:
        path, _ = write(out, groups=groups)
    except RbaError as error:
        say(f"no report: {error}")
    else:
        say(f"report: {path}")


@dataclass
class Watch:
    """What looks at the policy between steps. All processes must call.

    Attributes:
        validator: compares the weights on held-out items.
        ends: answers some of them.
    """

    validator: "Validator"
    ends: "Ends"

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

    from rba_bench.training.callbacks.before_and_after import Ends
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
    return Watch(validator, Ends(rows, rollout_buffer, reward if writes else None))

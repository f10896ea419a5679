"""The files that a run writes for people while it trains, and its numbers in TensorBoard and Weights & Biases.

OUT/rba_start.json     recipe with its paths, hashes and data, for readers of a run that is not finished
OUT/train_log.jsonl    one record per optimiser step
OUT/validation.jsonl   figures of every validation, also of the one before the first step; answers at both ends
OUT/samples.jsonl      some groups as they were trained on
OUT/report.html        all of it on one page, at the end and on Ctrl-C
OUT/README.md          the card: what the checkpoint is and came from, when it is finished
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.cards import CARD
from rba_bench.errors import MissingPrerequisite, RbaError
from rba_bench.files import JsonlAppender, read_jsonl, write_atomic
from rba_bench.installing import extra
from rba_bench.outputs import TRAIN_LOG
from rba_bench.progress import say
from rba_bench.training.run_names import REPORT, SAMPLES, START, VALIDATION

if TYPE_CHECKING:
    from transformers import TrainerCallback


class StepLog:
    """A JSON-lines file of records with a `step`; those that are added are written every few steps.

    Opening it for a run that resumes behind `step` drops the records of later steps: they will be made again. A run
    that starts anew (`step` 0) makes those of step 0 again too.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [record for record in read_jsonl(path) if record["step"] <= step and step]
        write_atomic(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
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
    callbacks: list[TrainerCallback] = []
    if "tensorboard" in names and writes:
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        # purging at step 0 would hide nothing, and a later step only what comes again
        writer = SummaryWriter(str(out / EVENTS), purge_step=done + 1 if done else None)
        callbacks.append(TensorBoardCallback(writer))
    if "wandb" in names and writes:
        from transformers.integrations import WandbCallback

        os.environ.setdefault("WANDB_DIR", str(out))
        os.environ.setdefault("WANDB_PROJECT", "rba-bench")
        callbacks.append(WandbCallback())
    return callbacks

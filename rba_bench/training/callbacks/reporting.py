"""A run's numbers in TensorBoard and Weights & Biases, through the Trainer's own callbacks."""

import os
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rba_bench.errors import MissingPrerequisite
from rba_bench.installing import extra

if TYPE_CHECKING:
    from transformers import TrainerCallback

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

"""Continuing another run with more steps, on the same base, data and objective.

    rba-bench train --continue-from RUN --steps 400 --out NEW      RUN has taken 200 steps, NEW takes 200 more

A run that kept its state (`keep_state`), or was stopped, continues as if more steps had been set from the beginning: a
constant schedule gives the same weights, bit for bit. Of a finished run that kept none, only the weights are left: the
optimiser starts without memory and is warmed up again. The reference (`reference: base`) stays the base that the first
run started from; to start a new run from a run's weights, name its folder as `base`.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import read_json, write_atomic, write_json
from rba_bench.outputs import RUN_RECORD, SIGNATURE, TRAIN_LOG, differences, read_signature
from rba_bench.progress import say
from rba_bench.training.run_names import SAMPLES, VALIDATION
from rba_bench.training.training_recipe import TrainingRecipe

TRAINER = "trainer"
# Keys that may differ from those of the run that is gone on from; all others make it another run
FREE = {
    *("steps", "epochs", "learning_rate", "learning_rates", "schedule", "warmup_steps", "budget_s"),
    *("eval_every", "validate_ends", "validation", "select", "batch_size", "rollout_batch", "continued_from"),
}


@dataclass(frozen=True)
class Origin:
    """The run that another one continues.

    Attributes:
        run: its folder.
        step: optimiser steps it has taken.
        kept: its last checkpoint with the optimiser's state, None where there is none.
        record: its `rba_run.json`, empty where it is not finished.
        config: what decided it, as `rba_config.json` has it.
        sha256: of its weights.
    """

    run: Path
    step: int
    kept: Path | None
    record: dict[str, Any]
    config: dict[str, Any]
    sha256: str

    @property
    def fresh_from(self) -> int:
        """See `schedule.schedule_factor`."""
        return 0 if self.kept is not None else self.step

    def identity(self) -> dict[str, Any]:
        """What decides the result beside the recipe."""
        return {"sha256": self.sha256, "step": self.step, "state": "fresh" if self.kept is None else "kept"}

    def lineage(self) -> list[dict[str, Any]]:
        """For the record: this run, and where it came from itself, the latest first."""
        fields = {name: self.config.get(name) for name in ("method", "seed", "alignment_set_sha256")}
        return [{"as": "continued", **self.identity(), **fields}, *self.record.get("lineage", ())]


def find_origin(run: Path) -> Origin:
    """The run in a folder.

    Raises:
        MissingPrerequisite: no such folder.
        UserError: it holds no training run, or one that has taken no step.
    """
    from rba_bench.training.model.building import checkpoint_sha256
    from rba_bench.training.model.checkpoints import checkpoint_identity, newest_checkpoint

    if not run.is_dir():
        raise MissingPrerequisite(
            f"no run in {run}: --continue-from names the output folder of `rba-bench train`"
        )
    signature = read_signature(run)
    if signature is None or signature["stage"] != "train":
        raise UserError(
            f"{run} holds no training run: --continue-from names the output folder of `rba-bench train`; to begin "
            f"from the weights there, add --set base={run}"
        )
    record = read_json(run / RUN_RECORD) if (run / RUN_RECORD).is_file() else {}
    kept = newest_checkpoint(run / TRAINER)
    if kept is not None:
        path, state = kept
        return Origin(run, int(state["step"]), path, record, signature["config"], checkpoint_identity(path))
    if not record:
        raise UserError(f"{run} has not saved a step yet: repeat its own command")
    return Origin(run, int(record["steps"]), None, record, signature["config"], checkpoint_sha256(run))


def continued_values(origin: Origin) -> dict[str, Any]:
    """The recipe of a finished run, to be changed by options.

    Raises:
        UserError: the run is not finished, so it says not where its base and its set are.
    """
    if not origin.record:
        raise UserError(f"{origin.run} is not finished: add its recipe with --recipe, or finish it first")
    return {**origin.record["recipe"], "epochs": None}  # its steps say what came of them


def check_continuation(recipe: TrainingRecipe, identity: Mapping[str, Any], origin: Origin) -> None:
    """Refuse what cannot be a continuation.

    Args:
        recipe: of the new run.
        identity: what decides the new run, hashes of its sources included.
        origin: what it goes on from.

    Raises:
        UserError: fewer steps than were taken, another base, set or objective, no time left, or adapters without state.
    """
    if recipe.steps <= origin.step:
        raise UserError(
            f"{origin.run} has taken {origin.step} steps: --steps must be more than that (it counts them too), not "
            f"{recipe.steps}"
        )
    fixed = {name: value for name, value in identity.items() if name in origin.config and name not in FREE}
    changed = list(differences({name: origin.config[name] for name in fixed}, fixed))
    if changed:
        raise UserError(
            f"--continue-from keeps everything but {', '.join(sorted(FREE - {'continued_from'}))}, and this changes "
            f"{'; '.join(changed)}: leave that out, or begin a new run from those weights with --set base={origin.run}"
        )
    spent = float(origin.record.get("wall_time_s", 0.0))
    if recipe.budget_s is not None and spent >= recipe.budget_s:
        raise UserError(
            f"{origin.run} has trained for {spent:.0f} s, which uses up budget_s {recipe.budget_s:g}: raise budget_s, "
            "or add --set budget_s=null"
        )
    if origin.kept is None and recipe.lora is not None:
        raise UserError(
            f"{origin.run} kept no state, and its adapters are folded into its weights: train new ones on top of them "
            f"with --set base={origin.run}, or repeat it with --set keep_state=true"
        )
    if origin.kept is None and os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        raise UserError(
            f"{origin.run} kept no state, which DeepSpeed needs: use --set base={origin.run} instead"
        )


def prepare_continuation(origin: Origin, recipe: TrainingRecipe, out: Path) -> None:
    """Put into a new run's folder what it goes on from, as a checkpoint that it then resumes from.

    A kill leaves a checkpoint that is not complete, which is removed and made again.
    """
    from rba_bench.training.model.checkpoints import STATE
    from rba_bench.training.teachers.own_answers import FOLDER

    folder = out / TRAINER / f"checkpoint-{origin.step}"
    shutil.rmtree(out / TRAINER, ignore_errors=True)
    if (origin.run / FOLDER).is_dir():
        shutil.copytree(origin.run / FOLDER, out / FOLDER, dirs_exist_ok=True)
    for name in (TRAIN_LOG, VALIDATION, SAMPLES):
        if (origin.run / name).is_file():
            write_atomic(out / name, (origin.run / name).read_bytes())
    if origin.kept is None:
        say(
            f"{origin.run} kept no optimiser state: the run continues from its weights and warms the optimiser up again"
        )
        _from_weights(origin, recipe, folder)
        return
    say(f"continuing from step {origin.step} of {origin.run}, with its optimiser state")
    shutil.copytree(origin.kept, folder, ignore=shutil.ignore_patterns(STATE))
    if (origin.run / TRAINER / "best").is_dir():
        shutil.copytree(origin.run / TRAINER / "best", out / TRAINER / "best")
    if (origin.run / TRAINER / "validation.json").is_file():
        shutil.copyfile(origin.run / TRAINER / "validation.json", out / TRAINER / "validation.json")
    write_json(folder / STATE, read_json(origin.kept / STATE))  # last: now it is complete


def _from_weights(origin: Origin, recipe: TrainingRecipe, folder: Path) -> None:
    """A checkpoint of a finished run's weights, without an optimiser."""
    from accelerate import PartialState
    from transformers import TrainerControl, TrainerState
    from transformers.trainer import TRAINER_STATE_NAME

    from rba_bench.training.model import building as build
    from rba_bench.training.model.checkpoints import WEIGHTS, save_weights, seal_checkpoint
    from rba_bench.training.model.frozen_models import REFERENCE

    policy = build.make_policy(build.load_base(origin.run, recipe), recipe)
    save_weights(policy, folder)
    if recipe.has_opponent:
        shutil.copyfile(folder / WEIGHTS, folder / REFERENCE)  # the next opponent is the policy as it is
    began = TrainerState(
        global_step=origin.step,
        save_steps=recipe.save_every,
        # as in `trainer.arguments`
        train_batch_size=recipe.groups_per_step // (PartialState().num_processes * recipe.accumulate),
        stateful_callbacks=[TrainerControl()],  # the Trainer writes into what a checkpoint has of it
    )
    began.save_to_json(str(folder / TRAINER_STATE_NAME))
    record = origin.record
    state = {
        "step": origin.step,
        "elapsed_s": record.get("wall_time_s", 0.0),
        "encoding_s": record.get("encoding_s", 0.0),
        "drawn": record.get("answers_sampled", 0),
        "judged": record.get("answers_judged", 0),
        "encoded": record.get("clips_encoded", 0),
        "waiting": {},
    }
    seal_checkpoint(folder, state)


def lineage_of(base: Path, sha256: str) -> list[dict[str, Any]]:
    """For the record: the runs that a base model came from, the latest first; none of a model from elsewhere."""
    if not (base / RUN_RECORD).is_file() or not (base / SIGNATURE).is_file():
        return []
    run = read_json(base / RUN_RECORD)
    fields = {
        name: run.get(name) for name in ("method", "steps", "seed", "alignment_set_sha256", "base_sha256")
    }
    return [{"as": "base", "sha256": sha256, **fields}, *run.get("lineage", ())]


def refuse_more_steps(out: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a command that differs from the run in its folder by its number of steps alone, and name the right one.

    Raises:
        UserError: it does.
    """
    signature = read_signature(out)
    if signature is None or signature["stage"] != "train":
        return
    changed = [line.partition(":")[0] for line in differences(signature["config"], dict(identity))]
    if "steps" not in changed or not set(changed) <= {"steps", "epochs"}:
        return
    old, new = signature["config"]["steps"], identity["steps"]
    more = f"continue it with --continue-from {out} --steps {new} and another --out"
    if not (out / RUN_RECORD).is_file():
        more = f"repeat its own command to finish it, or {more}"
    raise UserError(
        f"{out} is a run of {old} steps, not of {new}: {more if new > old else 'choose another --out'}"
    )


def remove_trainer_files(out: Path, keep_state: bool) -> None:
    """Remove the files of the Trainer that a finished run does not need any more."""
    from rba_bench.training.model.checkpoints import newest_checkpoint

    last = newest_checkpoint(out / TRAINER)
    if not keep_state or last is None:
        shutil.rmtree(out / TRAINER, ignore_errors=True)
        return
    kept = {last[0].name, "best", "validation.json"}
    for entry in (out / TRAINER).iterdir():
        if entry.name not in kept:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)

"""One training run in one folder: claimed, resumable at any moment, finished by a checkpoint others can load.

OUT/rba_config.json    whose folder this is         OUT/train_log.jsonl   one record per step
OUT/trainer/           Trainer checkpoints, removed when the run is finished
OUT/model.safetensors, config.json, processor, ...  and, last, OUT/rba_run.json
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.files import open_up, read_json, write_json
from rba_bench.outputs import RUN_RECORD, claim, release
from rba_bench.progress import say
from rba_bench.textlm.weights import hub_commit
from rba_bench.training import continuing
from rba_bench.training.callbacks.run_files import START, complete_files, write_report
from rba_bench.training.continuing import TRAINER
from rba_bench.training.machine import (
    hardware_record,
    join_processes,
    peak_memory,
    reuse_memory,
    version_record,
)
from rba_bench.training.model_card import write_run_card
from rba_bench.training.training_recipe import TrainingRecipe

if TYPE_CHECKING:
    from rba_bench.training.data.groups import TrainingData
    from rba_bench.training.preflight import ModelLimits
    from rba_bench.training.trainer import AlignmentTrainer

FINAL = f"{TRAINER}/final"
SCHEMA_VERSION = 1
GUARD_CLIPS = 8
# What decides the result. Paths are left out (hashes stand for them), and what only changes speed, memory or display.
_NOT_IDENTITY = {
    *("alignment_set", "base", "pairs_file", "log_every", "samples_every", "validate_ends", "report"),
    *("save_every", "cache_mb", "prefetch", "encoder_cache", "report_to", "keep_state", "rollout"),
    "trust_remote_code",
}


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        path: checkpoint folder.
        method: of the recipe.
        steps: optimiser steps taken.
        wall_time_s: training time, summed over resumes: rollout, rewards, forward, backward. Not loading, saving and
            validating, and not encoding clips (`encoding_s` in `run`), which all methods need alike and runs of one
            process share.
        samples_per_s: clips trained on per second, encoding included.
        run: content of `rba_run.json`.
    """

    path: Path
    method: str
    steps: int
    wall_time_s: float
    samples_per_s: float
    run: dict[str, Any]


def train(recipe: TrainingRecipe, out: Path, continue_from: Path | None = None) -> TrainResult:
    """Run a recipe, or go on with it where it stopped, or return at once if it is finished.

    Args:
        recipe: the run.
        out: its folder.
        continue_from: folder of another run that this one goes on from; see `continuing`.

    Raises:
        UserError: the folder belongs to another run, or recipe and data do not fit.
        MissingPrerequisite: base model, reward model or alignment set is absent.
        RbaError: the model does not use its audio, or a loss is not finite.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGUSR1; the state is saved, the same call resumes.
    """
    from accelerate import PartialState

    from rba_bench.training.callbacks.run_files import check_reporters
    from rba_bench.training.data.groups import TrainingData, choices
    from rba_bench.training.data.order import steps_for
    from rba_bench.training.model.building import base_folder
    from rba_bench.training.model.checkpoints import disk_full_message, newest_checkpoint, remove_incomplete
    from rba_bench.training.model.precision import resolve_precision

    reuse_memory()
    join_processes()
    check_reporters(recipe.report_to)
    chosen = choices([one.model_dump(mode="json", exclude_none=True) for one in recipe.alignment_sets])
    with PartialState().local_main_process_first():  # it checks the shards for all
        data = TrainingData.open(chosen, shuffle=recipe.shuffle)
    if recipe.epochs is not None:
        steps = steps_for(recipe.epochs, len(data.train), recipe.groups_per_step)
        recipe = recipe.model_copy(update={"steps": steps})
    origin = None if continue_from is None else continuing.find_origin(continue_from)
    recipe = resolve_precision(recipe, out, origin)
    base = base_folder(recipe)
    sources = _sources(recipe, data, base)
    _claim(recipe, out, sources, origin)
    try:
        if (out / RUN_RECORD).is_file():
            if os.environ.get("RANK", "0") == "0":
                continuing.remove_trainer_files(
                    out, recipe.keep_state
                )  # of a run killed between its record and this
                complete_files(out, recipe.report, base)
            say(f"{out} is finished already")
            return _result(out)
        with disk_full_message(out):
            if os.environ.get("RANK", "0") == "0":
                remove_incomplete(out / TRAINER)
                if origin is not None and newest_checkpoint(out / TRAINER) is None:
                    continuing.prepare_continuation(origin, recipe, out)
            PartialState().wait_for_everyone()
            return _Run(recipe, out, data, base, sources, origin).execute()
    finally:
        release(out)


def _sources(recipe: TrainingRecipe, data: "TrainingData", base: Path) -> dict[str, str]:
    """Hashes of what a run reads."""
    from rba_bench.training.data.pairs import OfflinePairs
    from rba_bench.training.model.building import checkpoint_sha256

    sources = {"alignment_set_sha256": data.sha256, "base_sha256": checkpoint_sha256(base)}
    if recipe.pairs_file is not None:
        sources["pairs_sha256"] = OfflinePairs.sha256(Path(recipe.pairs_file))
    return sources


def _claim(
    recipe: TrainingRecipe, out: Path, sources: dict[str, str], origin: continuing.Origin | None
) -> None:
    """Sign the folder with everything that decides the result."""
    identity = {name: value for name, value in recipe.resolved().items() if name not in _NOT_IDENTITY}
    if recipe.rollout.engine != "local":
        identity["rollout"] = recipe.rollout.engine  # how it is reached decides nothing
    identity["reward"] = {**identity["reward"], "trust_remote_code": False}  # --trust decides nothing else
    identity |= sources
    if origin is not None:
        continuing.check_continuation(recipe, identity, origin)
        identity["continued_from"] = origin.identity()
    continuing.refuse_more_steps(out, identity)
    claim(out, "train", identity)


def _result(out: Path) -> TrainResult:
    run = read_json(out / RUN_RECORD)
    return TrainResult(out, run["method"], run["steps"], run["wall_time_s"], run["samples_per_s"], run)


class _Run:
    """The objects of one run, made in order; `execute` uses them."""

    def __init__(
        self,
        recipe: TrainingRecipe,
        out: Path,
        data: "TrainingData",
        base: Path,
        sources: dict[str, str],
        origin: continuing.Origin | None = None,
    ) -> None:
        from transformers import set_seed

        from rba_bench.training.data.clips import ClipStore, ResponseTokens
        from rba_bench.training.model import building as build
        from rba_bench.training.model.checkpoints import newest_checkpoint
        from rba_bench.training.model.sharded_loading import planned_sharding
        from rba_bench.training.teachers.own_answers import WithOwnAnswers

        set_seed(recipe.seed)  # adapters start from random numbers
        self.recipe, self.out, self.data, self.base, self.sources = recipe, out, data, base, sources
        self.origin = origin
        self.found = newest_checkpoint(out / TRAINER)
        self.shared = planned_sharding() != "none"
        self.policy = build.open_policy(base, recipe, self.shared)
        self.family = self.policy.family
        self.limits = self._limits()
        self.offline = build.load_given_pairs(recipe, data)
        # of given pairs the policy itself says beforehand what the reference would
        needed = recipe.uses_reference and (self.offline is None or recipe.method == "tdpo" or self.shared)
        self.reference = build.make_reference(self.policy, weights=not self.shared) if needed else None
        weights = sources["base_sha256"]
        self.answered = build.make_own_answers(recipe, self.family, data, weights, out, self.shared)
        groups = data.all if self.answered is None else WithOwnAnswers(self.answered, data.validation)
        cache = build.encoder_cache(recipe, self.family, weights) if recipe.encoder_frozen else None
        strict, frozen = recipe.long_clips == "error", recipe.encoder_frozen
        self.store = ClipStore(self.family, groups, frozen=frozen, cache=cache, strict=strict)
        self.responder = ResponseTokens(self.family)

    def _limits(self) -> "ModelLimits":
        """Leave out of the data what the model cannot take; the first process says what a user should know."""
        from rba_bench.training.options.recipe_checks import idle_values, thin_groups
        from rba_bench.training.preflight import ModelLimits

        recipe, data, speaks = self.recipe, self.data, os.environ.get("RANK", "0") == "0"
        limits = ModelLimits(self.family, recipe)
        limits.apply(data, speaks)
        for line in [*idle_values(recipe), *thin_groups(data.train.voices, recipe)] if speaks else ():
            say(line)
        return limits

    def execute(self) -> TrainResult:
        """Train, write, clean up."""
        from rba_bench.training.callbacks.display import display
        from rba_bench.training.callbacks.run_files import RunFiles
        from rba_bench.training.callbacks.training_callback import Interrupt

        trainer, callback, done = self._trainer()
        with Interrupt() as interrupt:
            callback.interrupt = interrupt
            if done == 0 and self.shared:
                trainer.when_shared = lambda: self._guard(trainer.args.should_save)
            elif done == 0:
                self._guard(trainer.args.should_save)
            writes = trainer.args.should_save  # one display and one log however many processes
            callback.files = RunFiles(self.out, done) if writes else None
            if writes:
                write_json(self.out / START, self._start())
            label, recipe = f"train {self.recipe.method}", self.recipe
            try:
                with display(
                    label, recipe.steps, done, recipe.log_every, recipe.budget_s, writes
                ) as callback.display:
                    trainer.train(resume_from_checkpoint=str(self.found[0]) if self.found else None)
                trainer.saver.wait()
            finally:
                self.store.waves.close()
                if callback.files is not None:
                    callback.files.close()
        if callback.interrupted:
            if writes and recipe.report:
                write_report(self.out, self.data.all)
            raise KeyboardInterrupt(
                f"stopped at step {trainer.state.global_step} of {self.recipe.steps}; saved"
            )
        if writes:
            self._tell_early_end(trainer)
        result = self._finish(trainer)
        if writes and self.recipe.report:
            write_report(self.out, self.data.all)
        return result

    def _tell_early_end(self, trainer: "AlignmentTrainer") -> None:
        recipe, step = self.recipe, trainer.state.global_step
        if step < recipe.steps:
            spent = recipe.budget_s is not None and trainer.elapsed_s >= recipe.budget_s
            why = f"budget_s {recipe.budget_s:g} is used up" if spent else "validation.patience is at its end"
            say(f"ended at step {step} of {recipe.steps}: {why}")

    def _trainer(self) -> tuple["AlignmentTrainer", Any, int]:
        from rba_bench.training import methods
        from rba_bench.training.callbacks.run_files import make_watch, reporters
        from rba_bench.training.callbacks.samples import SampleSelection
        from rba_bench.training.callbacks.training_callback import Interrupt, TrainingCallback, saved_first
        from rba_bench.training.data.order import GroupOrder
        from rba_bench.training.model import building as build
        from rba_bench.training.model.frozen_models import FrozenModels
        from rba_bench.training.rollouts.buffer import RolloutBuffer
        from rba_bench.training.rollouts.engines import use_engine
        from rba_bench.training.trainer import AlignmentTrainer, arguments

        recipe = self.recipe
        args = arguments(recipe, self.out / TRAINER)
        if self.reference is not None and not self.shared:
            self.reference.to(args.device)
        positions = recipe.steps * recipe.groups_per_step
        order = (
            self.data.order(positions, recipe.seed)
            if self.answered is None
            else GroupOrder(self.answered.ids, positions, recipe.seed)
        )
        method = methods.make_method(recipe, self.responder.end_ids)
        reward = build.make_reward(recipe, self.data.kinds, self.family, str(args.device), self.out)
        rollout_buffer = RolloutBuffer(
            recipe, method, self.policy, self.store, self.responder, reward if recipe.uses_reward else None
        )
        use_engine(rollout_buffer, self.out / TRAINER / "rollout")
        rollout_buffer.trajectories = build.make_trajectories(recipe, rollout_buffer, str(args.device))
        shell = build.make_teacher_shell(recipe, self.policy) if self.shared else None
        teacher = build.make_teacher(
            recipe, self.family, self.sources["base_sha256"], str(args.device), shell
        )
        trained = [name for name, p in self.policy.named_parameters() if p.requires_grad]
        frozen_models = FrozenModels(self.store, self.reference, teacher, trained)
        if self.offline is not None and recipe.uses_reference and self.reference is None:
            frozen_models.kept = build.score_pairs(
                self.policy, self.store, self.offline, order, self.responder, recipe.voices_per_group
            )
        rollout_buffer.shown = SampleSelection(recipe, args.should_save)
        watch = make_watch(recipe, self.data, rollout_buffer, reward, self.out / TRAINER, args)
        self.validator = None if watch is None else watch.validator
        done = int(self.found[1]["step"]) if self.found else 0
        callback = TrainingCallback(Interrupt(), watch)
        trainer = AlignmentTrainer(
            self.policy, recipe, method, rollout_buffer, order, args, frozen_models, [callback], self.offline
        )
        build.check_sharing(trainer.sharing, recipe)
        trainer.copies = [one for one in (self.reference, shell) if one is not None]
        if reward is not None and trainer.sharing != "none":
            reward.join_collectives(trainer.sync, self.policy)
        for reporter in reporters(recipe.report_to, self.out, done, args.should_save):
            trainer.add_callback(reporter)
        frozen_models.autocast = trainer.accelerator.autocast
        if self.validator is not None:
            self.validator.sync = frozen_models.sync
        callback.trainer = trainer
        rollout_buffer.stopped = partial(saved_first, trainer)
        trainer.fresh_from = 0 if self.origin is None else self.origin.fresh_from
        if self.found is not None:
            trainer.restore(self.found[1])
            if self.validator is not None:
                self.validator.resume(done)
        return trainer, callback, done

    def _guard(self, tell: bool) -> None:
        from rba_bench.training.preflight import check_audio_is_used

        ids = (self.data.train if self.answered is None else self.answered).ids
        rows = [self.store.groups[group_id][0] for group_id in ids[:GUARD_CLIPS]]
        gain = check_audio_is_used(self.policy, self.store, self.responder, rows)
        if tell:
            say(f"audio guard: hearing the clip adds {gain:.2f} nats to the teacher's answer")

    def _finish(self, trainer: "AlignmentTrainer") -> TrainResult:
        """Write the checkpoint, `rba_run.json` last, and remove the Trainer's folder."""
        from rba_bench.training.model.building import write_result
        from rba_bench.training.model.checkpoints import save_weights
        from rba_bench.training.model.trainable_parts import merge_lora

        trainer.accelerator.wait_for_everyone()  # what the first process wrote is there
        if self.recipe.select == "best" and self.validator is not None:
            self.validator.restore_best()
        as_held = trainer.sharing == "none" and self.recipe.precision == "float32"
        if not as_held:
            save_weights(self.policy, self.out / FINAL, trainer.args.should_save)
        if trainer.args.should_save:
            if not as_held:
                write_result(self.base, self.recipe, self.out / FINAL, self.out)
            else:
                merge_lora(self.family)
                self.family.save(self.out)
            open_up(self.out)
            write_json(self.out / RUN_RECORD, self._record(trainer))
            write_run_card(self.out, self.base)
            continuing.remove_trainer_files(self.out, self.recipe.keep_state)
        trainer.accelerator.wait_for_everyone()
        return _result(self.out)

    def _validations(self) -> dict[str, Any] | None:
        if self.validator is None or not self.validator.history:
            return None
        step, value = self.validator.best
        return {"metric": self.recipe.validation.metric, "best_step": step, "best": value,
                "history": self.validator.history}  # fmt: skip

    def _lineage(self) -> list[dict[str, Any]]:
        if self.origin is not None:
            return self.origin.lineage()
        return continuing.lineage_of(self.base, self.sources["base_sha256"])

    def _start(self) -> dict[str, Any]:
        """What is known of a run before its first step."""
        recipe = self.recipe
        return {
            "schema_version": SCHEMA_VERSION,
            "method": recipe.method,
            "track": recipe.track,
            "base": recipe.base,
            "base_revision": hub_commit(self.base),  # None for what is no commit of the Hub
            "seed": recipe.seed,
            "recipe": recipe.resolved(),
            **self.sources,
            "continued_from": None if self.origin is None else self.origin.identity(),
            "lineage": self._lineage(),
            "data": self.data.record(),
            "versions": version_record(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _record(self, trainer: "AlignmentTrainer") -> dict[str, Any]:
        recipe, steps = self.recipe, trainer.state.global_step
        start = {name: value for name, value in self._start().items() if name != "created"}
        clips = steps * recipe.groups_per_step * recipe.voices_per_group
        return {
            **start,
            "steps": steps,
            "clips_left_out": self.limits.counts,
            "clips_misstated": len(self.store.misstated),
            "wall_time_s": round(trainer.elapsed_s, 3),
            "encoding_s": round(trainer.encoding_s, 3),
            "samples_per_s": round(clips / max(trainer.elapsed_s + trainer.encoding_s, 1e-9), 3),
            "answers_sampled": trainer.rollout_buffer.drawn,
            "answers_judged": trainer.rollout_buffer.judged,
            "reward_counts": trainer.rollout_buffer.reward.counts() if trainer.rollout_buffer.reward else {},
            "clips_encoded": self.store.encoded,
            "peak_memory_bytes": peak_memory(str(trainer.args.device)),
            "padding": self.family.padding,
            "layout": self.policy.layout,
            "validations": self._validations(),
            "hardware": hardware_record(trainer.args),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

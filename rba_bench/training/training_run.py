"""One training run in one folder: claimed, resumable at any moment, finished by a checkpoint others can load.

OUT/rba_config.json    whose folder this is         OUT/train_log.jsonl   one record per step
OUT/trainer/           Trainer checkpoints, removed when the run is finished
OUT/model.safetensors, config.json, processor, ...  and, last, OUT/rba_run.json
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.files import open_up, read_json, write_json
from rba_bench.outputs import RUN_RECORD, claim, release
from rba_bench.progress import say
from rba_bench.textlm.weights import hub_commit
from rba_bench.training import continuing
from rba_bench.training.callbacks.run_files import complete_files, write_report
from rba_bench.training.continuing import TRAINER
from rba_bench.training.machine import (
    hardware_record,
    join_processes,
    peak_memory,
    reuse_memory,
    version_record,
)
from rba_bench.training.model_card import write_run_card
from rba_bench.training.run_names import START
from rba_bench.training.step_curve import curve_columns, read_curve
from rba_bench.training.training_recipe import TrainingRecipe

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from rba_bench.training.data.groups import TrainingData
    from rba_bench.training.methods import Method
    from rba_bench.training.preflight import ModelLimits
    from rba_bench.training.rollouts.buffer import RolloutBuffer
    from rba_bench.training.trainer import AlignmentTrainer
    from rba_bench.training.validation import Validator


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
    from rba_bench.training.data.dialogues import refuse_text_readers
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
    refuse_text_readers(recipe, data)
    if recipe.epochs is not None:
        steps = steps_for(recipe.epochs, len(data.train), recipe.groups_per_step)
        recipe = recipe.model_copy(update={"steps": steps})
    origin = None if continue_from is None else continuing.find_origin(continue_from)
    recipe = resolve_precision(recipe, out, origin)
    base = base_folder(recipe)
    sources = _claim(recipe, out, data, base, origin)
    try:
        if (out / RUN_RECORD).is_file():
            if os.environ.get("RANK", "0") == "0":
                # a run that was killed between its record and this has left them
                continuing.remove_trainer_files(out, recipe.keep_state)
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


def _claim(
    recipe: TrainingRecipe, out: Path, data: "TrainingData", base: Path, origin: continuing.Origin | None
) -> dict[str, str]:
    """Sign the folder with everything that decides the result; hashes of what the run reads."""
    from rba_bench.training.data.pairs import OfflinePairs
    from rba_bench.training.model.building import checkpoint_sha256

    sources = {"alignment_set_sha256": data.sha256, "base_sha256": checkpoint_sha256(base)}
    if recipe.pairs_file is not None:
        sources["pairs_sha256"] = OfflinePairs.sha256(Path(recipe.pairs_file))
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
    return sources


def _result(out: Path) -> TrainResult:
    run = read_json(out / RUN_RECORD)
    return TrainResult(out, run["method"], run["steps"], run["wall_time_s"], run["samples_per_s"], run)


class _Run:
    """The objects of one run, made in order; `execute` uses them.

    Attributes:
        resumed: the checkpoint that the run resumes from, with its state; None for a fresh run.
        done: optimiser steps of earlier attempts.
        shared: whether processes share the weights out.
        own_answers: groups with answers of the model's own LLM, for the methods that train on these.
        offline: given preference pairs, if the recipe names some.
    """

    def __init__(
        self,
        recipe: TrainingRecipe,
        out: Path,
        data: "TrainingData",
        base: Path,
        sources: dict[str, str],
        origin: continuing.Origin | None = None,
    ) -> None:
        from accelerate import PartialState
        from transformers import set_seed

        from rba_bench.training.data.clips import ClipStore, ResponseTokens
        from rba_bench.training.model import building as build
        from rba_bench.training.model.checkpoints import newest_checkpoint
        from rba_bench.training.model.sharded_loading import planned_sharding
        from rba_bench.training.model.sharding import CollectiveSync, any_process
        from rba_bench.training.teachers.own_answers import WithOwnAnswers

        set_seed(recipe.seed)  # adapters start from random numbers
        self.recipe, self.out, self.data, self.base, self.sources = recipe, out, data, base, sources
        self.origin = origin
        self.resumed = newest_checkpoint(out / TRAINER)
        self.done = int(self.resumed[1]["step"]) if self.resumed else 0
        self.shared = planned_sharding() != "none"
        self.sync = CollectiveSync(any_process if self.shared else None)
        self.policy = build.open_policy(base, recipe, self.shared)
        self.family = self.policy.family
        self.limits = self._limits()
        self.offline = build.load_given_pairs(recipe, data)
        # the policy scores given pairs before the first step, while it still equals the reference
        needed = recipe.uses_reference and (self.offline is None or recipe.method == "tdpo" or self.shared)
        self.reference = build.make_reference(self.policy, weights=not self.shared) if needed else None
        weights = sources["base_sha256"]
        self.own_answers = build.make_own_answers(recipe, self.family, data, weights, out, self.shared)
        groups = data.all if self.own_answers is None else WithOwnAnswers(self.own_answers, data.validation)
        frozen, processes = recipe.encoder_frozen, PartialState().num_processes
        clips_per_step = recipe.groups_per_step // processes * recipe.voices_per_group  # of this process
        self.store = ClipStore(
            self.family,
            groups,
            frozen=frozen,
            cache=build.encoder_cache(recipe, self.family, weights) if frozen else None,
            strict=recipe.long_clips == "error",
            ahead=(recipe.prefetch + recipe.refresh_every) * clips_per_step if recipe.prefetch else 0,
            hear=recipe.hear,
        )
        self.responder = ResponseTokens(self.family)
        self.validator: Validator | None = None

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
        from rba_bench.training.callbacks.run_files import RunFiles, reporters
        from rba_bench.training.callbacks.training_callback import Interrupt, TrainingCallback

        recipe, trainer = self.recipe, self.trainer()
        writes = trainer.args.should_save  # one display and one log, however many processes
        with Interrupt() as interrupt:
            if self.done == 0 and not self.shared:
                self._guard()
            files = RunFiles(self.out, self.done) if writes else None
            if writes:
                write_json(self.out / START, self._start())
            shown = display(
                f"train {recipe.method}", recipe.steps, self.done, recipe.log_every, recipe.budget_s, writes
            )
            try:
                with shown as board:
                    callback = TrainingCallback(trainer, self.validator, interrupt, files, board)
                    trainer.add_callback(callback)
                    for reporter in reporters(recipe.report_to, self.out, self.done, writes):
                        trainer.add_callback(reporter)
                    trainer.train(resume_from_checkpoint=str(self.resumed[0]) if self.resumed else None)
                trainer.saver.wait()
            finally:
                trainer.saver.abandon()
                self.store.waves.close()
                if files is not None:
                    files.close()
        step = trainer.state.global_step
        if callback.interrupted:
            if writes and recipe.report:
                write_report(self.out, self.data.all)
            raise KeyboardInterrupt(f"stopped at step {step} of {recipe.steps}; saved")
        if writes and step < recipe.steps:
            spent = recipe.budget_s is not None and trainer.elapsed_s >= recipe.budget_s
            why = f"budget_s {recipe.budget_s:g} is used up" if spent else "validation.patience is at its end"
            say(f"ended at step {step} of {recipe.steps}: {why}")
        result = self._finish(trainer)
        if writes and recipe.report:
            write_report(self.out, self.data.all)
        return result

    def trainer(self) -> "AlignmentTrainer":
        """The trainer with everything that it trains by; the validation of the run goes to `validator`."""
        from rba_bench.training.data.order import GroupOrder
        from rba_bench.training.methods import make_method
        from rba_bench.training.model import building as build
        from rba_bench.training.model.frozen_models import FrozenModels
        from rba_bench.training.trainer import AlignmentTrainer, arguments

        recipe = self.recipe
        args = arguments(recipe, self.out / TRAINER)
        if self.reference is not None and not self.shared:
            self.reference.to(args.device)
        positions = recipe.steps * recipe.groups_per_step
        if self.own_answers is None:
            order = self.data.order(positions, recipe.seed)
        else:
            order = GroupOrder(self.own_answers.ids, positions, recipe.seed)
        rollout_buffer = self._rollout_buffer(make_method(recipe, self.responder.end_ids), args)
        shell = build.make_teacher_shell(recipe, self.policy) if self.shared else None
        weights = self.sources["base_sha256"]
        teacher = build.make_teacher(recipe, self.family, weights, str(args.device), shell, self.sync)
        trained = [name for name, parameter in self.policy.named_parameters() if parameter.requires_grad]
        kept = None
        if self.offline is not None and recipe.uses_reference and self.reference is None:
            kept = build.score_pairs(
                self.policy, self.store, self.offline, order, self.responder, recipe.voices_per_group
            )
        trainer = AlignmentTrainer(
            self.policy,
            recipe,
            rollout_buffer.method,
            rollout_buffer,
            order,
            args,
            FrozenModels(self.store, self.reference, teacher, trained, kept, self.sync),
            self.offline,
            copies=[copy for copy in (self.reference, shell) if copy is not None],
            when_sharded=self._guard if self.shared and self.done == 0 else lambda: None,
            fresh_from=0 if self.origin is None else self.origin.fresh_from,
        )
        build.check_sharing(trainer.sharing, recipe)
        if self.resumed is not None:
            trainer.restore(self.resumed[1])
            if self.validator is not None:
                self.validator.resume(self.done)
        return trainer

    def _rollout_buffer(self, method: "Method", args: "TrainingArguments") -> "RolloutBuffer":
        """What samples and rewards; the run's validation uses the same."""
        from rba_bench.training.callbacks.samples import SampleSelection
        from rba_bench.training.model import building as build
        from rba_bench.training.rollouts.buffer import RolloutBuffer
        from rba_bench.training.rollouts.engines import make_rollout
        from rba_bench.training.validation import make_validator

        recipe, policy, store, folder = self.recipe, self.policy, self.store, self.out / TRAINER
        device = str(args.device)
        reward = build.make_reward(recipe, self.data.kinds, policy, device, self.out, self.sync)
        rollout_buffer = RolloutBuffer(
            recipe,
            method,
            policy,
            store,
            self.responder,
            reward if recipe.uses_reward else None,
            make_rollout(recipe, policy, store, self.responder.end_ids, folder / "rollout", self.sync),
            build.make_trajectories(recipe, policy, store, device),
            SampleSelection(recipe, args.should_save),
        )
        self.validator = make_validator(recipe, self.data, rollout_buffer, reward, folder, self.sync)
        return rollout_buffer

    def _guard(self) -> None:
        """Refuse a model that does not use its audio; the first process says how much it gains from it."""
        from rba_bench.training.preflight import check_audio_is_used

        if self.recipe.hear != "speech":
            say(f"a control: the model hears no speech in training (hear: {self.recipe.hear})")
            return
        ids = (self.data.train if self.own_answers is None else self.own_answers).ids
        rows = [self.store.groups[group_id][0] for group_id in ids[:GUARD_CLIPS]]
        gain = check_audio_is_used(self.policy, self.store, self.responder, rows)
        if os.environ.get("RANK", "0") == "0":
            say(f"audio guard: the audio adds {gain:.2f} nats to the log-probability of the teacher's answer")

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

    def _start(self) -> dict[str, Any]:
        """What is known of a run before its first step."""
        recipe, origin = self.recipe, self.origin
        base_lineage = continuing.lineage_of(self.base, self.sources["base_sha256"])
        return {
            "schema_version": SCHEMA_VERSION,
            "method": recipe.method,
            "track": recipe.track,
            "base": recipe.base,
            "base_revision": hub_commit(self.base),  # None for what is no commit of the Hub
            "seed": recipe.seed,
            "recipe": recipe.resolved(),
            **self.sources,
            "continued_from": None if origin is None else origin.identity(),
            "lineage": base_lineage if origin is None else origin.lineage(),
            "data": self.data.record(),
            "versions": version_record(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _record(self, trainer: "AlignmentTrainer") -> dict[str, Any]:
        recipe, steps = self.recipe, trainer.state.global_step
        start = {name: value for name, value in self._start().items() if name != "created"}
        clips = steps * recipe.groups_per_step * recipe.voices_per_group
        validations = None
        if self.validator is not None and self.validator.history:
            best_step, best = self.validator.best
            metric, history = recipe.validation.metric, self.validator.history
            validations = {"metric": metric, "best_step": best_step, "best": best, "history": history}
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
            "validations": validations,
            "curve": curve_columns(read_curve(self.out)),
            "hardware": hardware_record(trainer.args),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

"""One training run in one folder: claimed, resumable at any moment, finished by a checkpoint others can load.

OUT/rba_config.json    whose folder this is         OUT/train_log.jsonl   one record per step
OUT/trainer/           Trainer checkpoints, removed when the run is finished
OUT/model.safetensors, config.json, processor, ...  and, last, OUT/rba_run.json
"""

import platform
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench import __version__
from rba_bench.audio.alignment_set import AlignmentRow, AlignmentSet
from rba_bench.errors import UserError
from rba_bench.files import read_json, sha256_json, write_json
from rba_bench.outputs import claim
from rba_bench.progress import bar, say
from rba_bench.training.recipe import TrainingRecipe

if TYPE_CHECKING:
    from rba_bench.training.trainer import AlignmentTrainer

RUN = "rba_run.json"
LOG = "train_log.jsonl"
SCHEMA_VERSION = 1
GUARD_CLIPS = 8
# What decides the result. Paths are left out (hashes stand for them), and what only changes speed, memory or display.
_NOT_IDENTITY = {"alignment_set", "base", "log_every", "save_every", "cache_mb"}


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


def train(recipe: TrainingRecipe, out: Path) -> TrainResult:
    """Run a recipe, or go on with it where it stopped, or return at once if it is finished.

    Args:
        recipe: the run.
        out: its folder.

    Raises:
        UserError: the folder belongs to another run, or recipe and data do not fit.
        MissingPrerequisite: base model, reward model or alignment set is absent.
        RbaError: the model does not use its audio, or a loss is not finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the state is saved, the same call resumes.
    """
    from rba_bench.training.build import base_folder, checkpoint_sha256

    data = AlignmentSet.open(recipe.alignment_set)
    base = base_folder(recipe)
    identity = {name: value for name, value in recipe.resolved().items() if name not in _NOT_IDENTITY}
    sources = {"alignment_set_sha256": data.sha256, "base_sha256": checkpoint_sha256(base)}
    claim(out, "train", identity | sources)
    if (out / RUN).is_file():
        say(f"{out} is finished already")
        return _result(out)
    return _Run(recipe, out, data, base, sources).execute()


def _result(out: Path) -> TrainResult:
    run = read_json(out / RUN)
    return TrainResult(out, run["method"], run["steps"], run["wall_time_s"], run["samples_per_s"], run)


class _Run:
    """The objects of one run, made in order; `execute` uses them."""

    def __init__(
        self, recipe: TrainingRecipe, out: Path, data: AlignmentSet, base: Path, sources: dict[str, str]
    ) -> None:
        from transformers import set_seed

        from rba_bench.training import build
        from rba_bench.training.checkpoints import newest
        from rba_bench.training.clips import ClipStore, ResponseTokens, shared_memory

        set_seed(recipe.seed)  # adapters start from random numbers
        self.recipe, self.out, self.data, self.sources = recipe, out, data, sources
        self.train_rows = [row for row in data.rows("train") if row.response.strip()]
        if not self.train_rows:
            raise UserError(f"alignment set {data.path} has no training rows with a response")
        self.validation_rows = data.rows("validation") if recipe.eval_every else []
        self.found = newest(out / "trainer")
        self.model, self.processor = build.load_base(base)
        self.policy = build.make_policy(self.model, recipe)
        self.reference = build.make_reference(self.policy) if recipe.uses_reference else None
        memory = shared_memory(self._memory_key(), recipe.cache_mb * 2**20)
        frozen = recipe.encoder_frozen
        self.store = ClipStore(self.model, self.processor, data.groups(), frozen=frozen, memory=memory)
        self.responder = ResponseTokens(self.processor, build.end_token_ids(self.model, self.processor))

    def _memory_key(self) -> str:
        import torch

        device = "cuda" if torch.cuda.is_available() else f"cpu-{torch.get_num_threads()}"
        return sha256_json([self.sources, self.recipe.encoder_frozen, device])

    def execute(self) -> TrainResult:
        """Train, write, clean up."""
        from rba_bench.training.keeper import Interrupt, StepLog

        trainer, keeper, done = self._trainer()
        with Interrupt() as interrupt:
            keeper.interrupt = interrupt
            if done == 0:
                self._guard(trainer.args.should_save)
            log = StepLog(self.out / LOG, done) if trainer.args.should_save else None
            keeper.log = log
            try:
                with bar(f"train {self.recipe.method}", self.recipe.steps, done, "steps") as advance:
                    if trainer.args.should_save:  # one bar however many processes
                        keeper.advance = advance
                    trainer.train(resume_from_checkpoint=str(self.found[0]) if self.found else None)
            finally:
                if log is not None:
                    log.close()
        if keeper.interrupted:
            raise KeyboardInterrupt(
                f"stopped at step {trainer.state.global_step} of {self.recipe.steps}; saved"
            )
        return self._finish(trainer)

    def _trainer(self) -> tuple["AlignmentTrainer", Any, int]:
        from rba_bench.training.collect import Collector
        from rba_bench.training.keeper import Interrupt, Keeper
        from rba_bench.training.order import GroupOrder
        from rba_bench.training.trainer import AlignmentTrainer, arguments

        recipe = self.recipe
        args = arguments(recipe, self.out / "trainer")
        self.policy.to(args.device)
        if self.reference is not None:
            self.reference.to(args.device)
        group_ids = list(dict.fromkeys(row.group_id for row in self.train_rows))
        order = GroupOrder(group_ids, recipe.steps * recipe.groups_per_step, recipe.seed)
        reward = self._reward(str(args.device)) if recipe.method == "rba-group" else None
        collector = Collector(recipe, self.policy, self.store, self.responder, reward)
        keeper = Keeper(
            None, lambda n: None, Interrupt(), self._validation_loss if self.validation_rows else None
        )
        trainer = AlignmentTrainer(self.policy, recipe, collector, order, args, self.reference, [keeper])
        keeper.trainer = trainer
        if self.found is None:
            return trainer, keeper, 0
        trainer.restore(self.found[1])
        return trainer, keeper, int(self.found[1]["step"])

    def _reward(self, device: str) -> Any:
        from rba_bench.training.rewards import build_reward

        return build_reward(self.recipe.reward, sorted({row.kind for row in self.train_rows}), device)

    def _guard(self, tell: bool) -> None:
        from rba_bench.training.guard import check_audio_is_used

        gain = check_audio_is_used(self.policy, self.store, self.responder, self.train_rows[:GUARD_CLIPS])
        if tell:
            say(f"audio guard: hearing the clip adds {gain:.2f} nats to the teacher's answer")

    def _validation_loss(self) -> float:
        """Mean negative log-probability (nats per answer) of the teacher's answers on the validation split."""
        import torch

        from rba_bench.training.layout import Branch
        from rba_bench.training.objectives import sequence_logprobs, sft

        total = 0.0
        self.policy.eval()
        for start in range(0, len(self.validation_rows), self.recipe.batch_size):
            rows: list[AlignmentRow] = self.validation_rows[start : start + self.recipe.batch_size]
            branches = [Branch(i, self.responder(row.prompt, row.response)) for i, row in enumerate(rows)]
            with torch.no_grad():
                total += float(sft(sequence_logprobs(*self.policy(self.store.get(rows), branches))).sum())
        self.policy.train()
        return total / len(self.validation_rows)

    def _finish(self, trainer: "AlignmentTrainer") -> TrainResult:
        """Write the checkpoint, `rba_run.json` last, and remove the Trainer's folder."""
        from rba_bench.training.build import merge_lora

        if trainer.args.should_save:
            if self.recipe.lora is not None:
                merge_lora(self.model)
            self.model.save_pretrained(self.out)
            self.processor.save_pretrained(self.out)
            write_json(self.out / RUN, self._record(trainer))
            shutil.rmtree(self.out / "trainer", ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        return _result(self.out)

    def _record(self, trainer: "AlignmentTrainer") -> dict[str, Any]:
        recipe, steps = self.recipe, trainer.state.global_step
        clips = steps * recipe.groups_per_step * recipe.voices_per_group
        return {
            "schema_version": SCHEMA_VERSION,
            "method": recipe.method,
            "track": recipe.track,
            "base": recipe.base,
            "seed": recipe.seed,
            "steps": steps,
            "recipe": recipe.resolved(),
            **self.sources,
            "wall_time_s": round(trainer.elapsed_s, 3),
            "encoding_s": round(trainer.encoding_s, 3),
            "samples_per_s": round(clips / max(trainer.elapsed_s + trainer.encoding_s, 1e-9), 3),
            "answers_sampled": trainer.collector.drawn,
            "versions": _versions(),
            "hardware": _hardware(trainer),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def _versions() -> dict[str, str]:
    import torch
    import transformers

    return {
        "rba_bench": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _hardware(trainer: "AlignmentTrainer") -> dict[str, Any]:
    import torch

    device = trainer.args.device
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "device": device.type,
        "name": name,
        "processes": trainer.args.world_size,
        "threads": torch.get_num_threads(),
    }

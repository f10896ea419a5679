"""The Trainer's checkpoints: begun between two steps, written while it goes on, read back by any number of processes.

DeepSpeed has a format of its own, which belongs to its engine; there only what it does not know is added.
"""

from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME

from rba_bench.training.data.order import GroupOrder
from rba_bench.training.methods import Outcome
from rba_bench.training.model.checkpoint_writer import Saver
from rba_bench.training.model.checkpoints import WEIGHTS, load_weights, save_weights, seal
from rba_bench.training.model.frozen_models import StepModels
from rba_bench.training.model.run_state import restore, tensors_of
from rba_bench.training.rollouts.buffer import RolloutBuffer
from rba_bench.training.schedule import set_rates


class CheckpointingTrainer(Trainer):
    """What of `AlignmentTrainer` has to do with checkpoints.

    Attributes:
        saver: writes them.
    """

    saver: Saver
    rollout_buffer: RolloutBuffer
    tools: StepModels
    order: GroupOrder
    elapsed_s: float
    encoding_s: float
    lr_scheduler: Any
    optimizer: Any

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Trained parameters only, and no pickled training_args.bin; all processes call."""
        save_weights(
            self.rollout_buffer.policy, Path(output_dir or self.args.output_dir), self.args.should_save
        )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Begin a checkpoint; DeepSpeed writes its own, and training waits for it."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        shares = gather_object(
            [{str(p): outcome.to_json() for p, outcome in self.rollout_buffer.waiting.items()}]
        )
        state = {
            "step": self.state.global_step,
            "elapsed_s": self.elapsed_s,
            "encoding_s": self.encoding_s,
            "drawn": self.rollout_buffer.drawn,
            "judged": self.rollout_buffer.judged,
            "encoded": self.rollout_buffer.store.encoded,
            "waiting": {position: outcome for share in shares for position, outcome in share.items()},
        }
        if self.is_deepspeed_enabled:
            super()._save_checkpoint(model, trial)
            self.tools.save_reference(folder, self.args.should_save)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                seal(folder, state)
            return
        self.saver.wait()
        folder.mkdir(parents=True, exist_ok=True)
        self._save_rng_state(str(folder))
        if self.args.should_save:
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        reference = self.tools.reference_tensors() if self.tools.changed else {}
        self.saver.save(folder, tensors_of(self.rollout_buffer.policy, self.optimizer, reference), state)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `_save_checkpoint` noted beside the Trainer's own state."""
        groups = self.rollout_buffer.store.groups
        batch, world = self.args.per_device_train_batch_size, self.args.world_size
        for position, value in state["waiting"].items():
            if int(position) // batch % world == self.args.process_index:
                group = value.get("group") or self.order[int(position)][1]  # another came in its place
                rows = {row.id: row for row in groups[group]}
                self.rollout_buffer.waiting[int(position)] = Outcome.from_json(value, rows)
        self.rollout_buffer.drawn, self.rollout_buffer.judged = state["drawn"], state["judged"]
        self.rollout_buffer.store.encoded += state.get(
            "encoded", 0
        )  # absent in checkpoints of earlier versions
        self.elapsed_s, self.encoding_s = state["elapsed_s"], state["encoding_s"]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing yet: weights are read together with the optimiser's state."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """All that a checkpoint holds in tensors.

        Rates and `save_every` are the recipe's: a run that goes on may have others than the one that saved.
        """
        self.state.save_steps = self.args.save_steps
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        rates = [] if self.is_deepspeed_enabled else list(self.lr_scheduler.base_lrs)
        if (
            folder / WEIGHTS
        ).is_file():  # weights alone, an earlier version's, or DeepSpeed's, which has read its own
            if not self.is_deepspeed_enabled:
                load_weights(self.rollout_buffer.policy, folder)
            super()._load_optimizer_and_scheduler(checkpoint)
            self.tools.load_reference(folder)
        elif restore(folder, self.rollout_buffer.policy, self.optimizer, self.tools.reference_tensors()):
            self.tools.changed = True
            self.tools.forget_openings()
        if not self.is_deepspeed_enabled:
            set_rates(self.optimizer, self.lr_scheduler, rates, self.state.global_step)

"""The state of a Trainer in checkpoints: trained weights, optimiser state and a renewed reference, by name.

`CheckpointingTrainer` starts a checkpoint between two steps; it is written while training goes on, and any number of
processes can read it. DeepSpeed has a format of its own, which belongs to its engine; there only what it does not know
is added.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME

from rba_bench.errors import RbaError
from rba_bench.training.data.order import GroupOrder
from rba_bench.training.methods import Outcome
from rba_bench.training.model import checkpoints as saver
from rba_bench.training.model.checkpoints import WEIGHTS, Saver, load_weights, save_weights, seal_checkpoint
from rba_bench.training.model.frozen_models import FrozenModels
from rba_bench.training.model.sharding import reshard
from rba_bench.training.model.trainable_parts import set_rates
from rba_bench.training.rollouts.buffer import RolloutBuffer

STEP = "step"  # of AdamW, a scalar; kept as one number in a row, which safetensors can cut


def training_tensors(model: nn.Module, optimizer: Any, reference: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors themselves, not copies.

    Args:
        model: the policy.
        optimizer: of its trained parameters.
        reference: parameters of a reference that has changed, else empty.
    """
    reshard(model)
    tensors: dict[str, Tensor] = {f"reference.{name}": value for name, value in reference.items()}
    for name, parameter in trained_parameters(model).items():
        tensors[f"model.{name}"] = parameter.detach()
        for key, value in _state(optimizer)[parameter].items():
            tensors[f"optimizer.{name}.{key}"] = value.reshape(1) if key == STEP else value
    return tensors


def restore(folder: Path, model: nn.Module, optimizer: Any, reference: dict[str, Tensor]) -> bool:
    """Read them back in place, by any number of processes.

    Returns:
        Whether there is a changed reference, which has then been read into `reference`.

    Raises:
        RbaError: the checkpoint is of a model with other trained parameters.
    """
    reshard(model)
    parameters, names = trained_parameters(model), saver.saved_names(folder)
    if {f"model.{name}" for name in parameters} != {name for name in names if name.startswith("model.")}:
        raise RbaError(
            f"{folder} was saved from a model with other trained parameters; remove it and start again"
        )
    changed = any(name.startswith("reference.") for name in names)
    tensors: dict[str, Tensor] = {f"model.{name}": p.detach() for name, p in parameters.items()}
    if changed:
        tensors |= {f"reference.{name}": value for name, value in reference.items()}
    states = {}
    for full in names:
        if full.startswith("optimizer."):
            name, _, key = full.removeprefix("optimizer.").rpartition(".")
            states[full] = parameters[name], key
            tensors[full] = torch.zeros(1) if key == STEP else torch.zeros_like(parameters[name]).detach()
    saver.load(folder, tensors)
    # fused AdamW counts on the device
    on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for full, (parameter, key) in states.items():
        value = tensors[full]
        if key == STEP:
            value = value.reshape(()).to(parameter.device if on_device else "cpu")
        _state(optimizer)[parameter][key] = value
    return changed


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that train, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _state(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer).state  # accelerate wraps it


class CheckpointingTrainer(Trainer):
    """What of `AlignmentTrainer` has to do with checkpoints.

    Attributes:
        saver: writes them.
    """

    saver: Saver
    rollout_buffer: RolloutBuffer
    frozen_models: FrozenModels
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
        buffer = self.rollout_buffer
        shares = gather_object([{str(p): outcome.to_json() for p, outcome in buffer.waiting.items()}])
        state = {
            "step": self.state.global_step,
            "elapsed_s": self.elapsed_s,
            "encoding_s": self.encoding_s,
            "drawn": buffer.drawn,
            "judged": buffer.judged,
            "encoded": buffer.store.encoded,
            "waiting": {position: outcome for share in shares for position, outcome in share.items()},
        }
        if self.is_deepspeed_enabled:
            super()._save_checkpoint(model, trial)
            self.frozen_models.save_reference(folder, self.args.should_save)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                seal_checkpoint(folder, state)
            return
        self.saver.wait()
        folder.mkdir(parents=True, exist_ok=True)
        self._save_rng_state(str(folder))
        if self.args.should_save:
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        reference = self.frozen_models.reference_tensors() if self.frozen_models.changed else {}
        self.saver.save(folder, training_tensors(buffer.policy, self.optimizer, reference), state)

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
        # absent in checkpoints of earlier versions
        self.rollout_buffer.store.encoded += state.get("encoded", 0)
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
        folder, policy = Path(checkpoint), self.rollout_buffer.policy
        rates = [] if self.is_deepspeed_enabled else list(self.lr_scheduler.base_lrs)
        # weights alone, an earlier version's, or DeepSpeed's, which has read its own
        if (folder / WEIGHTS).is_file():
            if not self.is_deepspeed_enabled:
                load_weights(policy, folder)
            super()._load_optimizer_and_scheduler(checkpoint)
            self.frozen_models.load_reference(folder)
        elif restore(folder, policy, self.optimizer, self.frozen_models.reference_tensors()):
            self.frozen_models.changed = True
            self.frozen_models.forget_openings()
        if not self.is_deepspeed_enabled:
            set_rates(self.optimizer, self.lr_scheduler, rates, self.state.global_step)

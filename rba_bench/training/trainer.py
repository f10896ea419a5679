"""The loop: transformers' Trainer, which brings DDP, accumulation, mixed precision and resuming, around our own step.

groups of a step -> rollout (if due) -> batches of distinct answers, counted -> log-probabilities -> the method's loss

A step is normalised as a whole: what its loss is divided by is counted over all its batches and all processes before
the first of them is scored. So neither `accumulate` nor the number of processes changes a loss or a gradient.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, str_to_bool
from torch import Tensor, nn
from torch.distributed.fsdp import register_fsdp_forward_method
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import RbaError, UserError
from rba_bench.progress import say
from rba_bench.training.callbacks.step_metrics import Alarms, StepMetrics
from rba_bench.training.data.batch import StepBatch
from rba_bench.training.data.order import GroupOrder, collate, coming
from rba_bench.training.data.pairs import OfflinePairs
from rba_bench.training.methods import Method, Outcome
from rba_bench.training.methods.method import Step, StepTargets
from rba_bench.training.model.building import optimizer_groups
from rba_bench.training.model.checkpoints import STATE, Saver
from rba_bench.training.model.frozen_models import FrozenModels
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.model.sharded_loading import shard_policy
from rba_bench.training.model.sharding import any_process, drive_zero3, layer_names, sharding_of, use_bfloat16
from rba_bench.training.model.trainable_parts import schedule_factor
from rba_bench.training.model.trainer_state import CheckpointingTrainer
from rba_bench.training.rollouts.buffer import RolloutBuffer
from rba_bench.training.rollouts.rollout import RolloutUnavailable
from rba_bench.training.training_recipe import TrainingRecipe


def arguments(recipe: TrainingRecipe, folder: Path) -> TrainingArguments:
    """The Trainer's settings for a recipe. `folder` takes its checkpoints.

    Raises:
        UserError: groups_per_step cannot be shared out evenly.
    """
    args = TrainingArguments(
        output_dir=str(folder),
        use_cpu=not torch.accelerator.is_available(),  # said aloud, torchrun also works without a GPU
        seed=recipe.seed,
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        adam_beta2=recipe.adam_beta2,
        max_grad_norm=recipe.max_grad_norm,
        gradient_accumulation_steps=recipe.accumulate,
        bf16=recipe.precision == "bfloat16",
        train_sampling_strategy="sequential",  # GroupOrder is shuffled already
        remove_unused_columns=False,
        label_names=[],
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=recipe.save_every,
        disable_tqdm=True,
        report_to="none",  # see `reporting`
        ddp_find_unused_parameters=False,  # every trained parameter takes part in every step
        dataloader_pin_memory=False,
    )
    if args.world_size == 1:
        # several GPUs are for torchrun; DataParallel cannot split our batches
        args._n_gpu = min(args.n_gpu, 1)
    share, rest = divmod(recipe.groups_per_step, args.world_size * recipe.accumulate)
    if rest or not share:
        raise UserError(
            f"groups_per_step {recipe.groups_per_step} must be a multiple of "
            f"{args.world_size} process(es) x accumulate {recipe.accumulate}"
        )
    args.per_device_train_batch_size = share
    return args


class AlignmentTrainer(CheckpointingTrainer):
    """Trains a `SpeechPolicy` by any method.

    Args:
        policy: what trains.
        recipe: the run.
        method: of the recipe.
        rollout_buffer: rollouts and rewards; its store and responder serve all methods.
        order: the sequence of groups.
        args: from `arguments`.
        frozen_models: reference and teacher.
        offline: given pairs; nothing is sampled then.
        copies: frozen copies of the policy whose weights processes share out with it.
        when_sharded: called once all processes have their share of the weights.
        fresh_from: step at which a continued run starts with a new optimiser.
        callbacks: beside the `TrainingCallback`, which is added to the finished trainer.

    Attributes:
        elapsed_s: training time over all resumes, in seconds, without encoding clips.
        encoding_s: time spent on encoding clips, in seconds.
        sharing: how processes share weights out; see `sharding.sharding_of`.
    """

    loss_is_scaled_for_ga = True  # compute_loss gives a share of the step's loss: nothing is left to divide
    lr_scheduler: Any
    optimizer: Any
    _created_lr_scheduler: bool

    def __init__(
        self,
        policy: SpeechPolicy,
        recipe: TrainingRecipe,
        method: Method,
        rollout_buffer: RolloutBuffer,
        order: GroupOrder,
        args: TrainingArguments,
        frozen_models: FrozenModels,
        offline: OfflinePairs | None = None,
        copies: Sequence[SpeechPolicy] = (),
        when_sharded: Callable[[], object] = lambda: None,
        fresh_from: int = 0,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        super().__init__(policy, args, data_collator=collate, train_dataset=order, callbacks=list(callbacks))
        self.remove_callback(PrinterCallback)  # stdout is for results
        self.recipe = recipe
        self.method = method
        self.rollout_buffer = rollout_buffer
        self.order = order
        self.frozen_models = frozen_models
        self.offline = offline
        self.copies = copies
        self.when_sharded = when_sharded
        self.fresh_from = fresh_from
        self.sharing = sharding_of(self.accelerator)
        self.elapsed_s = 0.0
        self.encoding_s = 0.0
        self.grad_norm = 0.0
        self.metrics = StepMetrics()
        self.alarms = Alarms(recipe)
        self.saver = Saver(Path(args.output_dir), args.should_save)
        self._groups: list[dict[str, Any]] | None = None
        self._step_counts: dict[str, int] = {}
        self._positions: Sequence[int] = ()  # of the last batch taken
        rollout_buffer.store.coming = self._coming

    # one step

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """This process's batches of the next optimiser step, with what all of them are divided by counted."""
        items, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._positions = items[-1]["positions"] if items else ()
        needed = (row for item in items for row in self._rows(item["groups"]))
        self.rollout_buffer.store.look_ahead(chain(needed, self._coming()))
        batches = []
        for item in items:
            positions, group_ids = item["positions"], item["groups"]
            outcomes, rows = self._outcomes(positions, group_ids), self._rows(group_ids)
            batch = self.method.batch(rows, outcomes, self.rollout_buffer.responder)
            self.metrics.share("clips", len(rows))
            self.metrics.share("tokens", batch.trained_tokens)
            self.metrics.rollouts(batch, outcomes, self.state.global_step)
            self.rollout_buffer.keep_records(positions, group_ids, outcomes)
            batches.append(batch)
        counts = [self.method.counts(batch, self.frozen_models) for batch in batches]
        if counts:
            total, judged = self.rollout_buffer.take_verdicts()
            sums = {name: sum(count[name] for count in counts) for name in counts[0]}
            self._step_counts = sums | {"answers_total": total, "answers_judged": judged}
            if self.args.world_size > 1:
                names = sorted(self._step_counts)
                own = torch.tensor([self._step_counts[name] for name in names], device=self.args.device)
                summed = self.accelerator.reduce(own, "sum").tolist()
                self._step_counts = dict(zip(names, summed, strict=True))
            if self._step_counts["answers_total"] and not self._step_counts["answers_judged"]:
                raise RbaError(
                    f"none of {self._step_counts['answers_total']} answers could be judged: check `reward` in the "
                    "recipe"
                )
        return [{"batch": batch} for batch in batches], None

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """One batch's share of the step's loss, of which the log gets the sum.

        It is returned times the number of processes, because these average their gradients.
        """
        batch: StepBatch = inputs["batch"]
        targets = self.rollout_buffer.policy.inside(lambda: self._targets(batch))
        clips = self.rollout_buffer.store.inputs(batch.prompts)
        scores = model(
            clips, batch.responses, targets.distributions, targets.measure, self.method.extra_outputs
        )
        terms = self.method.loss(Step(batch, scores, targets, self._step_counts))
        share = float(terms.loss.detach())
        if not math.isfinite(share):
            raise RbaError(
                f"the loss of step {self.state.global_step + 1} is not finite, nothing was changed by it: lower "
                "learning_rate or beta"
            )
        for name, value in {"loss": share, **terms.notes}.items():
            self.metrics.share(name, value)
        loss = terms.loss * self.args.world_size
        return (loss, {}) if return_outputs else loss

    def _rows(self, group_ids: Sequence[str]) -> list[AlignmentRow]:
        groups = self.rollout_buffer.store.groups
        return [row for group_id in group_ids for row in groups[group_id][: self.recipe.voices_per_group]]

    def _outcomes(self, positions: Sequence[int], group_ids: Sequence[str]) -> list[Outcome]:
        """The outcomes of this batch; samples those of the coming steps too when a refresh is due."""
        buffer = self.rollout_buffer
        if self.offline is not None:
            return [
                self.offline(buffer.store.groups[group_id][: self.recipe.voices_per_group], buffer.responder)
                for group_id in group_ids
            ]
        if not self.recipe.uses_rollout:
            return []
        if any(position not in buffer.waiting for position in positions):
            stride = len(positions) * self.args.world_size
            step_batches = self.recipe.accumulate
            done = (positions[0] // stride) % step_batches  # batches of this optimiser step already taken
            ahead = range(step_batches * self.recipe.refresh_every - done)
            window = [position + batch * stride for batch in ahead for position in positions]
            jobs = [self.order[position] for position in window if position < len(self.order)]
            try:
                with self.accelerator.autocast():
                    buffer.draw(jobs, self.state.global_step, self.order.spare, any_process)
            except RolloutUnavailable as error:
                # saved between two steps, as samples to continue with are missing
                step = self.state.global_step
                self.saver.wait()
                if step and not (Path(self.args.output_dir) / f"checkpoint-{step}" / STATE).is_file():
                    self._save_checkpoint(self.model, None)
                    self.saver.wait()
                raise RolloutUnavailable(
                    f"{error}: start it again; the same command then goes on from step {step}"
                ) from error
        return [buffer.take(position) for position in positions]

    def _coming(self) -> Iterator[AlignmentRow]:
        """Rows of this process's next steps: what may be encoded together with what is needed now."""
        for group_id in coming(self.order, self._positions, self.args.world_size, self.recipe.accumulate):
            yield from self._rows([group_id])

    @torch.no_grad()
    def _targets(self, batch: StepBatch) -> StepTargets:
        with self.accelerator.autocast():
            targets = self.method.targets(batch, self.frozen_models)
            self.frozen_models.run_dummy_forwards(batch)
        return targets

    # between steps

    def take_metrics(self) -> dict[str, float]:
        """The step's figures, over all its batches and all processes; metrics without a value are left out."""
        figures = self.method.log_figures(self.metrics.take(self.args.world_size))
        figures["grad_norm"] = self.grad_norm
        for line in self.alarms(self.state.global_step, figures) if self.args.should_save else ():
            say(line)
        return figures

    def after_step(self, step: int) -> None:
        """Between steps rollouts get the new weights, and every `opponent_every` an opponent does."""
        self.rollout_buffer.rollout.renew()
        self.saver.check()
        if self.recipe.has_opponent and step % self.recipe.opponent_every == 0:
            self.frozen_models.renew_reference(self.rollout_buffer.policy)

    # hooks of the Trainer

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        self.grad_norm = float(norm)
        if not math.isfinite(self.grad_norm):
            raise RbaError(
                f"the gradient of step {self.state.global_step + 1} is not finite: lower learning_rate or beta"
            )
        return norm

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with each part's own learning rate."""
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            groups = self._groups or optimizer_groups(self.rollout_buffer.policy.family, self.recipe)
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Warm-up, then the recipe's schedule."""
        if not self._created_lr_scheduler:
            optimizer = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: schedule_factor(step, self.recipe, self.fresh_from)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def create_accelerator_and_postprocess(self) -> None:
        """Also shares weights out on CPUs if asked to, where accelerate (1.15) silently keeps them whole."""
        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        if str_to_bool(os.environ.get("ACCELERATE_USE_FSDP", "false")) and self.args.device.type == "cpu":
            state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, FullyShardedDataParallelPlugin()
            self.is_fsdp_enabled = True

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """Wraps the model; shares weights out where that is asked for, frozen copies likewise."""
        if self.sharing == "none":
            return super()._prepare_for_training(*args, **kwargs)
        policy = self.rollout_buffer.policy
        groups = optimizer_groups(policy.family, self.recipe)  # before parts are taken out of the model
        names = {id(parameter): name for name, parameter in policy.named_parameters()}
        trained = [[names[id(parameter)] for parameter in group["params"]] for group in groups]
        if self.sharing == "fsdp":
            plugin = self.accelerator.state.fsdp_plugin
            plugin.transformer_cls_names_to_wrap = layer_names(policy.layer_stacks())
            if self.args.bf16:
                use_bfloat16(plugin)
        for model in (policy, *self.copies):
            model.sharded = True
        shard_policy(policy, self.copies, self.accelerator, self.sharing, self.args.device)
        shared = dict(policy.named_parameters())
        held = [[shared[name] for name in model] for model in trained]
        self._groups = [{**group, "params": own} for group, own in zip(groups, held, strict=True)]
        prepared = super()._prepare_for_training(*args, **kwargs)
        if self.sharing == "fsdp":
            for group, own in zip(self.optimizer.param_groups, held, strict=True):
                group["params"] = own  # accelerate tells shards apart by address, and empty ones have none
        for model in (policy, *self.copies) if self.sharing == "fsdp" else ():
            register_fsdp_forward_method(model, "inside")
        if self.sharing == "zero3":
            for model in self.copies:
                drive_zero3(model, self.accelerator)
            unset_hf_deepspeed_config()  # models loaded from now on are whole
        self.when_sharded()
        return prepared

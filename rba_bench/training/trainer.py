"""The loop: transformers' Trainer, which brings DDP, accumulation, mixed precision and resuming, around our own step.

batch of groups -> rollout and pairs (if due) -> distinct answers -> log-probabilities -> objective
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import RbaError, UserError
from rba_bench.training import objectives
from rba_bench.training.batch import StepBatch, assemble
from rba_bench.training.checkpoints import load_weights, save_weights, seal
from rba_bench.training.collect import Collector, Outcome
from rba_bench.training.layout import Branch
from rba_bench.training.order import GroupOrder, collate
from rba_bench.training.pairs import Pair
from rba_bench.training.policy import SpeechPolicy
from rba_bench.training.recipe import TrainingRecipe

METRICS = (
    *("loss", "preference", "sft", "margin", "accuracy", "pairs", "items"),
    *("truncated", "match", "length", "reward", "reward_best", "reward_worst"),
)

COUNTS = {"pairs", "items"}


def schedule_factor(step: int, recipe: TrainingRecipe) -> float:
    """Learning rate of optimiser step `step` (0, 1, ...) over the recipe's; the first step is not wasted on zero."""
    if step < recipe.warmup_steps:
        return (step + 1) / (recipe.warmup_steps + 1)
    done = min(1.0, (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps))
    if recipe.schedule == "linear":
        return 1.0 - done
    return 0.5 * (1.0 + math.cos(math.pi * done)) if recipe.schedule == "cosine" else 1.0


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
        save_total_limit=2,  # while one is being written the other one is complete
        disable_tqdm=True,
        report_to="none",
        ddp_find_unused_parameters=False,  # every trained parameter takes part in every step
        dataloader_pin_memory=False,
    )
    if args.world_size == 1:
        args._n_gpu = min(
            args.n_gpu, 1
        )  # several GPUs are for torchrun; DataParallel cannot split our batches
    share, rest = divmod(recipe.groups_per_step, args.world_size * recipe.accumulate)
    if rest or not share:
        raise UserError(
            f"groups_per_step {recipe.groups_per_step} must be a multiple of "
            f"{args.world_size} process(es) x accumulate {recipe.accumulate}"
        )
    args.per_device_train_batch_size = share
    return args


class AlignmentTrainer(Trainer):
    """Trains a `SpeechPolicy` by SFT, RBA or DPO.

    Args:
        policy: what trains.
        recipe: how.
        collector: rollouts, rewards, pairs; its store and responder serve all methods.
        order: the sequence of groups.
        args: from `arguments`.
        reference: frozen policy, for the forms with a reference.
        callbacks: of the run.
    """

    loss_is_scaled_for_ga = False  # compute_loss gives a mean over its batch
    lr_scheduler: Any
    _created_lr_scheduler: bool

    def __init__(
        self,
        policy: SpeechPolicy,
        recipe: TrainingRecipe,
        collector: Collector,
        order: GroupOrder,
        args: TrainingArguments,
        reference: SpeechPolicy | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        super().__init__(policy, args, data_collator=collate, train_dataset=order, callbacks=list(callbacks))
        self.remove_callback(PrinterCallback)  # stdout is for results
        self.recipe = recipe
        self.collector = collector
        self.order = order
        self.reference = reference
        self.elapsed_s = 0.0  # training time without encoding clips, over all resumes
        self.encoding_s = 0.0
        self.grad_norm = 0.0
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    # one step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of one batch of groups, mean over its items; also notes the step's metrics."""
        outcomes = self._outcomes(inputs["positions"], inputs["groups"])
        pairs = [pair for outcome in outcomes for pair in outcome.pairs]
        items = sum(outcome.items for outcome in outcomes)
        terms = self._terms(model, self._rows(inputs["groups"]), pairs, items)
        if not math.isfinite(float(terms.loss.detach())):
            raise RbaError(
                f"the loss of step {self.state.global_step + 1} is not finite: lower learning_rate or beta"
            )
        self._note("items", items)
        self._note("pairs", len(pairs))
        for outcome in outcomes:
            for name, value in outcome.stats.items():
                self._note(name, value)
        return (terms.loss, {}) if return_outputs else terms.loss

    def _rows(self, group_ids: Sequence[str]) -> list[AlignmentRow]:
        groups = self.collector.store.groups
        return [row for group_id in group_ids for row in groups[group_id][: self.recipe.voices_per_group]]

    def _outcomes(self, positions: Sequence[int], group_ids: Sequence[str]) -> list[Outcome]:
        """Pairs of this batch; draws those of the coming steps too when a refresh is due."""
        if not self.recipe.uses_rollout:
            return []
        if any(position not in self.collector.waiting for position in positions):
            with self.accelerator.autocast():
                self.collector.draw(self._window(positions), self.state.global_step)
        return [self.collector.take(position) for position in positions]

    def _window(self, positions: Sequence[int]) -> list[tuple[int, str]]:
        """This process's share of the batches up to the next refresh, this one first."""
        stride = len(positions) * self.args.world_size
        step_batches = self.recipe.accumulate
        done = (positions[0] // stride) % step_batches  # batches of this optimiser step already taken
        ahead = range(step_batches * self.recipe.refresh_every - done)
        wanted = [position + batch * stride for batch in ahead for position in positions]
        return [self.order[position] for position in wanted if position < len(self.order)]

    def _terms(
        self, model: nn.Module, rows: Sequence[AlignmentRow], pairs: Sequence[Pair], items: int
    ) -> objectives.Terms:
        supervised = self.recipe.method == "sft" or self.recipe.sft_term_weight > 0
        batch = assemble(rows, pairs, self.collector.responder if supervised else None)
        if (
            not batch.branches
        ):  # DPO, and every sample was the teacher's answer: a zero gradient, made in the usual way
            zero = self._score(model, assemble(rows[:1], [], self.collector.responder)).sum() * 0.0
            return objectives.Terms(zero, zero.detach(), zero.detach())
        scores = self._score(model, batch)
        teacher, chosen, rejected = (
            scores.index_select(0, torch.tensor(places, dtype=torch.long, device=scores.device))
            for places in (batch.teacher, batch.chosen, batch.rejected)
        )
        if self.recipe.method == "sft":
            loss = objectives.sft(teacher).mean()
            terms = objectives.Terms(loss, loss.new_zeros(()), loss.detach())
        else:
            terms = objectives.rba(
                chosen,
                rejected,
                teacher,
                beta=self.recipe.beta,
                sft_weight=self.recipe.sft_term_weight,
                n_pairs=items,
                **self._reference_scores(batch),
            )
        self._note_terms(terms, chosen.detach(), rejected.detach())
        return terms

    def _score(self, model: nn.Module, batch: StepBatch) -> Tensor:
        clips = self.collector.store.get(batch.rows)
        values, mask = model(clips, batch.branches)
        return objectives.sequence_logprobs(values, mask, self.recipe.length_normalized)

    @torch.no_grad()
    def _reference_scores(self, batch: StepBatch) -> dict[str, Tensor]:
        """Log-probabilities of the pairs under the frozen base; empty without a reference or pairs."""
        if self.reference is None or not batch.chosen:
            return {}
        used = sorted({*batch.chosen, *batch.rejected})
        branches: list[Branch] = [batch.branches[place] for place in used]
        with self.accelerator.autocast():
            scores = self._score(self.reference, StepBatch(rows=batch.rows, branches=branches))
        place = {old: new for new, old in enumerate(used)}
        return {
            "ref_chosen": scores[[place[old] for old in batch.chosen]],
            "ref_rejected": scores[[place[old] for old in batch.rejected]],
        }

    # metrics

    def _note_terms(self, terms: objectives.Terms, chosen: Tensor, rejected: Tensor) -> None:
        self._note("loss", float(terms.loss.detach()))
        self._note("sft", float(terms.sft))
        if self.recipe.uses_rollout:
            self._note("preference", float(terms.preference))
        if len(chosen):
            self._note("margin", float((chosen - rejected).mean()))
            self._note("accuracy", float((chosen > rejected).float().mean()))

    def _note(self, name: str, value: float) -> None:
        self._sums[name] += value
        self._counts[name] += 1

    def take_metrics(self) -> dict[str, float]:
        """Means (of counts: sums) since the last call, over all processes; metrics without a value are left out."""
        table = torch.tensor(
            [[self._sums[name], float(self._counts[name])] for name in METRICS], dtype=torch.float64
        )
        if self.args.world_size > 1:
            table = self.accelerator.reduce(table.to(self.args.device, torch.float32), "sum").cpu().double()
        self._sums.clear()
        self._counts.clear()
        found = {
            name: (total if name in COUNTS else total / times).item()
            for name, (total, times) in zip(METRICS, table, strict=True)
            if times > 0
        }
        return found | {"grad_norm": self.grad_norm}

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes so; all processes get the same answer."""
        if self.args.world_size == 1:
            return wish
        votes = self.accelerator.reduce(torch.tensor([float(wish)], device=self.args.device), "sum")
        return bool(votes.item() > 0)

    # hooks of the Trainer

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        self.grad_norm = float(norm)
        if not math.isfinite(self.grad_norm):
            raise RbaError(
                f"the gradient of step {self.state.global_step + 1} is not finite: lower learning_rate or beta"
            )
        return norm

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Warm-up, then the recipe's schedule."""
        if not self._created_lr_scheduler:
            optimizer = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: schedule_factor(step, self.recipe)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Trained parameters only, and no pickled training_args.bin."""
        if self.args.should_save:
            save_weights(self.model, Path(output_dir or self.args.output_dir))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        shares = gather_object([{str(p): outcome.to_json() for p, outcome in self.collector.waiting.items()}])
        if self.args.should_save:  # everybody has written: gathering waited for them
            waiting = {position: outcome for share in shares for position, outcome in share.items()}
            state = {
                "step": self.state.global_step,
                "elapsed_s": self.elapsed_s,
                "encoding_s": self.encoding_s,
                "drawn": self.collector.drawn,
                "waiting": waiting,
            }
            seal(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}", state)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `_save_checkpoint` noted beside the Trainer's own state."""
        rows = {row.id: row for group in self.collector.store.groups.values() for row in group}
        batch, world = self.args.per_device_train_batch_size, self.args.world_size
        self.collector.waiting = {
            int(position): Outcome.from_json(value, rows)
            for position, value in state["waiting"].items()
            if int(position) // batch % world == self.args.process_index
        }
        self.collector.drawn = state["drawn"]
        self.elapsed_s = state["elapsed_s"]
        self.encoding_s = state["encoding_s"]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.model if model is None else model, Path(resume_from_checkpoint))

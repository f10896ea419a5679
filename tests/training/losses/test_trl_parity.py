"""Our losses, as the methods make them in training, against TRL's own code on the same numbers.

Where TRL is installed (it is not a dependency).

TRL computes losses inside its trainers. They are called with a stand-in for the trainer's state and a model that
returns log-probabilities given in advance, so nothing but TRL's formulas runs; `test_dpo_trainer` is a whole trainer.
"""

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.batch import StateTargets, StepBatch
from rba_bench.training.data.packing import Response
from rba_bench.training.losses.distillation import DivergenceKind, divergence
from rba_bench.training.losses.policy_gradient import group_advantages, leave_one_out
from rba_bench.training.methods import make_method
from rba_bench.training.methods.method import TeacherDivergence
from rba_bench.training.training_recipe import TrainingRecipe
from tests.training.given import pairs_of, rated_of, step_of

trl = pytest.importorskip("trl")
accelerate = pytest.importorskip("accelerate")

PAIRS, LENGTH = 6, 9
BETA, GAMMA = 0.3, 0.7


def token_logprobs(seed: int, rows: int = 2 * PAIRS) -> tuple[Tensor, Tensor]:
    """[rows, LENGTH] log-probabilities and the mask of answers of various lengths, at least one token each."""
    generator = torch.Generator().manual_seed(seed)
    values = -3 * torch.rand(rows, LENGTH, generator=generator)
    lengths = torch.randint(1, LENGTH + 1, (rows, 1), generator=torch.Generator().manual_seed(99))
    return values.double(), torch.arange(LENGTH) < lengths


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


class Unused(torch.nn.Module):
    """A model that is asked for its state, not for predictions."""

    is_gradient_checkpointing = False


class Scripted:
    """A model that returns log-probabilities given in advance, 0 where nothing is to be predicted, as TRL's does."""

    def __init__(self, values: Tensor, mask: Tensor) -> None:
        self.values = torch.where(mask, values, 0.0)

    def __call__(self, **_: Any) -> SimpleNamespace:
        extra = dict.fromkeys(("entropy", "mean_logits", "log_sum_sq_probs"), torch.zeros_like(self.values))
        right = torch.ones_like(self.values, dtype=torch.bool)
        return SimpleNamespace(log_probs=self.values, is_top1=right, **extra)


def dpo_trainer_loss(kind: str) -> Tensor:
    """`DPOTrainer._compute_loss` on the numbers of seeds 0 (policy) and 1 (reference)."""
    policy, mask = token_logprobs(0)
    reference, _ = token_logprobs(1)
    state = SimpleNamespace(
        accelerator=accelerate.Accelerator(cpu=True),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        model=Unused().eval(),
        ref_model=Scripted(reference, mask),
        beta=BETA,
        loss_types=[kind],
        loss_weights=[1.0],
        f_divergence_type="reverse_kl",
        label_smoothing=0.0,
        ld_alpha=None,
        precompute_ref_logps=False,
        use_weighting=False,
        aux_loss_enabled=False,
        _is_vlm=False,
        _tp_size=1,
        _total_train_tokens=0,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    prompt = torch.zeros(2 * PAIRS, 1, dtype=torch.int64)
    inputs = {
        "input_ids": torch.cat([prompt, torch.ones_like(mask, dtype=torch.int64)], 1),
        "attention_mask": torch.cat([prompt + 1, mask.long()], 1),
        "completion_mask": torch.cat([prompt, mask.long()], 1),
    }
    return trl.DPOTrainer._compute_loss(state, Scripted(policy, mask), inputs, False)


def our_loss(row: AlignmentRow, values: Tensor, mask: Tensor, told: Tensor | None, **recipe: Any) -> Tensor:
    """What the method of a recipe makes of these log-probabilities of pairs, chosen ones first."""
    method = make_method(TrainingRecipe(**{"beta": BETA, "sft_weight": 0.0, **recipe}), [4])
    step = step_of(method, pairs_of(row, mask), values, mask, reference=told)
    return method.loss(step).loss


@pytest.mark.parametrize(("method", "kind"), [("dpo", "sigmoid"), ("spin", "sigmoid"), ("ipo", "ipo")])
def test_losses_with_a_reference_are_those_of_trls_dpo(
    rows: list[AlignmentRow], method: str, kind: str
) -> None:
    (policy, mask), (reference, _) = token_logprobs(0), token_logprobs(1)
    close(our_loss(rows[0], policy, mask, reference, method=method), dpo_trainer_loss(kind))


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        ("sigmoid", {"method": "cpo"}),
        ("simpo", {"method": "simpo", "preference": {"simpo_gamma": GAMMA}}),
        ("ipo", {"method": "ipo", "reference": "none"}),
    ],
)
def test_losses_without_a_reference_are_those_of_trls_cpo(
    rows: list[AlignmentRow], kind: str, recipe: dict[str, Any]
) -> None:
    from trl.experimental.cpo import CPOTrainer

    state = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu"),
        alpha=0.0,
        beta=BETA,
        simpo_gamma=GAMMA,
        label_smoothing=0.0,
        loss_type=kind,
    )
    policy, mask = token_logprobs(0)
    sums = torch.where(mask, policy, 0.0).sum(-1)
    scores = sums if kind == "sigmoid" else sums / mask.sum(-1)
    theirs = CPOTrainer.cpo_loss(state, *scores.chunk(2))[0].mean()
    close(our_loss(rows[0], policy, mask, None, **recipe), theirs)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_generalised_jsd_is_that_of_trls_gkd(
    rows: list[AlignmentRow], weight: float, temperature: float
) -> None:
    from trl.experimental.gkd import GKDTrainer

    generator = torch.Generator().manual_seed(0)
    student, teacher = (4 * torch.randn(3, 5, 40, dtype=torch.float64, generator=generator) for _ in range(2))
    mask = torch.arange(5) < torch.tensor([[5], [2], [3]])
    labels = torch.where(mask, 1, -100)
    student.requires_grad_()
    theirs = GKDTrainer.generalized_jsd_loss(student, teacher, labels, beta=weight, temperature=temperature)
    teacher_options = {
        "divergence": "jsd",
        "jsd_weight": weight,
        "temperature": temperature,
        "end_weight": 0.0,
    }
    method = make_method(TrainingRecipe(method="kd", teacher=teacher_options), [4])
    batch = StepBatch([(rows[0], False)], [Response(0, (5,) * n) for n in (5, 2, 3)], [0, 1, 2])
    measure = TeacherDivergence("jsd", temperature, weight)
    far = torch.zeros(3, 5, dtype=torch.float64)
    far[mask] = measure(student[mask], StateTargets((0, 1, 2), teacher[mask], lambda states: states))
    ours = method.loss(step_of(method, batch, far.detach(), mask, divergence=far)).loss
    close(ours, theirs, 1e-6)  # the teacher's logits are taken in float32
    close(*(torch.autograd.grad(loss, student)[0] for loss in (ours, theirs)), 1e-6)


@pytest.mark.parametrize(("weight", "kind"), [(0.0, "forward"), (1.0, "reverse")])
def test_the_ends_of_trls_jsd_are_our_kls(weight: float, kind: DivergenceKind) -> None:
    from trl.experimental.gkd import GKDTrainer

    student, teacher = (torch.randn(4, 30, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    theirs = GKDTrainer.generalized_jsd_loss(student[None], teacher[None], beta=weight, reduction="none").sum(
        -1
    )[0]
    torch.testing.assert_close(divergence(student, teacher, kind), theirs)


REWARDS = torch.tensor([1.0, 4.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0, -1.0, 5.0, 5.0, 2.5]).double()


@pytest.mark.parametrize("scale", ["std", "none"])
def test_group_advantages_are_those_of_trl(scale: Any) -> None:
    from trl.trainer.utils import nanstd

    # the lines of `_generate_and_score_completions` cannot be called alone; its `nanstd` can
    grouped = REWARDS.view(3, 4)
    theirs = grouped - grouped.mean(1, keepdim=True)
    if scale == "std":
        theirs = theirs / (nanstd(grouped, dim=1)[:, None] + 1e-4)
    groups = torch.arange(3).repeat_interleave(4)
    close(
        group_advantages(REWARDS, groups, scale=scale), theirs.flatten(), 1e-7
    )  # `nanstd` rounds n / (n - 1)
    others = (grouped.sum(1, keepdim=True) - grouped) / 3
    close(leave_one_out(REWARDS, groups), (grouped - others).flatten())


def grpo_trainer_loss(kind: str, kl_weight: float, policy: Tensor, budget: int) -> Tensor:
    """`GRPOTrainer._compute_loss` with seeds 3 (old) and 4 (reference) as the other log-probabilities."""
    old, mask = token_logprobs(3)
    state = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (policy, torch.zeros_like(policy), None),
        accelerator=accelerate.Accelerator(cpu=True),
        model=torch.nn.Identity().eval(),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=kl_weight,
        epsilon_low=0.2,
        epsilon_high=0.28,
        loss_type=kind,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        max_completion_length=budget,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        use_adaptive_entropy=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    ids = torch.zeros_like(mask, dtype=torch.int64)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1] + 1,
        "completion_ids": ids,
        "completion_mask": mask.to(policy.dtype),
        "advantages": REWARDS - 1.0,
        "old_per_token_logps": old,
        "ref_per_token_logps": token_logprobs(4)[0],
        "num_items_in_batch": mask.sum(),
    }
    return trl.GRPOTrainer._compute_loss(state, state.model, inputs)


@pytest.mark.parametrize("kl_weight", [0.0, 0.04])
@pytest.mark.parametrize("kind", ["grpo", "dapo"])
def test_grpo_and_dapo_are_those_of_trl(rows: list[AlignmentRow], kind: str, kl_weight: float) -> None:
    old, mask = token_logprobs(3)
    # near the old policy, so that some tokens are clipped on either side and some are not
    policy = (old + 0.3 * (token_logprobs(5)[0] + 1.5)).requires_grad_()
    ratios, gains = (policy - old).exp(), (REWARDS - 1.0)[:, None]
    assert (mask & (gains > 0) & (ratios > 1.28)).any() and (mask & (gains < 0) & (ratios < 0.8)).any()
    theirs = grpo_trainer_loss(kind, kl_weight, policy, 11)
    options = {"kl_weight": kl_weight, "clip_low": 0.2, "clip_high": 0.28}
    method = make_method(TrainingRecipe(method=kind, refresh_every=2, policy_gradient=options), [4])
    batch = rated_of(rows[0], mask, REWARDS.tolist(), (REWARDS - 1.0).tolist(), old)
    reference = token_logprobs(4)[0] if kl_weight else None
    ours = method.loss(step_of(method, batch, policy, mask, reference=reference)).loss
    close(ours, theirs)
    close(*(torch.autograd.grad(loss, policy)[0] for loss in (ours, theirs)))


def test_dpo_trainer(rows: list[AlignmentRow], tiny_textlm_dir: Path, tmp_path: Path) -> None:
    """The loss of a real DPOTrainer batch."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy, reference = (AutoModelForCausalLM.from_pretrained(tiny_textlm_dir) for _ in range(2))
    with torch.no_grad():
        reference.lm_head.weight.mul_(0.5)
    pairs = [
        {"prompt": "the lake", "chosen": " is in france", "rejected": " paris"},
        {"prompt": "a friend", "chosen": " sleeps", "rejected": " in the garden of a friend"},
    ]
    trainer = trl.DPOTrainer(
        policy,
        reference,
        args=trl.DPOConfig(output_dir=str(tmp_path), beta=0.2, use_cpu=True, report_to="none", bf16=False),
        train_dataset=Dataset.from_list(pairs),
        processing_class=AutoTokenizer.from_pretrained(tiny_textlm_dir),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    expected = trainer.compute_loss(policy.eval(), batch)
    ids, mask = batch["input_ids"], batch["completion_mask"][:, 1:].bool()
    scores = []
    for model in (policy, reference):
        logits = model(input_ids=ids, attention_mask=batch["attention_mask"]).logits[:, :-1]
        scores.append(logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0].detach())
    # TRL stacks chosen on rejected, and answers stand behind their prompts; a method's stand at the left
    order = (~mask).long().argsort(dim=-1, stable=True)
    values, told = (one.gather(-1, order) for one in scores)
    ours = our_loss(rows[0], values, mask.gather(-1, order), told, method="dpo", beta=0.2)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)

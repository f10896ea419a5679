"""Divergences against definitions written down naively, in closed form where there is one, and their memory."""

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from rba_bench.training.losses import distillation
from rba_bench.training.losses.distillation import DivergenceKind, divergence, top_k, topk_divergence

KINDS: tuple[DivergenceKind, ...] = get_args(DivergenceKind)
WEIGHT = 0.3


def logits(seed: int, rows: int = 5, width: int = 7, scale: float = 2.0, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rows, width, generator=generator, dtype=torch.float64)
        .mul(scale)
        .requires_grad_(**options)
    )


def by_definition(
    student: Tensor, teacher: Tensor, kind: DivergenceKind, weight: float, temperature: float
) -> Tensor:
    """The formulas of the module's docstring, in probabilities."""
    q, p = ((x / temperature).softmax(-1) for x in (student, teacher))
    mixture = weight * p + (1 - weight) * q

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return (a * (a / b).log()).sum(-1)

    parts = {"forward": kl(p, q), "reverse": kl(q, p)}
    return parts.get(kind, weight * kl(p, mixture) + (1 - weight) * kl(q, mixture))


def from_cache(
    student: Tensor, teacher: Tensor, k: int, kind: DivergenceKind, temperature: float = 1.0
) -> Tensor:
    cached = top_k(teacher, k, temperature)
    return topk_divergence(student, *cached, kind, weight=WEIGHT, temperature=temperature)


def test_divergences_by_hand() -> None:
    # p = (1/2, 1/2), q = (1/4, 3/4); mixture at w = 1/2: (3/8, 5/8)
    q, p = torch.tensor([[0.25, 0.75]]).double().log(), torch.tensor([[0.5, 0.5]]).double().log()
    forward = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    reverse = 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)
    jsd = 0.5 * (0.5 * math.log(4 / 3) + 0.5 * math.log(4 / 5)) + 0.5 * (
        0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)
    )
    assert divergence(q + 3, p - 1, "forward").item() == pytest.approx(forward)
    assert divergence(q, p, "reverse").item() == pytest.approx(reverse)
    assert divergence(q, p, "jsd").item() == pytest.approx(jsd)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_the_definition(kind: DivergenceKind, temperature: float) -> None:
    student, teacher = logits(0, requires_grad=True), logits(1)
    upstream = torch.arange(1.0, 6.0, dtype=torch.float64)
    gradients = []
    for losses in (
        divergence(student, teacher, kind, weight=WEIGHT, temperature=temperature),
        by_definition(student, teacher, kind, WEIGHT, temperature),
    ):
        gradients.append(torch.autograd.grad((losses * upstream).sum(), student)[0])
        torch.testing.assert_close(losses, by_definition(student, teacher, kind, WEIGHT, temperature))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: DivergenceKind) -> None:
    student, teacher = logits(0, 3, requires_grad=True), logits(1, 3)
    options: dict[str, Any] = {"weight": WEIGHT, "temperature": 1.7}
    assert torch.autograd.gradcheck(lambda x: divergence(x, teacher, kind, **options), student)
    for k in (0, 1, 4, 7):
        cached = top_k(teacher, k, 1.7)
        assert torch.autograd.gradcheck(lambda x, c=cached: topk_divergence(x, *c, kind, **options), student)


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_vocabulary_as_top_k_is_exact(kind: DivergenceKind) -> None:
    student, teacher = logits(2, requires_grad=True), logits(3)
    full, cached = (
        divergence(student, teacher, kind, weight=WEIGHT, temperature=2.0),
        from_cache(student, teacher, 7, kind, 2.0),
    )
    torch.testing.assert_close(cached, full)
    slopes = [torch.autograd.grad(losses.sum(), student)[0] for losses in (full, cached)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_top_k_is_a_lower_bound_that_grows_with_k(kind: DivergenceKind) -> None:
    student, teacher = logits(4, 200, 12, 3.0), logits(5, 200, 12, 3.0)
    bounds = torch.stack([from_cache(student, teacher, k, kind) for k in range(13)])
    full = divergence(student, teacher, kind, weight=WEIGHT)
    assert bounds[0].abs().max() < 1e-12  # one bucket: nothing to tell apart
    assert bounds.diff(dim=0).min() > -1e-12
    assert (full - bounds).min() > -1e-12 and (full - bounds[6]).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_top_k_misses_what_is_within_the_bucket(kind: DivergenceKind) -> None:
    # equal shares inside the bucket on both sides: nothing is missed
    student, teacher = torch.tensor([[2.0, 1.0, 0.5, 0.5, 0.5]]), torch.tensor([[1.0, 3.0, -1.0, -1.0, -1.0]])
    torch.testing.assert_close(
        from_cache(student, teacher, 2, kind), divergence(student, teacher, kind, weight=WEIGHT)
    )


def test_what_is_cached_of_a_teacher() -> None:
    ids, logprobs, rest = top_k(torch.tensor([[0.1, 0.6, 0.3]]).log(), 2)
    assert ids.tolist() == [[1, 2]]
    assert logprobs.exp().flatten().tolist() == pytest.approx([0.6, 0.3])
    assert rest.exp().item() == pytest.approx(0.1)
    assert top_k(torch.zeros(1, 3), 3)[2].item() == -math.inf
    sharp = top_k(torch.tensor([[0.0, -50.0, -60.0]]), 1)[2].item()  # 1 - p would be 0 in float32
    assert sharp == pytest.approx(-50.0 + math.log1p(math.exp(-10.0)), abs=1e-4)


def test_the_weight_of_the_jsd_is_the_teachers() -> None:
    student, teacher = logits(6), logits(7)
    for small in (1e-5, 1e-6):
        left = divergence(student, teacher, "jsd", weight=small) / small
        right = divergence(student, teacher, "jsd", weight=1 - small) / small
        torch.testing.assert_close(left, divergence(student, teacher, "forward"), rtol=1e3 * small, atol=1e-8)
        torch.testing.assert_close(
            right, divergence(student, teacher, "reverse"), rtol=1e3 * small, atol=1e-8
        )
    assert torch.equal(
        divergence(student, teacher, "jsd", weight=0.0), divergence(student, teacher, "forward")
    )
    assert torch.equal(
        divergence(student, teacher, "jsd", weight=1.0), divergence(student, teacher, "reverse")
    )
    swapped = divergence(teacher, student, "jsd", weight=1 - WEIGHT)
    torch.testing.assert_close(divergence(student, teacher, "jsd", weight=WEIGHT), swapped)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_step_brings_the_student_closer(kind: DivergenceKind) -> None:
    student, teacher = logits(8, requires_grad=True), logits(9)
    before = divergence(student, teacher, kind)
    slope = torch.autograd.grad(before.sum(), student)[0]
    assert (divergence(student - 0.1 * slope, teacher, kind) < before).all()
    torch.testing.assert_close(
        slope.sum(-1), torch.zeros(5).double()
    )  # a shift of all logits changes nothing
    same = divergence(teacher.requires_grad_(), teacher, kind)
    assert same.abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_no_factor_of_the_squared_temperature(kind: DivergenceKind) -> None:
    student, teacher = logits(10), logits(11)
    warm = divergence(student, teacher, kind, temperature=4.0)
    torch.testing.assert_close(warm, divergence(student / 4, teacher / 4, kind))


def test_forbidden_tokens_and_certain_teachers_give_no_nan() -> None:
    none = -math.inf
    teacher = torch.tensor([[0.0, none, none], [1.0, 2.0, none]])
    student = torch.tensor([[0.5, 0.0, none], [0.0, 0.0, none]], requires_grad=True)
    for kind in ("forward", "jsd"):
        for losses in (divergence(student, teacher, kind), from_cache(student, teacher, 2, kind)):
            slope = torch.autograd.grad(losses.sum(), student)[0]
            assert losses.isfinite().all() and slope.isfinite().all() and (losses >= 0).all()
    assert divergence(student, teacher, "reverse").tolist() == [math.inf, pytest.approx(0.120114, abs=1e-5)]


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_worked_on_in_float32(kind: DivergenceKind) -> None:
    student, teacher = (logits(seed, 4, 50).bfloat16() for seed in (12, 13))
    student.requires_grad_()
    losses = divergence(student, teacher, kind, weight=WEIGHT)
    wide = divergence(student.float(), teacher.float(), kind, weight=WEIGHT)
    assert losses.dtype == torch.float32 and torch.equal(losses, wide)
    slope = torch.autograd.grad(losses.sum(), student)[0]
    assert slope.dtype == torch.bfloat16 and slope.isfinite().all()


def test_a_cache_in_half_precision_gives_no_negative_divergence() -> None:
    teacher = logits(14, 64, 40)
    ids, logprobs, rest = top_k(teacher, 8)
    losses = topk_divergence(teacher, ids, logprobs.half(), rest.half())
    assert losses.min() >= -1e-12 and losses.max() < 1e-4


def test_no_position_is_no_loss() -> None:
    empty = torch.empty(0, 7, requires_grad=True)
    losses = divergence(empty, torch.empty(0, 7))
    losses.sum().backward()
    assert losses.shape == (0,) and empty.grad is not None
    assert topk_divergence(empty, *top_k(torch.empty(0, 7), 3)).shape == (0,)


class Sizes(TorchDispatchMode):
    """Numbers in the new tensor of each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        taken = {x.untyped_storage().data_ptr() for x in args if isinstance(x, Tensor)}
        if (
            isinstance(out, Tensor) and out.untyped_storage().data_ptr() not in taken
        ):  # neither a view nor in place
            self.seen.append(out.numel())
        return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [None, 5])
def test_only_the_gradient_is_as_large_as_the_logits(
    kind: DivergenceKind, k: int | None, monkeypatch: Any
) -> None:
    monkeypatch.setattr(distillation, "BLOCK", 3 * 100)
    student, teacher = logits(15, 20, 100).float().detach().requires_grad_(), logits(16, 20, 100).float()
    cached = top_k(teacher, 5)
    kept: list[Tensor] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x)
    with hooks, Sizes() as sizes:
        losses = divergence(student, teacher, kind) if k is None else topk_divergence(student, *cached, kind)
    assert max(sizes.seen) <= 300
    large = {x.data_ptr() for x in kept if x.numel() == 2000}
    assert large == ({student.data_ptr(), teacher.data_ptr()} if k is None else {student.data_ptr()})
    with Sizes() as sizes:
        (slope,) = torch.autograd.grad(losses.sum(), student)
    assert [size for size in sizes.seen if size > 300] == [2000]
    whole = divergence(student.double(), teacher.double(), kind)  # one block
    if k is None:
        torch.testing.assert_close(losses, whole.float())
    assert slope.isfinite().all()


@pytest.mark.parametrize("reentrant", [True, False])
def test_inside_activation_checkpointing(reentrant: bool) -> None:
    states, head, teacher = (
        logits(17, 6, 4, requires_grad=True),
        logits(18, 4, 9, requires_grad=True),
        logits(19, 6, 9),
    )
    cached = top_k(teacher, 3)

    def loss(x: Tensor) -> Tensor:
        return divergence(x @ head, teacher, "jsd").sum() + topk_divergence(x @ head, *cached).sum()

    plain = torch.autograd.grad(loss(states), [states, head])
    again = torch.autograd.grad(checkpoint(loss, states, use_reentrant=False), [states, head])
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other)
    if reentrant:
        states.grad = head.grad = None
        checkpoint(loss, states, use_reentrant=True).backward()
        torch.testing.assert_close(states.grad, plain[0])


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = logits(20, requires_grad=True), logits(21, requires_grad=True)
    divergence(student, teacher, "reverse").sum().backward()
    assert teacher.grad is None and student.grad is not None


def test_what_does_not_fit_is_refused() -> None:
    student = logits(22)
    with pytest.raises(ValueError, match=r"\[5, 7\] and \[5, 8\]"):
        divergence(student, logits(22, width=8))
    with pytest.raises(ValueError, match="none of forward, reverse, jsd"):
        divergence(student, student, "sideways")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not between 0 and 1"):
        divergence(student, student, "jsd", weight=1.5)
    with pytest.raises(ValueError, match="not above 0"):
        divergence(student, student, temperature=0.0)
    ids, logprobs, rest = top_k(student, 3)
    with pytest.raises(ValueError, match="do not fit together"):
        topk_divergence(student, ids[:, :2], logprobs, rest)

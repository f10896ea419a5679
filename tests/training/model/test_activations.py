"""What is made again in backward has the same bits as what would have been kept, and less is kept."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from rba_bench.training.model import activations
from rba_bench.training.model.activations import recompute_in_backward


def decoder(frozen: bool = False) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
    )
    return LlamaForCausalLM(config).model.requires_grad_(not frozen)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of any size count."""
    monkeypatch.setattr(activations, "LEAST", 0)


def gradients(model: nn.Module, states: Tensor, lean: bool, half: bool = False) -> list[Tensor]:
    model.zero_grad()
    asked = states.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        if lean:
            with recompute_in_backward():
                output = model(inputs_embeds=asked, use_cache=False).last_hidden_state
        else:
            output = model(inputs_embeds=asked, use_cache=False).last_hidden_state
    (output.float() * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum().backward()
    assert asked.grad is not None
    return [output.detach(), asked.grad, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_gradients_have_the_same_bits(frozen: bool, half: bool) -> None:
    model, states = decoder(frozen), torch.randn(2, 7, 32)
    kept, again = gradients(model, states, False, half), gradients(model, states, True, half)
    assert len(kept) == len(again) == (2 if frozen else 2 + 9 * 2 + 1)
    assert all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


def kept_bytes(model: nn.Module, lean: bool) -> int:
    """What a forward pass leaves for backward, without weights; by storage."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def note(tensor: Any) -> Any:
        packed = activations._pack(tensor)
        storage = tensor.untyped_storage()
        if (not lean or isinstance(packed[0], torch.Tensor)) and storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return packed

    alive: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(note, activations._unpack):
        output = model(inputs_embeds=torch.randn(4, 50, 32, requires_grad=True), use_cache=False)
    assert output is not None
    return sum(found.values())


def test_a_third_less_is_kept() -> None:
    model = decoder()
    assert kept_bytes(model, True) < 0.67 * kept_bytes(model, False)


def test_a_factor_without_gradient_has_nothing_to_be_made_again_from() -> None:
    weight = torch.randn(5, requires_grad=True)
    with recompute_in_backward():
        loss = (F.silu(weight * torch.full((5,), 2.0)) * torch.arange(5.0)).square().sum()
    loss.backward()
    (expected,) = torch.autograd.grad(
        (F.silu(weight * torch.full((5,), 2.0)) * torch.arange(5.0)).square().sum(), weight
    )
    assert weight.grad is not None and torch.equal(weight.grad, expected)


def test_views_of_products_and_two_passes_backward() -> None:
    one, other, matrix = (torch.randn(6, 4, requires_grad=True) for _ in range(3))
    with recompute_in_backward():
        loss = (((one * other).view(4, 6) @ matrix) * F.silu(one * other).view(3, 8)[0, :4]).sum()
    inputs = (one, other, matrix)
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    second = torch.autograd.grad(loss, inputs)
    plain = (((one * other).view(4, 6) @ matrix) * F.silu(one * other).view(3, 8)[0, :4]).sum()
    for a, b, c in zip(first, second, torch.autograd.grad(plain, inputs), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_a_factor_that_was_changed_since_is_noticed() -> None:
    one, other = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)
    left = one + 0
    with recompute_in_backward():
        product = left * other
        loss = (product * product).sum()
    with torch.no_grad():
        left.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()

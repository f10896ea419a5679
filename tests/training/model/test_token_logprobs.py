import pytest
import torch
import torch.nn.functional as F

from rba_bench.training.model import token_logprobs as module
from rba_bench.training.model.token_logprobs import token_logprobs


def case() -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 50)
    return head, torch.randn(30, 8, requires_grad=True), torch.randint(50, (30,)), torch.randn(30)


@pytest.mark.parametrize("elements", [50 * 7, 2**18])
def test_values_and_gradients_are_those_of_log_softmax(
    elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.BLOCK_ELEMENTS, "cpu", elements)
    head, hidden, targets, weights = case()
    plain = -F.cross_entropy(head(hidden), targets, reduction="none")
    expected = torch.autograd.grad((plain * weights).sum(), [hidden, head.weight, head.bias])
    ours = token_logprobs(head(hidden), targets)
    found = torch.autograd.grad((ours * weights).sum(), [hidden, head.weight, head.bias])
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-6)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e30, -1e30, -1e30]], requires_grad=True) * 1.0
    torch.testing.assert_close(
        token_logprobs(logits, torch.tensor([1, 2])), torch.tensor([-2e4, -torch.log(torch.tensor(3.0))])
    )


def test_logits_are_left_alone_where_no_gradient_is_wanted() -> None:
    head, hidden, targets, _ = case()
    with torch.no_grad():
        logits = head(hidden)
        before = logits.clone()
        token_logprobs(logits, targets)
    assert torch.equal(logits, before)


def test_a_head_that_needs_its_own_result_is_an_error_not_a_wrong_gradient() -> None:
    head, hidden, targets, _ = case()
    logprobs = token_logprobs(torch.tanh(head(hidden)), targets)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logprobs.sum().backward()


def test_a_second_backward_pass_is_an_error() -> None:
    head, hidden, targets, _ = case()
    loss = token_logprobs(head(hidden), targets).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()

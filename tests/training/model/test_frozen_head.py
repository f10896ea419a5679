"""Scores under a frozen head: what plain autograd gives, in chunks of any size, also where modules are watched."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rba_bench.training.model.token_logprobs import score_rows_once

STATES, WIDTH, WORDS = 7, 5, 11


@pytest.fixture
def head() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, WORDS).requires_grad_(False)


def given() -> tuple[Tensor, Tensor, Tensor]:
    """States, tokens, and how much each score weighs in the loss."""
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(STATES, WIDTH, generator=generator).requires_grad_(True)
    return states, torch.arange(STATES), torch.randn(STATES, generator=generator)


def scores(head: nn.Linear, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens, and entropies as notes."""
    logprobs = head(states).log_softmax(-1)
    return logprobs.gather(1, tokens[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(-1)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_scores_notes_and_gradients_are_those_of_autograd(head: nn.Linear, size: int) -> None:
    states, tokens, weights = given()
    values, notes = score_rows_once(
        lambda chunk, start: scores(head, chunk, tokens[start : start + len(chunk)]), states, size
    )
    (values * weights).sum().backward()
    plain = states.detach().clone().requires_grad_(True)
    expected, entropies = scores(head, plain, tokens)
    (expected * weights).sum().backward()
    torch.testing.assert_close((values, notes), (expected, entropies))
    torch.testing.assert_close(states.grad, plain.grad)
    assert values.requires_grad and not notes.requires_grad


def test_operations_can_be_counted(head: nn.Linear) -> None:
    """Counters hook into the inputs of modules; forward and the gradient to the states are one product each."""
    states, tokens, _ = given()
    with FlopCounterMode(display=False) as counter:
        values, _ = score_rows_once(
            lambda chunk, start: scores(head, chunk, tokens[start : start + len(chunk)]), states, 3
        )
        values.sum().backward()
    assert counter.get_total_flops() == 2 * (2 * STATES * WIDTH * WORDS)

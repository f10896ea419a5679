"""Log-probabilities of answers and the means over tokens, by hand."""

import math

import pytest
import torch

from rba_bench.training.losses.likelihood import sequence_logprobs, sequence_mean, token_mean

INF = math.inf
VALUES = torch.tensor([[1.0, 2.0, 3.0], [10.0, INF, math.nan], [math.nan, -INF, INF]])
MASK = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])


def test_sequence_logprobs_sum_and_mean() -> None:
    tokens = torch.tensor([[-1.0, -2.0, -9.0], [-0.5, -9.0, -9.0], [-9.0, -9.0, -9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert sequence_logprobs(tokens, mask).tolist() == [-3.0, -0.5, 0.0]
    assert sequence_logprobs(tokens, mask, "token").tolist() == [-1.5, -0.5, 0.0]


def test_padding_never_reaches_the_gradient() -> None:
    tokens = torch.tensor([[-1.0, -math.inf]], requires_grad=True)
    sequence_logprobs(tokens, torch.tensor([[True, False]])).sum().backward()
    assert tokens.grad is not None and tokens.grad.tolist() == [[1.0, 0.0]]


def test_the_two_means_by_hand() -> None:
    # tokens: (1 + 2 + 3 + 10) / 4; answers: (2 + 10 + 0) / 3
    assert token_mean(VALUES, MASK, 4).item() == 4.0
    assert sequence_mean(VALUES, MASK, 3).item() == 4.0
    assert sequence_mean(VALUES[:1], MASK[:1], 1).item() == 2.0


def test_means_over_parts_of_a_step_add_up_to_the_mean_of_the_step() -> None:
    for mean, count in ((token_mean, 4), (sequence_mean, 3)):
        parts = [mean(VALUES[rows], MASK[rows], count) for rows in (slice(0, 1), slice(1, 3))]
        assert sum(parts).item() == pytest.approx(mean(VALUES, MASK, count).item())


def test_nothing_to_average_is_zero_with_a_gradient() -> None:
    values = torch.full((2, 3), INF, requires_grad=True)
    empty = torch.zeros(2, 3, dtype=torch.bool)
    total = token_mean(values, empty, 0) + sequence_mean(values, empty, 2)
    total.backward()
    assert total.item() == 0.0 and values.grad is not None and values.grad.abs().sum().item() == 0.0
    none = torch.empty(0, 3)
    assert token_mean(none, none.bool(), 0).item() == sequence_mean(none, none.bool(), 0).item() == 0.0

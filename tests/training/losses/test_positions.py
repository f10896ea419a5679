"""Weights of positions (Ultravox's end of turn) and DiVA's distances."""

import math
from typing import Any

import pytest
import torch

from rba_bench.training.losses.distillation import (
    end_weights,
    first_positions,
    hidden_l2,
    last_positions,
    token_alignment,
)
from rba_bench.training.losses.likelihood import token_mean

MASK = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
ENDED = torch.tensor([True, True, True])
WHOLE: dict[str, Any] = {"ended": ENDED, "count": 4, "ends": 2}


def test_first_and_last_positions() -> None:
    mask = torch.tensor([[False, True, True, False], [True, True, True, True], [False] * 4])
    assert first_positions(mask).nonzero().tolist() == [[0, 1], [1, 0]]
    assert last_positions(mask).nonzero().tolist() == [[0, 2], [1, 3]]


def test_end_weights_by_hand() -> None:
    # four positions and two ends: the last of the first answer 1/4 + 0.5/2, the only one of the second the same
    assert end_weights(MASK, 0.5, **WHOLE).tolist() == [[0.25, 0.25, 0.5], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]
    values = torch.tensor([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0], [99.0, 99.0, 99.0]])
    mean, ends = (1 + 2 + 3 + 10) / 4, (3 + 10) / 2  # Ultravox: mean over all + mean over the ends
    assert (end_weights(MASK, 1.0, **WHOLE) * values).sum().item() == pytest.approx(mean + ends)


def test_end_weights_of_answers_that_weigh_alike() -> None:
    # two answers: a third of a half for each token of the first, a half for the only one of the second
    weights = end_weights(MASK, 0.5, ended=ENDED, count=2, ends=2, reduction="sequence")
    expected = [[1 / 6, 1 / 6, 1 / 6 + 0.25], [0.75, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert torch.allclose(weights, torch.tensor(expected))


def test_end_weights_options() -> None:
    assert torch.equal(end_weights(MASK, 0.0, **WHOLE), MASK / 4)
    cut = end_weights(MASK, 1.0, ended=torch.tensor([False, True, True]), count=4, ends=1)
    assert cut.tolist() == [[0.25, 0.25, 0.25], [1.25, 0.0, 0.0], [0.0, 0.0, 0.0]]
    parts = (slice(0, 1), slice(1, 3))
    halves = [end_weights(MASK[part], 1.0, **{**WHOLE, "ended": ENDED[part]}) for part in parts]
    assert torch.equal(torch.cat(halves), end_weights(MASK, 1.0, **WHOLE))
    nothing: dict[str, Any] = {"count": 0, "ends": 0}
    for rows in (2, 0):
        empty = torch.zeros(rows, 3, dtype=torch.bool)
        assert end_weights(empty, 1.0, ended=ENDED[:rows], **nothing).tolist() == [[0.0] * 3] * rows


def test_hidden_l2_by_hand() -> None:
    student = torch.tensor([[[3.0, 0.0], [1.0, 1.0]], [[math.nan, 0.0], [0.0, 0.0]]], requires_grad=True)
    teacher = torch.tensor([[[0.0, 4.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]], requires_grad=True)
    mask = torch.tensor([[True, True], [False, False]])
    norms = hidden_l2(student, teacher, mask)
    assert norms.tolist() == [[5.0, 0.0], [0.0, 0.0]]
    norms.sum().backward()
    # the unit vector between them; equal states and padding get 0, not NaN
    assert student.grad is not None and student.grad.flatten().tolist() == pytest.approx(
        [0.6, -0.8, *[0.0] * 6]
    )
    assert teacher.grad is None
    assert token_mean(norms, first_positions(mask), 1).item() == 5.0


def test_hidden_l2_in_half_precision_does_not_overflow() -> None:
    far = torch.full((1, 1, 4), 30_000.0, dtype=torch.float16)
    assert hidden_l2(far, -far, torch.ones(1, 1, dtype=torch.bool)).item() == pytest.approx(120_000.0)


def test_hidden_l2_gradcheck() -> None:
    states = torch.randn(
        2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    teacher = torch.zeros(2, 3, 4, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert torch.autograd.gradcheck(lambda x: hidden_l2(x, teacher, mask), states)


def test_the_last_audio_tokens_meet_the_tokens_of_the_transcript() -> None:
    # clip 0: audio 10 20 30 (and padding), text 21 33: 20 meets 21, 30 meets 33.
    # clip 1: audio 5 of one token, text 1 2 7: only 7 has a partner
    sound = torch.tensor([[10.0, 20.0, 30.0, 777.0], [5.0, 777.0, 777.0, 777.0]])[..., None].requires_grad_()
    text = torch.tensor([[21.0, 33.0, 555.0], [1.0, 2.0, 7.0]])[..., None]
    values, mask = token_alignment(sound, torch.tensor([3, 1]), text, torch.tensor([2, 3]))
    assert mask.tolist() == [[True, True, False], [False, False, True]]
    assert values.tolist() == [[1.0, 3.0, 0.0], [0.0, 0.0, 2.0]]
    values.sum().backward()
    assert sound.grad is not None
    assert sound.grad[..., 0].tolist() == [[0.0, -1.0, -1.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]


def test_alignment_of_nothing() -> None:
    counts = torch.tensor([0, 0])
    text = torch.zeros(2, 3, 4)
    for width in (0, 2):
        values, mask = token_alignment(torch.zeros(2, width, 4), counts, text, torch.tensor([3, 0]))
        assert not mask.any() and values.tolist() == [[0.0] * 3] * 2

"""What distillation makes of given divergences and states, by hand."""

import math
from typing import Any

import pytest
import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.batch import StepBatch
from rba_bench.training.data.packing import Response
from rba_bench.training.methods import make_method
from rba_bench.training.methods.method import Step, StepTargets
from rba_bench.training.model.policy import Scores
from rba_bench.training.training_recipe import TrainingRecipe
from tests.training.given import step_of

# an answer of two tokens that ends, one of four that was cut off
MASK = torch.tensor([[True, True, False, False], [True] * 4])
LOGPROBS = torch.tensor([[-1.0, -2.0, 9.0, 9.0], [-0.5, -0.5, -1.0, -3.0]])
FAR = torch.tensor([[0.5, 0.25, 9.0, 9.0], [1.0, 0.25, 0.0, 3.0]])  # sums 0.75 and 4.25
NONE = torch.zeros(0)


def batch_of(row: AlignmentRow, **roles: list[int]) -> StepBatch:
    return StepBatch([(row, False)], [Response(0, (5, 4)), Response(0, (5, 6, 7, 8))], **roles)


def test_kd_means_over_tokens_and_over_ends(rows: list[AlignmentRow]) -> None:
    recipe = TrainingRecipe(method="kd", sft_weight=0.5, teacher={"end_weight": 2.0})
    method = make_method(recipe, [4])
    step = step_of(method, batch_of(rows[0], teacher=[0, 1]), LOGPROBS, MASK, divergence=FAR)
    assert (step.counts["tokens"], step.counts["ends"]) == (6, 1)
    terms = method.loss(step)
    assert float(terms.loss) == pytest.approx(5 / 6 + 2 * 0.25 + 0.5 * (3 + 5) / 6)
    assert terms.notes["divergence"] == pytest.approx(5 / 6 + 0.5)


@pytest.mark.parametrize(("name", "role"), [("kd", "teacher"), ("gkd", "rated")])
def test_answers_may_weigh_alike(rows: list[AlignmentRow], name: str, role: str) -> None:
    recipe = TrainingRecipe(
        method=name, distillation_reduction="sequence", sft_weight=0, teacher={"end_weight": 2}
    )
    method = make_method(recipe, [4])
    step = step_of(method, batch_of(rows[0], **{role: [0, 1]}), LOGPROBS, MASK, divergence=FAR)
    step.counts = {**step.counts, "answers": 4, "ends": 2}  # as much again elsewhere in the step
    expected = (0.75 / 2 + 4.25 / 4) / 4 + 2 * 0.25 / 2
    assert float(method.loss(step).loss) == pytest.approx(expected)


def test_gkd_counts_a_sample_as_often_as_it_was_drawn(rows: list[AlignmentRow]) -> None:
    method = make_method(TrainingRecipe(method="gkd", sft_weight=0.0, teacher={"end_weight": 0.0}), [4])
    step = step_of(method, batch_of(rows[0], rated=[0, 0, 1]), LOGPROBS, MASK, divergence=FAR)
    assert step.counts["tokens"] == 8
    assert float(method.loss(step).loss) == pytest.approx((2 * 0.75 + 4.25) / 8)


@pytest.mark.parametrize("positions", ["first", "all"])
def test_diva_by_hand(rows: list[AlignmentRow], positions: Any) -> None:
    options = {"model": "self", "hidden_weight": 3.0, "words_weight": 0.5}
    method = make_method(
        TrainingRecipe(method="diva", sft_weight=0.1, hidden_positions=positions, teacher=options), [4]
    )
    hidden = torch.zeros(2, 4, 2)
    states = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 2.0], [6.0, 8.0], [0.0, 0.0], [0.0, 0.0]])
    # audio tokens 10 20 30, words 21 33: the last two meet them, 1 and 3 apart
    sound = torch.tensor([[[10.0, 0.0], [20.0, 0.0], [30.0, 0.0]]])
    words = torch.tensor([[21.0, 0.0], [33.0, 0.0]])
    scores = Scores(LOGPROBS, MASK, NONE, hidden, sound, torch.tensor([3]), NONE)

    class FrozenModels:
        """Words of two tokens."""

        class teacher:
            @staticmethod
            def word_ids(spoken: list[str]) -> list[list[int]]:
                return [[1, 2] for _ in spoken]

    batch = batch_of(rows[0], teacher=[0, 1])
    counts = method.counts(batch, FrozenModels)  # type: ignore[arg-type]
    assert counts["words"] == 4 and counts["states"] == (2 if positions == "first" else 6)
    terms = method.loss(Step(batch, scores, StepTargets(states=states, words=[words, words]), counts))
    distance = (5 + 2) / 2 if positions == "first" else (5 + 1 + 2 + 10) / 6
    assert float(terms.loss) == pytest.approx(3 * distance + 0.5 * 2 + 0.1 * 8 / 6)
    assert math.isclose(terms.notes["alignment"], 2.0)

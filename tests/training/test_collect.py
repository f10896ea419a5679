"""What of a sample is rewarded: what evaluation would score."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training import collect, methods
from rba_bench.training.clips import Clip, ResponseTokens
from rba_bench.training.pairs import Voice
from rba_bench.training.policy import SpeechPolicy
from rba_bench.training.recipe import TrainingRecipe
from rba_bench.training.rollout import Draw
from rba_bench.training.rollouts.base import Request
from rba_bench.training.rollouts.local import LocalRollout


class Always(LocalRollout):
    """Gives one answer to everything."""

    def __init__(self, draw: Draw) -> None:
        self.answer = draw

    def draw(self, _: Sequence[Clip], requests: Sequence[Request], **__: Any) -> list[Draw]:
        return [self.answer] * len(requests)


@pytest.mark.parametrize(
    ("said", "rewarded"),
    [
        ("<think>a bag ?</think>paris<|end|>", "paris"),
        ("paris<|end|>", "paris"),
        ("paris<|user|>what else<|end|>", "paris"),
        ("<think>paris", ""),
    ],
)
def test_thinking_and_marks_of_the_template_are_not_rewarded(
    family: Any,
    store_for: Callable[..., Any],
    rows: list[AlignmentRow],
    said: str,
    rewarded: str,
) -> None:
    recipe = TrainingRecipe(method="rba-group")
    tokens = tuple(family.tokenizer(said, add_special_tokens=False)["input_ids"])
    policy, store, responder = SpeechPolicy(family), store_for(family), ResponseTokens(family)
    method = methods.make(recipe, responder.end_ids)
    made = collect.Collector(recipe, method, policy, store, responder, rollout=Always(Draw(tokens, True)))
    [sample] = made.answer([Voice(rows[3], 0, 0.0)], 0)
    assert (sample.text, sample.tokens) == (rewarded, tokens)


def test_each_group_gets_the_rewards_of_its_own_samples(family: Any, store_for: Callable[..., Any]) -> None:
    recipe = TrainingRecipe(method="grpo", voices_per_group=2)
    policy, store, responder = SpeechPolicy(family), store_for(family), ResponseTokens(family)
    method = methods.make(recipe, responder.end_ids)
    worth = {"g0-v0": 1.0, "g0-v1": 2.0, "g3-v0": 3.0, "g3-v1": 5.0}

    def reward(rows: list[AlignmentRow], _: list[str]) -> list[float]:
        return [worth[row.id] for row in rows]

    always = Always(Draw((9, 4), True, (-1.0, -1.0)))
    made = collect.Collector(recipe, method, policy, store, responder, reward, always)  # type: ignore[arg-type]
    made.draw([(0, "g0"), (1, "g3")], 0)
    given = [[one.reward for group in made.take(place).rated for one in group] for place in (0, 1)]
    assert given == [[1.0, 2.0], [3.0, 5.0]]
    assert made.take_verdicts() == (4, 4) and made.take_verdicts() == (0, 0)

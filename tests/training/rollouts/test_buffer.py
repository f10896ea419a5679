"""What of a sample is rewarded: what evaluation would score."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training import methods
from rba_bench.training.data.clips import ClipInput, ResponseTokens
from rba_bench.training.data.pairs import SampleRequest
from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.rewards import RewardByKind
from rba_bench.training.rollouts import buffer as collect
from rba_bench.training.rollouts.rollout import Draw, LocalRollout, Request
from rba_bench.training.training_recipe import TrainingRecipe


class Always(LocalRollout):
    """Gives one answer to everything."""

    def __init__(self, draw: Draw) -> None:
        self.answer = draw
        self.seeds: list[list[int]] = []

    def draw(self, _: Sequence[ClipInput], requests: Sequence[Request], **__: Any) -> list[Draw]:
        self.seeds.append([request.seed for request in requests])
        return [self.answer] * len(requests)


class ByRow(RewardByKind):
    """Gives every clip's answer what the clip is worth, although the answers are equal."""

    def __init__(self, worth: dict[str, float]) -> None:
        super().__init__({})
        self.worth = worth

    def __call__(self, rows: Sequence[AlignmentRow], _: Sequence[str]) -> list[float]:
        return [self.worth.get(row.id, 0.0) for row in rows]


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
    method = methods.make_method(recipe, responder.end_ids)
    made = collect.RolloutBuffer(recipe, method, policy, store, responder, rollout=Always(Draw(tokens, True)))
    [sample] = made.answer([SampleRequest(rows[3], 0, 0.0)], 0)
    assert (sample.text, sample.tokens) == (rewarded, tokens)


def test_a_position_takes_further_groups_until_one_teaches(
    family: Any, store_for: Callable[..., Any]
) -> None:
    """The next group's answers are judged, remembered with whose they are, and every process asks equally often."""
    recipe = TrainingRecipe(method="dapo", voices_per_group=2, policy_gradient={"resample": 3})
    policy, store, responder = SpeechPolicy(family), store_for(family), ResponseTokens(family)
    method = methods.make_method(recipe, responder.end_ids)
    worth = {"g3-v1": 5.0, "g4-v0": 2.0}  # all else is worth nothing

    always, wishes = Always(Draw((9, 4), True, (-1.0, -1.0))), []
    made = collect.RolloutBuffer(recipe, method, policy, store, responder, ByRow(worth), always)

    def spare(position: int, turn: int, turns: int) -> str:
        return {1: ["g1", "g4", "g2"], 2: ["g0", "g2", "g5"]}[position][turn - 1]

    def any_process(wish: bool) -> bool:
        wishes.append(wish)
        return wish

    made.draw([(0, "g3"), (1, "g0"), (2, "g0")], 7, spare, any_process)
    own, other, none = (made.take(position) for position in range(3))
    assert (own.group, own.redrawn, own.step) == ("", 0, 7) and own.rated[0][1].reward == 5
    assert (other.group, other.redrawn, len(other.rated[0])) == ("g4", 2, 2)
    assert (none.group, none.redrawn, none.rated) == ("g5", 3, [])
    assert wishes == [True, True, True] and made.drawn == 2 * (3 + 2 + 2 + 1)
    first, second = always.seeds[:2]
    assert first[4:] == first[2:4] and not set(first) & set(
        second
    )  # g0 once more, and not for the same answers
    made.draw([(0, "g3")], 8, spare, lambda wish: True)  # another process goes on
    assert made.take(0).redrawn == 0 and made.drawn == 18


def test_each_group_gets_the_rewards_of_its_own_samples(family: Any, store_for: Callable[..., Any]) -> None:
    recipe = TrainingRecipe(method="grpo", voices_per_group=2)
    policy, store, responder = SpeechPolicy(family), store_for(family), ResponseTokens(family)
    method = methods.make_method(recipe, responder.end_ids)
    worth = {"g0-v0": 1.0, "g0-v1": 2.0, "g3-v0": 3.0, "g3-v1": 5.0}

    always = Always(Draw((9, 4), True, (-1.0, -1.0)))
    made = collect.RolloutBuffer(recipe, method, policy, store, responder, ByRow(worth), always)
    made.draw([(0, "g0"), (1, "g3")], 0)
    given = [[one.reward for group in made.take(place).rated for one in group] for place in (0, 1)]
    assert given == [[1.0, 2.0], [3.0, 5.0]]
    assert made.take_verdicts() == (4, 4) and made.take_verdicts() == (0, 0)

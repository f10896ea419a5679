"""Rewards made of rewards: weighted sums, a price for length, one reward for each kind of item."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.rewards.base import InStep, Reward
from rba_bench.training.rewards.text import extra_words


class WeightedSum:
    """Sum of raw values times weights; NaN where one of them is.

    Nothing is standardised: that would make a value depend on batch mates. Choose weights by the rewards' ranges
    (BLEU, chrF, exact, alias and overlap 0 to 1, similarity -1 to 1, judge 1 to 9, self-judge 1 to 5).
    """

    def __init__(self, parts: Sequence[tuple[Reward, float]]) -> None:
        self.parts = tuple(parts)

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        columns = [[weight * value for value in reward(rows, responses)] for reward, weight in self.parts]
        return [sum(values) for values in zip(*columns, strict=True)]


class LengthPenalty:
    """A reward minus `price` for every word that the answer has beyond those of the teacher's answer.

    Reward models and judges like long answers; a listener does not. Shorter answers than the teacher's cost nothing.
    """

    def __init__(self, reward: Reward, price: float) -> None:
        self.reward = reward
        self.price = price

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        return [
            value - self.price * extra_words(response, row.response, row.target_lang)
            for value, row, response in zip(self.reward(rows, responses), rows, responses, strict=True)
        ]


class RewardByKind:
    """Sends each row to the reward of its kind; equal answers to one instruction are scored once.

    Scoring equal answers once also keeps rounding noise between batch positions from inventing a reward gap.

    Args:
        rewards: By kind of item.
        makers: The rewards that may have something to count; those of `rewards` if not given.
    """

    def __init__(self, rewards: Mapping[str, Reward], makers: Sequence[Reward] = ()) -> None:
        self.rewards = dict(rewards)
        self._makers = tuple(makers) or tuple(self.rewards.values())
        self._unjudged = 0

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response); NaN for an answer that could not be judged."""
        keys = [(*_asked(row), response) for row, response in zip(rows, responses, strict=True)]
        todo: dict[str, dict[tuple[str, ...], AlignmentRow]] = {}
        for key, row in zip(keys, rows, strict=True):
            todo.setdefault(row.kind, {}).setdefault(key, row)
        known: dict[tuple[str, ...], float] = {}
        for kind in sorted(todo):
            distinct = todo[kind]
            values = self.rewards[kind](list(distinct.values()), [key[-1] for key in distinct])
            known.update(zip(distinct, values, strict=True))
        self._unjudged += sum(math.isnan(known[key]) for key in keys)
        return [known[key] for key in keys]

    def walk_in_step(self, sync: Any, shell: Any) -> None:
        """Processes share out the weights that some rewards ask: see `SelfJudge.walk_in_step`."""
        for reward in self._makers:
            if isinstance(reward, InStep):
                reward.walk_in_step(sync, shell)

    def keep_company(self) -> None:
        """Wait until no process asks those weights any more."""
        for reward in self._makers:
            if isinstance(reward, InStep):
                reward.keep_company()

    def counts(self) -> dict[str, int]:
        """What was left out so far: `unjudged` answers (NaN), and what the rewards themselves count."""
        found = {"unjudged": self._unjudged}
        for reward in self._makers:
            count = getattr(reward, "counts", None)
            found |= count() if callable(count) else {}
        return found


def _asked(row: AlignmentRow) -> tuple[str, ...]:
    """What a value may depend on besides the answer: not the group's name, which several sets may use."""
    return row.kind, row.user_text, row.response, row.target_lang

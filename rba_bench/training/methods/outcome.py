"""What the rollout of one group gave: part of a run's state until its step comes, so it can be written down."""

from dataclasses import dataclass, field
from typing import Any

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.data.pairs import Answer, Pair, ScoredSample


@dataclass(frozen=True)
class Outcome:
    """Pairs and rated samples of one group.

    Attributes:
        items: what losses are averaged over: pairs there could have been, groups, or samples.
        pairs: preference pairs; fewer than `items` where samples were equally good.
        rated: samples with their worth, by the group whose members are weighed against each other.
        stats: means over the group's samples: `truncated`, `match` (equal to the teacher's answer), `length` (tokens),
            and with a reward `reward`, `reward_best`, `reward_worst`, `unjudged`.
        shown: for people, of some groups; see `samples`.
        group: the group that the samples are of, where it is not the position's own.
        step: steps the policy had taken that drew them; None where nothing was drawn.
        redrawn: groups drawn before this one, whose samples were all equally good; None where none is ever redrawn.
    """

    items: int
    pairs: list[Pair] = field(default_factory=list)
    rated: list[list[ScoredSample]] = field(default_factory=list)
    stats: dict[str, float] = field(default_factory=dict)
    shown: dict[str, Any] | None = None
    group: str = ""
    step: int | None = None
    redrawn: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values, clips by row id."""
        return {
            "items": self.items,
            "pairs": [[_side(pair.chosen), _side(pair.rejected), pair.gap] for pair in self.pairs],
            "rated": [
                [[_side(one.answer), one.reward, one.advantage, list(one.logprobs)] for one in group]
                for group in self.rated
            ],
            "stats": self.stats,
            **({} if self.shown is None else {"shown": self.shown}),
            "group": self.group,
            "step": self.step,
            "redrawn": self.redrawn,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], rows: dict[str, AlignmentRow]) -> "Outcome":
        """The inverse of `to_json`."""

        def answer(side: list[Any]) -> Answer:  # without a temperature in checkpoints of earlier versions
            return Answer(rows[side[0]], tuple(side[1]), *side[2:])

        pairs = [Pair(answer(chosen), answer(rejected), gap) for chosen, rejected, gap in value["pairs"]]
        rated = [
            [ScoredSample(answer(side), reward, worth, tuple(odds)) for side, reward, worth, odds in group]
            for group in value["rated"]
        ]
        return cls(
            value["items"],
            pairs,
            rated,
            value["stats"],
            value.get("shown"),
            value.get("group", ""),
            value.get("step"),
            value.get("redrawn"),
        )


def _side(answer: Answer) -> tuple[str, list[int], bool, float]:
    return answer.row.id, list(answer.tokens), answer.as_text, answer.temperature

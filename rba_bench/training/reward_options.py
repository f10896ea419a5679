"""Which reward judges the samples of each kind of item, and the models that some of them need."""

from typing import Annotated, Literal

from pydantic import Field

from rba_bench.recipes import Recipe

RewardName = Literal["reward-model", "bleu", "chrf", "exact", "alias", "teacher-logprob"]

Positive = Annotated[int, Field(gt=0)]


class RewardOptions(Recipe):
    """Which reward judges the samples of each kind of item, and the models two of them need."""

    instruct: RewardName = "reward-model"
    qa: RewardName = "alias"
    s2tt: RewardName = "chrf"
    model: str = "micro"  # folder of the sequence classifier; "micro" = the shipped one
    teacher: str = (
        "micro"  # folder or Hub id of the text LM behind `teacher-logprob`; "micro" = the shipped teacher
    )
    min_gap: Annotated[float, Field(ge=0)] = (
        0.0  # best minus worst must exceed this, else the group has no pair
    )
    batch_size: Positive = 64

    def name_for(self, kind: str) -> RewardName:
        """The reward of one kind."""
        names: dict[str, RewardName] = {"instruct": self.instruct, "qa": self.qa, "s2tt": self.s2tt}
        return names[kind]

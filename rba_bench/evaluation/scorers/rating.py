"""How good one answer is, from 1 to 5, in several sampled votes: what VoiceBench reports for open questions.

VoiceBench takes three votes at temperature 0.5 (and top_p 0.95, which for a reply of one digit only cuts off digits
that hardly occur; here replies are drawn from the whole distribution). The item's score is their mean.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.evaluation.metric import ItemScore, metrics_of
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers import judge_prompts
from rba_bench.evaluation.scorers.judge import Judge, JudgeSettings, is_unanswered, request_text, vote_count
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.textlm.judging import JudgeModel, Question, Reply

VOTES = 3
LOWEST = 1.0
_SCORE = re.compile(r"([1-5])(?:\s*(?:/|out of)\s*5)?")


class RatingJudge(Judge[int]):
    """Rating from 1 to 5: the scorer of a `{name: rating, ...}` entry, with the option `votes`.

    Args:
        judge_model: The judge.
        settings: How it is asked.
        cache_folder: Folder of the vote cache.
        votes: Votes per item.
    """

    name = "rating"
    templates = (judge_prompts.RATE,)
    own_options = ("votes",)

    def __init__(
        self, judge_model: JudgeModel, settings: JudgeSettings, cache_folder: Path, votes: int = VOTES
    ) -> None:
        super().__init__(judge_model, settings, cache_folder)
        self.votes = votes
        (rating,) = metrics_of("rating")
        self.metrics = (replace(rating, signature=f"rating|1 to 5|judged|votes:{votes}"),)

    @classmethod
    def default_settings(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Those of VoiceBench."""
        return {"max_tokens": 8, "temperature": 0.5}

    @classmethod
    def read_own_options(cls, config: Mapping[str, Any], options: ScorerOptions) -> dict[str, Any]:
        """Number of votes."""
        return {"votes": vote_count(config, VOTES)}

    def protocol_options(self) -> dict[str, Any]:
        """Number of votes."""
        return {"votes": self.votes}

    def score_by_rule(self, sample: Sample) -> ItemScore | None:
        """No answer, or an empty one, is rated 1."""
        if is_unanswered(sample):
            return self.by_rule("rating", LOWEST, "no answer: the lowest rating")
        return None

    def questions(self, sample: Sample) -> tuple[Question, ...]:
        """The same question for each vote, with seeds of their own."""
        messages = judge_prompts.rating_prompt(request_text(sample), sample.extracted)
        return tuple(self.settings.question(messages, vote) for vote in range(self.votes))

    def read(self, reply: Reply) -> int | None:
        """One digit from 1 to 5, where a verdict may stand."""
        return judge_prompts.parse_verdict(
            reply.text, lambda text: int(match[1]) if (match := _SCORE.fullmatch(text)) else None
        )

    def verdict(self, values: Sequence[int], facts: list[dict[str, Any]]) -> ItemScore:
        """Mean of the votes."""
        votes = [{"rating": value, **fact} for value, fact in zip(values, facts, strict=True)]
        return ItemScore({"rating": sum(values) / len(values)}, {self.name: {"votes": votes}})

    def summary(self, samples: Sequence[Sample], votes: Sequence[Sequence[int]]) -> dict[str, Any]:
        """How much the votes on one answer differ, and what that adds to the uncertainty of the mean."""
        if self.votes < 2:
            return {}
        table = np.asarray(votes, dtype=np.float64)
        variance = table.var(axis=1, ddof=1)
        return {
            "unanimous": float((np.ptp(table, axis=1) == 0).mean()),
            "vote_sd": float(np.sqrt(variance.mean())),
            "judge_stderr": math.sqrt(variance.mean() / (self.votes * len(table))),
        }

"""How good one answer is, from 1 to 5, in several sampled votes: what VoiceBench reports for open questions.

VoiceBench takes three votes at temperature 0.5 (and top_p 0.95, which for a reply of one digit only cuts off digits
that hardly occur; here all of the distribution is drawn from). The item's score is their mean.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.errors import UserError
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers import judge_prompts
from rba_bench.evaluation.scorers.judge import (
    Judge,
    Settings,
    asker_of,
    check_keys,
    request,
    ruled_addition,
    unanswered,
)
from rba_bench.evaluation.scorers.scorer import Addition, FinishOptions
from rba_bench.textlm.judging import JudgeModel, Question, Reply

VOTES = 3
LOWEST = 1.0
DEFAULTS = {"max_tokens": 8, "temperature": 0.5}
_SCORE = re.compile(r"([1-5])(?:\s*(?:/|out of)\s*5)?")


class RatingJudge(Judge[int]):
    """Rating from 1 to 5, shown as it is.

    Args:
        asker: The judge.
        settings: How it is asked.
        cache_folder: Where votes are kept.
        votes: Votes per item.
    """

    name = "rating"
    templates = (judge_prompts.RATE,)

    def __init__(self, asker: JudgeModel, settings: Settings, cache_folder: Path, votes: int = VOTES) -> None:
        super().__init__(asker, settings, cache_folder)
        self.votes = votes
        # Scale 100 says that tables show the number as it is and do not make percent of it.
        self.metrics = (Metric("rating", scale=100.0, signature=f"rating|1 to 5|judged|votes:{votes}"),)

    def options(self) -> dict[str, Any]:
        """Number of votes."""
        return {"votes": self.votes}

    def ruled(self, sample: Sample) -> Addition | None:
        """No answer, or an empty one, is rated 1."""
        if unanswered(sample) or not sample.extracted.strip():
            return ruled_addition(self.name, {"rating": LOWEST}, "no answer: the lowest rating")
        return None

    def questions(self, sample: Sample) -> tuple[Question, ...]:
        """The same question for each vote, with seeds of their own."""
        messages = judge_prompts.rate(request(sample), sample.extracted)
        return tuple(self.settings.question(messages, vote) for vote in range(self.votes))

    def read(self, reply: Reply) -> int | None:
        """One digit from 1 to 5, where a verdict may stand."""
        return judge_prompts.stated(reply.text, _score)

    def verdict(self, values: Sequence[int], facts: list[dict[str, Any]]) -> Addition:
        """Mean of the votes."""
        votes = [{"rating": value, **fact} for value, fact in zip(values, facts, strict=True)]
        return Addition({"rating": sum(values) / len(values)}, {self.name: {"votes": votes}})

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


def make(config: Mapping[str, Any], options: FinishOptions, asker: JudgeModel | None = None) -> RatingJudge:
    """The judge of a `{name: rating, ...}` entry.

    Args:
        config: `votes`, and `Settings`.
        options: What the user chose.
        asker: The judge; None to load the one that is named.
    """
    check_keys("rating", config, ("votes",))
    settings = Settings.of(config, **DEFAULTS)
    asked = asker or asker_of(config, options)
    return RatingJudge(asked, settings, options.cache, vote_count(config, VOTES))


def _score(said: str) -> int | None:
    found = _SCORE.fullmatch(said)
    return int(found[1]) if found else None


def vote_count(config: Mapping[str, Any], default: int) -> int:
    """The option `votes`. Raises UserError if it is no number from 1."""
    votes = config.get("votes", default)
    if not isinstance(votes, int) or isinstance(votes, bool) or votes < 1:
        raise UserError(f"votes: {votes!r} of a judge: use 1 or more")
    return votes

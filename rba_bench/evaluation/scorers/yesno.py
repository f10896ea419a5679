"""Whether an answer says the same as one of the references: accuracy as a judge sees it.

Either the majority of several sampled votes (VoiceBench: three), or one weighted vote, P(Yes) / (P(Yes) + P(No)) from
the odds of the first token, which is free of sampling noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
from rba_bench.evaluation.scorers.rating import vote_count
from rba_bench.evaluation.scorers.scorer import Addition, FinishOptions
from rba_bench.textlm.judging import JudgeModel, Question, Reply

VOTES = 3
SAMPLED = {"max_tokens": 4, "temperature": 0.5}
WEIGHTED = {"max_tokens": 1, "temperature": 1.0, "top_logprobs": 5}
METRIC = "judge_accuracy"
# Judges of other languages say it in theirs
_YES = (
    "yes",
    "ja",
    "oui",
    "sí",
    "si",
    "sì",
    "sim",
    "да",
    "是",
    "是的",
    "正确",
    "はい",
    "예",
    "네",
    "نعم",
    "हाँ",
    "हां",
    "evet",
)
_NO = (
    "no",
    "nein",
    "non",
    "não",
    "нет",
    "否",
    "不",
    "不是",
    "错误",
    "いいえ",
    "아니요",
    "아니오",
    "لا",
    "नहीं",
    "hayır",
)


@dataclass(frozen=True)
class Verdict:
    """One vote: probability of Yes (0 or 1 where it is a word), and whether it comes from odds."""

    yes: float
    weighted: bool


def read_verdict(reply: Reply) -> Verdict | None:
    """The vote in a reply, None if it is neither yes nor no."""
    if reply.top_logprobs:
        yes, no = (reply.token_probability(word, any_case=True) for word in ("yes", "no"))
        if yes + no > 0:
            return Verdict(yes / (yes + no), True)
    said = judge_prompts.stated(reply.text, _yes_or_no, leading=True)
    return None if said is None else Verdict(float(said), False)


def _yes_or_no(word: str) -> bool | None:
    word = word.casefold()
    return True if word in _YES else False if word in _NO else None


class YesNoJudge(Judge[Verdict]):
    """Share of answers that agree with a reference.

    Args:
        asker: The judge.
        settings: How it is asked; with `top_logprobs` votes are weighted.
        cache_folder: Where votes are kept.
        votes: Votes per item.
    """

    name = "yesno"
    templates = (judge_prompts.VERIFY,)

    def __init__(self, asker: JudgeModel, settings: Settings, cache_folder: Path, votes: int = VOTES) -> None:
        super().__init__(asker, settings, cache_folder)
        self.votes = votes
        way = "weighted" if settings.top_logprobs else "majority"
        self.metrics = (Metric(METRIC, signature=f"{METRIC}|judged|{way}|votes:{votes}"),)

    def options(self) -> dict[str, Any]:
        """Number of votes."""
        return {"votes": self.votes}

    def ruled(self, sample: Sample) -> Addition | None:
        """No answer, or an empty one, is wrong."""
        if unanswered(sample) or not sample.extracted.strip():
            return ruled_addition(self.name, {METRIC: 0.0}, "no answer: wrong")
        return None

    def questions(self, sample: Sample) -> tuple[Question, ...]:
        """The same question for each vote, with seeds of their own."""
        messages = judge_prompts.verify(request(sample), sample.references, sample.extracted)
        return tuple(self.settings.question(messages, vote) for vote in range(self.votes))

    def read(self, reply: Reply) -> Verdict | None:
        """See `read_verdict`."""
        return read_verdict(reply)

    def verdict(self, values: Sequence[Verdict], facts: list[dict[str, Any]]) -> Addition:
        """The mean of weighted votes; of words the majority, half a point for a draw."""
        votes = [{"yes": value.yes, **fact} for value, fact in zip(values, facts, strict=True)]
        weighted = all(value.weighted for value in values)
        share = sum(value.yes for value in values) / len(values)
        score = share if weighted else (float(share > 0.5) if share != 0.5 else 0.5)
        return Addition({METRIC: score}, {self.name: {"weighted": weighted, "votes": votes}})

    def summary(self, samples: Sequence[Sample], votes: Sequence[Sequence[Verdict]]) -> dict[str, Any]:
        """How often all votes on an answer point the same way, and what their spread adds to the uncertainty."""
        table = np.array([[value.yes for value in item] for item in votes])
        sides = table > 0.5
        facts = {
            "weighted_share": float(np.mean([value.weighted for item in votes for value in item])),
            "unanimous": float((sides.all(axis=1) | ~sides.any(axis=1)).mean()),
        }
        return (
            facts
            if self.votes < 2
            else {**facts, "vote_sd": float(np.sqrt(table.var(axis=1, ddof=1).mean()))}
        )


def make(config: Mapping[str, Any], options: FinishOptions, asker: JudgeModel | None = None) -> YesNoJudge:
    """The judge of a `{name: yesno, ...}` entry.

    Args:
        config: `weighted` (True: one vote by its odds), `votes`, and `Settings`.
        options: What the user chose.
        asker: The judge; None to load the one that is named.
    """
    check_keys("yesno", config, ("votes", "weighted"))
    weighted = bool(config.get("weighted", False))
    settings = Settings.of(config, **(WEIGHTED if weighted else SAMPLED))
    asked = asker or asker_of(config, options)
    return YesNoJudge(asked, settings, options.cache, vote_count(config, 1 if weighted else VOTES))

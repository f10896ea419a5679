"""Whether an answer says the same as one of the references: accuracy according to a judge.

Either the majority of several sampled votes (VoiceBench: three), or one weighted vote, P(Yes) / (P(Yes) + P(No)) from
first-token log-probabilities, which is free of sampling noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
METRIC = "judge_accuracy"
# Judges that reply in other languages write these words.
_YES = (
    "yes", "ja", "oui", "sí", "si", "sì", "sim", "да", "是", "是的", "正确", "はい", "예", "네", "نعم", "हाँ", "हां",
    "evet",
)  # fmt: skip
_NO = (
    "no", "nein", "non", "não", "нет", "否", "不", "不是", "错误", "いいえ", "아니요", "아니오", "لا", "नहीं",
    "hayır",
)  # fmt: skip


@dataclass(frozen=True)
class YesNoVote:
    """One vote: probability of Yes (0 or 1 where it is a word), and whether it comes from log-probabilities."""

    yes: float
    weighted: bool


def read_yes_no(reply: Reply) -> YesNoVote | None:
    """The vote in a reply, None if it is neither yes nor no."""
    if reply.top_logprobs:
        yes, no = (reply.token_probability(word, any_case=True) for word in ("yes", "no"))
        if yes + no > 0:
            return YesNoVote(yes / (yes + no), True)
    answer = judge_prompts.parse_verdict(reply.text, _yes_or_no, leading=True)
    return None if answer is None else YesNoVote(float(answer), False)


def _yes_or_no(word: str) -> bool | None:
    word = word.casefold()
    return True if word in _YES else False if word in _NO else None


class YesNoJudge(Judge[YesNoVote]):
    """Share of answers that agree with a reference: the scorer of a `{name: yesno, ...}` entry.

    Its options: `weighted` (True: one vote from log-probabilities), `votes`, and those of `JudgeSettings`.

    Args:
        judge_model: The judge.
        settings: How it is asked; with `top_logprobs` votes are weighted.
        cache_folder: Folder of the vote cache.
        votes: Votes per item.
    """

    name = "yesno"
    templates = (judge_prompts.VERIFY,)
    own_options: tuple[str, ...] = ("votes", "weighted")

    def __init__(
        self, judge_model: JudgeModel, settings: JudgeSettings, cache_folder: Path, votes: int = VOTES
    ) -> None:
        super().__init__(judge_model, settings, cache_folder)
        self.votes = votes
        way = "weighted" if settings.top_logprobs else "majority"
        (accuracy,) = metrics_of("yesno")
        self.metrics = (replace(accuracy, signature=f"{METRIC}|judged|{way}|votes:{votes}"),)

    @classmethod
    def default_settings(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Those of VoiceBench, or one token with log-probabilities."""
        if config.get("weighted", False):
            return {"max_tokens": 1, "temperature": 1.0, "top_logprobs": 5}
        return {"max_tokens": 4, "temperature": 0.5}

    @classmethod
    def read_own_options(cls, config: Mapping[str, Any], options: ScorerOptions) -> dict[str, Any]:
        """Number of votes."""
        return {"votes": vote_count(config, 1 if config.get("weighted", False) else VOTES)}

    def protocol_options(self) -> dict[str, Any]:
        """Number of votes."""
        return {"votes": self.votes}

    def score_by_rule(self, sample: Sample) -> ItemScore | None:
        """No answer, or an empty one, is wrong."""
        return self.by_rule(METRIC, 0.0, "no answer: wrong") if is_unanswered(sample) else None

    def questions(self, sample: Sample) -> tuple[Question, ...]:
        """The same question for each vote, with seeds of their own."""
        messages = judge_prompts.correctness_prompt(request_text(sample), sample.references, sample.extracted)
        return tuple(self.settings.question(messages, vote) for vote in range(self.votes))

    def read(self, reply: Reply) -> YesNoVote | None:
        """See `read_yes_no`."""
        return read_yes_no(reply)

    def verdict(self, values: Sequence[YesNoVote], facts: list[dict[str, Any]]) -> ItemScore:
        """The mean of weighted votes; of words the majority, half a point for a draw."""
        votes = [{"yes": value.yes, **fact} for value, fact in zip(values, facts, strict=True)]
        weighted = all(value.weighted for value in values)
        share = sum(value.yes for value in values) / len(values)
        score = share if weighted else (float(share > 0.5) if share != 0.5 else 0.5)
        return ItemScore({METRIC: score}, {self.name: {"weighted": weighted, "votes": votes}})

    def summary(self, samples: Sequence[Sample], votes: Sequence[Sequence[YesNoVote]]) -> dict[str, Any]:
        """How often all votes on an answer point the same way, and what their spread adds to the uncertainty."""
        table = np.array([[value.yes for value in item] for item in votes])
        sides = table > 0.5
        facts = {
            "weighted_share": float(np.mean([value.weighted for item in votes for value in item])),
            "unanimous": float((sides.all(axis=1) | ~sides.any(axis=1)).mean()),
        }
        if self.votes > 1:
            facts["vote_sd"] = float(np.sqrt(table.var(axis=1, ddof=1).mean()))
        return facts

"""A verdict is read where it stands apart, and nowhere else."""

import pytest

from rba_bench.evaluation.scorers import rating
from rba_bench.evaluation.scorers.judge_prompts import parse_verdict
from rba_bench.evaluation.scorers.pairwise import PairVote, read_pair_vote
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.evaluation.scorers.yesno import read_yes_no
from rba_bench.textlm.judging import Reply
from rba_bench.textlm.polling import verdict_of

SCORES = {
    "**4**": 4, "`4`": 4, "4.": 4, "4/5": 4, "4 out of 5": 4, "Score: 4": 4, "**Rating:** 4/5": 4, "# 4": 4,
    "4\n\nThe answer is right but for one year.": 4, "It is right.\n\n4": 4, "Final score: **4**": 4,
    '{"score": 4}': 4, '{"rating": "4", "reason": "3 errors"}': 4, '```json\n{"score": 4}\n```': 4,
    '{"score": 4, "reason": "it is': 4, "\\boxed{4}": 4, "评分：4": 4, "Bewertung: 4": 4, "The score is 4.": 4, "４": 4,
    "<think>2? no</think>4": 4,
    "4 or 5": None, "4-5": None, "-4": None, "3.5": None, "6": None, "I see 4 errors": None, "[3, 4]": None,
    "Score: 4\nScore: 2": None, "4\n\n2": None, "Accuracy: 4\nFluency: 2": None, '{"accuracy": 4, "fluency": 2}': None,
    '{"score": 4, "rating": 2}': None, "": None, "four": None, "{": None, "[" * 5000: None, "Score:": None,
    "On a scale of 1 to 5": None, "Score: 14": None, "1. The answer is short": None,
}  # fmt: skip
ANSWERS = {
    "**Yes**": 1, "Yes, it does.": 1, "No. The year differs.": 0, "Answer: No": 0, '{"correct": true}': 1,
    '{"verdict": "no", "confidence": "yes"}': 0, "Ja": 1, "Нет.": 0, "はい": 1, "不是": 0, "Sí": 1, "nein": 0,
    "YES!": 1,
    "Verdict: **No**": 0, "It says the same.\nYes": 1,
    "Yes and no": None, "Yes.\nNo.": None, "Not yes": None, "yesterday": None, "know": None, "Maybe": None,
    "Nobody knows, no": None, "Answer: Yes\nAnswer: No": None, "": None, '{"a": true, "b": false}': None,
}  # fmt: skip
CHOICES = {
    "m": 1, "M": 0, "**m**": 1, "'M'.": 0, "Answer: m": 1, '{"model_identifier": "M"}': 0, "The better model is M.": 0,
    "m\n\nIt is shorter.": 1, "“m”": 1, "```\nM\n```": 0,
    "mM": None, "m or M": None, "m is not as good as M": None, "I'm sure": None, "m\nM": None, "N": None, "": None,
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SCORES.items(), ids=[repr(t[:30]) for t in SCORES])
def test_a_score(scripted, options: ScorerOptions, text: str, expected: int | None) -> None:
    judge = rating.RatingJudge.from_config({}, options, scripted(lambda _: Reply("")))
    assert judge.read(verdict_of(Reply(text))) == expected


@pytest.mark.parametrize(("text", "expected"), ANSWERS.items(), ids=[repr(t[:30]) for t in ANSWERS])
def test_yes_or_no(text: str, expected: int | None) -> None:
    found = read_yes_no(Reply(text))
    assert (None if found is None else found.yes) == expected


@pytest.mark.parametrize(("text", "expected"), CHOICES.items(), ids=[repr(t[:30]) for t in CHOICES])
def test_one_of_two(text: str, expected: int | None) -> None:
    found = read_pair_vote(Reply(text))
    assert found == (None if expected is None else PairVote(float(expected), False))


def test_odds_without_a_verdict_leave_it_to_the_words() -> None:
    quoted = (("**", -0.1), ("`", -3.0))
    assert read_pair_vote(Reply("**M**", quoted)) == PairVote(0.0, False)
    assert read_pair_vote(Reply("neither", quoted)) is None
    found = read_yes_no(Reply("**Yes**", quoted))
    assert found is not None and (found.yes, found.weighted) == (1.0, False)


def test_a_long_reply_takes_no_time() -> None:
    assert parse_verdict("Answer: " * 200_000, lambda _: None) is None
    assert parse_verdict("{" * 1_000_000, lambda _: None) is None

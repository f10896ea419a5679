"""Rewards that compare the answer's words with those of the teacher's; no model is needed. All lie between 0 and 1.

Best-against-worst asks for the order alone, but where the size counts (SCST, minimum risk, ODPO, weighted sums) a
translation may not weigh a hundred times what an answer weighs.
"""

from collections.abc import Callable, Sequence

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.metrics.agreement import token_overlap
from rba_bench.metrics.bleu import sentence_bleu, sentence_chrf
from rba_bench.metrics.languages import base_language
from rba_bench.metrics.qa import alias_match, asserted_match, exact_match
from rba_bench.metrics.text import UNSPACED
from rba_bench.training.rewards.base import Reward


class TextReward:
    """A reward from one function of (answer, teacher's answer, target language)."""

    def __init__(self, score: Callable[[str, str, str], float]) -> None:
        self._score = score

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        return [
            self._score(response, row.response, row.target_lang)
            for row, response in zip(rows, responses, strict=True)
        ]


TEXT_REWARDS: dict[str, Reward] = {
    "bleu": TextReward(lambda answer, teacher, lang: sentence_bleu(answer, teacher, lang) / 100),
    "chrf": TextReward(lambda answer, teacher, lang: sentence_chrf(answer, teacher) / 100),
    "exact": TextReward(lambda answer, teacher, lang: exact_match(answer, [teacher], lang)),
    "asserted": TextReward(lambda answer, teacher, lang: asserted_match(answer, [teacher], lang)),
    "alias": TextReward(lambda answer, teacher, lang: alias_match(answer, [teacher], lang)),
    "overlap": TextReward(lambda answer, teacher, lang: token_overlap([answer, teacher], lang)),
}


def extra_words(answer: str, teacher: str, lang: str) -> int:
    """Words of `answer` beyond the number of words of `teacher`; characters in languages written without spaces."""
    return max(0, _words(answer, lang) - _words(teacher, lang))


def _words(text: str, lang: str) -> int:
    return len("".join(text.split())) if base_language(lang) in UNSPACED else len(text.split())

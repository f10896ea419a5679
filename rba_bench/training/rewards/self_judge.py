"""The policy's own language model as judge: self-rewarding (Yuan et al. 2024, arXiv 2401.10020).

There the model writes a rationale and a score, several times over, and the scores are averaged. Here it is asked for
the score alone and the expectation over its own probabilities of the five scores is taken: no sampling noise, one
forward pass, and values fine enough to rank the answers of one group.
"""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.rewards.base import InStep

if TYPE_CHECKING:
    from rba_bench.textlm.base import TextLM

VERSION = 1
GRADES = ("1", "2", "3", "4", "5")
PROMPT = """Here is what a user asked, and an answer that was given. Both are quoted as JSON strings.

Request: {request}

Answer: {answer}

How good is the answer? Count one point for each of these that is true:
- it has to do with what was asked;
- it deals with most of the request, and not only with a part of it;
- what it says is correct;
- it is clear, in the language that was asked for, and no longer than it needs to be;
- there is nothing a knowledgeable, careful person would change.

Reply with the number of points, from 1 to 5, and nothing else."""


class SelfJudge:
    """Expected number of points, in [1, 5], under the probabilities that the model gives to the words 1 to 5.

    Args:
        lm: The policy's language model on text, as it is now: its verdicts change with its weights.
    """

    def __init__(self, lm: "TextLM") -> None:
        self.lm = lm

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        asked = [question(row, response) for row, response in zip(rows, responses, strict=True)]
        values = self.lm.logprobs(
            [text for text in asked for _ in GRADES], [grade for _ in asked for grade in GRADES]
        )
        size = len(GRADES)
        return [expected_grade(values[i * size : (i + 1) * size]) for i in range(len(asked))]

    def walk_in_step(self, sync: Any, shell: Any) -> None:
        """See `InStep`; the model then is a `PolicyTextLM`."""
        self.lm.walk_in_step(sync, shell)  # type: ignore[attr-defined]

    def keep_company(self) -> None:
        """See `InStep`."""
        if isinstance(self.lm, InStep):
            self.lm.keep_company()


def question(row: AlignmentRow, response: str) -> str:
    """What the model is asked about an answer."""
    request, answer = (json.dumps(text, ensure_ascii=False) for text in (row.user_text, response))
    return PROMPT.format(request=request, answer=answer)


def expected_grade(logprobs: Sequence[float]) -> float:
    """Mean of `GRADES` under their log-probabilities, normalised among each other."""
    largest = max(logprobs)
    weights = [math.exp(value - largest) for value in logprobs]
    return math.fsum(int(g) * w for g, w in zip(GRADES, weights, strict=True)) / math.fsum(weights)

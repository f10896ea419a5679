"""How likely the text teacher would have been to give the answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rba_bench.audio.alignment_set import AlignmentRow

if TYPE_CHECKING:
    from rba_bench.textlm.base import TextLM


class TeacherLogprob:
    """Log-likelihood (nats, summed over tokens) of the answer given the text instruction, under the text teacher."""

    def __init__(self, teacher: "TextLM") -> None:
        self.teacher = teacher

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        return list(self.teacher.logprobs([row.user_text for row in rows], list(responses)))

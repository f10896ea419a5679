"""Which sampled instructions and answers are kept; every candidate gets one reason, none vanishes.

The paper drops instructions that are too long or need complex maths (hard to say aloud) and gives no
thresholds or rules; those here are ours, and the manifest lists them. Arithmetic in words is maths too.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rba_bench.synthesis.recipe import SynthesisRecipe
from rba_bench.synthesis.tags import Tags
from rba_bench.textlm.base import Generation
from rba_bench.textlm.replies import split

KEPT = "kept"
INSTRUCTION_REASONS = {
    "error": "the teacher failed",
    "no_reply": "the teacher's server failed",
    "truncated": "no end of turn within instruction_max_new_tokens",
    "unclosed": "its thinking has no end",
    "empty": "no text",
    "malformed": "template marks, control characters or no letters in it",
    "unparsed": "the tagger does not know it",
    "held_out": "belongs to the world's test split",
    "too_long": "more spoken words than max_words",
    "maths": "formulas or advanced maths",
    "duplicate": "same words as an earlier one",
    "quota": "enough of its kind",
    "surplus": "enough instructions",
}
ANSWER_REASONS = {
    "error": "the teacher failed",
    "no_reply": "the teacher's server failed",
    "truncated": "no end of turn within response_max_new_tokens",
    "unclosed": "its thinking has no end; raise response_max_new_tokens, or set template.enable_thinking=false",
    "empty": "no text",
    "malformed": "template marks or control characters in it",
    "too_long": "more than max_answer_words",
    "no_transcript": "nothing to translate",
}

_MARKS = re.compile(r"<\|.*?\|>|</?s>|\[/?INST\]|\ufffd")
_FORMULA = re.compile(
    r"\\[a-zA-Z]+|\$[^$]+\$"  # LaTeX
    r"|[\u2200-\u22ff\u00b2\u00b3\u221a\u03c0]"  # mathematical signs
    r"|\d\s*[+*=\u00d7\u00f7]\s*\(?[\dx-z]|\d\s+[-/]\s+\d|\w\s*\^\s*\w|\b[xyzf]\s*(\([xyz]\))?\s*="
)
_TERMS = re.compile(
    r"\b(integrals?|integrate|derivatives?|differential|polynomials?|quadratic|equations?|logarithms?"
    r"|matri(x|ces)|eigenvalues?|determinants?|factorials?|cosine|trigonometr\w+|square root|cube root"
    r"|solve for|theorems?|prove that|calculate|compute|(sum|product|quotient) of"
    r"|(\d+|zero|one|two|three|four|five|six|seven|eight|nine|ten|\w+teen|\w+ty|hundred|thousand)"
    r" (plus|minus|multiplied by|divided by))\b"
)


def tidy(text: str) -> str:
    """One line, single spaces."""
    return " ".join(text.split())


def read(made: Generation) -> tuple[str, str]:
    """What counts of a reply of the teacher, on one line, and its status: that of the reply, or `unclosed`."""
    parts = split(made.text)
    return tidy(parts.answer), made.status if parts.complete else "unclosed"


def normalise(text: str) -> str:
    """The form in which two instructions count as the same: NFKC, case folded, letters and digits only."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+", folded))


def needs_maths(text: str) -> bool:
    """True where the text holds a formula or asks for more maths than can be said aloud."""
    return bool(_FORMULA.search(text) or _TERMS.search(text.casefold()))


def is_malformed(text: str) -> bool:
    """True for template marks, control characters, or a text without a single letter or digit."""
    control = any(unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") for character in text)
    return control or bool(_MARKS.search(text)) or not any(character.isalnum() for character in text)


def judge_answer(text: str, status: str, max_words: int | None = None) -> str:
    """KEPT or a key of ANSWER_REASONS; `max_words` None = answers of any length."""
    if status != "ok":
        return status
    if not text:
        return "empty"
    if is_malformed(text):
        return "malformed"
    return "too_long" if max_words is not None and len(text.split()) > max_words else KEPT


class InstructionFilter:
    """Judges candidates in their order; what came before decides about duplicates, quotas and surplus."""

    def __init__(self, recipe: SynthesisRecipe) -> None:
        self.recipe = recipe
        self._seen: set[str] = set()
        self._kinds: Counter[str] = Counter()

    def restore(self, candidates: Iterable[dict[str, Any]]) -> None:
        """Take in candidates that were judged before."""
        for candidate in candidates:
            if candidate["reason"] == KEPT:
                self._keep(candidate["text"], candidate["kind"])

    def release(self, kind: str) -> None:
        """A kept instruction got no usable answer: its place is free again."""
        self._kinds[kind] -= 1

    def judge(self, text: str, status: str, tags: Tags | None) -> str:
        """KEPT or a key of INSTRUCTION_REASONS; `tags` is None for a text the tagger does not know."""
        reason = self._on_its_own(text, status, tags) or self._among_others(text, tags)
        if reason is None and tags is not None:
            self._keep(text, tags.kind)
        return reason or KEPT

    def _on_its_own(self, text: str, status: str, tags: Tags | None) -> str | None:
        if status != "ok":
            return status
        if not text:
            return "empty"
        if is_malformed(text):
            return "malformed"
        if tags is None:
            return "unparsed"
        if self.recipe.exclude_test and tags.held_out:
            return "held_out"
        if len(tags.instruction.split()) > self.recipe.max_words:
            return "too_long"
        return "maths" if self.recipe.drop_maths and needs_maths(text) else None

    def _among_others(self, text: str, tags: Tags | None) -> str | None:
        if normalise(text) in self._seen:
            return "duplicate"
        quotas: Mapping[str, int] | None = self.recipe.kinds  # type: ignore[assignment]
        if quotas is not None and tags is not None and self._kinds[tags.kind] >= quotas.get(tags.kind, 0):
            return "quota"
        return "surplus" if self._kinds.total() >= self.recipe.n_instructions else None

    def _keep(self, text: str, kind: str) -> None:
        self._seen.add(normalise(text))
        self._kinds[kind] += 1

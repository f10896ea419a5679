"""Which sampled instructions and answers are kept; every candidate gets one reason, none vanishes.

The paper drops instructions that are too long or need complex maths (hard to say aloud) and gives no thresholds or
rules; those here are ours, and the manifest lists them. What is written in signs that nobody says is `unspeakable`
(see `speakable`); maths asked for in words is `maths`, sums included.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rba_bench.synthesis.recipe import SynthesisRecipe
from rba_bench.synthesis.speakable import unspeakable
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
    "unspeakable": "formulas, code, markup, tables, addresses, paths, long numbers",
    "maths": "sums or advanced maths, in words",
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

_BREAKS = "\n\t"  # what layout an answer may have
_MARKS = re.compile(r"<\|.*?\|>|</?s>|\[/?INST\]|\ufffd")
_NUMBER = r"(?:\d+|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|\w+ty|hundred|thousand)"
_SUM = rf"{_NUMBER} (?:plus|minus|times|multiplied by|divided by) {_NUMBER}\b"
_TERMS = re.compile(
    r"\b(integrals? of|integrate (the function|x\b|by parts)|(first|second|partial) derivatives?"
    r"|derivatives? of (an? |the )?(function|sine|cosine|tangent|logarithm|polynomial|square|[a-z]\b)"
    r"|differential equations?|polynomials?|quadratic|simultaneous equations|solve (the|this|an?) equation"
    r"|logarithms? of|eigenvalues?|eigenvectors?|determinant of (a|the|this) matrix|(invert|multiply) (a|the) matrix"
    r"|factorial of|(sine|cosine|tangent) of|trigonometr\w+ (function|identit|equation)\w*|(square|cube) root of"
    r"|solve for [a-z]\b|prove (that|the) [^.?!]*\b(theorem|prime|irrational|converges?|divisible|triangle)\w*"
    r"|(sum|product|quotient) of (the |these |those |all )?((first|two|three|four|five|\d+) )*"
    r"(digits|numbers|integers|primes)"
    rf"|(calculate|compute|what is|what's|how much is|work out|add up|sum of|product of)[^.?!]{{0,20}}\b{_SUM}"
    rf"|{_SUM} (is|equals|makes)\b)"
)


def tidy(text: str) -> str:
    """One line, single spaces."""
    return " ".join(text.split())


def tidy_lines(text: str) -> str:
    """The text in its lines: no blanks at their ends, no two empty lines in a row, none at the start or end.

    Lists, poems and code live by their line breaks, and a model that samples them keeps its own: an answer put on one
    line would teach against them.
    """
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def read(made: Generation, shape: Callable[[str], str] = tidy) -> tuple[str, str]:
    """What counts of a reply of the teacher, and its status: that of the reply, or `unclosed`.

    Args:
        made: the reply.
        shape: `tidy` for what is spoken, and for translations of one utterance; `tidy_lines` for answers.
    """
    parts = split(made.text)
    return shape(parts.answer), made.status if parts.complete else "unclosed"


def normalise(text: str) -> str:
    """The form in which two instructions count as the same: NFKC, case folded, letters and digits only."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+", folded))


def needs_maths(text: str) -> bool:
    """True where the text asks in words for sums or for more maths than can be said aloud."""
    return bool(_TERMS.search(text.casefold()))


def is_malformed(text: str) -> bool:
    """True for template marks, control characters but for layout, or a text without a single letter or digit."""
    plain = text.translate(dict.fromkeys(map(ord, _BREAKS)))
    control = any(unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") for character in plain)
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
        if self.recipe.drop_unspeakable and unspeakable(text):
            return "unspeakable"
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

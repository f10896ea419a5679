"""What is wrong with one text by itself: the one interface that a pipeline calls, in any number of processes.

    rules = TextRules(TextRuleSettings(language="en", benchmark_index=str(folder)))
    rules.judge_instruction("Hello! How can I help you today?")   # Drop("no_instruction", "assistant")
    rules.judge_answer("Why is the sky blue?", "I'm sorry, but I can't help with that.")   # Drop("refusal", "")

The first reason counts, in the order of `REASONS`: what a text is (cheap, certain) before what it says, and the index
of test sets, which costs most, at last. Duplicates depend on earlier texts, so they are not judged here.
"""

from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from rba_bench.recipes import Recipe
from rba_bench.synthesis.texts.decontamination import BenchmarkIndex
from rba_bench.synthesis.texts.language import LEAST, LanguageCheck
from rba_bench.synthesis.texts.non_instructions import judge_request
from rba_bench.synthesis.texts.refusals import judge_reply
from rba_bench.synthesis.texts.safety import STATED, unsafe_category
from rba_bench.synthesis.texts.speakable import is_malformed, needs_maths, unspeakable
from rba_bench.synthesis.texts.words import words

REASONS = {
    "empty": "no text",
    "malformed": "template marks, control characters or no letters in it",
    "too_long": "more words than max_words, or max_answer_words",
    "unspeakable": "formulas, code, markup, tables, addresses, paths, long numbers",
    "maths": "sums or advanced maths, in words",
    "no_instruction": "a greeting, an answer, two turns or a system prompt instead of an instruction",
    "refusal": "an answer that refuses, or asks back for what it does not need",
    "boilerplate": "an answer that talks about itself, or is all enthusiasm",
    "unsafe": "what must not become training data",
    "language": "in another language than the expected one",
    "contaminated": "repeats an item of a test set",
    "duplicate": "same words as an earlier one",
    "near_duplicate": "nearly the same words as an earlier one",
}
# What each may be dropped for; a set of texts adds `duplicate` and `near_duplicate` at last.
INSTRUCTION_REASONS = (
    "empty", "malformed", "too_long", "unspeakable", "maths", "no_instruction", "unsafe", "language", "contaminated",
)  # fmt: skip
ANSWER_REASONS = ("empty", "malformed", "too_long", "refusal", "boilerplate", "unsafe", "language")

# An instruction with one of these may be answered in another language.
_OF_LANGUAGES = (
    "translate translation translated say phrase word words language languages spell pronounce poem lyrics song quote "
    "proverb french german spanish italian portuguese dutch english japanese chinese mandarin korean russian arabic "
    "hindi turkish polish swedish danish norwegian finnish greek latin hebrew vietnamese thai indonesian czech "
    "hungarian ukrainian übersetze übersetzen auf englisch deutsch traduis traduire anglais allemand traduce traducir "
    "inglés alemán traduci"
)
_ABOUT_LANGUAGES = frozenset(_OF_LANGUAGES.split())


class Drop(NamedTuple):
    """Why a text is dropped.

    Attributes:
        reason: A key of REASONS.
        detail: What the rule found: kind, category, language or test set; "" where the reason says it all.
    """

    reason: str
    detail: str = ""


class TextRuleSettings(Recipe):
    """Which rules are in force. Values only, so that it can be sent to other processes."""

    language: str = Field("en", description="expected language of the instructions, ISO 639-1")
    answer_language: str | None = Field(None, description="expected language of the answers; null: the same")
    check_language: bool = Field(True, description="drop texts in other languages")
    least_language_confidence: float = Field(
        LEAST, ge=0, lt=1, description="confidence below which the expected language is ruled out"
    )
    max_words: int | None = Field(None, ge=1, description="longer instructions are dropped")
    max_answer_words: int | None = Field(None, ge=1, description="longer answers are dropped")
    drop_unspeakable: bool = Field(True, description="drop instructions that cannot be said")
    drop_maths: bool = Field(True, description="drop sums and advanced maths that are asked for in words")
    drop_no_instruction: bool = Field(True, description="drop greetings, answers, two turns, system prompts")
    drop_refusals: bool = Field(True, description="drop answers that refuse or are boilerplate")
    drop_unsafe: bool = Field(True, description="drop what must not become training data")
    benchmark_index: str | None = Field(
        None,
        description="folder of the index of test sets (decontamination.build_benchmark_index); null: no check",
    )


class TextRules:
    """Judges single texts.

    Args:
        settings: Which rules are in force.

    Raises:
        UserError: the index of test sets is damaged.
        MissingPrerequisite: a package is missing that a rule in force needs.
    """

    def __init__(self, settings: TextRuleSettings) -> None:
        self.settings = settings
        self._language = self._check(settings.language)
        self._answer_language = self._check(settings.answer_language or settings.language)
        self._index = BenchmarkIndex(Path(settings.benchmark_index)) if settings.benchmark_index else None

    def _check(self, language: str) -> LanguageCheck | None:
        if not self.settings.check_language:
            return None
        return LanguageCheck(language, self.settings.least_language_confidence)

    def judge_instruction(self, text: str) -> Drop | None:
        """The first of INSTRUCTION_REASONS that applies to what is spoken, None to keep it."""
        settings = self.settings
        if not text.strip():
            return Drop("empty")
        if is_malformed(text):
            return Drop("malformed")
        if settings.max_words is not None and len(text.split()) > settings.max_words:
            return Drop("too_long")
        if settings.drop_unspeakable and (kind := unspeakable(text)):
            return Drop("unspeakable", kind)
        if settings.drop_maths and needs_maths(text):
            return Drop("maths")
        if settings.drop_no_instruction and (kind := judge_request(text)):
            return Drop("no_instruction", kind)
        if settings.drop_unsafe and (kind := unsafe_category(text)):
            return Drop("unsafe", kind)
        if self._language is not None and (code := self._language.differs(text)):
            return Drop("language", code)
        if self._index is not None and (hit := self._index.find(text)):
            return Drop("contaminated", str(hit))
        return None

    def judge_answer(self, instruction: str, answer: str) -> Drop | None:
        """The first of ANSWER_REASONS that applies to an answer, None to keep it."""
        settings = self.settings
        if not answer.strip():
            return Drop("empty")
        if is_malformed(answer):
            return Drop("malformed")
        if settings.max_answer_words is not None and len(answer.split()) > settings.max_answer_words:
            return Drop("too_long")
        if settings.drop_refusals and (kind := judge_reply(instruction, answer)):
            return Drop(kind)
        if settings.drop_unsafe and (kind := unsafe_category(answer, STATED)):
            return Drop("unsafe", kind)
        if self._answer_language is not None and not _ABOUT_LANGUAGES & set(words(instruction)):
            code = self._answer_language.differs(answer)
            return Drop("language", code) if code else None
        return None

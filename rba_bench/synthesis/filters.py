"""Filters of synthesis: which sampled instructions and answers are kept, with one reason for every candidate.

The paper drops instructions that are too long or need complex maths (hard to say aloud) and gives no thresholds or
rules; those here are ours, and the manifest lists them. What is written in signs that nobody says is `unspeakable`;
maths that is asked for in words, sums included, is `maths`.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from rba_bench.assets import MICRO, load_world
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.texts.speakable import is_malformed, needs_maths, unspeakable
from rba_bench.textlm.replies import split_reply
from rba_bench.textlm.text_model import Generation


@dataclass(frozen=True)
class Tags:
    """Labels of one instruction text; `prompt` stays text, `instruction` is spoken."""

    kind: str
    topic: str
    difficulty: str
    prompt: str
    instruction: str
    source_lang: str
    target_lang: str
    held_out: bool = False


Tagger = Callable[[str], Tags | None]  # None: a text that the tagger's world cannot make


def world_tags(text: str, world: str = MICRO) -> Tags | None:
    """Labels from the grammar of a world (a key of `assets.WORLDS`); None for a text that the grammar cannot make."""
    item = load_world("grammar", world).parse(text)
    if item is None:
        return None
    return Tags(
        kind=item.kind,
        topic=item.topic,
        difficulty=str(item.difficulty),
        prompt=item.prompt,
        instruction=item.instruction,
        source_lang=item.source_lang,
        target_lang=item.target_lang,
        held_out=item.split == "test",
    )


def make_tagger(recipe: SynthesisRecipe) -> Tagger:
    """The tagger that the recipe names; without one every text is a spoken instruction on "others"."""
    if recipe.tagger is not None:
        return partial(world_tags, world=recipe.tagger)
    language, kind = recipe.language, recipe.kind
    return lambda text: Tags(kind, "others", "", "", text, language, language)


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


_MARKDOWN = (
    (re.compile(r"^[ \t]*(?:```|~~~).*$\n?", re.MULTILINE), ""),  # fences of code
    (re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(.*?)[ \t]*#*$", re.MULTILINE), r"\1"),  # headings
    (re.compile(r"^[ \t]{0,3}>[ \t]?", re.MULTILINE), ""),  # quotations
    (re.compile(r"^[ \t]*(?:[-*_][ \t]*){3,}$\n?", re.MULTILINE), ""),  # rules
    (re.compile(r"^([ \t]*)[*+][ \t]+", re.MULTILINE), r"\1- "),
    (re.compile(r"!?\[([^\]\n]+)\]\([^)\s]+[^)\n]*\)"), r"\1"),  # links and pictures: their words
    (re.compile(r"`([^`\n]+)`"), r"\1"),
    (re.compile(r"(\*\*\*|\*\*|__)(?=\S)(.+?)(?<=\S)\1", re.DOTALL), r"\2"),
    (re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])"), r"\1"),
)


def plain_text(text: str) -> str:
    """A text without the marks of Markdown; its words, lines and list items stay."""
    for mark, instead in _MARKDOWN:
        text = mark.sub(instead, text)
    return tidy_lines(text)


def read_reply(reply: Generation, shape: Callable[[str], str] = tidy) -> tuple[str, str]:
    """The text of a reply without its thinking, and its status: that of the reply, or `unclosed`.

    Args:
        reply: of the teacher.
        shape: `tidy` for what is spoken, and for translations of one utterance; `tidy_lines` for answers.
    """
    parts = split_reply(reply.text)
    return shape(parts.answer), reply.status if parts.complete else "unclosed"


def normalise(text: str) -> str:
    """The form in which two instructions count as the same: NFKC, case folded, letters and digits only."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"[^\W_]+", folded))


def judge_answer(text: str, status: str, max_words: int | None = None) -> str:
    """KEPT or a key of ANSWER_REASONS; `max_words` None = answers of any length."""
    if status != "ok":
        return status
    if not text:
        return "empty"
    if is_malformed(text):
        return "malformed"
    return "too_long" if max_words is not None and len(text.split()) > max_words else KEPT


def judge_candidate(candidate: dict[str, Any], tagger: Tagger, recipe: SynthesisRecipe) -> dict[str, Any]:
    """The candidate with its labels and `reason`: KEPT, or what is wrong with it whatever the others are."""
    text, status = candidate["text"], candidate["status"]
    tags = tagger(text) if status == "ok" else None
    labels = asdict(tags) if tags is not None else {}
    return {**candidate, "reason": instruction_fault(text, status, tags, recipe) or KEPT, **labels}


def instruction_fault(text: str, status: str, tags: Tags | None, recipe: SynthesisRecipe) -> str:
    """What is wrong with an instruction by itself, a key of INSTRUCTION_REASONS; "" for nothing."""
    if status != "ok":
        return status
    if not text:
        return "empty"
    if is_malformed(text):
        return "malformed"
    if tags is None:  # the tagger does not know the text
        return "unparsed"
    if recipe.exclude_test and tags.held_out:
        return "held_out"
    if len(tags.instruction.split()) > recipe.max_words:
        return "too_long"
    if recipe.drop_unspeakable and unspeakable(text):
        return "unspeakable"
    return "maths" if recipe.drop_maths and needs_maths(text) else ""

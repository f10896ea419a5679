"""Where the words of an answer stand in a text, and the spellings of an answer that count as the same."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rba_bench.metrics.qa.readings import read_english
from rba_bench.metrics.qa.tokens import NONE, Token, singular
from rba_bench.metrics.qa.words import ARTICLES, HONORIFICS, ORDINARY, UNITS

MOST_JOINED = 3  # tokens that may be written as one word
_COUNTS = range(2, MOST_JOINED + 1)
_LAST_NAMES = frozenset({"jr", "junior", "sr", "senior", "esq", "phd", "md"})
_UP_TO = frozenset({"to", "until", "through"})  # between the ends of a range
_UNIT_NAMES = frozenset(UNITS.values())
_ABOUT = frozenset({"about", "approximately", "approx", "around", "circa", "ca", "c", "roughly"})


@dataclass(frozen=True)
class AnswerForm:
    """One spelling of one answer.

    Attributes:
        tokens: Its tokens, without an article before them.
        article: It begins with an article.
        ordinary: All its words are everyday words or single letters, so it needs a sign that it is meant as a name.
        unitless: A number whose unit was left out: no other unit may follow it.
    """

    tokens: tuple[Token, ...]
    article: bool = False
    ordinary: bool = False
    unitless: bool = False

    @cached_property
    def openings(self) -> frozenset[str]:
        """Words one of which stands where the answer begins, see `_openings`."""
        joined = {_joined(self.tokens, 0, count) for count in _COUNTS} - {""}
        return self.tokens[0].forms | joined

    @cached_property
    def last_forms(self) -> frozenset[str]:
        """The same for the answer with its last word first (`Bezos, Jeff`); none where that is not said."""
        is_name = len(self.tokens) > 1 and self.tokens[0].kind != "number"
        return self.tokens[-1].forms if is_name else NONE


@dataclass(frozen=True)
class Span:
    """Tokens `start` up to `end` of a text say an answer."""

    start: int
    end: int
    answer: AnswerForm

    @property
    def numeric(self) -> bool:
        """Whether the answer is a number or a date."""
        return self.answer.tokens[0].kind == "number"


def answer_forms(alias: str, question: Sequence[Token] = ()) -> list[AnswerForm]:
    """The spellings of one listed answer; none if it has no words.

    The leading article, an explanation in brackets, honorifics (of names with two more words), `Jr.` and `circa` may be
    left out; so may the unit of a number if the question names it, and the scale of degrees.
    """
    texts = [alias]
    without_brackets = re.sub(r"\s*\([^()]*\)\s*$", "", alias)
    if without_brackets.strip() and without_brackets != alias:
        texts.append(without_brackets)
    question_forms = {form for token in question for form in token.forms}
    question_forms |= {"percent"} if "percentage" in question_forms else set()
    forms: dict[tuple[Token, ...], AnswerForm] = {}
    for text in texts:
        words = tuple(token for token in read_english(text) if token.kind != "mark")
        for variant, unitless in _variants(words, question_forms):
            tokens = variant
            while len(tokens) > 1 and tokens[0].text in ARTICLES:
                tokens = tokens[1:]
            if tokens:
                article, ordinary = len(tokens) < len(variant), all(map(_is_ordinary, tokens))
                forms.setdefault(tokens, AnswerForm(tokens, article, ordinary, unitless))
    return list(forms.values())


def _is_ordinary(token: Token) -> bool:
    return token.kind == "word" and (token.text in ORDINARY or len(token.text) == 1) and token.text != "x"


def _variants(words: tuple[Token, ...], question_forms: set[str]) -> Iterator[tuple[tuple[Token, ...], bool]]:
    """The words with what may be left out left out, and whether that is the unit of a number."""
    yield words, False
    bare = words[1:] if words and words[0].text in ARTICLES else words
    if len(bare) > 2 and bare[0].text in HONORIFICS:
        yield bare[1:], False
    if len(bare) > 2 and bare[-1].text in _LAST_NAMES:
        yield bare[:-1], False
    if len(bare) == 3 and _is_name(bare[0]) and _is_name(bare[2]) and is_initial(bare[1]):
        yield (bare[0], bare[2]), False
    if len(bare) > 1 and bare[0].text in _ABOUT and bare[1].kind == "number":
        yield bare[1:], False
    if len(bare) > 1 and bare[0].kind == "number":
        if all(token.forms & question_forms for token in bare[1:]):
            yield bare[:1], True
        if bare[1].text == "degree" and len(bare) == 3:
            yield bare[:2], True
        if bare[1].text == "degree" and "temperature" in question_forms:
            yield bare[:1], True


def _is_name(token: Token) -> bool:
    return token.kind == "word" and len(token.text) > 1 and token.raw[:1].isupper() and not token.later_forms


def is_initial(token: Token) -> bool:
    """A letter with its full stop."""
    return len(token.text) == 1 and token.raw.endswith(".")


def find_spans(text: Sequence[Token], answers: Sequence[AnswerForm]) -> list[Span]:
    """Every place where one of the spellings stands, the longest first where several begin; in order."""
    spans = []
    by_opening = _places_by_word(answer.openings for answer in answers)
    by_last = _places_by_word(answer.last_forms for answer in answers)
    pieces = [*map(_piece, text), *[""] * MOST_JOINED]
    for start, token in enumerate(text):
        if token.kind == "mark":
            continue
        openings = _openings(token, pieces[start : start + MOST_JOINED])
        places = {place for word in openings for place in by_opening.get(word, ())}
        if by_last and start + 1 < len(text) and text[start + 1].text == ",":
            places |= {place for word in token.forms for place in by_last.get(word, ())}
        candidates = [answers[place] for place in sorted(places)]
        if ends := [(end, answer) for answer in candidates if (end := _answer_end(answer, text, start))]:
            end, answer = max(ends, key=lambda pair: (pair[0], not pair[1].ordinary))
            spans.append(Span(start, end, answer))
    return spans


def _places_by_word(words: Iterable[Iterable[str]]) -> dict[str, list[int]]:
    """Where each word occurs: of an answer with 50 spellings and a text of 100 words, few pairs need a closer look."""
    places: dict[str, list[int]] = {}
    for place, each in enumerate(words):
        for word in each:
            places.setdefault(word, []).append(place)
    return places


def _openings(token: Token, pieces: Sequence[str]) -> Iterator[str]:
    """What `_steps` may compare with the first token of an answer, or its first ones joined, and maybe more."""
    yield from token.forms
    yield from token.parts
    if token.kind == "word" and token.raw.istitle():
        yield singular(token.text)
    joined = pieces[0]
    for count in _COUNTS:
        if not joined or not pieces[count - 1]:
            return
        joined += pieces[count - 1]
        yield joined


def _answer_end(answer: AnswerForm, text: Sequence[Token], start: int) -> int:
    """End of an answer that begins at `start`, as listed or with the last word first (`Bezos, Jeff`); else 0."""
    end = match_end(answer.tokens, text, start)
    if end and not (answer.unitless and end < len(text) and text[end].text in _UNIT_NAMES):
        return end
    *first, last = answer.tokens
    comma = start + 1 < len(text) and text[start + 1].text == ","
    if not first or not comma or answer.tokens[0].kind == "number" or not last.forms & text[start].forms:
        return 0
    end = match_end(first, text, start + 2)
    return end if end == len(text) or (end and text[end].kind == "mark") else 0


def match_end(alias: Sequence[Token], text: Sequence[Token], t: int, a: int = 0) -> int:
    """End of the alias, from its token `a` on, if its words stand in a row from `t` on in the text, else 0."""
    if a == len(alias):
        return t
    inside = 0 < a < len(alias) - 1
    if t < len(text):
        for used_a, used_t in _steps(alias, a, text, t):
            if end := match_end(alias, text, t + used_t, a + used_a):
                return end
        initial = a == 1 and len(alias) == 2 and alias[0].raw[:1].isupper() and is_initial(text[t])
        between = a > 0 and alias[a - 1].kind == alias[a].kind == "number" and text[t].text in _UP_TO
        if a > 0 and (text[t].skip or initial or between) and (end := match_end(alias, text, t + 1, a)):
            return end
    up_to = inside and alias[a].text in _UP_TO and alias[a - 1].kind == alias[a + 1].kind == "number"
    if up_to or (inside and alias[a].skip):  # the last one may be a letter: vitamin A
        return match_end(alias, text, t, a + 1)
    return 0


def _steps(alias: Sequence[Token], a: int, text: Sequence[Token], t: int) -> Iterator[tuple[int, int]]:
    """How many tokens of each side say the same from here: one and one, or one and several written apart."""
    ours, theirs = alias[a], text[t]
    opens = t == 0 or text[t - 1].kind == "mark"
    # `butterfly` of `Butterflies`, whose capital is that of the sentence and not of a name
    plural = opens and theirs.kind == "word" and theirs.raw.istitle() and ours.raw.islower()
    if (
        ours.forms & (theirs.forms | theirs.parts)
        or (a > 0 and (ours.forms | ours.later_forms) & (theirs.forms | theirs.later_forms))
        or (plural and singular(theirs.text) in ours.forms)
    ):
        yield 1, 1
    for count in _COUNTS:
        if _joined(text, t, count) in ours.forms:
            yield 1, count
        if _joined(alias, a, count) in theirs.forms:
            yield count, 1


def _joined(tokens: Sequence[Token], start: int, count: int) -> str:
    """Several words without the gaps between them, "" where they cannot be one word."""
    pieces = [_piece(token) for token in tokens[start : start + count]]
    if len(pieces) < count or not all(pieces):
        return ""
    text, letters = "".join(pieces), all(len(token.text) == 1 for token in tokens[start : start + count])
    return text if (len(text) > 2 or letters) and not text.isdigit() and text.isalnum() else ""


def _piece(token: Token) -> str:
    """What a token gives to a word that it may be joined to, "" if it is none."""
    cannot = token.kind == "mark" or (len(token.text) > 1 and token.skip)
    return "" if cannot else token.text.lstrip(".")


def is_whole_answer(text: Sequence[Token], answers: Sequence[AnswerForm]) -> bool:
    """Whether a text says one of the spellings and nothing else."""
    first_word = next((place for place, token in enumerate(text) if not token.skip), len(text) - 1)
    firsts = [place for place in range(first_word + 1) if text[place].kind != "mark"]
    return any(
        (end := match_end(answer.tokens, text, first)) and all(token.skip for token in text[end:])
        for answer in answers
        for first in firsts
    )

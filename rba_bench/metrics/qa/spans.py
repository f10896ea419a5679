"""Where the words of an answer stand in a text, and the spellings of an answer that count as the same."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rba_bench.metrics.qa.readings import read_english
from rba_bench.metrics.qa.tokens import NONE, Token, singular
from rba_bench.metrics.qa.words import ARTICLES, HONORIFICS, ORDINARY, UNITS

MOST_JOINED = 3  # tokens that may be written as one word
_LAST_NAMES = frozenset({"jr", "junior", "sr", "senior", "esq", "phd", "md"})
_UP_TO = frozenset({"to", "until", "through"})  # between the ends of a range
_UNIT_NAMES = frozenset(UNITS.values())
_ABOUT = frozenset({"about", "approximately", "approx", "around", "circa", "ca", "c", "roughly"})


@dataclass(frozen=True)
class Wanted:
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


@dataclass(frozen=True)
class Span:
    """Tokens `start` up to `end` of a text say an answer."""

    start: int
    end: int
    wanted: Wanted

    @property
    def numeric(self) -> bool:
        """Whether the answer is a number or a date."""
        return self.wanted.tokens[0].kind == "number"


def wanted_of(alias: str, question: Sequence[Token] = ()) -> list[Wanted]:
    """The spellings of one listed answer; none if it has no words.

    The leading article, an explanation in brackets, honorifics (of names with two more words), `Jr.` and `circa` may be
    left out; so may the unit of a number if the question names it, and the scale of degrees.
    """
    forms = [read_english(alias)]
    plain = re.sub(r"\s*\([^()]*\)\s*$", "", alias)
    if plain.strip() and plain != alias:
        forms.append(read_english(plain))
    asked = {form for token in question for form in token.own}
    asked |= {"percent"} if "percentage" in asked else set()
    result: dict[tuple[Token, ...], Wanted] = {}
    for form in forms:
        words = tuple(token for token in form if token.kind != "mark")
        for variant, unitless in _variants(words, asked):
            wanted = _wanted(variant, unitless)
            if wanted:
                result.setdefault(wanted.tokens, wanted)
    return list(result.values())


def _wanted(tokens: tuple[Token, ...], unitless: bool) -> Wanted | None:
    kept = tokens
    while len(kept) > 1 and kept[0].text in ARTICLES:
        kept = kept[1:]
    if not kept:
        return None
    ordinary = all(
        token.kind == "word" and (token.text in ORDINARY or len(token.text) == 1) and token.text != "x"
        for token in kept
    )
    return Wanted(kept, len(kept) < len(tokens), ordinary, unitless)


def _variants(words: tuple[Token, ...], asked: set[str]) -> Iterator[tuple[tuple[Token, ...], bool]]:
    yield words, False
    bare = words[1:] if words and words[0].text in ARTICLES else words
    if len(bare) > 2 and bare[0].text in HONORIFICS:
        yield bare[1:], False
    if len(bare) > 2 and bare[-1].text in _LAST_NAMES:
        yield bare[:-1], False
    if len(bare) == 3 and _name(bare[0]) and _name(bare[2]) and is_initial(bare[1]):
        yield (bare[0], bare[2]), False
    if len(bare) > 1 and bare[0].text in _ABOUT and bare[1].kind == "number":
        yield bare[1:], False
    if len(bare) > 1 and bare[0].kind == "number":
        if all(token.own & asked for token in bare[1:]):
            yield bare[:1], True
        if bare[1].text == "degree" and len(bare) == 3:
            yield bare[:2], True
        if bare[1].text == "degree" and "temperature" in asked:
            yield bare[:1], True


def _name(token: Token) -> bool:
    return token.kind == "word" and len(token.text) > 1 and token.raw[:1].isupper() and not token.later


def is_initial(token: Token) -> bool:
    """A letter with its full stop."""
    return len(token.text) == 1 and token.raw.endswith(".")


def spans(text: Sequence[Token], wanted: Sequence[Wanted]) -> list[Span]:
    """Every place where one of the spellings stands, the longest first where several begin; in order."""
    result = []
    for start, token in enumerate(text):
        if token.kind == "mark":
            continue
        ends = [
            (end, each) for each in wanted if (end := _end(each, text, start) or _inverted(each, text, start))
        ]
        if ends:
            end, each = max(ends, key=lambda pair: (pair[0], not pair[1].ordinary))
            result.append(Span(start, end, each))
    return result


def _end(wanted: Wanted, text: Sequence[Token], start: int) -> int:
    end = match(wanted.tokens, text, start)
    other_unit = wanted.unitless and end < len(text) and text[end].text in _UNIT_NAMES
    return 0 if other_unit else end


def _inverted(wanted: Wanted, text: Sequence[Token], start: int) -> int:
    """End of a name with the last word first: `Bezos, Jeff`."""
    *first, last = wanted.tokens
    comma = start + 1 < len(text) and text[start + 1].text == ","
    if not first or not comma or wanted.tokens[0].kind == "number" or not last.own & text[start].own:
        return 0
    end = match(first, text, start + 2)
    return end if end == len(text) or (end and text[end].kind == "mark") else 0


def match(alias: Sequence[Token], text: Sequence[Token], start: int) -> int:
    """End of the alias if its words stand in a row from `start` on, else 0."""
    return _rest(alias, 0, text, start, start)


def _rest(alias: Sequence[Token], a: int, text: Sequence[Token], t: int, start: int) -> int:
    if a == len(alias):
        return t
    if t < len(text):
        for used_a, used_t in _steps(alias, a, text, t):
            if end := _rest(alias, a + used_a, text, t + used_t, start):
                return end
        initial = a == 1 and len(alias) == 2 and alias[0].raw[:1].isupper() and is_initial(text[t])
        between = a > 0 and alias[a - 1].kind == alias[a].kind == "number" and text[t].text in _UP_TO
        if (
            t > start
            and (text[t].skip or initial or between)
            and (end := _rest(alias, a, text, t + 1, start))
        ):
            return end
    upto = (
        0 < a < len(alias) - 1
        and alias[a].text in _UP_TO
        and alias[a - 1].kind == alias[a + 1].kind == "number"
    )
    if upto or 0 < a < len(alias) - 1 and alias[a].skip:  # the last one may be a letter: vitamin A
        return _rest(alias, a + 1, text, t, start)
    return 0


def _steps(alias: Sequence[Token], a: int, text: Sequence[Token], t: int) -> Iterator[tuple[int, int]]:
    """How many tokens of each side say the same from here: one and one, or one and several written apart."""
    wanted, heard = alias[a], text[t]
    if (
        wanted.own & (heard.own | heard.also)
        or a > 0
        and (wanted.own | wanted.later) & (heard.own | heard.later)
        or wanted.own & _partial(wanted, heard)
        or (wanted.raw.islower() and _opening_plural(text, t) in wanted.own)
    ):
        yield 1, 1
    for count in range(2, MOST_JOINED + 1):
        if _joined(text, t, count) in wanted.own:
            yield 1, count
        if _joined(alias, a, count) in heard.own:
            yield count, 1


def _opening_plural(text: Sequence[Token], t: int) -> str:
    """`butterfly` of `Butterflies` where its capital is that of a sentence, not of a name; "" otherwise."""
    heard = text[t]
    opens = t == 0 or text[t - 1].kind == "mark"
    return singular(heard.text) if opens and heard.kind == "word" and heard.raw.istitle() else ""


def _partial(wanted: Token, heard: Token) -> frozenset[str]:
    """Parts of a date that a less exact date shares: `July 1776` is in 4 July 1776, `July 4` too."""
    if not heard.also or wanted.kind != "number":
        return NONE
    return frozenset(form for form in wanted.own if form in heard.also)


def _joined(tokens: Sequence[Token], start: int, count: int) -> str:
    """Several words without the gaps between them, "" where they cannot be one word."""
    run = tokens[start : start + count]
    if len(run) < count or any(token.kind == "mark" or token.skip and len(token.text) > 1 for token in run):
        return ""
    text = "".join(token.text.lstrip(".") for token in run)
    spelled = all(len(token.text) == 1 for token in run)
    return text if (len(text) > 2 or spelled) and not text.isdigit() and text.isalnum() else ""


def whole(text: Sequence[Token], wanted: Sequence[Wanted]) -> bool:
    """Whether a text says one of the spellings and nothing else."""
    first_word = next((place for place, token in enumerate(text) if not token.skip), len(text) - 1)
    firsts = [place for place in range(first_word + 1) if text[place].kind != "mark"]
    return any(
        (end := match(each.tokens, text, first)) and all(token.skip for token in text[end:])
        for each in wanted
        for first in firsts
    )

"""An English answer cut into segments at stops, commas, brackets and conjunctions, outside of the answers it names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rba_bench.metrics.qa.spans import Span
from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import (
    ARTICLES,
    FUNCTION,
    NEUTRAL,
    PARTICLES,
    PREPOSITIONS,
    PRONOUNS,
    VERBS,
    words,
)

CONTRAST = words("but however although though while whereas because so since unless yet")
_OPPOSES = frozenset({"while", "whereas"})
COORDINATES = words("and or nor versus vs")
_ALL = words("anything everything nothing all none nobody anyone anybody anywhere 1 one who what")
HEDGES = (
    *(
        "i think",
        "i believe",
        "i guess",
        "i suppose",
        "i would say",
        "i would guess",
        "i am sure",
        "i am not sure",
    ),
    *(
        "maybe",
        "perhaps",
        "possibly",
        "probably",
        "likely",
        "either",
        "as well",
        "i say",
        "it seems",
        "you know",
    ),
    *("i am pretty sure", "i am not sure which", "of course", "i believe so", "in fact"),
)
_NEGATIVE = words("not never no neither nor without except unlike instead rather")
_QUOTES = '"'
MOST_WORDS = 4  # of a candidate


@dataclass(frozen=True)
class Segment:
    """Tokens `start` up to `end`; `sep` is what stands before it: marks and conjunctions, without blanks."""

    start: int
    end: int
    sep: frozenset[str]

    @property
    def contrasts(self) -> bool:
        """`..., while ...`; without the comma the word tells a time."""
        return "," in self.sep and bool(_OPPOSES & self.sep)


def cut(text: Sequence[Token], spans: Sequence[Span]) -> list[Segment]:
    """The segments of a text, in order."""
    inside = {place for span in spans for place in range(span.start, span.end)}
    found: list[Segment] = []
    quotes = sum(token.text in _QUOTES for token in text) > 2  # a list of quoted names
    sep: set[str] = set()
    start: int | None = None
    for place, token in enumerate(text):
        if place not in inside and _separates(text, place, quotes):
            if start is not None:
                found.append(Segment(start, place, frozenset(sep)))
                start, sep = None, set()
            sep.add(token.text)
        elif start is None:
            start = place
    if start is not None:
        found.append(Segment(start, len(text), frozenset(sep)))
    return found


def _separates(text: Sequence[Token], place: int, quotes: bool) -> bool:
    token = text[place]
    if token.kind == "mark":
        return quotes or token.text != _QUOTES
    if token.text == "but" and place and text[place - 1].text in _ALL:
        return False  # anything but
    return token.text in CONTRAST or token.text in COORDINATES or token.raw == "+"


class Reading:
    """What the segments of one answer say, given the question.

    Args:
        text: The answer.
        asked: The question.
        cased: Whether capitals tell anything.
    """

    def __init__(self, text: Sequence[Token], asked: Sequence[Token], cased: bool) -> None:
        self.text, self.cased = text, cased
        offered = _offered(asked)
        self.asked = frozenset(
            form for token in asked if not _common(token) and token not in offered for form in token.own
        )

    def words(self, start: int, end: int) -> list[Token]:
        """Words of a stretch without hedges."""
        tokens = [token for token in self.text[start:end] if token.kind != "mark"]
        return _without_hedges(tokens)

    def content(self, words: Sequence[Token]) -> list[Token]:
        """Words that could name something the question did not."""
        return [token for token in words if not _common(token) and not token.own & self.asked]

    def bare(self, words: Sequence[Token]) -> bool:
        """A name or noun without verb, subject or negation."""
        return bool(self.content(words)) and not any(
            token.text in VERBS or token.text in PRONOUNS or token.text in _NEGATIVE or participle(token)
            for token in words
        )

    def candidate(self, words: Sequence[Token], span: Span) -> bool:
        """Whether words name something of the kind that the span names."""
        content = self.content(words)
        if not 1 <= len(content) <= MOST_WORDS or any(token.text in _NEGATIVE for token in words):
            return False
        numeric = any(token.kind == "number" for token in content)
        if numeric != span.numeric:
            return False
        if numeric or not self.named(span):
            return numeric or len(content) < MOST_WORDS
        names = [token for token in content if token.text not in PARTICLES]  # da Vinci
        return bool(names) and all(token.raw[:1].isupper() or token.kind == "number" for token in names)

    def of_another(self, segment: Segment) -> bool:
        """Whether a segment tells of something else in contrast: `spiders have eight, while insects have six`."""
        return segment.contrasts and self.has_other_subject(segment)

    def has_other_subject(self, segment: Segment) -> bool:
        """Whether the subject of a segment is nothing the question names."""
        words = self.words(segment.start, segment.end)
        verb = next((i for i, token in enumerate(words) if token.text in VERBS), 0)
        subject = words[:verb]
        return bool(self.content(subject)) and not any(token.own & self.asked for token in subject)

    def named(self, span: Span) -> bool:
        """Whether the answer is written with a capital, in a text where that tells something."""
        return self.cased and any(token.raw[:1].isupper() for token in self.text[span.start : span.end])


def participle(token: Token) -> bool:
    """`nestled`, `sitting`: begins a description."""
    return token.raw.islower() and len(token.text) > 4 and token.text.endswith(("ed", "ing"))


def _offered(asked: Sequence[Token]) -> list[Token]:
    """Names on both sides of an "or": a question that offers them makes neither the right one."""
    found: list[Token] = []
    for place, token in enumerate(asked):
        if token.text == "or":
            around = [each for each in asked[max(0, place - 3) : place + 4] if each.kind != "mark"]
            names = [each for each in around if each.raw[:1].isupper()]
            near = [*asked[max(0, place - 1) : place], *asked[place + 1 : place + 2]]
            found += names or [each for each in near if each.kind != "mark"]
    return found


def _common(token: Token) -> bool:
    return token.kind == "word" and (token.text in FUNCTION or token.text in NEUTRAL)


def _without_hedges(tokens: list[Token]) -> list[Token]:
    texts = [token.text for token in tokens]
    whole = f" {' '.join(texts)} "
    for hedge in HEDGES:
        if f" {hedge} " not in whole:
            continue
        parts = hedge.split()
        for place in range(len(texts) - len(parts), -1, -1):
            if texts[place : place + len(parts)] == parts:
                del texts[place : place + len(parts)], tokens[place : place + len(parts)]
    return tokens


def starts_with_preposition(words: Sequence[Token]) -> bool:
    """`in Europe`."""
    return bool(words) and words[0].text in PREPOSITIONS


def starts_with_article(words: Sequence[Token]) -> bool:
    """`the capital of France`."""
    return bool(words) and words[0].text in ARTICLES


def distinct(text: Sequence[Token], spans: Iterator[Span] | Sequence[Span]) -> int:
    """Number of different answers among spans."""
    return len({tuple(token.text for token in text[span.start : span.end]) for span in spans})

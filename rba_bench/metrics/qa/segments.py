"""An English answer cut into segments, what they say, and whether an everyday word in it is meant as a name.

Segments end at stops, commas, brackets and conjunctions outside of the answers that the text names.

`us` in "tell us" is not the country, `may` in "it may be" not the month. Such an answer (also `WHO`, `I`, `no`) counts
where something marks it: it is all that is said, it is written in capitals or with a capital inside a sentence, it is
quoted, it closes "the answer is ...", or (May) it follows a preposition of time.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rba_bench.metrics.qa.spans import Span
from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import (
    ARTICLES,
    AUXILIARIES,
    FILLERS,
    FUNCTION,
    NEUTRAL,
    PARTICLES,
    PRONOUNS,
    VERBS,
    word_set,
)

CONTRAST = word_set("but however although though while whereas because so since unless yet")
_OPPOSES = frozenset({"while", "whereas"})
COORDINATES = word_set("and or nor versus vs")
_ALL = word_set("anything everything nothing all none nobody anyone anybody anywhere 1 one who what")
HEDGES = (
    "i think", "i believe", "i guess", "i suppose", "i would say", "i would guess", "i am sure",
    "i am not sure", "maybe", "perhaps", "possibly", "probably", "likely", "either", "as well", "i say",
    "it seems", "you know", "i am pretty sure", "i am not sure which", "of course", "i believe so", "in fact",
)  # fmt: skip
_NEGATIVE = word_set("not never no neither nor without except unlike instead rather")
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


def cut_segments(text: Sequence[Token], spans: Sequence[Span], separators: Collection[int]) -> list[Segment]:
    """The segments of a text, in order, cut at the `separators` (indices of tokens) that are in none of the `spans`."""
    inside = {place for span in spans for place in range(span.start, span.end)}
    segments: list[Segment] = []
    sep: set[str] = set()
    start: int | None = None
    for place, token in enumerate(text):
        if place in separators and place not in inside:
            if start is not None:
                segments.append(Segment(start, place, frozenset(sep)))
                start, sep = None, set()
            sep.add(token.text)
        elif start is None:
            start = place
    if start is not None:
        segments.append(Segment(start, len(text), frozenset(sep)))
    return segments


def english_separators(text: Sequence[Token]) -> set[int]:
    """Indices of the marks and conjunctions that English text is cut at."""
    many_quotes = sum(token.text in _QUOTES for token in text) > 2  # a list of quoted names

    def separates(place: int, token: Token) -> bool:
        if token.kind == "mark":
            return many_quotes or token.text != _QUOTES
        if token.text == "but" and place and text[place - 1].text in _ALL:
            return False  # anything but
        return token.text in CONTRAST or token.text in COORDINATES or token.raw == "+"

    return {place for place, token in enumerate(text) if separates(place, token)}


class Reading:
    """What the segments of one answer say, given the question.

    Args:
        text: The answer.
        question: Tokens of the question.
        cased: Whether capitals tell anything.
    """

    def __init__(self, text: Sequence[Token], question: Sequence[Token], cased: bool) -> None:
        self.text, self.cased = text, cased
        # Names on both sides of an "or": a question that offers them makes neither the right one.
        offered: list[Token] = []
        for place, token in enumerate(question):
            if token.text == "or":
                around = [word for word in question[max(0, place - 3) : place + 4] if word.kind != "mark"]
                names = [word for word in around if word.raw[:1].isupper()]
                near = [*question[max(0, place - 1) : place], *question[place + 1 : place + 2]]
                offered += names or [word for word in near if word.kind != "mark"]
        named = [token for token in question if not _is_common(token) and token not in offered]
        self.question_forms = frozenset(form for token in named for form in token.forms)

    def words_between(self, start: int, end: int) -> list[Token]:
        """Words of a stretch without hedges."""
        tokens = [token for token in self.text[start:end] if token.kind != "mark"]
        texts = [token.text for token in tokens]
        joined = f" {' '.join(texts)} "
        for hedge in HEDGES:
            if f" {hedge} " not in joined:
                continue
            parts = hedge.split()
            for place in range(len(texts) - len(parts), -1, -1):
                if texts[place : place + len(parts)] == parts:
                    del texts[place : place + len(parts)], tokens[place : place + len(parts)]
        return tokens

    def content(self, words: Sequence[Token]) -> list[Token]:
        """Words that could name something the question did not."""
        return [token for token in words if not _is_common(token) and not token.forms & self.question_forms]

    def is_bare_name(self, words: Sequence[Token]) -> bool:
        """A name or noun without verb, subject or negation."""
        return bool(self.content(words)) and not any(
            token.text in VERBS or token.text in PRONOUNS or token.text in _NEGATIVE or is_participle(token)
            for token in words
        )

    def is_candidate(self, words: Sequence[Token], span: Span) -> bool:
        """Whether words name something of the kind that the span names."""
        content = self.content(words)
        if not 1 <= len(content) <= MOST_WORDS or any(token.text in _NEGATIVE for token in words):
            return False
        numeric = any(token.kind == "number" for token in content)
        if numeric != span.numeric:
            return False
        if numeric or not self.is_capitalised(span):
            return numeric or len(content) < MOST_WORDS
        names = [token for token in content if token.text not in PARTICLES]  # da Vinci
        return bool(names) and all(token.raw[:1].isupper() or token.kind == "number" for token in names)

    def tells_of_another(self, segment: Segment) -> bool:
        """Whether a segment tells of something else in contrast: `spiders have eight, while insects have six`."""
        return segment.contrasts and self.has_other_subject(segment)

    def has_other_subject(self, segment: Segment) -> bool:
        """Whether the subject of a segment is nothing the question names."""
        words = self.words_between(segment.start, segment.end)
        verb = next((i for i, token in enumerate(words) if token.text in VERBS), 0)
        subject = words[:verb]
        return bool(self.content(subject)) and not any(token.forms & self.question_forms for token in subject)

    def is_capitalised(self, span: Span) -> bool:
        """Whether the answer is written with a capital, in a text where that tells something."""
        return self.cased and any(token.raw[:1].isupper() for token in self.text[span.start : span.end])


def is_participle(token: Token) -> bool:
    """`nestled`, `sitting`: begins a description."""
    return token.raw.islower() and len(token.text) > 4 and token.text.endswith(("ed", "ing"))


def _is_common(token: Token) -> bool:
    return token.kind == "word" and (token.text in FUNCTION or token.text in NEUTRAL)


POLAR = {
    "yes": frozenset({"yes", "yeah", "yep", "true", "correct"}),
    "no": frozenset({"no", "nope", "false"}),
    "true": frozenset({"true", "yes"}),
    "false": frozenset({"false", "no"}),
}
_CLOSED_BY = word_set("is was are were be been called letter symbol word say named spelled it's answer")
_TIME = word_set("in of since by until during early late mid last next every through for from before after")
_AFTER_POLAR = word_set("it they he she the that this there i you we sir")
_LEADS_TO = word_set("so but then hence thus therefore and well")
_DESCRIBES = word_set("by a an the directed written starring based published released")  # It, by Stephen King
_NOUNS = AUXILIARIES - word_set("let")
_THIRD_PERSON = word_set(
    "is was has comes follows precedes falls starts begins ends won wins made makes stands means"
)
_STOPS = frozenset(".?!;\n")


def is_cased(tokens: Sequence[Token]) -> bool:
    """Whether capitals tell anything: both cases occur."""
    raw = "".join(token.raw for token in tokens)
    return raw != raw.lower() and raw != raw.upper()


def is_meant_as_name(span: Span, text: Sequence[Token]) -> bool:
    """Whether the words of a span are the answer and not everyday words that are spelled like it."""
    if not span.answer.ordinary:
        return True
    alone = all(token.skip for token in [*text[: span.start], *text[span.end :]])
    inside = span.start > 0 and span.end < len(text)
    if alone or (inside and text[span.start - 1].text == text[span.end].text == _QUOTES):
        return True
    first = text[span.start]
    if span.end - span.start == 1 and first.text in FILLERS:
        return False
    if span.end - span.start == 1 and first.forms & POLAR.keys():
        # `No, it is round` and `It is round, so no`, unlike `No one knows`
        before_mark = span.end == len(text) or text[span.end].kind == "mark"
        if all(token.skip for token in text[: span.start]):
            return before_mark or text[span.end].text in _AFTER_POLAR
        start = span.start
        while start and text[start - 1].text in _LEADS_TO:
            start -= 1
        return _closes_phrase(span, text) or (before_mark and (start == 0 or text[start - 1].kind == "mark"))
    if is_cased(text):
        return _is_written_as_name(span, text)
    before = text[span.start - 1] if span.start else None
    with_article = span.answer.article and before is not None and before.skip and before.kind == "word"
    return _closes_phrase(span, text) or _follows_time_word(span, text) or with_article


def _closes_phrase(span: Span, text: Sequence[Token]) -> bool:
    before = [token for token in text[: span.start] if not token.skip]
    ends = span.end == len(text) or text[span.end].kind == "mark"
    return ends and bool(before) and before[-1].text in _CLOSED_BY


def _follows_time_word(span: Span, text: Sequence[Token]) -> bool:
    return text[span.start].text == "may" and span.start > 0 and text[span.start - 1].text in _TIME


def _is_written_as_name(span: Span, text: Sequence[Token]) -> bool:
    """Whether a text with capitals writes the words as the name is written."""
    words = text[span.start : span.end]
    name = "".join(token.raw for token in span.answer.tokens)
    written = "".join(token.raw for token in words if token.kind != "mark").replace(".", "")
    if len(written) == 1:
        if written.upper() == "I" or written != written.upper():
            return _closes_phrase(span, text) and written.isupper() == name.isupper()
        return not _opens_sentence(span, text) or _closes_phrase(span, text)
    if written.isupper() and written.isalpha() and name.isupper():
        return True
    capital = written[:1].isupper()
    if capital and not (name.isupper() and len(name) > 1):
        return not _opens_sentence(span, text) or _is_subject(span, text)
    same = written.islower() and name.islower()
    if same and span.start and text[span.start - 1].text in ARTICLES:
        return span.end == len(text) or text[span.end].kind == "mark"  # from the well
    return (_follows_time_word(span, text) and not capital) or (same and _closes_phrase(span, text))


def _is_subject(span: Span, text: Sequence[Token]) -> bool:
    """`May is the month`, `May. It follows April`: no modal verb goes before "is" or a stop, and no pronoun alone."""
    if span.end == len(text) or text[span.end].text in _STOPS:
        return span.end - span.start == 1 and len(text[span.start].text) > 1
    after = text[span.end].text
    if after == ",":
        further = text[span.end + 1].text if span.end + 1 < len(text) else ""
        return text[span.start].text in _NOUNS or further in _DESCRIBES
    return after in _THIRD_PERSON and text[span.start].text in _NOUNS


def _opens_sentence(span: Span, text: Sequence[Token]) -> bool:
    """Whether the span opens a sentence, where a capital tells nothing."""
    for token in reversed(text[: span.start]):
        if token.kind == "mark":
            if token.text in _STOPS:
                return True
        elif not token.skip:
            return False
    return True

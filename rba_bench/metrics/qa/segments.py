"""An English answer cut into segments at stops, commas, brackets and conjunctions, outside of the answers it names.

Whether an everyday word or a single letter is meant as a name where it stands: `US`, `May`, `WHO`, `I`, `no`.

`us` in "tell us" is not the country, `may` in "it may be" not the month. Such an answer counts where something marks
it: it is all that is said, it is written in capitals or with a capital inside a sentence, it is quoted, it closes "the
answer is ...", or (May) it follows a preposition of time.
"""

from collections.abc import Iterator, Sequence
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


def cut_segments(text: Sequence[Token], spans: Sequence[Span]) -> list[Segment]:
    """The segments of a text, in order."""
    inside = {place for span in spans for place in range(span.start, span.end)}
    result: list[Segment] = []
    quotes = sum(token.text in _QUOTES for token in text) > 2  # a list of quoted names
    sep: set[str] = set()
    start: int | None = None
    for place, token in enumerate(text):
        if place not in inside and _separates(text, place, quotes):
            if start is not None:
                result.append(Segment(start, place, frozenset(sep)))
                start, sep = None, set()
            sep.add(token.text)
        elif start is None:
            start = place
    if start is not None:
        result.append(Segment(start, len(text), frozenset(sep)))
    return result


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
    result: list[Token] = []
    for place, token in enumerate(asked):
        if token.text == "or":
            around = [each for each in asked[max(0, place - 3) : place + 4] if each.kind != "mark"]
            names = [each for each in around if each.raw[:1].isupper()]
            near = [*asked[max(0, place - 1) : place], *asked[place + 1 : place + 2]]
            result += names or [each for each in near if each.kind != "mark"]
    return result


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


POLAR = {
    "yes": frozenset({"yes", "yeah", "yep", "true", "correct"}),
    "no": frozenset({"no", "nope", "false"}),
    "true": frozenset({"true", "yes"}),
    "false": frozenset({"false", "no"}),
}
_CLOSED_BY = words("is was are were be been called letter symbol word say named spelled it's answer")
_TIME = words("in of since by until during early late mid last next every through for from before after")
_AFTER_POLAR = words("it they he she the that this there i you we sir")
_LEADS_TO = words("so but then hence thus therefore and well")
_DESCRIBES = words("by a an the directed written starring based published released")  # It, by Stephen King
_NOUNS = AUXILIARIES - words("let")
_THIRD_PERSON = words(
    "is was has comes follows precedes falls starts begins ends won wins made makes stands means"
)
_STOPS = frozenset(".?!;\n")


def is_cased(tokens: Sequence[Token]) -> bool:
    """Whether capitals tell anything: both cases occur."""
    raw = "".join(token.raw for token in tokens)
    return raw != raw.lower() and raw != raw.upper()


def is_meant(span: Span, text: Sequence[Token]) -> bool:
    """Whether the words of a span are the answer and not everyday words that are spelled like it."""
    if not span.wanted.ordinary:
        return True
    alone = all(token.skip for token in [*text[: span.start], *text[span.end :]])
    if alone or _quoted(span, text):
        return True
    single = text[span.start]
    if span.end - span.start == 1 and single.text in FILLERS:
        return False
    if span.end - span.start == 1 and single.own & POLAR.keys():
        return _leads(span, text)
    if is_cased(text):
        return _written_as_name(span, text)
    return _closes(span, text) or _after_time(span, text) or _with_article(span, text)


def _quoted(span: Span, text: Sequence[Token]) -> bool:
    before = text[span.start - 1].text if span.start else ""
    after = text[span.end].text if span.end < len(text) else ""
    return before == '"' and after == '"'


def _leads(span: Span, text: Sequence[Token]) -> bool:
    """Whether "no" answers, as in `No, it is round`, unlike `No one knows`."""
    if any(not token.skip for token in text[: span.start]):
        return _closes(span, text) or _apart(span, text)
    after = text[span.end] if span.end < len(text) else None
    return after is None or after.kind == "mark" or after.text in _AFTER_POLAR


def _apart(span: Span, text: Sequence[Token]) -> bool:
    """Whether the words stand between marks, as `It is round, so yes` does."""
    start = span.start
    while start and text[start - 1].text in _LEADS_TO:
        start -= 1
    return (start == 0 or text[start - 1].kind == "mark") and (
        span.end == len(text) or text[span.end].kind == "mark"
    )


def _closes(span: Span, text: Sequence[Token]) -> bool:
    before = [token for token in text[: span.start] if not token.skip]
    ends = span.end == len(text) or text[span.end].kind == "mark"
    return ends and bool(before) and before[-1].text in _CLOSED_BY


def _after_time(span: Span, text: Sequence[Token]) -> bool:
    return text[span.start].text == "may" and span.start > 0 and text[span.start - 1].text in _TIME


def _with_article(span: Span, text: Sequence[Token]) -> bool:
    return (
        span.wanted.article
        and span.start > 0
        and text[span.start - 1].skip
        and text[span.start - 1].kind == "word"
    )


def _written_as_name(span: Span, text: Sequence[Token]) -> bool:
    words = text[span.start : span.end]
    wanted = "".join(token.raw for token in span.wanted.tokens)
    heard = "".join(token.raw for token in words if token.kind != "mark").replace(".", "")
    if len(heard) == 1:
        if heard.upper() == "I" or heard != heard.upper():
            return _closes(span, text) and heard.isupper() == wanted.isupper()
        return not _opens(span, text) or _closes(span, text)
    if heard.isupper() and heard.isalpha() and wanted.isupper():
        return True
    capital = heard[:1].isupper()
    if capital and not (wanted.isupper() and len(wanted) > 1):
        return not _opens(span, text) or _stated(span, text)
    same = heard.islower() and wanted.islower()
    if same and span.start and text[span.start - 1].text in ARTICLES:
        return span.end == len(text) or text[span.end].kind == "mark"  # from the well
    return (_after_time(span, text) and not capital) or (same and _closes(span, text))


def _stated(span: Span, text: Sequence[Token]) -> bool:
    """`May is the month`, `May. It follows April`: no modal verb goes before "is" or a stop, and no pronoun alone."""
    if span.end == len(text) or text[span.end].text in _STOPS:
        return span.end - span.start == 1 and len(text[span.start].text) > 1
    after = text[span.end].text
    if after == ",":
        further = text[span.end + 1].text if span.end + 1 < len(text) else ""
        return text[span.start].text in _NOUNS or further in _DESCRIBES
    return after in _THIRD_PERSON and text[span.start].text in _NOUNS


def _opens(span: Span, text: Sequence[Token]) -> bool:
    """Whether the span opens a sentence, where a capital tells nothing."""
    for token in reversed(text[: span.start]):
        if token.kind == "mark":
            if token.text in _STOPS:
                return True
        elif not token.skip:
            return False
    return True

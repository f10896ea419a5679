"""Whether an English response asserts one of the right answers and no other candidate.

The rule, in the order it is applied:

1. Only what follows the last correction ("no wait", "or rather", "Paris? No,") and the last "the answer is" counts.
2. An answer named there does not count where it only repeats the question, belongs to a longer name (Paris Hilton), is
   only thought of ("you might think"), asked back, or compared with ("near Paris", "bigger than Paris").
3. It is denied by a negative word in its clause, before or behind it. Of several verdicts the last one stands.
4. Beside an asserted answer no other candidate of its kind may stand: in a list with it (commas, lines, "and", "or",
   slashes), as a further "it is ...", or as the subject of the question's own words. More than one right answer may be
   listed, and then one in four may be wrong.

Capitals tell names from other words where the response has both cases; a place behind a comma that is a country or
state is where it lies, not a candidate.
"""

from collections.abc import Sequence
from itertools import pairwise

from rba_bench.metrics.qa import denial, rivals
from rba_bench.metrics.qa.meant import POLAR, is_cased, is_meant
from rba_bench.metrics.qa.regions import REGIONS
from rba_bench.metrics.qa.segments import Reading, cut
from rba_bench.metrics.qa.spans import Span, Wanted, spans
from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import (
    EVENTS,
    FUNCTION,
    GENERIC,
    LOSING,
    MONTHS,
    TITLES,
    UNITS,
    VERBS,
    WINNING,
    words,
)

_SENTENCE_ENDS = frozenset({".", "?", "!", "\n", ";"})
_MONEY = frozenset({"dollar", "euro", "pound", "yen", "cent", "rupee"})
_ASKS_MONEY = words("cost costs price paid pay worth money much salary earn sell sold bought budget") | _MONEY
_ASKS_SHARE = words("percent percentage share proportion fraction rate part")
_RELATIVES = words("who which whose whom where")
_DETERMINERS = (["a"], ["an"], ["the"])
_KIN = words(
    "wife husband son daughter brother sister father mother friend rival successor predecessor teacher student"
)
MOST_FIRST_NAMES = 2
FAR = 60  # tokens before an answer that its clause may have
NEAR = 16  # tokens around an answer in which phrases are looked for
MOST_MENTIONS = 5  # at either end of a response; more are a repetition


def asserts(text: Sequence[Token], wanted: Sequence[Wanted], asked: Sequence[Token]) -> bool:
    """Whether a response asserts an answer and no other candidate; see above."""
    polar = any(token.text in POLAR for each in wanted for token in each.tokens)
    cased = is_cased(text)
    text = text if polar else text[denial.final_answer(text) :]
    text = text if polar else _corrected(text, wanted, Reading(text, asked, cased))
    text = _after_question(text, wanted)
    mentions = [span for span in spans(text, wanted) if is_meant(span, text)]
    mentions = _apart(mentions)
    claim = _Claim(text, mentions, asked, cased)
    verdicts = [(span, claim.verdict(span)) for span in mentions]
    told = [(span, verdict) for span, verdict in verdicts if verdict is not None]
    if not told or not told[-1][1]:
        return False
    asserted = [span for span, verdict in told if verdict]
    asserted = (
        asserted
        if len(asserted) <= 2 * MOST_MENTIONS
        else asserted[:MOST_MENTIONS] + asserted[-MOST_MENTIONS:]
    )
    return any(rivals.unrivalled(span, mentions, claim.segments, claim.reading) for span in asserted)


def _after_question(text: Sequence[Token], wanted: Sequence[Wanted]) -> Sequence[Token]:
    """What stands after a question that the response asks itself and answers, as in `Bach or Vivaldi? Vivaldi`."""
    named = spans(text, wanted)
    asks = [
        place
        for place, token in enumerate(text)
        if token.text == "?" and named[:1] and place > named[0].start
    ]
    if not asks or not any(span.start > asks[-1] for span in named):
        return text
    return text[asks[-1] + 1 :]


def _apart(mentions: Sequence[Span]) -> list[Span]:
    """Spans that do not overlap, the earlier and longer ones."""
    kept: list[Span] = []
    for span in mentions:
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
    return kept


def _corrected(text: Sequence[Token], wanted: Sequence[Wanted], reading: Reading) -> Sequence[Token]:
    """What stands after the last correction."""
    named = spans(text, wanted)
    for end, strong in reversed(denial.corrections(text)):
        before = any(not token.skip and token.text not in FUNCTION for token in text[:end])
        if not before or any(span.start < end < span.end or span.start < end <= span.end for span in named):
            continue  # nothing to correct, or words of the answer itself
        if strong or _names_something(text, end, named, reading):
            return text[end:]
    return text


def _names_something(text: Sequence[Token], start: int, named: Sequence[Span], reading: Reading) -> bool:
    """Whether the sentence after a place names an answer or another candidate."""
    end = next((place for place in range(start, len(text)) if text[place].text in _SENTENCE_ENDS), len(text))
    if any(start <= span.start < end for span in named):
        return True
    like = named[0] if named else None
    words = reading.words(start, end)
    return like is not None and reading.candidate(words, like)


class _Claim:
    """One response and what it says of each answer it names."""

    def __init__(
        self, text: Sequence[Token], mentions: Sequence[Span], asked: Sequence[Token], cased: bool
    ) -> None:
        self.text, self.mentions, self.asked = text, mentions, asked
        self.reading = Reading(text, asked, cased)
        self.segments = cut(text, mentions)

    def verdict(self, span: Span) -> bool | None:
        """True if the answer is asserted, False if denied, None if it is only mentioned."""
        place = next(
            i for i, segment in enumerate(self.segments) if segment.start <= span.start < segment.end
        )
        clause = self.text[max(self._clause_start(place, span), span.start - FAR) : span.start]
        if denial.denied_before(clause) or denial.denied_behind(self.text[span.end : span.end + NEAR]):
            return False
        if "nor" in self.segments[place].sep:
            return False
        if "unless" in self.segments[place].sep:
            return None
        sentence = self._sentence(span)
        if denial.supposed(self.text[self._sense_start(place) : span.start], self.text[span.end :]):
            return None
        if denial.inquires(sentence):
            return None
        before = self.text[max(0, span.start - NEAR) : span.start]
        forms = frozenset(form for token in self.asked for form in token.own)
        if denial.related(before, forms, span.numeric) or self._other_measure(span, forms):
            return None
        if self._extended(span) or self._echoed(span) or self._belongs_to(place, span):
            return None
        if self._other_event(place, span, forms) or self._conceded(place, span):
            return None
        if self._counts_points(place, span) or self.reading.of_another(self.segments[place]):
            return None
        return True

    def _clause_start(self, place: int, span: Span) -> int:
        """Where the clause of a mention begins; `not Lyon, Paris or Nice` is one clause."""
        segments = self.segments
        first = place
        rest = self.reading.words(segments[place].start, span.start)
        follows = segments[place + 1].sep if place + 1 < len(segments) else frozenset[str]()
        if any(not token.skip for token in rest) or not {"or", "nor"} & (segments[place].sep | follows):
            return segments[first].start
        while first and segments[first].sep <= {",", "or", "nor", "and"}:
            first -= 1
            if not self.reading.bare(self.reading.words(segments[first].start, segments[first].end)):
                break
        return segments[first].start

    def _sense_start(self, place: int) -> int:
        """Where the clause begins if commas end none: `at first, I thought it was Paris`."""
        while place and self.segments[place].sep <= {",", "and", "or", '"'} and not self._full(place - 1):
            place -= 1
        return self.segments[place].start

    def _full(self, place: int) -> bool:
        """Whether a segment names an answer or a candidate itself, so that what it says is said of that."""
        segment = self.segments[place]
        return bool(self.reading.content(self.reading.words(segment.start, segment.end)))

    def _sentence(self, span: Span) -> Sequence[Token]:
        start, end = span.start, span.end
        while start and self.text[start - 1].text not in _SENTENCE_ENDS:
            start -= 1
        while end < len(self.text) and self.text[end].text not in _SENTENCE_ENDS:
            end += 1
        return self.text[start : end + 1]

    def _other_measure(self, span: Span, asked: frozenset[str]) -> bool:
        """A number with a percent or currency sign that neither the answer nor the question has; or half of a range."""
        if not span.numeric or span.end >= len(self.text):
            return False
        after = self.text[span.end]
        if after.text == "to" and span.end + 1 < len(self.text) and self.text[span.end + 1].kind == "number":
            return True
        if after.text == "percent":
            return not asked & _ASKS_SHARE
        return after.text in _MONEY and not asked & _ASKS_MONEY

    def _extended(self, span: Span) -> bool:
        """Whether the answer is part of a longer name: Paris Hilton, George Washington Carver."""
        if not self.reading.cased:
            return self._in_run(span)
        if not self.reading.named(span) or span.numeric:
            return False
        after = self.text[span.end] if span.end < len(self.text) else None
        if after is not None and self._name(after):
            return True
        first, earlier = span.start, 0
        while first and self._name(self.text[first - 1]):
            first, earlier = first - 1, earlier + 1
        return earlier > MOST_FIRST_NAMES

    def _belongs_to(self, place: int, span: Span) -> bool:
        """Whether something else is described by the answer: `Phoenix, who followed Ledger`, `Grant's wife`."""
        after = self.text[span.end].text if span.end < len(self.text) else ""
        if self.text[span.end - 1].raw.endswith("s") and "'" in self.text[span.end - 1].raw and after in _KIN:
            return True
        segment = self.segments[place]
        opening = [token.text for token in self.text[segment.start : span.start]]
        described = (
            bool(opening) and opening[0] in _RELATIVES or (opening[:1] in _DETERMINERS and "of" in opening)
        )
        if not place or not described:
            return False
        earlier = self.segments[place - 1]
        words = self.reading.words(earlier.start, earlier.end)
        return self.reading.bare(words) and self.reading.candidate(words, span)

    def _other_event(self, place: int, span: Span, asked: frozenset[str]) -> bool:
        """`He was born in [1564] and died in 1616` to a question about his death; `[Trump] lost to Biden`."""
        segment = self.segments[place]
        before = [token.text for token in self.text[segment.start : span.start]]
        for one, other in EVENTS:
            for wanted, unwanted in ((one, other), (other, one)):
                if asked & wanted and not asked & unwanted:
                    said = [text for text in before if text in wanted | unwanted]
                    if said and said[-1] in unwanted:
                        return True
        after = self.text[span.end].text if span.end < len(self.text) else ""
        return (bool(asked & WINNING) and after in LOSING) or (bool(asked & LOSING) and after in WINNING)

    def _conceded(self, place: int, span: Span) -> bool:
        """`Portuguese, although [Spanish] is spoken nearby`."""
        segment = self.segments[place]
        if not place or not {"although", "though"} & segment.sep:
            return False
        earlier = self.segments[place - 1]
        words = self.reading.words(earlier.start, earlier.end)
        return self.reading.bare(words) and self.reading.candidate(words, span)

    def _counts_points(self, place: int, span: Span) -> bool:
        """`First, let me think.` is no ordinal."""
        segment = self.segments[place]
        alone = (segment.start, segment.end) == (span.start, span.end) and "st" in self.text[span.start].text
        after = self.segments[place + 1] if place + 1 < len(self.segments) else None
        return (
            alone and after is not None and any(t.text in VERBS for t in self.text[after.start : after.end])
        )

    def _name(self, token: Token) -> bool:
        """A word with a capital that is neither asked, a title, a kind of place, nor a region."""
        return (
            token.kind == "word"
            and token.raw[:1].isupper()
            and token.text not in FUNCTION | GENERIC | TITLES | REGIONS | MONTHS.keys() | UNITS.keys()
            and not token.own & self.reading.asked
            and not token.later
        )

    def _in_run(self, span: Span) -> bool:
        """Without capitals: names run together, as in `paris london rome berlin`."""
        run = [span.start, span.end]
        while run[0] > span.start - NEAR and run[0] and not self._ends_run(self.text[run[0] - 1]):
            run[0] -= 1
        while run[1] < min(len(self.text), span.end + NEAR) and not self._ends_run(self.text[run[1]]):
            run[1] += 1
        others = self.reading.content([*self.text[run[0] : span.start], *self.text[span.end : run[1]]])
        return sum(token.kind == "word" for token in others) > MOST_FIRST_NAMES

    def _ends_run(self, token: Token) -> bool:
        return token.kind == "mark" or (token.text in FUNCTION and not token.skip)

    def _echoed(self, span: Span) -> bool:
        """Whether the answer stands there only because the question's words are repeated."""
        first, last = self._repeated(span)
        words = [*self.text[first : span.start], *self.text[span.end : last]]
        content = [token for token in words if token.text not in FUNCTION]
        if not content:
            return False
        choice = any(
            a.text in ("or", "and") or b.text in ("or", "and") for a, b in pairwise(self.text[first:last])
        )
        if choice or len(content) > 1 and last - first > len(self.asked) // 2:
            return True
        outside = [*self.text[:first], *self.text[last:]]
        return bool(self.reading.content(outside)) and not any(token.text == "or" for token in self.asked)

    def _repeated(self, span: Span) -> tuple[int, int]:
        """The longest stretch around a span that stands in the question word for word."""
        asked = [token.text for token in self.asked if token.kind != "mark"]
        best = (span.start, span.end)
        here = [place for place, token in enumerate(self.text) if token.kind != "mark"]
        inside = [rank for rank, place in enumerate(here) if span.start <= place < span.end]
        for offset in range(len(asked)):
            low, high = inside[0], inside[-1]
            if asked[offset : offset + len(inside)] != [self.text[here[rank]].text for rank in inside]:
                continue
            a = offset
            while low and a and asked[a - 1] == self.text[here[low - 1]].text:
                low, a = low - 1, a - 1
            a = offset + len(inside)
            while high + 1 < len(here) and a < len(asked) and asked[a] == self.text[here[high + 1]].text:
                high, a = high + 1, a + 1
            if here[high] + 1 - here[low] > best[1] - best[0]:
                best = (here[low], here[high] + 1)
        return best

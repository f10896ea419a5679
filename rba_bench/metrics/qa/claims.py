"""English phrases that take an answer back, deny it, or name it without asserting it, as patterns over token texts.

Texts are joined by single blanks with one at each end; contractions are written out and marks are words of their own
(`paris ? no , lyon .`).

Whether an English response asserts one of the right answers and no other candidate.

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

import re
from collections.abc import Sequence
from itertools import pairwise

from rba_bench.metrics.qa import rivals
from rba_bench.metrics.qa.segments import POLAR, Reading, cut_segments, is_cased, is_meant
from rba_bench.metrics.qa.spans import Span, Wanted, spans
from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import (
    EVENTS,
    FUNCTION,
    GENERIC,
    LOSING,
    MONTHS,
    REGIONS,
    TITLES,
    UNITS,
    VERBS,
    WINNING,
    words,
)

# Phrases with a negative word that deny nothing
_HARMLESS = re.compile(
    r" (?:(?:there is )?(?:no|little) (?:doubt|question)(?: about (?:it|that))?|without (?:a |any )?(?:doubt"
    r"|question)"
    r"|not (?:only|just|merely|simply|surprisingly)|(?:none|no) other than|nothing (?:but|other than|else than)"
    r"|no (?:one|body) (?:else )?(?:but|other than)|nobody (?:else )?(?:but|other than)|if i am not mistaken"
    r"|not to mention|can not be any(?:thing|one|body) (?:but|other than)|why not|can not go wrong with"
    r"|(?:is|was|would|could|might) not (?:it|that|this)(?: be)?|not (?:in|open to) (?:any )?doubt"
    r"|do not doubt|not doubt|not wrong|not mistaken|not long ago|not surprising)(?= )"
)
_DENIED = re.compile(
    r" (?:not|never|neither|hardly|doubts?|doubtful|deny|denies|denied|unlikely|wrong|incorrect|false|mistaken"
    r"|mistake|misconception|impossible|disagree|rules? out|ruled out|rule out"
    r"|confused?(?: it| this| that| them)? with|far from"
    r"|no (?:way|chance)"
    r"|refuses?|rejects?|rejected|dismiss(?:ed)?|excludes?|excluded|eliminated?|nobody"
    r"|no one|no 1|myths?"
    r"|(?:anything|everything|anywhere|anyone|all) (?:but|except))(?= )"
)
_EXCEPTED = re.compile(
    r" (?:without|except(?: for)?|excluding|unlike|(?:rather|other) than|instead of|apart from|aside from|besides"
    r"|opposed to|in place of|contrary to|beside|nor|no)(?= )"
)
_DENIED_BEHIND = re.compile(
    r" (?:(?:is|was|are|were|do|does|did|has|had|have|can|could|would|will|should|must|might|may)"
    r"(?: (?:definitely|certainly|probably|actually|clearly|surely|really))? not(?! (?:only|just|merely))"
    r"|(?:is|was|would be|seems|sounds|are|were)(?: (?:just|simply|clearly|definitely|probably|also|the))*"
    r" (?:wrong|incorrect|false|unlikely|impossible|out|excluded|ruled out|mistaken|a (?:common )?(?:mistake"
    r"|misconception"
    r"|myth|error))|, (?:which is|that is) (?:wrong|incorrect|false|not)|[?] not"
    r"|(?:(?:[?.!,—;…]|\.\.+) )*(?:but )?(?:i do not (?:think|believe) so|i doubt (?:it|that)|(?:certainly|definitely"
    r"|absolutely) not"
    r"|not at all|no way|(?:that|this|it) is (?:wrong|incorrect|false|not (?:right|correct|true|it|so|the answer))"
    r"|wrong|incorrect|false|no|not true|not really|no chance|not likely|never)(?= [.!,]| $)) "
)
_SUPPOSED = re.compile(
    r" (?:(?:you|one|1) (?:might|may|could|would) (?:have )?(?:think|guess|say|expect|assume"
    r"|believe|thought"
    r"|guessed|said|expected|assumed|answer)|i (?:first |initially |once |always |had )?(?:thought|assumed|believed)"
    r"|i would have (?:said|thought|guessed)|used to (?:think|believe|say|be)|at first|my first (?:guess"
    r"|thought|instinct)"
    r"|initially|mistakenly|wrongly|falsely|erroneously|incorrectly|if (?:it|that|this) (?:were|was|is|had been)"
    r"|are you asking|do you mean|did you mean|you asked|you said|you mentioned|whether)(?= )"
)
_SAID = re.compile(
    r" (?:many|some|people|others|often|commonly|they|several|everyone|popular|sometimes|most)(?: \S+){0,3}?"
    r" (?:think|thinks|say|says|said|believe|believes|believed|claim|claims|assume|thought|answer|guess"
    r"|credit|credits|attribute)(?= )"
)
_CONTRAST = re.compile(r" (?:but|however|actually|others|although|really|wrong|in fact|in reality) ")
_RELATED = re.compile(
    r" (?:near|nearby|outside|than|against|versus|vs|beside|beyond|bordering|borders?|bordered by"
    r"|neighbou?ring|resembles?"
    r"|similar to|close to|next to|adjacent to|compared (?:to|with)|different from|unlike|like|beats?"
    r"|defeated|defeats"
    r"|(?:north|south|east|west|northeast|northwest|southeast|southwest) of|miles from|kilometers from|influenced by"
    r"|(?:contemporary|rival|friend|colleague|student|pupil|teacher|wife|husband|son|daughter|brother|sister|father"
    r"|mother|successor|predecessor|opposite|part|suburb|cousin|fan|admirer) of)(?: (?:the|a|an|city of|town of))* $"
)
_BOUNDED = re.compile(
    r" (?:before|after|prior to|later than|earlier than|(?:more|less|fewer|greater|smaller|higher|lower) than"
    r"|under|below"
    r"|up to)(?: the)? $"
)
_LIKE_FILLER = re.compile(r" (?:sounds|looks|something|was|is|it) like $")
_BETWEEN = re.compile(r" between \S+(?: \S+){0,3} and $| between $")
_STRONG = re.compile(
    r" (?:no ,? ?wait|wait ,? ?no|no no|scratch that|strike that|correction|or rather|i meant|i should say"
    r"|let me correct(?: myself| that)?|on second thoughts?|i take that back|i misspoke|my mistake|never ?mind"
    r"|(?<=[?.!,;—…] )no [,.!—])(?= )"
)
_WEAK = re.compile(r" (?:actually|sorry|i mean|wait|hold on|hmm+|er|well)(?= )")
_FINAL = re.compile(
    r" (?:the|my|your)(?: (?:final|right|correct|best|short|actual|real|true))* (?:answer|guess)"
    r"(?: to (?:your|the|this|that) question)? (?:is|would be|will be|must be|should be|was|:)(?= )(?! not)"
)
_NEW_CLAUSE = re.compile(r" (\S+) ((?:it|that|this|he|she|they) (?:is|was|are|were|will be|would be))(?= )")
_TAKES_CLAUSE = words(
    "sure certain way chance evidence proof reason idea case convinced true false wrong that claim"
)
_INQUIRY = re.compile(
    r" (?:do|did|does|are|were|can|could|would|will|what|which|who|where|when|how|why|have|has|shall|should"
    r"|(?:is|was)(?! (?:not|it|that|this|he|she) ))(?= )"
)
_GUESS = re.compile(r" (?:could|would|might)(?: not)? (?:it|that|this) be(?= )")


def joined(tokens: Sequence[Token]) -> str:
    """Texts of tokens with a blank around each."""
    return f" {' '.join(token.text for token in tokens)} "


def _place(text: str, position: int) -> int:
    """Number of tokens before a position of a joined text."""
    return text.count(" ", 0, position + 1) - 1


def corrections(tokens: Sequence[Token]) -> list[tuple[int, bool]]:
    """Where a correction ends, and whether its words can be nothing else."""
    text = joined(tokens)
    strong = [(_place(text, result.end()), True) for result in _STRONG.finditer(text)]
    weak = [(_place(text, result.end()), False) for result in _WEAK.finditer(text)]
    return sorted(strong + weak)


def final_answer(tokens: Sequence[Token]) -> int:
    """Where the last `the answer is` begins; 0 if there is none."""
    text = joined(tokens)
    starts = [result.start() for result in _FINAL.finditer(text)]
    return _place(text, starts[-1]) if starts else 0


def denied_before(clause: Sequence[Token]) -> bool:
    """Whether the words of a clause before an answer deny it."""
    text = _HARMLESS.sub(" ", joined(clause))
    for begins in reversed(list(_NEW_CLAUSE.finditer(text))):
        ended = re.search(r" (?:is|was|are|were) not ", text[: begins.start()])
        if ended and begins[1] not in VERBS | FUNCTION | _TAKES_CLAUSE:
            text = text[begins.start(2) - 1 :]  # it is not Lyon it is ...
            break
    if _DENIED.search(text):
        return True
    result = list(_EXCEPTED.finditer(text))
    return bool(result) and not any(word in VERBS for word in text[result[-1].end() :].split())


def denied_behind(rest: Sequence[Token]) -> bool:
    """Whether the words behind an answer deny it: `Paris is not the capital`, `Paris would be wrong`."""
    return _DENIED_BEHIND.match(joined([token for token in rest if token.text != '"'])) is not None


def supposed(clause: Sequence[Token], later: Sequence[Token]) -> bool:
    """Whether an answer is only thought of: `you might think`, `some say ..., but`."""
    text = joined(clause)
    if _SUPPOSED.search(text):
        return True
    return bool(_SAID.search(text)) and bool(_CONTRAST.search(joined(later)))


def related(before: Sequence[Token], asked: frozenset[str], numeric: bool) -> bool:
    """Whether an answer is only what something else is compared with: `near Paris`, `bigger than Paris`."""
    text = _HARMLESS.sub(" ", joined(before))
    if _BETWEEN.search(text):
        return "between" not in asked
    if numeric:
        return _BOUNDED.search(text) is not None
    result = _RELATED.search(text)
    if not result or _LIKE_FILLER.search(text):
        return False
    return not set(result[0].split()) - {"the", "a", "an", "of", "to"} <= asked


def inquires(sentence: Sequence[Token]) -> bool:
    """Whether a sentence asks back instead of guessing."""
    text = joined(sentence)
    return text.rstrip().endswith("?") and bool(_INQUIRY.match(text)) and not _GUESS.match(text)


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


def asserts_english(text: Sequence[Token], wanted: Sequence[Wanted], asked: Sequence[Token]) -> bool:
    """Whether a response asserts an answer and no other candidate; see above."""
    polar = any(token.text in POLAR for each in wanted for token in each.tokens)
    cased = is_cased(text)
    text = text if polar else text[final_answer(text) :]
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
    for end, strong in reversed(corrections(text)):
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
        self.segments = cut_segments(text, mentions)

    def verdict(self, span: Span) -> bool | None:
        """True if the answer is asserted, False if denied, None if it is only mentioned."""
        place = next(
            i for i, segment in enumerate(self.segments) if segment.start <= span.start < segment.end
        )
        clause = self.text[max(self._clause_start(place, span), span.start - FAR) : span.start]
        if denied_before(clause) or denied_behind(self.text[span.end : span.end + NEAR]):
            return False
        if "nor" in self.segments[place].sep:
            return False
        if "unless" in self.segments[place].sep:
            return None
        sentence = self._sentence(span)
        if supposed(self.text[self._sense_start(place) : span.start], self.text[span.end :]):
            return None
        if inquires(sentence):
            return None
        before = self.text[max(0, span.start - NEAR) : span.start]
        forms = frozenset(form for token in self.asked for form in token.own)
        if related(before, forms, span.numeric) or self._other_measure(span, forms):
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

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

The phrases are patterns over the texts of tokens joined by single blanks, with one at each end; contractions are
written out and marks are words of their own (` paris ? no , lyon . `).
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from rba_bench.metrics.qa.rivals import has_no_rival
from rba_bench.metrics.qa.segments import (
    POLAR,
    Reading,
    Segment,
    cut_segments,
    english_separators,
    is_cased,
    is_meant_as_name,
)
from rba_bench.metrics.qa.spans import AnswerForm, Span, find_spans
from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import (
    ARTICLES,
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
    word_set,
)

# Phrases with a negative word that deny nothing
_HARMLESS = re.compile(
    r" (?:(?:there is )?(?:no|little) (?:doubt|question)(?: about (?:it|that))?|without (?:a |any )?(?:doubt"
    r"|question)|not (?:only|just|merely|simply|surprisingly)|(?:none|no) other than|nothing (?:but|other than"
    r"|else than)|no (?:one|body) (?:else )?(?:but|other than)|nobody (?:else )?(?:but|other than)"
    r"|if i am not mistaken|not to mention|can not be any(?:thing|one|body) (?:but|other than)|why not"
    r"|can not go wrong with|(?:is|was|would|could|might) not (?:it|that|this)(?: be)?|not (?:in"
    r"|open to) (?:any )?doubt|do not doubt|not doubt|not wrong|not mistaken|not long ago|not surprising)(?= )"
)
_DENIED = re.compile(
    r" (?:not|never|neither|hardly|doubts?|doubtful|deny|denies|denied|unlikely|wrong|incorrect|false|mistaken"
    r"|mistake|misconception|impossible|disagree|rules? out|ruled out|rule out|confused?(?: it| this| that"
    r"| them)? with|far from|no (?:way|chance)|refuses?|rejects?|rejected|dismiss(?:ed)?|excludes?|excluded"
    r"|eliminated?|nobody|no one|no 1|myths?|(?:anything|everything|anywhere|anyone|all) (?:but|except))(?= )"
)
_EXCEPTED = re.compile(
    r" (?:without|except(?: for)?|excluding|unlike|(?:rather|other) than|instead of|apart from|aside from|besides"
    r"|opposed to|in place of|contrary to|beside|nor|no)(?= )"
)
_DENIED_BEHIND = re.compile(
    r" (?:(?:is|was|are|were|do|does|did|has|had|have|can|could|would|will|should|must|might|may)(?: (?:definitely"
    r"|certainly|probably|actually|clearly|surely|really))? not(?! (?:only|just|merely))|(?:is|was|would be|seems"
    r"|sounds|are|were)(?: (?:just|simply|clearly|definitely|probably|also|the))* (?:wrong|incorrect|false|unlikely"
    r"|impossible|out|excluded|ruled out|mistaken|a (?:common )?(?:mistake|misconception|myth|error))|, (?:which is"
    r"|that is) (?:wrong|incorrect|false|not)|[?] not|(?:(?:[?.!,—;…]|\.\.+) )*(?:but )?(?:i do not (?:think"
    r"|believe) so|i doubt (?:it|that)|(?:certainly|definitely|absolutely) not|not at all|no way|(?:that|this"
    r"|it) is (?:wrong|incorrect|false|not (?:right|correct|true|it|so|the answer))|wrong|incorrect|false|no|not true"
    r"|not really|no chance|not likely|never)(?= [.!,]| $)) "
)
_SUPPOSED = re.compile(
    r" (?:(?:you|one|1) (?:might|may|could|would) (?:have )?(?:think|guess|say|expect|assume|believe|thought|guessed"
    r"|said|expected|assumed|answer)|i (?:first |initially |once |always |had )?(?:thought|assumed|believed)"
    r"|i would have (?:said|thought|guessed)|used to (?:think|believe|say|be)|at first|my first (?:guess|thought"
    r"|instinct)|initially|mistakenly|wrongly|falsely|erroneously|incorrectly|if (?:it|that|this) (?:were|was|is"
    r"|had been)|are you asking|do you mean|did you mean|you asked|you said|you mentioned|whether)(?= )"
)
_SAID = re.compile(
    r" (?:many|some|people|others|often|commonly|they|several|everyone|popular|sometimes|most)(?: \S+){0,3}? (?:think"
    r"|thinks|say|says|said|believe|believes|believed|claim|claims|assume|thought|answer|guess|credit|credits"
    r"|attribute)(?= )"
)
_CONTRAST = re.compile(r" (?:but|however|actually|others|although|really|wrong|in fact|in reality) ")
_RELATED = re.compile(
    r" (?:near|nearby|outside|than|against|versus|vs|beside|beyond|bordering|borders?|bordered by|neighbou?ring"
    r"|resembles?|similar to|close to|next to|adjacent to|compared (?:to|with)|different from|unlike|like|beats?"
    r"|defeated|defeats|(?:north|south|east|west|northeast|northwest|southeast|southwest) of|miles from"
    r"|kilometers from|influenced by|(?:contemporary|rival|friend|colleague|student|pupil|teacher|wife|husband|son"
    r"|daughter|brother|sister|father|mother|successor|predecessor|opposite|part|suburb|cousin|fan"
    r"|admirer) of)(?: (?:the|a|an|city of|town of))* $"
)
_BOUNDED = re.compile(
    r" (?:before|after|prior to|later than|earlier than|(?:more|less|fewer|greater|smaller|higher|lower) than|under"
    r"|below|up to)(?: the)? $"
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
    r" (?:the|my|your)(?: (?:final|right|correct|best|short|actual|real|true))* (?:answer|guess)(?: to (?:your|the"
    r"|this|that) question)? (?:is|would be|will be|must be|should be|was|:)(?= )(?! not)"
)
_NEW_CLAUSE = re.compile(r" (\S+) ((?:it|that|this|he|she|they) (?:is|was|are|were|will be|would be))(?= )")
_TAKES_CLAUSE = word_set(
    "sure certain way chance evidence proof reason idea case convinced true false wrong that claim"
)
_INQUIRY = re.compile(
    r" (?:do|did|does|are|were|can|could|would|will|what|which|who|where|when|how|why|have|has|shall|should|(?:is"
    r"|was)(?! (?:not|it|that|this|he|she) ))(?= )"
)
_GUESS = re.compile(r" (?:could|would|might)(?: not)? (?:it|that|this) be(?= )")

_SENTENCE_ENDS = frozenset({".", "?", "!", "\n", ";"})
_MONEY = frozenset({"dollar", "euro", "pound", "yen", "cent", "rupee"})
_ASKS_MONEY = (
    word_set("cost costs price paid pay worth money much salary earn sell sold bought budget") | _MONEY
)
_ASKS_SHARE = word_set("percent percentage share proportion fraction rate part")
_RELATIVES = word_set("who which whose whom where")
_KIN = word_set(
    "wife husband son daughter brother sister father mother friend rival successor predecessor teacher student"
)
MOST_FIRST_NAMES = 2
FAR = 60  # tokens before an answer that its clause may have
NEAR = 16  # tokens around an answer in which phrases are looked for
MOST_MENTIONS = 5  # at either end of a response; more are a repetition


def asserts_answer(text: Sequence[Token], answers: Sequence[AnswerForm], question: Sequence[Token]) -> bool:
    """Whether a response asserts an answer and no other candidate; see the module."""
    cased = is_cased(text)
    if not any(token.text in POLAR for answer in answers for token in answer.tokens):
        joined = _joined(text)
        if starts := [match.start() for match in _FINAL.finditer(joined)]:
            text = text[_token_index(joined, starts[-1]) :]
        text = _corrected(text, answers, Reading(text, question, cased))
    spans = find_spans(text, answers)
    if spans:
        # What stands after a question that the response asks itself and answers, as in `Bach or Vivaldi? Vivaldi`
        asks = [place for place, token in enumerate(text) if token.text == "?" and place > spans[0].start]
        if asks and any(span.start > asks[-1] for span in spans):
            text = text[asks[-1] + 1 :]
            spans = find_spans(text, answers)
    mentions: list[Span] = []  # that do not overlap: the earlier and longer ones
    for span in spans:
        if is_meant_as_name(span, text) and (not mentions or span.start >= mentions[-1].end):
            mentions.append(span)
    claim = _Claim(text, mentions, question, cased)
    verdicts = [(span, claim.verdict(span)) for span in mentions]
    verdicts = [(span, verdict) for span, verdict in verdicts if verdict is not None]
    if not verdicts or not verdicts[-1][1]:
        return False
    asserted = [span for span, verdict in verdicts if verdict]
    if len(asserted) > 2 * MOST_MENTIONS:
        asserted = asserted[:MOST_MENTIONS] + asserted[-MOST_MENTIONS:]
    return any(has_no_rival(span, mentions, claim.segments, claim.reading) for span in asserted)


def _corrected(text: Sequence[Token], answers: Sequence[AnswerForm], reading: Reading) -> Sequence[Token]:
    """What stands after the last correction."""
    spans, joined = find_spans(text, answers), _joined(text)
    corrections = [
        (_token_index(joined, match.end()), strong)
        for pattern, strong in ((_STRONG, True), (_WEAK, False))
        for match in pattern.finditer(joined)
    ]
    for end, strong in sorted(corrections, reverse=True):
        before = any(not token.skip and token.text not in FUNCTION for token in text[:end])
        if not before or any(span.start < end <= span.end for span in spans):
            continue  # nothing to correct, or words of the answer itself
        ends = (place for place in range(end, len(text)) if text[place].text in _SENTENCE_ENDS)
        stop = next(ends, len(text))
        names_answer = any(end <= span.start < stop for span in spans)
        words = reading.words_between(end, stop)
        if strong or names_answer or (spans and reading.is_candidate(words, spans[0])):
            return text[end:]
    return text


class _Claim:
    """One response and what it says of each answer it names."""

    def __init__(
        self, text: Sequence[Token], mentions: Sequence[Span], question: Sequence[Token], cased: bool
    ) -> None:
        self.text, self.question = text, question
        self.reading = Reading(text, question, cased)
        self.segments = cut_segments(text, mentions, english_separators(text))

    def verdict(self, span: Span) -> bool | None:
        """True if the answer is asserted, False if denied, None if it is only mentioned."""
        place = next(i for i, each in enumerate(self.segments) if each.start <= span.start < each.end)
        segment, behind = self.segments[place], self.text[span.end :]
        clause = self.text[max(self._clause_start(place, span), span.start - FAR) : span.start]
        near_behind = _joined([token for token in behind[:NEAR] if token.text != '"'])
        if _is_denied_before(clause) or _DENIED_BEHIND.match(near_behind) or "nor" in segment.sep:
            return False
        forms = frozenset(form for token in self.question for form in token.forms)
        before = self.text[max(0, span.start - NEAR) : span.start]
        only_mentioned = (
            "unless" in segment.sep
            or self._is_supposed(place, span)
            or self._is_asked_back(span)
            or _is_compared(before, forms, span.numeric)
            or self._is_other_measure(span, forms)
            or self._is_part_of_name(span)
            or self._is_echo(span)
            or self._is_description(place, span)
            or self._is_other_event(segment, span, forms)
            # `Portuguese, although [Spanish] is spoken nearby`
            or ({"although", "though"} & segment.sep and self._follows_candidate(place, span))
            or self._is_list_number(place, span)
            or self.reading.tells_of_another(segment)
        )
        return None if only_mentioned else True

    def _clause_start(self, place: int, span: Span) -> int:
        """Where the clause of a mention begins; `not Lyon, Paris or Nice` is one clause."""
        segments = self.segments
        first = place
        before = self.reading.words_between(segments[place].start, span.start)
        next_sep = segments[place + 1].sep if place + 1 < len(segments) else frozenset[str]()
        if any(not token.skip for token in before) or not {"or", "nor"} & (segments[place].sep | next_sep):
            return segments[first].start
        while first and segments[first].sep <= {",", "or", "nor", "and"}:
            first -= 1
            if not self.reading.is_bare_name(self._words_of(segments[first])):
                break
        return segments[first].start

    def _words_of(self, segment: Segment) -> list[Token]:
        return self.reading.words_between(segment.start, segment.end)

    def _is_supposed(self, place: int, span: Span) -> bool:
        """Whether an answer is only thought of: `you might think`, `some say ..., but`."""
        # Commas end no clause here (`at first, I thought it was Paris`), unless the segment before names a candidate.
        while (
            place
            and self.segments[place].sep <= {",", "and", "or", '"'}
            and not self.reading.content(self._words_of(self.segments[place - 1]))
        ):
            place -= 1
        clause = _joined(self.text[self.segments[place].start : span.start])
        if _SUPPOSED.search(clause):
            return True
        return bool(_SAID.search(clause)) and bool(_CONTRAST.search(_joined(self.text[span.end :])))

    def _is_asked_back(self, span: Span) -> bool:
        """Whether the sentence asks instead of guessing."""
        start, end = span.start, span.end
        while start and self.text[start - 1].text not in _SENTENCE_ENDS:
            start -= 1
        while end < len(self.text) and self.text[end].text not in _SENTENCE_ENDS:
            end += 1
        sentence = _joined(self.text[start : end + 1])
        asks = sentence.rstrip().endswith("?") and _INQUIRY.match(sentence)
        return bool(asks) and not _GUESS.match(sentence)

    def _is_other_measure(self, span: Span, question_forms: frozenset[str]) -> bool:
        """A number with a percent or currency sign that neither the answer nor the question has; or half of a range."""
        if not span.numeric or span.end >= len(self.text):
            return False
        after = self.text[span.end]
        if after.text == "to" and span.end + 1 < len(self.text) and self.text[span.end + 1].kind == "number":
            return True
        if after.text == "percent":
            return not question_forms & _ASKS_SHARE
        return after.text in _MONEY and not question_forms & _ASKS_MONEY

    def _is_part_of_name(self, span: Span) -> bool:
        """Whether the answer is part of a longer name: Paris Hilton, George Washington Carver."""
        if not self.reading.cased:
            return self._is_in_run_of_names(span)
        if not self.reading.is_capitalised(span) or span.numeric:
            return False
        if span.end < len(self.text) and self._is_name(self.text[span.end]):
            return True
        first = span.start
        while first and self._is_name(self.text[first - 1]):
            first -= 1
        return span.start - first > MOST_FIRST_NAMES

    def _is_name(self, token: Token) -> bool:
        """A word with a capital that is neither asked, a title, a kind of place, nor a region."""
        return (
            token.kind == "word"
            and token.raw[:1].isupper()
            and token.text not in FUNCTION | GENERIC | TITLES | REGIONS | MONTHS.keys() | UNITS.keys()
            and not token.forms & self.reading.question_forms
            and not token.later_forms
        )

    def _is_in_run_of_names(self, span: Span) -> bool:
        """Without capitals: names run together, as in `paris london rome berlin`."""

        def ends_run(token: Token) -> bool:
            return token.kind == "mark" or (token.text in FUNCTION and not token.skip)

        low, high = span.start, span.end
        while low > span.start - NEAR and low and not ends_run(self.text[low - 1]):
            low -= 1
        while high < min(len(self.text), span.end + NEAR) and not ends_run(self.text[high]):
            high += 1
        others = self.reading.content([*self.text[low : span.start], *self.text[span.end : high]])
        return sum(token.kind == "word" for token in others) > MOST_FIRST_NAMES

    def _is_description(self, place: int, span: Span) -> bool:
        """Whether something else is described by the answer: `Phoenix, who followed Ledger`, `Grant's wife`."""
        after = self.text[span.end].text if span.end < len(self.text) else ""
        last = self.text[span.end - 1].raw
        if last.endswith("s") and "'" in last and after in _KIN:
            return True
        opening = [token.text for token in self.text[self.segments[place].start : span.start]]
        described = opening and (opening[0] in _RELATIVES or (opening[0] in ARTICLES and "of" in opening))
        return bool(described) and self._follows_candidate(place, span)

    def _follows_candidate(self, place: int, span: Span) -> bool:
        """Whether the segment before is another candidate."""
        words = self._words_of(self.segments[place - 1]) if place else []
        return self.reading.is_bare_name(words) and self.reading.is_candidate(words, span)

    def _is_other_event(self, segment: Segment, span: Span, question_forms: frozenset[str]) -> bool:
        """`He was born in [1564] and died in 1616` to a question about his death; `[Trump] lost to Biden`."""
        before = [token.text for token in self.text[segment.start : span.start]]
        for first, second in EVENTS:
            for event, opposite in ((first, second), (second, first)):
                if question_forms & event and not question_forms & opposite:
                    verbs = [text for text in before if text in event | opposite]
                    if verbs and verbs[-1] in opposite:
                        return True
        after = self.text[span.end].text if span.end < len(self.text) else ""
        asks_winner, asks_loser = bool(question_forms & WINNING), bool(question_forms & LOSING)
        return (asks_winner and after in LOSING) or (asks_loser and after in WINNING)

    def _is_list_number(self, place: int, span: Span) -> bool:
        """`First, let me think.` is no ordinal."""
        segment = self.segments[place]
        if (segment.start, segment.end) != (span.start, span.end) or "st" not in self.text[span.start].text:
            return False
        return any(
            token.text in VERBS
            for after in self.segments[place + 1 : place + 2]
            for token in self.text[after.start : after.end]
        )

    def _is_echo(self, span: Span) -> bool:
        """Whether the answer stands there only because the question's words are repeated."""
        first, last = self._repetition(span)
        words = [*self.text[first : span.start], *self.text[span.end : last]]
        content = [token for token in words if token.text not in FUNCTION]
        if not content:
            return False
        choice = any({a.text, b.text} & {"or", "and"} for a, b in pairwise(self.text[first:last]))
        if choice or len(content) > 1 and last - first > len(self.question) // 2:
            return True
        outside = [*self.text[:first], *self.text[last:]]
        return bool(self.reading.content(outside)) and not any(token.text == "or" for token in self.question)

    def _repetition(self, span: Span) -> tuple[int, int]:
        """The longest stretch around a span that stands in the question word for word."""
        question = [token.text for token in self.question if token.kind != "mark"]
        best = (span.start, span.end)
        here = [place for place, token in enumerate(self.text) if token.kind != "mark"]
        inside = [rank for rank, place in enumerate(here) if span.start <= place < span.end]
        for offset in range(len(question)):
            low, high = inside[0], inside[-1]
            if question[offset : offset + len(inside)] != [self.text[here[rank]].text for rank in inside]:
                continue
            a = offset
            while low and a and question[a - 1] == self.text[here[low - 1]].text:
                low, a = low - 1, a - 1
            a = offset + len(inside)
            while (
                high + 1 < len(here) and a < len(question) and question[a] == self.text[here[high + 1]].text
            ):
                high, a = high + 1, a + 1
            if here[high] + 1 - here[low] > best[1] - best[0]:
                best = (here[low], here[high] + 1)
        return best


def _joined(tokens: Sequence[Token]) -> str:
    return f" {' '.join(token.text for token in tokens)} "


def _token_index(joined: str, position: int) -> int:
    """Number of tokens before a position of a joined text."""
    return joined.count(" ", 0, position + 1) - 1


def _is_denied_before(clause: Sequence[Token]) -> bool:
    """Whether the words of a clause before an answer deny it."""
    text = _HARMLESS.sub(" ", _joined(clause))
    for match in reversed(list(_NEW_CLAUSE.finditer(text))):
        negation = re.search(r" (?:is|was|are|were) not ", text[: match.start()])
        if negation and match[1] not in VERBS | FUNCTION | _TAKES_CLAUSE:
            text = text[match.start(2) - 1 :]  # it is not Lyon it is ...
            break
    if _DENIED.search(text):
        return True
    exceptions = list(_EXCEPTED.finditer(text))
    return bool(exceptions) and not any(word in VERBS for word in text[exceptions[-1].end() :].split())


def _is_compared(before: Sequence[Token], question_forms: frozenset[str], numeric: bool) -> bool:
    """Whether an answer is only what something else is compared with: `near Paris`, `bigger than Paris`."""
    text = _HARMLESS.sub(" ", _joined(before))
    if _BETWEEN.search(text):
        return "between" not in question_forms
    if numeric:
        return _BOUNDED.search(text) is not None
    match = _RELATED.search(text)
    if not match or _LIKE_FILLER.search(text):
        return False
    return not set(match[0].split()) - {"the", "a", "an", "of", "to"} <= question_forms

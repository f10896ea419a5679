"""Candidates that an English response names beside an asserted answer."""

from collections.abc import Sequence

from rba_bench.metrics.qa.segments import CONTRAST, Reading, Segment, is_participle
from rba_bench.metrics.qa.spans import Span
from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import ARTICLES, FUNCTION, NEUTRAL, PREPOSITIONS, REGIONS, VERBS, word_set

_LISTS = word_set(', / | ; . ? ! — .. ... … ( ) [ ] " • and or nor plus versus vs') | {"\n"}
_COPULAS = word_set("is was are were be called named")
_OPENERS = _COPULAS | word_set("it that in maybe perhaps")
_CONCEDES = frozenset({"although", "though"})
_MODALS = word_set("could might may would must can")
_SUBJECTS = word_set("it that this he she they answer")
_COMMAS = frozenset({",", "or", ";", "/", "|", "•"})
_STOPS = frozenset({".", "!", "?", ":", "\n"})
RIGHT_PER_WRONG = 3  # in a list of several right answers
LONG_LIST = 5  # separators in one sentence, or line breaks
LONG_RUN = 12  # words without a mark
SENTENCE_SHARE = 0.25  # of function words and verbs, which sentences have more of


def has_no_rival(span: Span, mentions: Sequence[Span], segments: Sequence[Segment], reading: Reading) -> bool:
    """Whether no other candidate is asserted beside the answer, or few beside several right ones."""
    place = next(i for i, segment in enumerate(segments) if segment.start <= span.start < segment.end)
    right_answers, wrong = _list_members(span, place, mentions, segments, reading)
    wrong += _count_parallel(span, place, mentions, segments, reading)
    rights = (reading.text[right.start : right.end] for right in [span, *right_answers])
    texts = {tuple(token.text for token in tokens) for tokens in rights}
    if _in_long_list(span, mentions, reading) or _in_word_salad(span, reading):
        return False
    return wrong == 0 or (len(texts) > 1 and wrong * RIGHT_PER_WRONG <= len(texts))


def _in_long_list(span: Span, mentions: Sequence[Span], reading: Reading) -> bool:
    """Whether the answer is one of many entries, of whatever kind, most of them wrong."""
    inside = {place for mention in mentions for place in range(mention.start, mention.end)}
    for separators, ends in ((_COMMAS, _STOPS), (frozenset({"\n"}), frozenset[str]())):
        low, high = span.start, span.end
        while low and reading.text[low - 1].text not in ends:
            low -= 1
        while high < len(reading.text) and reading.text[high].text not in ends:
            high += 1
        stretch = enumerate(reading.text[low:high], low)
        count = sum(token.text in separators and place not in inside for place, token in stretch)
        right = sum(low <= mention.start < high for mention in mentions)
        if count >= LONG_LIST and count + 1 > right * (1 + 1 / RIGHT_PER_WRONG):
            return True
    return False


def _in_word_salad(span: Span, reading: Reading) -> bool:
    """Whether the answer stands in a long run of words that is no sentence: names without anything between them."""
    low, high = span.start, span.end
    while low and reading.text[low - 1].kind != "mark":
        low -= 1
    while high < len(reading.text) and reading.text[high].kind != "mark":
        high += 1
    words = [*reading.text[low : span.start], *reading.text[span.end : high]]
    plain = sum(token.text in FUNCTION or token.text in VERBS for token in words)
    return len(words) > LONG_RUN and plain < SENTENCE_SHARE * len(words)


def _list_members(
    span: Span, place: int, mentions: Sequence[Span], segments: Sequence[Segment], reading: Reading
) -> tuple[list[Span], int]:
    """Right answers and other candidates in one list with the answer."""
    segment = segments[place]
    before = reading.words_between(segment.start, span.start)
    behind = reading.words_between(span.end, segment.end)
    bare = reading.is_bare_name(reading.words_between(segment.start, segment.end)) or not before
    right: list[Span] = []
    rivals: list[tuple[int, list[Token]]] = []
    if bare or all(token.skip for token in behind):
        for index in range(place + 1, len(segments)):
            if not _add_member(index, segments, span, mentions, reading, right, rivals, forwards=True):
                break
    if all(token.skip or token.text in FUNCTION for token in before) and not _has_verb(before):
        for index in range(place - 1, -1, -1):
            if not _add_member(index, segments, span, mentions, reading, right, rivals, forwards=False):
                break
    if len(rivals) == 1 and _is_description(rivals[0], place, segments, reading, before, behind):
        return right, 0
    return right, len(rivals)


def _has_verb(words: Sequence[Token]) -> bool:
    return any(token.text in VERBS for token in words)


def _add_member(
    index: int,
    segments: Sequence[Segment],
    span: Span,
    mentions: Sequence[Span],
    reading: Reading,
    right: list[Span],
    rivals: list[tuple[int, list[Token]]],
    *,
    forwards: bool,
) -> bool:
    """Reads one more member of the list; False where the list ends."""
    segment = segments[index]
    sep = segment.sep if forwards else segments[index + 1].sep
    if not sep <= _LISTS:
        return False
    if not forwards and any(token.text in ("between", "among") for token in reading.text[: span.start]):
        return False
    words = reading.words_between(segment.start, segment.end)
    if right_answers := [each for each in mentions if segment.start <= each.start < segment.end]:
        right.extend(right_answers)
        return not _has_verb(words)
    if reading.is_bare_name(words):
        near = {token.text for token in reading.text[max(0, span.start - 2) : span.start]}
        if words[0].text in PREPOSITIONS and words[0].text not in near:  # unlike `in 1911 or in 1912`
            return False
        if counts := reading.is_candidate(words, span) or "or" in sep:
            rivals.append((index, words))
        return counts
    if not reading.content(words):
        return not _has_verb(words)
    is_joined = "or" in sep or "and" in sep or (rivals and not forwards)
    if is_joined and (edge := _adjacent_candidate(index, segments, span, reading, forwards=forwards)):
        rivals.append((index, edge))
    return False


def _adjacent_candidate(
    index: int, segments: Sequence[Segment], span: Span, reading: Reading, *, forwards: bool
) -> list[Token]:
    """The candidate that a clause holds next to the answer, [] where the two are said apart."""
    sep = segments[index].sep if forwards else segments[index + 1].sep
    words = reading.words_between(segments[index].start, segments[index].end)
    verbs = [i for i, token in enumerate(words) if token.text in VERBS]
    if forwards:  # `or [Venus] depending on whom you ask`, `or is it [Venus]`
        rest, edge = list(words), list[Token]()
        while rest and (rest[0].skip or rest[0].text in _OPENERS):
            rest.pop(0)
        for token in rest:
            capital = token.raw[:1].isupper() or token.kind == "number" or not reading.is_capitalised(span)
            if not capital or token.text in FUNCTION or token.text in VERBS or is_participle(token):
                break
            edge.append(token)
    else:
        edge = words[verbs[-1] + 1 :] if verbs else words  # `it is [Barcelona] or Madrid`
    if not reading.is_candidate(edge, span):
        return []
    if not forwards:
        behind = reading.words_between(segments[index + 1].start, segments[index + 1].end)
        return edge if "or" in sep or not _has_verb(behind) else []
    before = reading.words_between(segments[index - 1].start, segments[index - 1].end)
    both = any(token.text == "both" for token in [*reading.text[max(0, span.start - 2) : span.start], *words])
    joint = bool(verbs) and words[verbs[0]].text in ("are", "were", "have") and not _has_verb(before)
    return edge if "and" not in sep or both or joint else []  # joint: `Ottawa and Toronto are ...`


def _is_description(
    rival: tuple[int, list[Token]],
    place: int,
    segments: Sequence[Segment],
    reading: Reading,
    before: Sequence[Token],
    behind: Sequence[Token],
) -> bool:
    """Whether the only other name is where the answer lies, or says what it is: `Madrid, Spain`; `Madrid, a city`."""
    index, words = rival
    if index != place + 1 or not segments[index].sep <= {",", "(", "—", "["}:
        return False
    name = " ".join(token.text for token in words if not token.skip)
    if name in REGIONS or any(token.forms & REGIONS for token in words):
        return True
    in_question = any(token.forms & reading.question_forms for token in words)
    return in_question or (words[0].text in ARTICLES and not (before and before[-1].text in ARTICLES))


def _count_parallel(
    span: Span, place: int, mentions: Sequence[Span], segments: Sequence[Segment], reading: Reading
) -> int:
    """Other candidates asserted in segments of their own: `the capital is Lyon`, `Lyon is the capital`."""
    segment = segments[place]
    frame = [token.text for token in reading.words_between(segment.start, span.start)]
    tail = [token.text for token in reading.words_between(span.end, segment.end)]
    count = 0
    for index, other in enumerate(segments):
        if index == place or any(other.start <= mention.start < other.end for mention in mentions):
            continue
        if reading.tells_of_another(other) or (segment.contrasts and reading.has_other_subject(other)):
            continue
        words = reading.words_between(other.start, other.end)
        against = bool(other.sep & CONTRAST) and other.start > span.start
        against = against or (index == place - 1 and bool(segment.sep & _CONCEDES))
        same_tail = len(tail) > 1 and [token.text for token in words[-len(tail) :]] == tail
        count += (
            _is_predicate(words, frame, span, reading, against)
            or _is_subject(words, span, reading)
            or (same_tail and reading.is_candidate(words[: -len(tail)], span))  # `X is possible`, both times
        )
    lower_case = not reading.is_capitalised(span) and not span.numeric
    if lower_case and count == 1 and "could" not in frame and "might" not in frame:
        return 0  # without capitals one more "it is ..." is as likely a description
    return count


def _is_predicate(
    words: list[Token], frame: Sequence[str], span: Span, reading: Reading, against: bool
) -> bool:
    """`it is X` beside `it is <answer>` or behind a "but"; `the <asked> is X`; `others say X` beside `some say`."""
    copulas = [i for i, token in enumerate(words) if token.text in _COPULAS]
    if not copulas:
        if not frame or frame[-1] not in VERBS or len(words) < 2:
            return False
        says = [i for i, token in enumerate(words) if token.text == frame[-1]]
        return bool(says) and reading.is_candidate(words[says[-1] + 1 :], span)
    last = copulas[-1]
    before, behind = words[:last], words[last + 1 :]
    if (behind and behind[0].text in PREPOSITIONS) or not reading.is_candidate(behind, span):
        return False
    if any(not token.skip and not _is_plain(token, reading) for token in before):
        return False
    names_question = any(token.forms & reading.question_forms or token.text == "answer" for token in before)
    same = [token.text for token in words[: last + 1]] == [text for text in frame if text][: last + 1]
    subject = any(token.text in _SUBJECTS for token in words[: last + 2])
    subject = subject or (bool(before) and before[-1].text in _MODALS)
    return names_question or ((same or against) and subject)


def _is_plain(token: Token, reading: Reading) -> bool:
    return token.text in FUNCTION or token.text in NEUTRAL or bool(token.forms & reading.question_forms)


def _is_subject(words: list[Token], span: Span, reading: Reading) -> bool:
    """`X is the <asked>`, `X <asked verb> ...`."""
    asked = reading.question_forms
    verb = next((i for i, token in enumerate(words) if token.text in VERBS or token.forms & asked), None)
    if verb is None or not reading.is_candidate(words[:verb], span):
        return False
    first, rest = words[verb], words[verb:]
    lower_case = reading.cased and first.raw.islower()
    if first.text not in VERBS and not lower_case and not is_participle(first):
        return False
    names_question = any(token.forms & asked for token in rest)
    return names_question and all(_is_plain(token, reading) or token.text in VERBS for token in rest)

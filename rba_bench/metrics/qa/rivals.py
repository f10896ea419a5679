"""Candidates that an English response names beside an asserted answer."""

from collections.abc import Sequence

from rba_bench.metrics.qa.segments import (
    CONTRAST,
    Reading,
    Segment,
    distinct,
    participle,
    starts_with_article,
    starts_with_preposition,
)
from rba_bench.metrics.qa.spans import Span
from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import FUNCTION, NEUTRAL, REGIONS, VERBS, words

_LISTS = frozenset(
    {
        ",",
        "/",
        "|",
        ";",
        "\n",
        ".",
        "?",
        "!",
        "and",
        "or",
        "nor",
        "—",
        "..",
        "...",
        "…",
        "(",
        ")",
        "[",
        "]",
        '"',
        "•",
        "plus",
        "versus",
        "vs",
    }
)
_COPULAS = words("is was are were be called named")
_OPENERS = _COPULAS | words("it that in maybe perhaps")
_CONCEDES = frozenset({"although", "though"})
_MODALS = words("could might may would must can")
_SUBJECTS = words("it that this he she they answer")
_COMMAS = frozenset({",", "or", ";", "/", "|", "•"})
_STOPS = frozenset({".", "!", "?", ":", "\n"})
RIGHT_PER_WRONG = 3  # in a list of several right answers
LONG_LIST = 5  # separators in one sentence, or line breaks
LONG_RUN = 12  # words without a mark
SENTENCE_SHARE = 0.25  # of function words and verbs, which sentences have more of


def unrivalled(span: Span, mentions: Sequence[Span], segments: Sequence[Segment], reading: Reading) -> bool:
    """Whether no other candidate is asserted beside the answer, or few beside several right ones."""
    place = next(i for i, segment in enumerate(segments) if segment.start <= span.start < segment.end)
    listed, wrong = _listed(span, place, mentions, segments, reading)
    wrong += _parallel(span, place, mentions, segments, reading)
    right = distinct(reading.text, [span, *listed])
    if _in_long_list(span, mentions, reading) or _in_salad(span, reading):
        return False
    return wrong == 0 or (right > 1 and wrong * RIGHT_PER_WRONG <= right)


def _in_long_list(span: Span, mentions: Sequence[Span], reading: Reading) -> bool:
    """Whether the answer is one of many entries, of whatever kind, most of them wrong."""
    named = {place for each in mentions for place in range(each.start, each.end)}
    for separators, ends in ((_COMMAS, _STOPS), (frozenset({"\n"}), frozenset[str]())):
        low, high = span.start, span.end
        while low and reading.text[low - 1].text not in ends:
            low -= 1
        while high < len(reading.text) and reading.text[high].text not in ends:
            high += 1
        stretch = enumerate(reading.text[low:high], low)
        count = sum(token.text in separators and place not in named for place, token in stretch)
        own = sum(low <= each.start < high for each in mentions)
        if count >= LONG_LIST and count + 1 > own * (1 + 1 / RIGHT_PER_WRONG):
            return True
    return False


def _in_salad(span: Span, reading: Reading) -> bool:
    """Whether the answer stands in a long run of words that is no sentence: names without anything between them."""
    low, high = span.start, span.end
    while low and reading.text[low - 1].kind != "mark":
        low -= 1
    while high < len(reading.text) and reading.text[high].kind != "mark":
        high += 1
    words = [*reading.text[low : span.start], *reading.text[span.end : high]]
    plain = sum(token.text in FUNCTION or token.text in VERBS for token in words)
    return len(words) > LONG_RUN and plain < SENTENCE_SHARE * len(words)


def _listed(
    span: Span, place: int, mentions: Sequence[Span], segments: Sequence[Segment], reading: Reading
) -> tuple[list[Span], int]:
    """Right answers and other candidates in one list with the answer."""
    segment = segments[place]
    before = reading.words(segment.start, span.start)
    behind = reading.words(span.end, segment.end)
    bare = reading.bare(reading.words(segment.start, segment.end)) or not before
    right: list[Span] = []
    rivals: list[tuple[int, list[Token]]] = []
    if bare or not [token for token in behind if not token.skip]:
        for index in range(place + 1, len(segments)):
            if not _goes_on(index, segments, span, mentions, reading, right, rivals, forwards=True):
                break
    if not [token for token in before if not token.skip and token.text not in FUNCTION] and not _verbal(
        before
    ):
        for index in range(place - 1, -1, -1):
            if not _goes_on(index, segments, span, mentions, reading, right, rivals, forwards=False):
                break
    if len(rivals) == 1 and _explains(rivals[0], place, segments, reading, before, behind):
        return right, 0
    return right, len(rivals)


def _verbal(words: Sequence[Token]) -> bool:
    return any(token.text in VERBS for token in words)


def _goes_on(
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
    words = reading.words(segment.start, segment.end)
    named = [each for each in mentions if segment.start <= each.start < segment.end]
    if named:
        right.extend(named)
        return not _verbal(words)
    if reading.bare(words):
        if starts_with_preposition(words) and not _alike(words, span, reading):
            return False
        counts = reading.candidate(words, span) or "or" in sep
        if counts:
            rivals.append((index, words))
        return counts
    if not reading.content(words):
        return not _verbal(words)
    joined = "or" in sep or "and" in sep or (rivals and not forwards)
    if joined and (edge := _beside(index, segments, span, reading, forwards=forwards)):
        rivals.append((index, edge))
    return False


def _beside(
    index: int, segments: Sequence[Segment], span: Span, reading: Reading, *, forwards: bool
) -> list[Token]:
    """The candidate that a clause holds next to the answer, [] where the two are said apart."""
    sep = segments[index].sep if forwards else segments[index + 1].sep
    words = reading.words(segments[index].start, segments[index].end)
    edge = _leading(words, span, reading) if forwards else _edge(words, forwards)
    if not reading.candidate(edge, span):
        return []
    if forwards:
        around = [*reading.text[max(0, span.start - 2) : span.start], *words]
        both = any(token.text == "both" for token in around)
        before = reading.words(segments[index - 1].start, segments[index - 1].end)
        return edge if "and" not in sep or both or _joint_subject(before, words) else []
    behind = reading.words(segments[index + 1].start, segments[index + 1].end)
    return edge if "or" in sep or not _verbal(behind) else []


def _joint_subject(before: Sequence[Token], words: Sequence[Token]) -> bool:
    """`Ottawa and Toronto are ...`: said of both together."""
    verb = next((token.text for token in words if token.text in VERBS), "")
    return verb in ("are", "were", "have") and not _verbal(before)


def _alike(words: Sequence[Token], span: Span, reading: Reading) -> bool:
    """`in 1911 or in 1912`: the same preposition before both."""
    before = [token.text for token in reading.text[max(0, span.start - 2) : span.start]]
    return words[0].text in before


def _edge(words: list[Token], forwards: bool) -> list[Token]:
    """The name at the near end of a segment with a verb: `it is [Barcelona] or Madrid`."""
    verbs = [place for place, token in enumerate(words) if token.text in VERBS]
    return words[: verbs[0]] if verbs and forwards else words[verbs[-1] + 1 :] if verbs else list(words)


def _leading(words: list[Token], span: Span, reading: Reading) -> list[Token]:
    """The name that a segment begins with: `or [Venus] depending on whom you ask`, `or is it [Venus]`."""
    rest = list(words)
    while rest and (rest[0].skip or rest[0].text in _OPENERS):
        rest.pop(0)
    name: list[Token] = []
    for token in rest:
        capital = token.raw[:1].isupper() or token.kind == "number" or not reading.named(span)
        if not capital or token.text in FUNCTION or token.text in VERBS or participle(token):
            break
        name.append(token)
    return name


def _explains(
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
    if name in REGIONS or any(token.own & REGIONS for token in words):
        return True
    known = any(token.own & reading.asked for token in words)
    return known or (starts_with_article(words) and not starts_with_article(before[-1:]))


def _parallel(
    span: Span, place: int, mentions: Sequence[Span], segments: Sequence[Segment], reading: Reading
) -> int:
    """Other candidates asserted in segments of their own: `the capital is Lyon`, `Lyon is the capital`."""
    own = segments[place]
    frame = [token.text for token in reading.words(own.start, span.start)]
    result = 0
    for index, segment in enumerate(segments):
        if index == place or any(segment.start <= each.start < segment.end for each in mentions):
            continue
        if reading.of_another(segment) or (own.contrasts and reading.has_other_subject(segment)):
            continue
        words = reading.words(segment.start, segment.end)
        against = bool(segment.sep & CONTRAST) and segment.start > span.start
        against = against or (index == place - 1 and bool(own.sep & _CONCEDES))
        result += (
            _predicate(words, frame, span, reading, against)
            or _subject(words, span, reading)
            or _same_tail(words, [token.text for token in reading.words(span.end, own.end)], span, reading)
        )
    if (
        not reading.named(span)
        and not span.numeric
        and result == 1
        and "could" not in frame
        and "might" not in frame
    ):
        return 0  # without capitals one more "it is ..." is as likely a description
    return result


def _same_tail(words: list[Token], tail: Sequence[str], span: Span, reading: Reading) -> bool:
    """`X is possible` beside `<answer> is possible`."""
    count = len(tail)
    same = count > 1 and [token.text for token in words[-count:]] == list(tail)
    return same and reading.candidate(words[:-count], span)


def _predicate(words: list[Token], frame: Sequence[str], span: Span, reading: Reading, against: bool) -> bool:
    """`it is X` beside `it is <answer>` or behind a "but"; `the <asked> is X`."""
    places = [place for place, token in enumerate(words) if token.text in _COPULAS]
    if not places:
        return _said(words, frame, span, reading)
    before, behind = words[: places[-1]], words[places[-1] + 1 :]
    if starts_with_preposition(behind) or not reading.candidate(behind, span):
        return False
    if any(not token.skip and not _plain(token, reading) for token in before):
        return False
    asked = any(token.own & reading.asked or token.text == "answer" for token in before)
    same = [token.text for token in words[: places[-1] + 1]] == [text for text in frame if text][
        : places[-1] + 1
    ]
    subject = any(token.text in _SUBJECTS for token in words[: places[-1] + 2])
    subject = subject or (bool(before) and before[-1].text in _MODALS)
    return asked or ((same or against) and subject)


def _said(words: list[Token], frame: Sequence[str], span: Span, reading: Reading) -> bool:
    """`others say X` beside `some say <answer>`."""
    if not frame or frame[-1] not in VERBS or len(words) < 2:
        return False
    places = [place for place, token in enumerate(words) if token.text == frame[-1]]
    return bool(places) and reading.candidate(words[places[-1] + 1 :], span)


def _plain(token: Token, reading: Reading) -> bool:
    return token.text in FUNCTION or token.text in NEUTRAL or bool(token.own & reading.asked)


def _subject(words: list[Token], span: Span, reading: Reading) -> bool:
    """`X is the <asked>`, `X <asked verb> ...`."""
    verbs = [place for place, token in enumerate(words) if token.text in VERBS or token.own & reading.asked]
    if not verbs or not reading.candidate(words[: verbs[0]], span):
        return False
    rest = words[verbs[0] :]
    if (
        rest[0].text not in VERBS
        and not (reading.cased and rest[0].raw.islower())
        and not participle(rest[0])
    ):
        return False
    asked = any(token.own & reading.asked for token in rest)
    return asked and all(_plain(token, reading) or token.text in VERBS for token in rest)

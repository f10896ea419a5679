"""Answers in other languages than English: words as written, and a careful reading of what is asserted.

Nothing language-specific is known but words for not, or and and. Case is folded, accents are kept; languages written
without spaces go character by character. An answer counts as asserted if the whole response is it, or if it stands in
a sentence without a negative word and not in a list with other short entries.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from rba_bench.metrics.qa.segments import Segment
from rba_bench.metrics.qa.spans import Span, Wanted, spans
from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import words
from rba_bench.metrics.text import UNSPACED, plain_characters

_NOT = words(
    "not never nicht kein keine keiner keinen keinem weder noch niemals pas ne n jamais ni "
    "aucun aucune no nunca tampoco non né mai não nem niet geen noch nooit inte ej aldrig "
    "ikke aldri nie не нет ни никогда ні není ne nikdy değil ليس ليست لا لم غير नहीं न मत "
    "bukan tidak không nu ei не няма δεν όχι לא אינו আমি নয় না இல்லை కాదు 아니다 아닙니다 아니라 "
    "아니에요"
)
_NOT_SIGNS = ("不", "没", "非", "ない", "ません", "違", "ไม่")
_OR = words(
    "oder bzw ou o u oppure of eller или або nebo lub albo veya ya أو या atau hoặc sau tai ή או 또는 或 か または และ"
)
_AND = words("und et y e en och og и та a i oraz ve و और dan và și ja και ו 그리고 和 与 と")
_BUT = words("sondern aber mais pero sino ma bensì mas maar men но а але ale ama لكن लेकिन tapi nhưng 但 而")
_ENDS = frozenset(".?!;\n。！？；।؟")
_SEPARATORS = _ENDS | frozenset(",/|()[]:，、،—")
_WORD = re.compile(r"[+-]?\d+(?:[.,]\d+)*|(?:[^\W_]|[\u0300-\u036f])+", re.UNICODE)
SHORT = 3  # words of an entry of a list; twice as many characters in languages without spaces


@lru_cache(maxsize=4096)
def read(text: str, lang: str) -> tuple[Token, ...]:
    """The tokens of a text: words (characters in languages without spaces), signs, and marks."""
    found: list[Token] = []
    word = ""
    for char in [*plain_characters(text).casefold(), " "]:
        category = unicodedata.category(char)
        spaced = lang not in UNSPACED or char.isascii()
        if category[0] in "LNM" and (spaced or category[0] == "M"):
            word += char
        elif char in "+#" and word or char in "%$€£°" or (char == "-" and not word):
            word += char if char != "-" else ""
        else:
            found += [_token(word)] if word else []
            word = ""
            if category[0] in "LN":
                word = char
            elif char in _SEPARATORS:
                found.append(Token(char, char, frozenset(), kind="mark"))
    return tuple(found)


def _token(word: str) -> Token:
    kind = "number" if word.isdigit() else "word"
    return Token(word, word, frozenset({word}), kind=kind)


def asserts(text: Sequence[Token], wanted: Sequence[Wanted], asked: Sequence[Token], lang: str) -> bool:
    """Whether an answer is named without negation and not in a list; see above."""
    mentions = spans(text, wanted)
    segments = _cut(text, mentions)
    limit = SHORT * 2 if lang in UNSPACED else SHORT
    echo = {token.text for token in asked}
    told = [
        _asserted(span, text, segments, mentions, limit) for span in mentions if not _echoed(span, text, echo)
    ]
    return bool(told) and told[-1]


def _echoed(span: Span, text: Sequence[Token], asked: set[str]) -> bool:
    """Whether the whole response only repeats words of the question."""
    words = [token.text for token in text if token.kind != "mark"]
    return len(words) > span.end - span.start + 1 and len(words) > 3 and all(word in asked for word in words)


def _cut(text: Sequence[Token], mentions: Sequence[Span]) -> list[Segment]:
    inside = {place for span in mentions for place in range(span.start, span.end)}
    found: list[Segment] = []
    sep: set[str] = set()
    start: int | None = None
    for place, token in enumerate(text):
        divides = token.kind == "mark" or token.text in _OR | _AND | _BUT
        if divides and place not in inside:
            found += [Segment(start, place, frozenset(sep))] if start is not None else []
            sep = sep if start is None else set()
            sep.add(token.text)
            start = None
        elif start is None:
            start = place
    return found + ([Segment(start, len(text), frozenset(sep))] if start is not None else [])


def _asserted(
    span: Span, text: Sequence[Token], segments: Sequence[Segment], mentions: Sequence[Span], limit: int
) -> bool:
    place = next(i for i, segment in enumerate(segments) if segment.start <= span.start < segment.end)
    own = segments[place]
    words = [token.text for token in [*text[own.start : span.start], *text[span.end : own.end]]]
    near = "".join(words)
    if any(word in _NOT for word in words) or any(sign in near for sign in _NOT_SIGNS):
        return False
    rivals = 0
    for index, step in ((place + 1, 1), (place - 1, -1)):
        while 0 <= index < len(segments):
            segment = segments[index]
            sep = segment.sep if step > 0 else segments[index + 1].sep
            named = any(segment.start <= each.start < segment.end for each in mentions)
            short = segment.end - segment.start <= limit
            if sep & _BUT or not (short or sep & _OR):
                break
            rivals += 0 if named else 2 if sep & (_OR | _AND) else 1
            index += step
    return rivals < 2

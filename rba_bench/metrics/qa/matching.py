"""Matching of short answers to lists of right answers, in three degrees of strictness.

    exact_match      the whole response is an answer
    asserted_match   the response asserts an answer and no other: what questions are ranked by
    alias_match      the words of an answer stand in a row somewhere: the loose match, for comparison with others

English is read by `rba_bench.metrics.qa.readings` and `rba_bench.metrics.qa.claims`. Of other languages only the words
for not, or, and, but are known. Case is folded, accents are kept; languages written without spaces go character by
character. There an answer counts as asserted if the whole response is it, or if it stands in a sentence without a
negative word and not in a list with other short entries.

`STRATEGIES` are responses without knowledge, to measure what a metric gives them. Each turns a question and the set's
right answers into one response. A strategy that lists takes the first right answer of every question, which is the best
that a model could do which has memorised a set's answers, but not which belongs where.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from rba_bench.metrics.languages import base_language
from rba_bench.metrics.qa import claims
from rba_bench.metrics.qa.readings import read_english, roman
from rba_bench.metrics.qa.segments import Segment, is_meant
from rba_bench.metrics.qa.spans import Span, Wanted, spans, wanted_of, whole
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
def read_plain(text: str, lang: str) -> tuple[Token, ...]:
    """The tokens of a text: words (characters in languages without spaces), signs, and marks."""
    result: list[Token] = []
    word = ""
    for char in [*plain_characters(text).casefold(), " "]:
        category = unicodedata.category(char)
        spaced = lang not in UNSPACED or char.isascii()
        if category[0] in "LNM" and (spaced or category[0] == "M"):
            word += char
        elif char in "+#" and word or char in "%$€£°" or (char == "-" and not word):
            word += char if char != "-" else ""
        else:
            if word:
                kind = "number" if word.isdigit() else "word"
                result.append(Token(word, word, frozenset({word}), kind=kind))
            word = ""
            if category[0] in "LN":
                word = char
            elif char in _SEPARATORS:
                result.append(Token(char, char, frozenset(), kind="mark"))
    return tuple(result)


def asserts_plain(text: Sequence[Token], wanted: Sequence[Wanted], asked: Sequence[Token], lang: str) -> bool:
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
    result: list[Segment] = []
    sep: set[str] = set()
    start: int | None = None
    for place, token in enumerate(text):
        divides = token.kind == "mark" or token.text in _OR | _AND | _BUT
        if divides and place not in inside:
            result += [Segment(start, place, frozenset(sep))] if start is not None else []
            sep = sep if start is None else set()
            sep.add(token.text)
            start = None
        elif start is None:
            start = place
    return result + ([Segment(start, len(text), frozenset(sep))] if start is not None else [])


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


MOST_TOKENS = 500  # at either end of a response
VERSION = 2  # of all rules below; 1 was Whisper's normaliser alone


def exact_match(response: str, aliases: Sequence[str], lang: str = "en") -> float:
    """1.0 if the whole response is an alias, else 0.0.

    Raises:
        ValueError: no aliases, or aliases given as one string.
    """
    text, wanted = _lone_numeral(_read(response, lang)), _wanted(aliases, lang)
    return float(whole(text, wanted))


def alias_match(response: str, aliases: Sequence[str], lang: str = "en") -> float:
    """1.0 if the words of an alias stand in a row in the response, else 0.0.

    Whole words only ("rome" is not in "romeo"), and everyday words only where they are meant as a name. Negation and
    lists are not read: "not rome" matches "rome".

    Raises:
        ValueError: no aliases, or aliases given as one string.
    """
    text = _lone_numeral(_read(response, lang))
    return float(any(is_meant(span, text) for span in spans(text, _wanted(aliases, lang))))


def asserted_match(response: str, aliases: Sequence[str], lang: str = "en", question: str = "") -> float:
    """1.0 if the response asserts one of the aliases and no other candidate, else 0.0.

    Args:
        response: The answer, a phrase or some sentences.
        aliases: Right answers.
        lang: Language of the response.
        question: What was asked, "" if unknown: words that only repeat it assert nothing.

    Raises:
        ValueError: no aliases, or aliases given as one string.
    """
    text, asked = _lone_numeral(_read(response, lang)), _read(question, lang)
    if len(text) > 2 * MOST_TOKENS:  # far too long for a short answer; lists are compared with every entry
        text = (*text[:MOST_TOKENS], *text[-MOST_TOKENS:])
    wanted = _wanted(aliases, lang, question)
    if not text or not wanted:
        return 0.0
    if base_language(lang) == "en":
        return float(claims.asserts_english(text, wanted, asked))
    return float(whole(text, wanted) or asserts_plain(text, wanted, asked, base_language(lang)))


def _read(text: str, lang: str) -> tuple[Token, ...]:
    code = base_language(lang)
    return read_english(text) if code == "en" else read_plain(text, code)


def _lone_numeral(text: tuple[Token, ...]) -> tuple[Token, ...]:
    """A response of one Roman numeral equals its number: `VII` to "how many?"."""
    words = [token for token in text if token.kind != "mark"]
    if len(words) != 1 or len(words[0].text) < 2 or not (value := roman(words[0], "alone")):
        return text
    lone = replace(words[0], own=words[0].own | {str(value)})
    return tuple(lone if token is words[0] else token for token in text)


def _wanted(aliases: Sequence[str], lang: str, question: str = "") -> tuple[Wanted, ...]:
    if isinstance(aliases, str) or not aliases:
        raise ValueError("aliases must be a non-empty list of strings")
    return _wanted_cached(tuple(aliases), base_language(lang), question)


@lru_cache(maxsize=4096)
def _wanted_cached(aliases: tuple[str, ...], lang: str, question: str) -> tuple[Wanted, ...]:
    if lang == "en":
        return tuple(each for alias in aliases for each in wanted_of(alias, read_english(question)))
    result = (tuple(token for token in read_plain(alias, lang) if token.kind != "mark") for alias in aliases)
    return tuple(Wanted(tokens) for tokens in result if tokens)


MOST_QUESTIONS = 50
MOST_WORDS = 500  # of a listing of every alias


@dataclass(frozen=True)
class QuestionItem:
    """A question with its right answers, as a strategy sees it."""

    question: str
    aliases: Sequence[str]


Strategy = Callable[[QuestionItem, Sequence[QuestionItem]], str]


def _candidates(items: Sequence[QuestionItem]) -> list[str]:
    return list(dict.fromkeys(item.aliases[0] for item in items))


STRATEGIES: dict[str, Strategy] = {
    "list of candidates": lambda item, items: ", ".join(_candidates(items)),
    "candidates joined by or": lambda item, items: " or ".join(_candidates(items)),
    "a sentence for each candidate": lambda item, items: " ".join(f"It is {c}." for c in _candidates(items)),
    "a line for each candidate": lambda item, items: "\n".join(f"- {c}" for c in _candidates(items)),
    "every alias of every question": lambda item, items: " ".join(
        " ".join(alias for each in items for alias in each.aliases).split()[:MOST_WORDS]
    ),
    "denial of the right answer": lambda item, items: f"It is not {item.aliases[0]}.",
    "right answer or another": lambda item, items: f"It is {item.aliases[0]} or {_other(item, items)}.",
    "echo of the question": lambda item, items: item.question,
    "empty answer": lambda item, items: "",
}


def _other(item: QuestionItem, items: Sequence[QuestionItem]) -> str:
    """Another question's answer; where there is none, a name that answers nothing."""
    right = {alias.casefold() for alias in item.aliases}
    return next((c for c in _candidates(items) if c.casefold() not in right), "Atlantis")


def spread_positions(count: int) -> list[int]:
    """Places of the questions that the strategies are tried on: at most `MOST_QUESTIONS`, evenly spread."""
    if count <= MOST_QUESTIONS:
        return list(range(count))
    return [index * count // MOST_QUESTIONS for index in range(MOST_QUESTIONS)]

"""Matching short answers to lists of right answers, in three degrees of strictness.

    exact_match      the whole response is an answer
    asserted_match   the response asserts an answer and no other (`rba_bench.metrics.qa.claims`): what QA is ranked by
    alias_match      the words of an answer stand in a row somewhere: the loose match, for comparison with others

English is read by `rba_bench.metrics.qa.readings`. Of other languages nothing is known but their words for not, or, and
and but. Case is folded, accents are kept; languages written without spaces go character by character. An answer counts
as asserted there if the whole response is it, or if it stands in a sentence without a negative word and not in a list
with other short entries.

`STRATEGIES` are responses that know nothing, to see what a metric pays for them. Each turns a question and the right
answers of the set into one response. A strategy that lists takes the first right answer of every question it is tried
on, which is the best that a model could do that has memorised the answers of a set, but not which belongs where.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from rba_bench.metrics.languages import base_language
from rba_bench.metrics.qa import claims
from rba_bench.metrics.qa.readings import read_english, roman_value
from rba_bench.metrics.qa.segments import Segment, cut_segments, is_meant_as_name
from rba_bench.metrics.qa.spans import AnswerForm, Span, answer_forms, find_spans, is_whole_answer
from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import word_set
from rba_bench.metrics.text import UNSPACED, plain_characters

VERSION = 2  # of all rules of this package; 1 was Whisper's normaliser alone
MOST_TOKENS = 500  # read at either end of a response
LONGEST_ENTRY = 3  # words of an entry of a list; twice as many characters in languages without spaces
MOST_QUESTIONS = 50  # that a strategy is tried on
MOST_WORDS = 500  # of a listing of every alias

_NOT = word_set(
    "not never nicht kein keine keiner keinen keinem weder noch niemals pas ne n jamais ni "
    "aucun aucune no nunca tampoco non né mai não nem niet geen noch nooit inte ej aldrig "
    "ikke aldri nie не нет ни никогда ні není ne nikdy değil ليس ليست لا لم غير नहीं न मत "
    "bukan tidak không nu ei не няма δεν όχι לא אינו আমি নয় না இல்லை కాదు 아니다 아닙니다 아니라 "
    "아니에요"
)
_NOT_SIGNS = ("不", "没", "非", "ない", "ません", "違", "ไม่")
_OR = word_set(
    "oder bzw ou o u oppure of eller или або nebo lub albo veya ya أو या atau hoặc sau tai ή או 또는 或 か または และ"
)
_AND = word_set("und et y e en och og и та a i oraz ve و और dan và și ja και ו 그리고 和 与 と")
_BUT = word_set(
    "sondern aber mais pero sino ma bensì mas maar men но а але ale ama لكن लेकिन tapi nhưng 但 而"
)
_SEPARATORS = frozenset(".?!;\n。！？；।؟,/|()[]:，、،—")


def exact_match(response: str, aliases: Sequence[str], lang: str = "en") -> float:
    """1.0 if the whole response is an alias, else 0.0.

    Raises:
        ValueError: no aliases, or aliases given as one string.
    """
    return float(is_whole_answer(_response_tokens(response, lang), _answers(aliases, lang)))


def alias_match(response: str, aliases: Sequence[str], lang: str = "en") -> float:
    """1.0 if the words of an alias stand in a row in the response, else 0.0.

    Whole words only ("rome" is not in "romeo"), and everyday words only where they are meant as a name. Negation and
    lists are not read: "not rome" matches "rome".

    Raises:
        ValueError: no aliases, or aliases given as one string.
    """
    text = _response_tokens(response, lang)
    return float(any(is_meant_as_name(span, text) for span in find_spans(text, _answers(aliases, lang))))


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
    text = _response_tokens(response, lang)
    if len(text) > 2 * MOST_TOKENS:  # too long for a short answer, and entries of lists are compared in pairs
        text = (*text[:MOST_TOKENS], *text[-MOST_TOKENS:])
    answers, question_tokens = _answers(aliases, lang, question), _tokens(question, lang)
    if not text or not answers:
        return 0.0
    code, asked = base_language(lang), {token.text for token in question_tokens}
    if code == "en":
        return float(claims.asserts_answer(text, answers, question_tokens))
    return float(is_whole_answer(text, answers) or _asserts_in_other_language(text, answers, asked, code))


def _tokens(text: str, lang: str) -> tuple[Token, ...]:
    code = base_language(lang)
    return read_english(text) if code == "en" else read_other_language(text, code)


def _response_tokens(response: str, lang: str) -> tuple[Token, ...]:
    """Tokens of a response; one Roman numeral alone equals its number: `VII` to "how many?"."""
    text = _tokens(response, lang)
    words = [token for token in text if token.kind != "mark"]
    if len(words) != 1 or len(words[0].text) < 2 or not (value := roman_value(words[0], "alone")):
        return text
    numeral = replace(words[0], forms=words[0].forms | {str(value)})
    return tuple(numeral if token is words[0] else token for token in text)


def _answers(aliases: Sequence[str], lang: str, question: str = "") -> tuple[AnswerForm, ...]:
    if isinstance(aliases, str) or not aliases:
        raise ValueError("aliases must be a non-empty list of strings")
    return _cached_answers(tuple(aliases), base_language(lang), question)


@lru_cache(maxsize=4096)
def _cached_answers(aliases: tuple[str, ...], lang: str, question: str) -> tuple[AnswerForm, ...]:
    if lang == "en":
        return tuple(form for alias in aliases for form in answer_forms(alias, read_english(question)))
    readings = (read_other_language(alias, lang) for alias in aliases)
    entries = (tuple(token for token in tokens if token.kind != "mark") for tokens in readings)
    return tuple(AnswerForm(tokens) for tokens in entries if tokens)


@lru_cache(maxsize=4096)
def read_other_language(text: str, lang: str) -> tuple[Token, ...]:
    """The tokens of a text: words (characters in languages without spaces), signs, and marks."""
    tokens: list[Token] = []
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
                tokens.append(Token(word, word, frozenset({word}), kind=kind))
            word = ""
            if category[0] in "LN":
                word = char
            elif char in _SEPARATORS:
                tokens.append(Token(char, char, frozenset(), kind="mark"))
    return tuple(tokens)


def _asserts_in_other_language(
    text: Sequence[Token], answers: Sequence[AnswerForm], question_words: set[str], lang: str
) -> bool:
    """Whether the last answer named stands without negation and not in a list; see the module."""
    mentions = find_spans(text, answers)
    dividers = _OR | _AND | _BUT
    cuts = {i for i, token in enumerate(text) if token.kind == "mark" or token.text in dividers}
    segments = cut_segments(text, mentions, cuts)
    words = [token.text for token in text if token.kind != "mark"]
    repeats_question = len(words) > 3 and all(word in question_words for word in words)
    own_words = [
        span for span in mentions if not (repeats_question and len(words) > span.end - span.start + 1)
    ]
    longest = LONGEST_ENTRY * 2 if lang in UNSPACED else LONGEST_ENTRY
    return bool(own_words) and _is_asserted(own_words[-1], text, segments, mentions, longest)


def _is_asserted(
    span: Span, text: Sequence[Token], segments: Sequence[Segment], mentions: Sequence[Span], longest: int
) -> bool:
    """Whether no negative word stands in the answer's segment, and fewer than two other entries beside it."""
    place = next(i for i, segment in enumerate(segments) if segment.start <= span.start < segment.end)
    segment = segments[place]
    words = [token.text for token in [*text[segment.start : span.start], *text[span.end : segment.end]]]
    run = "".join(words)
    if any(word in _NOT for word in words) or any(sign in run for sign in _NOT_SIGNS):
        return False
    rivals = 0
    for index, step in ((place + 1, 1), (place - 1, -1)):
        while 0 <= index < len(segments):
            segment = segments[index]
            sep = segment.sep if step > 0 else segments[index + 1].sep
            is_answer = any(segment.start <= mention.start < segment.end for mention in mentions)
            if sep & _BUT or not (segment.end - segment.start <= longest or sep & _OR):
                break
            rivals += 0 if is_answer else 2 if sep & (_OR | _AND) else 1
            index += step
    return rivals < 2


@dataclass(frozen=True)
class QuestionItem:
    """A question with its right answers, as a strategy sees it."""

    question: str
    aliases: Sequence[str]


Strategy = Callable[[QuestionItem, Sequence[QuestionItem]], str]


def _candidates(items: Sequence[QuestionItem]) -> list[str]:
    return list(dict.fromkeys(item.aliases[0] for item in items))


def _other_candidate(item: QuestionItem, items: Sequence[QuestionItem]) -> str:
    """Another question's answer; where there is none, a name that answers nothing."""
    right = {alias.casefold() for alias in item.aliases}
    return next((c for c in _candidates(items) if c.casefold() not in right), "Atlantis")


STRATEGIES: dict[str, Strategy] = {
    "list of candidates": lambda item, items: ", ".join(_candidates(items)),
    "candidates joined by or": lambda item, items: " or ".join(_candidates(items)),
    "a sentence for each candidate": lambda item, items: " ".join(f"It is {c}." for c in _candidates(items)),
    "a line for each candidate": lambda item, items: "\n".join(f"- {c}" for c in _candidates(items)),
    "every alias of every question": lambda item, items: " ".join(
        " ".join(alias for each in items for alias in each.aliases).split()[:MOST_WORDS]
    ),
    "denial of the right answer": lambda item, items: f"It is not {item.aliases[0]}.",
    "right answer or another": lambda item, items: (
        f"It is {item.aliases[0]} or {_other_candidate(item, items)}."
    ),
    "echo of the question": lambda item, items: item.question,
    "empty answer": lambda item, items: "",
}


def spread_positions(count: int) -> list[int]:
    """Indices of the questions that the strategies are tried on: at most `MOST_QUESTIONS`, evenly spread."""
    if count <= MOST_QUESTIONS:
        return list(range(count))
    return [index * count // MOST_QUESTIONS for index in range(MOST_QUESTIONS)]

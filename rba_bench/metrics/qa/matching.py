"""Matching short answers to lists of right answers, in three degrees of strictness.

    exact_match      the whole response is an answer
    asserted_match   the response asserts an answer and no other (`rba_bench.metrics.qa.claims`): what QA is ranked by
    alias_match      the words of an answer stand in a row somewhere: the loose match, for comparison with others

English is read by `rba_bench.metrics.qa.readings`, other languages by `rba_bench.metrics.qa.plain`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from rba_bench.metrics.languages import base_language
from rba_bench.metrics.qa import claims, plain
from rba_bench.metrics.qa.meant import is_meant
from rba_bench.metrics.qa.readings import read, roman
from rba_bench.metrics.qa.spans import Wanted, spans, wanted_of, whole
from rba_bench.metrics.qa.tokens import Token

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
    text, asked = _within_bounds(_lone_numeral(_read(response, lang))), _read(question, lang)
    wanted = _wanted(aliases, lang, question)
    if not text or not wanted:
        return 0.0
    if base_language(lang) == "en":
        return float(claims.asserts(text, wanted, asked))
    return float(whole(text, wanted) or plain.asserts(text, wanted, asked, base_language(lang)))


def _read(text: str, lang: str) -> tuple[Token, ...]:
    code = base_language(lang)
    return read(text) if code == "en" else plain.read(text, code)


def _lone_numeral(text: tuple[Token, ...]) -> tuple[Token, ...]:
    """A response of one Roman numeral equals its number: `VII` to "how many?"."""
    words = [token for token in text if token.kind != "mark"]
    if len(words) != 1 or len(words[0].text) < 2 or not (value := roman(words[0], "alone")):
        return text
    lone = replace(words[0], own=words[0].own | {str(value)})
    return tuple(lone if token is words[0] else token for token in text)


def _within_bounds(text: tuple[Token, ...]) -> tuple[Token, ...]:
    """Beginning and end of what is far too long for a short answer; lists are compared with every entry."""
    return text if len(text) <= 2 * MOST_TOKENS else (*text[:MOST_TOKENS], *text[-MOST_TOKENS:])


def _wanted(aliases: Sequence[str], lang: str, question: str = "") -> tuple[Wanted, ...]:
    if isinstance(aliases, str) or not aliases:
        raise ValueError("aliases must be a non-empty list of strings")
    return _wanted_cached(tuple(aliases), base_language(lang), question)


@lru_cache(maxsize=4096)
def _wanted_cached(aliases: tuple[str, ...], lang: str, question: str) -> tuple[Wanted, ...]:
    if lang == "en":
        return tuple(each for alias in aliases for each in wanted_of(alias, read(question)))
    found = (tuple(token for token in plain.read(alias, lang) if token.kind != "mark") for alias in aliases)
    return tuple(Wanted(tokens) for tokens in found if tokens)

"""Matching short spoken-QA answers to alias lists, after Whisper's text normalisers.

English goes through `EnglishTextNormalizer` (numbers, contractions, spelling), other languages through
`BasicTextNormalizer`; languages written without spaces are split into characters. Both sides are always
normalised.
"""

from collections.abc import Sequence

from rba_bench.metrics.text import UNSPACED, normalize

__all__ = ["UNSPACED", "alias_match", "exact_match", "normalize"]


def exact_match(response: str, aliases: Sequence[str], lang: str = "en") -> float:
    """1.0 if the whole normalised response equals a normalised alias, else 0.0."""
    tokens = _tokens(response, lang)
    return float(any(alias == tokens for alias in _alias_tokens(aliases, lang)))


def alias_match(response: str, aliases: Sequence[str], lang: str = "en") -> float:
    """1.0 if the tokens of an alias stand in a row in the normalised response, else 0.0.

    Whole tokens only ("rome" is not in "romeo"). Negation is not read: "not rome" matches "rome".

    Raises:
        ValueError: no aliases, or aliases given as one string.
    """
    tokens = _tokens(response, lang)
    return float(any(_contains(tokens, alias) for alias in _alias_tokens(aliases, lang)))


def _alias_tokens(aliases: Sequence[str], lang: str) -> list[list[str]]:
    if isinstance(aliases, str) or not aliases:
        raise ValueError("aliases must be a non-empty list of strings")
    listed = [_tokens(alias, lang) for alias in aliases]
    return [alias for alias in listed if alias]


def _tokens(text: str, lang: str) -> list[str]:
    # The normaliser drops bracketed words and symbols. A text of nothing else ("C++" keeps its c, "(1969)"
    # does not) would become empty and match nothing, or as an alias everything, so it is compared as written.
    return normalize(text, lang).split() or text.casefold().split()


def _contains(tokens: list[str], part: list[str]) -> bool:
    return any(tokens[start : start + len(part)] == part for start in range(len(tokens) - len(part) + 1))

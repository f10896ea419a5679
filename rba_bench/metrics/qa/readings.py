"""English text as the tokens that answers are compared by: initials, Roman numerals, numbers, dates, units, names."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from rba_bench.metrics.qa.numbers import read_dates, read_numbers
from rba_bench.metrics.qa.tokens import Token, merge_tokens, ordinals, text_at, tokenize, word
from rba_bench.metrics.qa.words import LETTER_UNITS, UNITS

_ROMAN = re.compile(r"(?=[ivxlcdm])m{0,3}(?:cm|cd|d?c{0,3})(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})")
_SMALL_ROMAN = re.compile(r"[ivx]+")
_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100, "d": 500, "m": 1000}
_SIGNS = {"plus": "+", "positive": "+", "minus": "-", "negative": "-"}
_CURRENCIES = frozenset("$€£¥¢₹")
_LARGE_ROMAN_BEHIND = frozenset({"bowl", "chapter", "volume", "part", "book", "psalm", "act", "section"})
# Names of several words that are written as one, and the spelling they share
_NAMES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("united", "states", "of", "america"): ("united states", "usa"),
    ("united", "states"): ("united states", "usa"),
    ("united", "kingdom"): ("united kingdom", "uk"),
    ("per", "cent"): ("percent",),
    ("kilometer", "per", "hour"): ("kph",),
    ("mile", "per", "hour"): ("mph",),
    ("dot", "net"): (".net",),
    ("dot", "com"): (".com",),
    ("dot", "org"): (".org",),
    ("dot", "js"): (".js",),
}
_FIRST_OF_NAMES = frozenset(name[0] for name in _NAMES)
_SHORT_NAMES = {"us": "usa", "usa": "usa", "uk": "uk"}
_WAR = {"ww": 0, "wwi": 1, "wwii": 2, "wwiii": 3, "ww1": 1, "ww2": 2, "ww3": 3}


@lru_cache(maxsize=4096)
def read_english(text: str) -> tuple[Token, ...]:
    """The tokens of an English text."""
    tokens = read_numbers(_with_signs(_with_initials(tokenize(text))))
    return tuple(_with_wars(_with_roman(_with_names(_with_units(read_dates(tokens))))))


def _with_initials(tokens: Sequence[Token]) -> list[Token]:
    """`J. R. R.`, `J R R` and `JRR` alike; stops behind single letters are already gone. `US` also as `USA`."""
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        end = place
        while len(text := text_at(tokens, end)) == 1 and text.isalpha():
            end += 1
        run = list(tokens[place:end]) or [tokens[place]]
        raw = "".join(token.raw for token in run).replace(".", "")
        dotted = all(token.raw.endswith(".") for token in run[:-1])
        spelled = len(run) > 2 or (len(run) == 2 and (dotted or raw.isupper() and not set(raw) <= {"A", "I"}))
        if spelled and (raw.isupper() or raw.islower()):
            run = [replace(merge_tokens(run, raw.lower()), raw=raw.upper())]
        result += run
        place = max(end, place + 1)
    return [
        replace(token, forms=token.forms | {_SHORT_NAMES[token.text]})
        if token.text in _SHORT_NAMES and token.raw.isupper()
        else token
        for token in result
    ]


def _with_signs(tokens: Sequence[Token]) -> list[Token]:
    """`C plus plus`, `C sharp`, `O negative` and `A plus` as their signs."""
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        first = tokens[place]
        run = list(tokens[place : place + 3])
        texts = [token.text for token in run[1:]]
        single = first.kind == "word" and first.text.isalpha() and (len(first.raw) == 1 or first.raw == "AB")
        last = len(run) < 3 or run[2].kind == "mark"
        before_number = len(run) == 3 and run[2].kind.startswith("number")
        signed = bool(texts) and texts[0] in _SIGNS and (first.raw.isupper() or last) and not before_number
        if single and texts == ["plus", "plus"]:
            result.append(merge_tokens(run, f"{first.text}++"))
            place += 3
        elif single and texts[:1] == ["sharp"]:
            result.append(merge_tokens(run[:2], f"{first.text}#"))
            place += 2
        elif single and signed:
            result.append(merge_tokens(run[:2], first.text + _SIGNS[texts[0]]))
            place += 2
        else:
            result.append(first)
            place += 1
    return result


def _with_units(tokens: Sequence[Token]) -> list[Token]:
    """Units in one spelling; currency signs go behind their number."""
    result: list[Token] = []
    for place, token in enumerate(tokens):
        unit = UNITS.get(token.raw.lower())
        behind = bool(result) and (result[-1].kind == "number" or result[-1].text == "degree")
        if token.raw in _CURRENCIES and place + 1 < len(tokens) and tokens[place + 1].kind == "number":
            continue
        is_money = text_at(tokens, place + 1) in ("dollar", "dollars")
        if behind and token.text in ("us", "american") and is_money:
            continue
        if unit and (behind or token.raw.lower() not in LETTER_UNITS) and token.kind == "word":
            token = replace(token, text=unit, forms=token.forms | {unit})
        result.append(token)
        if token.kind == "number" and place and tokens[place - 1].raw in _CURRENCIES:
            sign = tokens[place - 1].raw
            result.append(word(UNITS[sign], sign))
    return result


def _with_names(tokens: Sequence[Token]) -> list[Token]:
    """Names and units of several words that are also written as one, as one token."""
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        for name, forms in _NAMES.items() if tokens[place].text in _FIRST_OF_NAMES else ():
            run = list(tokens[place : place + len(name)])
            if tuple(token.text for token in run) == name:
                result.append(merge_tokens(run, forms[0], *forms))
                place += len(name)
                break
        else:
            result.append(tokens[place])
            place += 1
    return result


def _with_roman(tokens: Sequence[Token]) -> list[Token]:
    """Roman numerals, and ordinals behind names, also count as numbers behind another word."""
    result: list[Token] = []
    for token in tokens:
        words = [before for before in result[-3:] if before.kind != "mark"]
        behind = words[-1].text if words and result[-1].kind != "mark" else ""
        if value := roman_value(token, behind):
            token = replace(token, later_forms=frozenset({str(value), *ordinals(value)}))
        elif token.kind == "number" and behind == "the" and len(words) > 1 and words[-2].kind == "word":
            digits = token.text[:-2]
            if digits.isdigit() and token.text[-1].isalpha() and token.text[-1] != "s":
                token = replace(token, later_forms=frozenset({digits}))
        result.append(token)
    return result


def roman_value(token: Token, behind: str) -> int:
    """Value of a Roman numeral, 0 where a word is no numeral."""
    text = token.text
    if token.kind != "word" or not behind or not text.isascii() or not _ROMAN.fullmatch(text):
        return 0
    small = _SMALL_ROMAN.fullmatch(text) is not None
    if not small and not (token.raw.isupper() and (behind in _LARGE_ROMAN_BEHIND or len(text) > 3)):
        return 0
    if len(text) == 1 and not token.raw.isupper():
        return 0
    values = [_VALUES[letter] for letter in text]
    return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))


def _with_wars(tokens: Sequence[Token]) -> list[Token]:
    """`Second World War`, `WWII` and `WW 2` as `World War II`."""
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        texts = [token.text for token in tokens[place : place + 3]]
        ordinal = re.fullmatch(r"([123])(?:st|nd|rd)", texts[0])
        if ordinal and texts[1:] == ["world", "war"]:
            result += [*tokens[place + 1 : place + 3], _war_number(int(ordinal[1]), tokens[place].raw)]
            place += 3
        elif texts[0] in _WAR:
            result += [word("world", "WW"), word("war", "WW")]
            if _WAR[texts[0]]:
                result.append(_war_number(_WAR[texts[0]], tokens[place].raw))
            place += 1
        else:
            result.append(tokens[place])
            place += 1
    return result


def _war_number(value: int, raw: str) -> Token:
    numeral = "i" * value
    return Token(numeral, raw, frozenset({numeral}), later_forms=frozenset({str(value), *ordinals(value)}))

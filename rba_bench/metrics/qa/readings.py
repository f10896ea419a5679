"""English text as the tokens that answers are compared by: initials, Roman numerals, numbers, dates, units, names."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from rba_bench.metrics.qa.numbers import read_dates, read_numbers
from rba_bench.metrics.qa.tokens import Token, merged, scan, word
from rba_bench.metrics.qa.words import LETTER_UNITS, UNITS

_ROMAN = re.compile(r"(?=[ivxlcdm])m{0,3}(?:cm|cd|d?c{0,3})(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})")
_SMALL_ROMAN = re.compile(r"[ivx]+")
_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100, "d": 500, "m": 1000}
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
_SHORT_NAMES = {"us": "usa", "usa": "usa", "uk": "uk"}
_WAR = {"ww": 0, "wwi": 1, "wwii": 2, "wwiii": 3, "ww1": 1, "ww2": 2, "ww3": 3}


@lru_cache(maxsize=4096)
def read_english(text: str) -> tuple[Token, ...]:
    """The tokens of an English text."""
    tokens = _with_initials(scan(text))
    tokens = _with_signs(tokens)
    tokens = read_numbers(tokens)
    tokens = read_dates(tokens)
    tokens = _with_names(_with_units(tokens))
    return tuple(_with_wars(_with_roman(tokens)))


def _letter(tokens: Sequence[Token], place: int) -> bool:
    return place < len(tokens) and len(tokens[place].text) == 1 and tokens[place].text.isalpha()


def _with_initials(tokens: Sequence[Token]) -> list[Token]:
    """`J. R. R.`, `J R R` and `JRR` alike; stops behind single letters are already gone."""
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        end = place
        while _letter(tokens, end):
            end += 1
        run = tokens[place:end]
        raw = "".join(token.raw for token in run).replace(".", "")
        dotted = all(token.raw.endswith(".") for token in run[:-1])
        spelled = len(run) > 2 or (len(run) == 2 and (dotted or raw.isupper() and not set(raw) <= {"A", "I"}))
        if spelled and (raw.isupper() or raw.islower()):
            result.append(replace(merged(list(run), raw.lower()), raw=raw.upper()))
        else:
            result.extend(run)
            end += 0 if run else 1
            result.extend(tokens[place:end] if not run else ())
        place = end
    return [
        replace(token, own=token.own | {_SHORT_NAMES[token.text]})
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
        follows = [token.text for token in tokens[place + 1 : place + 3]]
        single = first.kind == "word" and first.text.isalpha() and (len(first.raw) == 1 or first.raw == "AB")
        last = place + 2 >= len(tokens) or tokens[place + 2].kind == "mark"
        if single and follows == ["plus", "plus"]:
            result.append(merged(list(tokens[place : place + 3]), f"{first.text}++", kind="word"))
            place += 3
        elif single and follows[:1] == ["sharp"]:
            result.append(merged(list(tokens[place : place + 2]), f"{first.text}#"))
            place += 2
        elif (
            single
            and follows
            and follows[0] in _SIGNS
            and (first.raw.isupper() or last)
            and not _number(tokens, place + 2)
        ):
            result.append(merged(list(tokens[place : place + 2]), first.text + _SIGNS[follows[0]]))
            place += 2
        else:
            result.append(first)
            place += 1
    return result


_SIGNS = {"plus": "+", "positive": "+", "minus": "-", "negative": "-"}


def _number(tokens: Sequence[Token], place: int) -> bool:
    return place < len(tokens) and tokens[place].kind.startswith("number")


def _text(tokens: Sequence[Token], place: int) -> str:
    return tokens[place].text if place < len(tokens) else ""


def _with_units(tokens: Sequence[Token]) -> list[Token]:
    """Units in one spelling; currency signs go behind their number."""
    result: list[Token] = []
    for place, token in enumerate(tokens):
        unit = UNITS.get(token.raw.lower())
        behind = bool(result) and (result[-1].kind == "number" or result[-1].text == "degree")
        if token.raw in tuple("$€£¥¢₹") and place + 1 < len(tokens) and tokens[place + 1].kind == "number":
            continue
        if behind and token.text in ("us", "american") and _text(tokens, place + 1) in ("dollar", "dollars"):
            continue
        before = tokens[place - 1] if place else None
        if unit and (behind or token.raw.lower() not in LETTER_UNITS) and token.kind == "word":
            result.append(replace(token, text=unit, own=token.own | {unit}))
        else:
            result.append(token)
        if token.kind == "number" and before is not None and before.raw in tuple("$€£¥¢₹"):
            result.append(word(UNITS[before.raw], before.raw))
    return result


def _with_names(tokens: Sequence[Token]) -> list[Token]:
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        for name, own in _NAMES.items():
            run = tokens[place : place + len(name)]
            if tuple(token.text for token in run) == name:
                result.append(merged(list(run), own[0], *own))
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
        value = roman(token, behind)
        if value:
            token = replace(token, later=frozenset({str(value), *_ordinal_forms(value)}))
        elif token.kind == "number" and behind == "the" and len(words) > 1 and words[-2].kind == "word":
            digits = token.text[:-2]
            if digits.isdigit() and token.text[-1].isalpha() and token.text[-1] != "s":
                token = replace(token, later=frozenset({digits}))
        result.append(token)
    return result


def _ordinal_forms(value: int) -> set[str]:
    return {f"{value}{ending}" for ending in ("st", "nd", "rd", "th")}


def roman(token: Token, behind: str) -> int:
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
    roman = "i" * value
    return Token(roman, raw, frozenset({roman}), later=frozenset({str(value), *_ordinal_forms(value)}))

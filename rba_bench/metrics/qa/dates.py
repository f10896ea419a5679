"""Dates in any order as one token: 4 July 1776, July 4th, 1776, the fourth of July 1776, 1776-07-04.

A date also contains its parts (its year, its month, its month and year), so that a less exact answer in the list is
found in it. `44 BC` is one token, never the year 44; `AD 79` and `79 CE` equal 79.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from rba_bench.metrics.qa.tokens import Token
from rba_bench.metrics.qa.words import MONTHS, words

_ERAS = {"bc": "bc", "bce": "bc", "ad": "ad", "ce": "ad"}
_DAYS = words("monday tuesday wednesday thursday friday saturday sunday")
_NAMES = {value: name for name, value in reversed(MONTHS.items()) if len(name) > 4 or value in (5, 6, 7)}


def read_dates(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with dates and years of an era made one token each."""
    return _whole_dates(_years(tokens))


def _years(tokens: Sequence[Token]) -> list[Token]:
    found: list[Token] = []
    place = 0
    while place < len(tokens):
        token = tokens[place]
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        if token.kind == "number" and after and after.text in _ERAS and token.text.isdigit():
            found.append(_in_era(token, after, _ERAS[after.text]))
            place += 2
        elif _ERAS.get(token.text) == "ad" and token.raw.isupper() and after and after.text.isdigit():
            found.append(_in_era(after, token, "ad"))
            place += 2
        else:
            found.append(token)
            place += 1
    return found


def _in_era(year: Token, era: Token, name: str) -> Token:
    own = {f"{year.text}bc"} if name == "bc" else {year.text, f"{year.text}ad"}
    text = f"{year.text}bc" if name == "bc" else year.text
    return replace(year, text=text, raw=f"{year.raw} {era.raw}", own=frozenset(own))


def _whole_dates(tokens: Sequence[Token]) -> list[Token]:
    found: list[Token] = []
    place = 0
    while place < len(tokens):
        date, used = _date(tokens, place)
        found.append(date or tokens[place])
        place += used if date else 1
    return found


def _date(tokens: Sequence[Token], start: int) -> tuple[Token | None, int]:
    first = tokens[start]
    if first.kind == "date!":
        return _written(first), 1
    place = start + (2 if first.text in _DAYS and _is_comma(tokens, start + 1) else 0)
    parts, used = (
        _year_first(tokens, place) or _month_first(tokens, place) or _day_first(tokens, place) or (None, 0)
    )
    if parts is None:
        return None, 0
    day, month, year = parts
    used += place - start
    return _token(tokens[start : start + used], {(year, month, day)}), used


def _year_first(tokens: Sequence[Token], start: int) -> tuple[tuple[str, int, str], int] | None:
    """1776, July 4."""
    year = _text(tokens, start)
    place = start + (2 if _is_comma(tokens, start + 1) else 1)
    if not re.fullmatch(r"\d{4}", year) or not _month(tokens, place) or not _day(tokens, place + 1):
        return None
    if _year_behind(tokens, place + 2)[0]:
        return None
    return (_day(tokens, place + 1), _month(tokens, place), year), place + 2 - start


def _month_first(tokens: Sequence[Token], start: int) -> tuple[tuple[str, int, str], int] | None:
    """July 4th, 1776; July the fourth; July 1776."""
    month = _month(tokens, start)
    if not month:
        return None
    place = start + 1
    place += 1 if _text(tokens, place) == "the" and _day(tokens, place + 1) else 0
    day = _day(tokens, place)
    place += 1 if day else 0
    year, place = _year_behind(tokens, place)
    if not day and not year:
        return None
    return (day, month, year), place - start


def _day_first(tokens: Sequence[Token], start: int) -> tuple[tuple[str, int, str], int] | None:
    """4 July 1776; the 4th of July."""
    place = start + (1 if _text(tokens, start) == "the" else 0)
    day = _day(tokens, place)
    if not day:
        return None
    place += 2 if _text(tokens, place + 1) == "of" else 1
    month = _month(tokens, place)
    if not month:
        return None
    year, place = _year_behind(tokens, place + 1)
    return (day, month, year), place - start


def _year_behind(tokens: Sequence[Token], place: int) -> tuple[str, int]:
    after = place + (1 if _is_comma(tokens, place) or _text(tokens, place) in ("of", "in") else 0)
    text = _text(tokens, after)
    if re.fullmatch(r"\d{3,4}|\d{1,4}bc|\d{1,4}ad", text) or (text.isdigit() and tokens[after].raw != text):
        return text, after + 1
    return "", place


def _text(tokens: Sequence[Token], place: int) -> str:
    return tokens[place].text if place < len(tokens) else ""


def _is_comma(tokens: Sequence[Token], place: int) -> bool:
    return _text(tokens, place) == ","


def _month(tokens: Sequence[Token], place: int) -> int:
    """Number of a month, 0 for other words."""
    if place >= len(tokens) or tokens[place].kind != "word":
        return 0
    return MONTHS.get(tokens[place].text, 0)


def _day(tokens: Sequence[Token], place: int) -> str:
    text = _text(tokens, place)
    number = re.fullmatch(r"0?(\d{1,2})(?:st|nd|rd|th)?", text)
    if not number or tokens[place].kind != "number" or not 1 <= int(number[1]) <= 31:
        return ""
    return str(int(number[1]))


def _written(token: Token) -> Token:
    """1776-07-04; of 4/7/1776 both readings, as nobody can know."""
    a, b, c = (int(part) for part in re.split(r"[-/.]", token.text))
    if "-" in token.text:
        dates = {(str(a), b, str(c))}
    else:
        dates = {(str(c), month, str(day)) for month, day in ((a, b), (b, a)) if month <= 12}
    return _token([token], dates)


def _token(tokens: Sequence[Token], dates: set[tuple[str, int, str]]) -> Token:
    own, also = set(), set()
    for year, month, day in dates:
        own.add(f"{year}-{month}-{day}")
        also |= {year, f"{year}-{month}-", f"-{month}-{day}", _NAMES.get(month, "")}
        also |= {f"{day}th", *(_ordinals(day))} if day else set()
    raw = " ".join(token.raw for token in tokens)
    kept = frozenset(form for form in also - own if form not in ("", "--") and not form.startswith("-0"))
    return Token(sorted(own)[0] if own else raw, raw, frozenset(own), kept, kind="number")


def _ordinals(day: str) -> set[str]:
    return {f"{day}{ending}" for ending in ("st", "nd", "rd", "th")}

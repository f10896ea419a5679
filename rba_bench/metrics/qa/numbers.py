"""Numbers and dates, in digits or in words, as one token each.

Numbers in digits and in words, as one token each.

    seven, 7 -> 7            one thousand, a thousand, 1,000 -> 1000      nineteen sixty nine -> 1969
    first, 1st -> 1st        three and a half, 3 1/2, 3.5 -> 3.5           2.5 million -> 2500000
    double oh seven -> 007   one half, 1/2 -> 1/2, equal to 0.5            the sixties, 1960s -> 60s, 1960s

Leading zeros of digits are kept: 007 is not 7.

Dates in any order as one token: 4 July 1776, July 4th, 1776, the fourth of July 1776, 1776-07-04.

A date also contains its parts (its year, its month, its month and year), so that a less exact answer in the list is
result in it. `44 BC` is one token, never the year 44; `AD 79` and `79 CE` equal 79.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from rba_bench.metrics.qa.tokens import Token, number, word
from rba_bench.metrics.qa.words import MONTHS, in_order, words

_UNITS = {name: value for value, name in enumerate(in_order(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"))}  # fmt: skip
_TENS = {name: 10 * value for value, name in enumerate(in_order(
    "twenty thirty forty fifty sixty seventy eighty ninety"), 2)}  # fmt: skip
_POWERS = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "bn": 10**9,
}
_ORDINALS = {
    **{name: value for value, name in enumerate(in_order(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth"), 1)},
    **{f"{name[:-1]}ieth": value for name, value in _TENS.items()},
    "hundredth": 100, "thousandth": 1000, "millionth": 10**6,
}  # fmt: skip
_TIMES = {"twice": "2", "thrice": "3"}
_SPANS = {
    "decade": 10, "decades": 10, "century": 100, "centuries": 100, "millennium": 1000, "millennia": 1000,
}  # fmt: skip
_DECADES = {f"{name[:-1]}ies": value for name, value in _TENS.items()}
_PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "thirds": 3,
    "quarter": 4,
    "quarters": 4,
    "fourths": 4,
    "fifths": 5,
    "eighths": 8,
    "tenths": 10,
}
_SHARES = words("third fourth fifth eighth tenth")  # "a third" is a share or a place
# "one" is a pronoun behind these, and before "of"
_BEHIND_PRONOUN = words("of could might may would can should must has")
_BEFORE_PRONOUN = words("no the which this that any some every each another other only")


def read_numbers(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with every run of number words and digits made one number token."""
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        if tokens[place].text in _TIMES:
            result += [number(_TIMES[tokens[place].text], tokens[place].raw), word("time", "", "times")]
            place += 1
            continue
        token, used = _read(tokens, place, result)
        if token.text == "once" and not _text(tokens, place + 1):
            token = replace(token, own=token.own | {"1"})  # just once
        result.append(token)
        place += used
    return _in_years(result)


def _in_years(tokens: Sequence[Token]) -> list[Token]:
    """`a century` and `two decades` as years."""
    result: list[Token] = []
    for token in tokens:
        count = result[-1] if result else None
        small = count is not None and count.kind == "number" and count.text.isdigit() and len(count.text) < 3
        if token.text not in _SPANS or count is None or not (count.text in ("a", "1") or small):
            result.append(token)
            continue
        years = _SPANS[token.text] * (1 if count.text == "a" else int(count.text))
        result[-1:] = [number(str(years), f"{count.raw} {token.raw}"), word("years", "", "year")]
    return result


def _read(tokens: Sequence[Token], start: int, before: Sequence[Token]) -> tuple[Token, int]:
    first = tokens[start]
    if first.kind == "number!" and first.text[-1].isalpha():
        return _suffixed(first), 1
    if first.text == "one" and _pronoun(tokens, start, before):
        return first, 1
    if first.text in ("minus", "negative") and start + 1 < len(tokens):
        value, used = _value(tokens, start + 1)
        if used:
            return _plain("-" + value, tokens[start : start + 1 + used]), used + 1
    value, used = _value(tokens, start)
    if not used:
        return first, 1
    return _plain(value, tokens[start : start + used]), used


def _pronoun(tokens: Sequence[Token], start: int, before: Sequence[Token]) -> bool:
    follows = tokens[start + 1].text if start + 1 < len(tokens) else ""
    if follows in _POWERS:
        return False
    return follows in _BEHIND_PRONOUN or bool(before and before[-1].text in _BEFORE_PRONOUN)


def _suffixed(token: Token) -> Token:
    digits = token.text.rstrip("sthndr'")
    if token.text.endswith("s"):
        return _decade(digits, token.raw)
    return _ordinal(int(Fraction(digits)), token.raw)


def _decade(digits: str, raw: str) -> Token:
    own = (f"{digits[-2:]}s", f"19{digits[-2:]}s") if digits[:-2] in ("", "19") else (f"{digits}s",)
    return number(own[0], raw, *own)


def _ordinal(value: int, raw: str) -> Token:
    ending = "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    return number(f"{value}{ending}", raw, *((raw.lower(),) if raw.isalpha() else ()))


def _plain(value: str, tokens: Sequence[Token]) -> Token:
    raw = " ".join(token.raw for token in tokens)
    if value.endswith("#"):
        return _ordinal(int(value[:-1].lstrip("-")), raw)
    if value.endswith("s"):
        return _decade(value[:-1], raw)
    if "/" in value:
        share = Fraction(value)
        decimal = _decimal(share)
        own = [value, *([decimal] if decimal else [])]
        if len(tokens) == 2 and tokens[-1].text in _SHARES:
            own.append(_ordinal(share.denominator, "").text)
        return number(str(share) if share.denominator > 1 else value, raw, *own)
    return number(value, raw)


def _decimal(value: Fraction) -> str:
    """Digits of a number with at most six decimals, "" if it has more."""
    scaled = value * 10**6
    if value.denominator == 1 or scaled.denominator > 1:
        return str(value.numerator) if value.denominator == 1 else ""
    whole, part = divmod(abs(scaled.numerator), 10**6)
    return _trimmed(f"{'-' if value < 0 else ''}{whole}.{part:06d}")


def _trimmed(digits: str) -> str:
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _value(tokens: Sequence[Token], start: int) -> tuple[str, int]:
    """Number that begins at a place (an ordinal ends in `#`, a decade in `s`), and how many tokens it takes."""
    value, used = _start(tokens, start)
    if not used:
        return "", 0
    value, used = _with_fraction(tokens, start, value, used)
    return _with_powers(tokens, start, value, used)


def _text(tokens: Sequence[Token], place: int) -> str:
    return tokens[place].text if place < len(tokens) and tokens[place].kind != "mark" else ""


def _start(tokens: Sequence[Token], start: int) -> tuple[str, int]:
    first, second = _text(tokens, start), _text(tokens, start + 1)
    if start < len(tokens) and tokens[start].kind == "number!":
        return _digits(first), 1
    if first in ("a", "an", "one") and second in _PARTS and second not in ("third", "second"):
        return f"1/{_PARTS[second]}", 2
    if first in ("a", "one") and second in _SHARES:
        return f"1/{_ORDINALS[second]}", 2
    if first == "half" and second in ("a", "an") and _text(tokens, start + 2) in _POWERS:
        return str(_POWERS[_text(tokens, start + 2)] // 2), 3
    if first == "a" and second in _POWERS:
        return _spoken(tokens, start + 1, 1, 1)
    if first in ("a", "one") and second == "dozen":
        return "12", 2
    if first == "half" and (second == "dozen" or (second == "a" and _text(tokens, start + 2) == "dozen")):
        return "6", 2 if second == "dozen" else 3
    if first in _UNITS and second == "dozen":
        return str(12 * _UNITS[first]), 2
    if first in _UNITS and second in _PARTS and first != "one" and second.endswith("s"):
        return str(Fraction(_UNITS[first], _PARTS[second])), 2
    if first in ("oh", "double", "zero", "triple"):
        return _spelled(tokens, start)
    return _spoken(tokens, start, 0, 0)


def _digits(text: str) -> str:
    if "/" in text:
        whole, _, part = text.rpartition(" ")
        if not whole:
            return str(Fraction(part)) if "-" not in part else text
        value = Fraction(whole) + (-1 if whole.startswith("-") else 1) * Fraction(part)
        return _decimal(value) or str(value)
    if text.startswith((".", "-.")):
        text = text.replace(".", "0.", 1)
    return _trimmed(text)


def _spelled(tokens: Sequence[Token], start: int) -> tuple[str, int]:
    """Digits one by one: `double oh seven`."""
    digits, place, times = "", start, 1
    while True:
        text = _text(tokens, place)
        if text in ("double", "triple"):
            times = 2 if text == "double" else 3
        elif text in ("oh", "o") or (text in _UNITS and _UNITS[text] < 10):
            digits += ("0" if text in ("oh", "o") else str(_UNITS[text])) * times
            times = 1
        else:
            break
        place += 1
    return (
        (digits, place - start)
        if len(digits) > 1 or digits == "0" and _text(tokens, start) == "zero"
        else ("", 0)
    )


def _below_hundred(tokens: Sequence[Token], place: int) -> tuple[int, int, str]:
    """Value below 100, number of tokens, and `#` or `s` where it is an ordinal or a decade."""
    text, after = _text(tokens, place), _text(tokens, place + 1)
    if text in _TENS:
        if after in _UNITS and 0 < _UNITS[after] < 10:
            return _TENS[text] + _UNITS[after], 2, ""
        if after in _ORDINALS and _ORDINALS[after] < 10:
            return _TENS[text] + _ORDINALS[after], 2, "#"
        return _TENS[text], 1, ""
    if text in _UNITS:
        return _UNITS[text], 1, ""
    if text in _ORDINALS:
        return _ORDINALS[text], 1, "#"
    if text in _DECADES:
        return _DECADES[text], 1, "s"
    return 0, 0, ""


def _spoken(tokens: Sequence[Token], start: int, value: int, used: int) -> tuple[str, int]:
    """Cardinals, ordinals, and years said in pairs, from number words. `value` and `used` are of an article before."""
    total, group, place, mark = 0, value, start, ""
    if not used:
        group, step, mark = _below_hundred(tokens, place)
        if not step:
            return "", 0
        place += step
        pair = _pair(tokens, place, group) if not mark else None
        if pair:
            return pair[0], pair[1] + place - start
    while not mark:
        text = _text(tokens, place)
        power = _POWERS.get(text) or _ORDINALS.get(text, 0)
        if power >= 100 and group:
            mark = "#" if text in _ORDINALS else ""
            total, group = (total, group * 100) if power == 100 else (total + group * power, 0)
            place += 1
            continue
        joined = 1 if text == "and" and _text(tokens, place - 1) in _POWERS else 0
        below, step, mark = _below_hundred(tokens, place + joined)
        if not step or mark == "s" or (group % 100 or (group == 0 and total == 0)):
            mark = "" if mark != "#" or not step else ""
            break
        group, place = group + below, place + joined + step
    return f"{total + group}{mark}", place - start + used


def _pair(tokens: Sequence[Token], place: int, first: int) -> tuple[str, int] | None:
    """Years and codes said in pairs: nineteen | sixty nine, twenty | oh five, nine | thirty."""
    if _text(tokens, place) == "oh" and _text(tokens, place + 1) in _UNITS and first >= 10:
        return f"{first}0{_UNITS[_text(tokens, place + 1)]}", 2
    second, step, mark = _below_hundred(tokens, place)
    if not step or mark == "#" or second < 10 or (first % 10 == 0 and first > 20 and second < 10):
        return None
    if mark == "s":
        return (f"{first}{second}s", step) if first >= 10 else None
    return (f"{first}{second:02d}", step) if _text(tokens, place + step) not in _POWERS else None


def _with_fraction(tokens: Sequence[Token], start: int, value: str, used: int) -> tuple[str, int]:
    """Adds `point five` and `and a half` to a whole number."""
    if not value.lstrip("-").isdigit():
        return value, used
    place = start + used
    if _text(tokens, place) == "point":
        digits = ""
        while (text := _text(tokens, place + 1 + len(digits))) in _UNITS and _UNITS[text] < 10:
            digits += str(_UNITS[text])
        if digits:
            return _trimmed(f"{value}.{digits}"), used + 1 + len(digits)
    if _text(tokens, place) == "and" and _text(tokens, place + 1) in ("a", "one"):
        part = _PARTS.get(_text(tokens, place + 2), 0)
        if part in (2, 4):
            return _decimal(Fraction(value) + Fraction(1, part)), used + 3
    return value, used


def _with_powers(tokens: Sequence[Token], start: int, value: str, used: int) -> tuple[str, int]:
    """Multiplies what is written in digits: `2.5 million`, `three and a half thousand`."""
    while (power := _POWERS.get(_text(tokens, start + used))) and value[-1].isdigit() and "/" not in value:
        product = _decimal(Fraction(value) * power)
        if not product:
            break
        value, used = product, used + 1
    return value, used


_ERAS = {"bc": "bc", "bce": "bc", "ad": "ad", "ce": "ad"}
_DAYS = words("monday tuesday wednesday thursday friday saturday sunday")
_NAMES = {value: name for name, value in reversed(MONTHS.items()) if len(name) > 4 or value in (5, 6, 7)}


def read_dates(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with dates and years of an era made one token each."""
    return _whole_dates(_years(tokens))


def _years(tokens: Sequence[Token]) -> list[Token]:
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        token = tokens[place]
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        if token.kind == "number" and after and after.text in _ERAS and token.text.isdigit():
            result.append(_in_era(token, after, _ERAS[after.text]))
            place += 2
        elif _ERAS.get(token.text) == "ad" and token.raw.isupper() and after and after.text.isdigit():
            result.append(_in_era(after, token, "ad"))
            place += 2
        else:
            result.append(token)
            place += 1
    return result


def _in_era(year: Token, era: Token, name: str) -> Token:
    own = {f"{year.text}bc"} if name == "bc" else {year.text, f"{year.text}ad"}
    text = f"{year.text}bc" if name == "bc" else year.text
    return replace(year, text=text, raw=f"{year.raw} {era.raw}", own=frozenset(own))


def _whole_dates(tokens: Sequence[Token]) -> list[Token]:
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        date, used = _date(tokens, place)
        result.append(date or tokens[place])
        place += used if date else 1
    return result


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
    year = _date_text(tokens, start)
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
    place += 1 if _date_text(tokens, place) == "the" and _day(tokens, place + 1) else 0
    day = _day(tokens, place)
    place += 1 if day else 0
    year, place = _year_behind(tokens, place)
    if not day and not year:
        return None
    return (day, month, year), place - start


def _day_first(tokens: Sequence[Token], start: int) -> tuple[tuple[str, int, str], int] | None:
    """4 July 1776; the 4th of July."""
    place = start + (1 if _date_text(tokens, start) == "the" else 0)
    day = _day(tokens, place)
    if not day:
        return None
    place += 2 if _date_text(tokens, place + 1) == "of" else 1
    month = _month(tokens, place)
    if not month:
        return None
    year, place = _year_behind(tokens, place + 1)
    return (day, month, year), place - start


def _year_behind(tokens: Sequence[Token], place: int) -> tuple[str, int]:
    after = place + (1 if _is_comma(tokens, place) or _date_text(tokens, place) in ("of", "in") else 0)
    text = _date_text(tokens, after)
    if re.fullmatch(r"\d{3,4}|\d{1,4}bc|\d{1,4}ad", text) or (text.isdigit() and tokens[after].raw != text):
        return text, after + 1
    return "", place


def _date_text(tokens: Sequence[Token], place: int) -> str:
    return tokens[place].text if place < len(tokens) else ""


def _is_comma(tokens: Sequence[Token], place: int) -> bool:
    return _date_text(tokens, place) == ","


def _month(tokens: Sequence[Token], place: int) -> int:
    """Number of a month, 0 for other words."""
    if place >= len(tokens) or tokens[place].kind != "word":
        return 0
    return MONTHS.get(tokens[place].text, 0)


def _day(tokens: Sequence[Token], place: int) -> str:
    text = _date_text(tokens, place)
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
        also |= {f"{day}{ending}" for ending in ("st", "nd", "rd", "th")} if day else set()
    raw = " ".join(token.raw for token in tokens)
    kept = frozenset(form for form in also - own if form not in ("", "--") and not form.startswith("-0"))
    return Token(sorted(own)[0] if own else raw, raw, frozenset(own), kept, kind="number")

"""Numbers and dates, in digits or in words, as one token each.

    seven, 7 -> 7            one thousand, a thousand, 1,000 -> 1000      nineteen sixty nine -> 1969
    first, 1st -> 1st        three and a half, 3 1/2, 3.5 -> 3.5           2.5 million -> 2500000
    double oh seven -> 007   one half, 1/2 -> 1/2, equal to 0.5            the sixties, 1960s -> 60s, 1960s

Leading zeros of digits are kept: 007 is not 7.

A date may be written in any order: 4 July 1776, July 4th, 1776, the fourth of July 1776, 1776-07-04. It also contains
its parts (its year, its month, its month and year), so that a less exact answer in the list is found in it. `44 BC` is
one token, never the year 44; `AD 79` and `79 CE` equal 79.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from rba_bench.metrics.qa.tokens import Token, number, ordinals, text_at, word
from rba_bench.metrics.qa.words import MONTHS, word_list, word_set

_UNITS = {name: value for value, name in enumerate(word_list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"))}  # fmt: skip
_TENS = {
    name: 10 * value
    for value, name in enumerate(word_list("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
_POWERS = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "bn": 10**9,
}  # fmt: skip
_ORDINALS = {
    **{name: value for value, name in enumerate(word_list(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth"), 1)},
    **{f"{name[:-1]}ieth": value for name, value in _TENS.items()},
    "hundredth": 100, "thousandth": 1000, "millionth": 10**6,
}  # fmt: skip
_TIMES = {"twice": "2", "thrice": "3"}
_YEARS = {
    "decade": 10, "decades": 10, "century": 100, "centuries": 100, "millennium": 1000, "millennia": 1000,
}  # fmt: skip
_DECADES = {f"{name[:-1]}ies": value for name, value in _TENS.items()}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourths": 4, "fifths": 5,
    "eighths": 8, "tenths": 10,
}  # fmt: skip
_SHARES = word_set("third fourth fifth eighth tenth")  # "a third" is a share or a place
# "one" is a pronoun behind these, and before "of"
_BEHIND_PRONOUN = word_set("of could might may would can should must has")
_BEFORE_PRONOUN = word_set("no the which this that any some every each another other only")

_ERAS = {"bc": "bc", "bce": "bc", "ad": "ad", "ce": "ad"}
_DAYS = word_set("monday tuesday wednesday thursday friday saturday sunday")
_MONTH_NAMES = {n: name for name, n in reversed(MONTHS.items()) if len(name) > 4 or n in (5, 6, 7)}


def read_numbers(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with every run of number words and digits made one number token."""
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        token = tokens[place]
        if token.text in _TIMES:
            result += [number(_TIMES[token.text], token.raw), word("time", "", "times")]
            place += 1
            continue
        token, used = _read_number(tokens, place, result)
        if token.text == "once" and not _word_at(tokens, place + 1):
            token = replace(token, forms=token.forms | {"1"})  # just once
        count = result[-1] if result else word("")
        is_count = count.kind == "number" and count.text.isdigit() and len(count.text) < 3
        if token.text in _YEARS and (is_count or count.text in ("a", "1")):  # a century, two decades
            years = _YEARS[token.text] * (1 if count.text == "a" else int(count.text))
            result[-1:] = [number(str(years), f"{count.raw} {token.raw}"), word("years", "", "year")]
        else:
            result.append(token)
        place += used
    return result


def _read_number(tokens: Sequence[Token], start: int, before: Sequence[Token]) -> tuple[Token, int]:
    """The number that begins at a place, else the token there, and how many tokens it takes."""
    first = tokens[start]
    if first.kind == "number!" and first.text[-1].isalpha():
        digits = first.text.rstrip("sthndr'")
        is_decade = first.text.endswith("s")
        return _decade(digits, first.raw) if is_decade else _ordinal(int(Fraction(digits)), first.raw), 1
    after, behind = text_at(tokens, start + 1), before[-1].text if before else ""
    is_pronoun = after in _BEHIND_PRONOUN or (behind in _BEFORE_PRONOUN and after not in _POWERS)
    if first.text == "one" and is_pronoun:
        return first, 1
    if first.text in ("minus", "negative"):
        value, used = _value(tokens, start + 1)
        if used:
            return _number_token("-" + value, tokens[start : start + 1 + used]), used + 1
    value, used = _value(tokens, start)
    return (_number_token(value, tokens[start : start + used]), used) if used else (first, 1)


def _decade(digits: str, raw: str) -> Token:
    forms = (f"{digits[-2:]}s", f"19{digits[-2:]}s") if digits[:-2] in ("", "19") else (f"{digits}s",)
    return number(forms[0], raw, *forms)


def _ordinal(value: int, raw: str) -> Token:
    ending = "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    return number(f"{value}{ending}", raw, *((raw.lower(),) if raw.isalpha() else ()))


def _number_token(value: str, tokens: Sequence[Token]) -> Token:
    raw = " ".join(token.raw for token in tokens)
    if value.endswith("#"):
        return _ordinal(int(value[:-1].lstrip("-")), raw)
    if value.endswith("s"):
        return _decade(value[:-1], raw)
    if "/" in value:
        share = Fraction(value)
        decimal = _decimal(share)
        forms = [value, *([decimal] if decimal else [])]
        if len(tokens) == 2 and tokens[-1].text in _SHARES:
            forms.append(_ordinal(share.denominator, "").text)
        return number(str(share) if share.denominator > 1 else value, raw, *forms)
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
    value, used = _simple_value(tokens, start)
    if not used:
        return "", 0
    value, used = _with_fraction(tokens, start, value, used)
    # What is written in digits may be multiplied: `2.5 million`, `three and a half thousand`.
    while (power := _POWERS.get(_word_at(tokens, start + used))) and value[-1].isdigit() and "/" not in value:
        product = _decimal(Fraction(value) * power)
        if not product:
            break
        value, used = product, used + 1
    return value, used


def _word_at(tokens: Sequence[Token], place: int) -> str:
    return tokens[place].text if place < len(tokens) and tokens[place].kind != "mark" else ""


def _simple_value(tokens: Sequence[Token], start: int) -> tuple[str, int]:
    first, second = _word_at(tokens, start), _word_at(tokens, start + 1)
    if start < len(tokens) and tokens[start].kind == "number!":
        return _from_digits(first), 1
    if first in ("a", "an", "one") and second in _PARTS and second not in ("third", "second"):
        return f"1/{_PARTS[second]}", 2
    if first in ("a", "one") and second in _SHARES:
        return f"1/{_ORDINALS[second]}", 2
    if first == "half" and second in ("a", "an") and _word_at(tokens, start + 2) in _POWERS:
        return str(_POWERS[_word_at(tokens, start + 2)] // 2), 3
    if first == "a" and second in _POWERS:
        return _spoken(tokens, start + 1, 1, 1)
    if first in ("a", "one") and second == "dozen":
        return "12", 2
    if first == "half" and (second == "dozen" or (second == "a" and _word_at(tokens, start + 2) == "dozen")):
        return "6", 2 if second == "dozen" else 3
    if first in _UNITS and second == "dozen":
        return str(12 * _UNITS[first]), 2
    if first in _UNITS and second in _PARTS and first != "one" and second.endswith("s"):
        return str(Fraction(_UNITS[first], _PARTS[second])), 2
    if first in ("oh", "double", "zero", "triple"):
        return _digit_by_digit(tokens, start)
    return _spoken(tokens, start, 0, 0)


def _from_digits(text: str) -> str:
    if "/" in text:
        whole, _, part = text.rpartition(" ")
        if not whole:
            return str(Fraction(part)) if "-" not in part else text
        value = Fraction(whole) + (-1 if whole.startswith("-") else 1) * Fraction(part)
        return _decimal(value) or str(value)
    if text.startswith((".", "-.")):
        text = text.replace(".", "0.", 1)
    return _trimmed(text)


def _digit_by_digit(tokens: Sequence[Token], start: int) -> tuple[str, int]:
    """Digits one by one: `double oh seven`."""
    digits, place, times = "", start, 1
    while True:
        text = _word_at(tokens, place)
        if text in ("double", "triple"):
            times = 2 if text == "double" else 3
        elif text in ("oh", "o") or (text in _UNITS and _UNITS[text] < 10):
            digits += ("0" if text in ("oh", "o") else str(_UNITS[text])) * times
            times = 1
        else:
            break
        place += 1
    is_number = len(digits) > 1 or (digits == "0" and _word_at(tokens, start) == "zero")
    return (digits, place - start) if is_number else ("", 0)


def _below_hundred(tokens: Sequence[Token], place: int) -> tuple[int, int, str]:
    """Value below 100, number of tokens, and `#` or `s` where it is an ordinal or a decade."""
    text, after = _word_at(tokens, place), _word_at(tokens, place + 1)
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
        text = _word_at(tokens, place)
        power = _POWERS.get(text) or _ORDINALS.get(text, 0)
        if power >= 100 and group:
            mark = "#" if text in _ORDINALS else ""
            total, group = (total, group * 100) if power == 100 else (total + group * power, 0)
            place += 1
            continue
        joined = 1 if text == "and" and _word_at(tokens, place - 1) in _POWERS else 0
        below, step, mark = _below_hundred(tokens, place + joined)
        if not step or mark == "s" or (group % 100 or (group == 0 and total == 0)):
            mark = ""
            break
        group, place = group + below, place + joined + step
    return f"{total + group}{mark}", place - start + used


def _pair(tokens: Sequence[Token], place: int, first: int) -> tuple[str, int] | None:
    """Years and codes said in pairs: nineteen | sixty nine, twenty | oh five, nine | thirty."""
    if _word_at(tokens, place) == "oh" and _word_at(tokens, place + 1) in _UNITS and first >= 10:
        return f"{first}0{_UNITS[_word_at(tokens, place + 1)]}", 2
    second, step, mark = _below_hundred(tokens, place)
    if not step or mark == "#" or second < 10 or (first % 10 == 0 and first > 20 and second < 10):
        return None
    if mark == "s":
        return (f"{first}{second}s", step) if first >= 10 else None
    return (f"{first}{second:02d}", step) if _word_at(tokens, place + step) not in _POWERS else None


def _with_fraction(tokens: Sequence[Token], start: int, value: str, used: int) -> tuple[str, int]:
    """Adds `point five` and `and a half` to a whole number."""
    if not value.lstrip("-").isdigit():
        return value, used
    place = start + used
    if _word_at(tokens, place) == "point":
        digits = ""
        while (text := _word_at(tokens, place + 1 + len(digits))) in _UNITS and _UNITS[text] < 10:
            digits += str(_UNITS[text])
        if digits:
            return _trimmed(f"{value}.{digits}"), used + 1 + len(digits)
    if _word_at(tokens, place) == "and" and _word_at(tokens, place + 1) in ("a", "one"):
        part = _PARTS.get(_word_at(tokens, place + 2), 0)
        if part in (2, 4):
            return _decimal(Fraction(value) + Fraction(1, part)), used + 3
    return value, used


def read_dates(tokens: Sequence[Token]) -> list[Token]:
    """The tokens with dates and years of an era made one token each."""
    tokens = _with_eras(tokens)
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        date, used = _read_date(tokens, place)
        result.append(date or tokens[place])
        place += used if date else 1
    return result


def _with_eras(tokens: Sequence[Token]) -> list[Token]:
    """`44 BC`, `79 CE` and `AD 79` as one token each."""
    result: list[Token] = []
    place = 0
    while place < len(tokens):
        token = tokens[place]
        after = tokens[place + 1] if place + 1 < len(tokens) else word("")
        if token.kind == "number" and after.text in _ERAS and token.text.isdigit():
            year, era, name = token, after, _ERAS[after.text]
        elif _ERAS.get(token.text) == "ad" and token.raw.isupper() and after.text.isdigit():
            year, era, name = after, token, "ad"
        else:
            result.append(token)
            place += 1
            continue
        text = f"{year.text}bc" if name == "bc" else year.text
        forms = frozenset({text} if name == "bc" else {text, f"{text}ad"})
        result.append(replace(year, text=text, raw=f"{year.raw} {era.raw}", forms=forms))
        place += 2
    return result


def _read_date(tokens: Sequence[Token], start: int) -> tuple[Token | None, int]:
    """The date that begins at a place, and how many tokens it takes."""
    first = tokens[start]
    if first.kind == "date!":
        a, b, c = (int(part) for part in re.split(r"[-/.]", first.text))
        if "-" in first.text:
            return _date_token([first], {(str(a), b, str(c))}), 1
        # Of 4/7/1776 both readings, as nobody can know.
        both = {(str(c), month, str(day)) for month, day in ((a, b), (b, a)) if month <= 12}
        return _date_token([first], both), 1
    place = start + (2 if first.text in _DAYS and text_at(tokens, start + 1) == "," else 0)
    match = _year_first(tokens, place) or _month_first(tokens, place) or _day_first(tokens, place)
    if match is None:
        return None, 0
    (day, month, year), used = match
    used += place - start
    return _date_token(tokens[start : start + used], {(year, month, day)}), used


def _year_first(tokens: Sequence[Token], start: int) -> tuple[tuple[str, int, str], int] | None:
    """1776, July 4."""
    year = text_at(tokens, start)
    place = start + (2 if text_at(tokens, start + 1) == "," else 1)
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
    place += 1 if text_at(tokens, place) == "the" and _day(tokens, place + 1) else 0
    day = _day(tokens, place)
    place += 1 if day else 0
    year, place = _year_behind(tokens, place)
    if not day and not year:
        return None
    return (day, month, year), place - start


def _day_first(tokens: Sequence[Token], start: int) -> tuple[tuple[str, int, str], int] | None:
    """4 July 1776; the 4th of July."""
    place = start + (1 if text_at(tokens, start) == "the" else 0)
    day = _day(tokens, place)
    if not day:
        return None
    place += 2 if text_at(tokens, place + 1) == "of" else 1
    month = _month(tokens, place)
    if not month:
        return None
    year, place = _year_behind(tokens, place + 1)
    return (day, month, year), place - start


def _year_behind(tokens: Sequence[Token], place: int) -> tuple[str, int]:
    after = place + (1 if text_at(tokens, place) == "," or text_at(tokens, place) in ("of", "in") else 0)
    text = text_at(tokens, after)
    if re.fullmatch(r"\d{3,4}|\d{1,4}bc|\d{1,4}ad", text) or (text.isdigit() and tokens[after].raw != text):
        return text, after + 1
    return "", place


def _month(tokens: Sequence[Token], place: int) -> int:
    """Number of a month, 0 for other words."""
    is_word = place < len(tokens) and tokens[place].kind == "word"
    return MONTHS.get(tokens[place].text, 0) if is_word else 0


def _day(tokens: Sequence[Token], place: int) -> str:
    text = text_at(tokens, place)
    number = re.fullmatch(r"0?(\d{1,2})(?:st|nd|rd|th)?", text)
    if not number or tokens[place].kind != "number" or not 1 <= int(number[1]) <= 31:
        return ""
    return str(int(number[1]))


def _date_token(tokens: Sequence[Token], dates: set[tuple[str, int, str]]) -> Token:
    """One token that equals each of the dates `(year, month, day)` and contains their parts."""
    forms, parts = set(), set()
    for year, month, day in dates:
        forms.add(f"{year}-{month}-{day}")
        parts |= {year, f"{year}-{month}-", f"-{month}-{day}", _MONTH_NAMES.get(month, "")}
        parts |= {f"{day}th", *ordinals(day)} if day else set()
    raw = " ".join(token.raw for token in tokens)
    stated = {form for form in parts - forms if form not in ("", "--") and not form.startswith("-0")}
    return Token(sorted(forms)[0] if forms else raw, raw, frozenset(forms), frozenset(stated), kind="number")

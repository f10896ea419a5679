"""The spoken form of a written text: numbers, dates, times, money, units and abbreviations as words.

The work is done by the package `wetext` (Apache-2.0, extra `synth`): weighted finite-state transducers for English,
Chinese and Japanese, after Ebden and Sproat 2015, "The Kestrel TTS text normalization system". What its English grammar
says otherwise than people do is put right here, in RULES, before it sees the text. Texts of other languages stay as
they are: speech engines have rules of their own.

Case and punctuation stay, because engines take phrasing and stress from them.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from rba_bench.errors import MissingPrerequisite
from rba_bench.installing import extra
from rba_bench.machine import package_version

LANGUAGES = ("en", "zh", "ja")
VERSION = 1  # raise it whenever a rule changes what is said
Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]

_TO_SAY = re.compile(r"[0-9%&$£€¥¢°=+½¼¾]")  # a sentence without any of these needs no grammar
_SENTENCE = re.compile(r"(?<=[.!?])(\s+)(?=[\"“'(]?[A-Z0-9])|(\s*\n\s*)")
_END = re.compile(r"[.!?]+[\"”')]*$")
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_SHORT_MONTHS = {name[:3].title(): name.title() for name in _MONTHS.split("|")} | {"Sept": "September"}
_PER = {"yr": "year", "mo": "month", "wk": "week", "hr": "hour"}
_MONTH = re.compile(rf"\bof ({_MONTHS})\b")
_DAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
_MONEY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "", ""),
}
_SCALES = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion"}
_TENS = (
    "",
    "tens",
    "twenties",
    "thirties",
    "forties",
    "fifties",
    "sixties",
    "seventies",
    "eighties",
    "nineties",
)
_UNITS = {  # those that wetext leaves alone, or takes for another
    "m": "meters", "ft": "feet", "in": "inches", "yd": "yards", "mi": "miles", "oz": "ounces", "lb": "pounds",
    "lbs": "pounds", "sec": "seconds", "secs": "seconds", "min": "minutes", "mins": "minutes", "hr": "hours",
    "hrs": "hours", "yr": "years", "yrs": "years", "tbsp": "tablespoons", "tsp": "teaspoons",
}  # fmt: skip
_ONE_FOOT = {"feet": "foot", "inches": "inch"}
_ROMAN = (
    "I",
    "II",
    "III",
    "IV",
    "V",
    "VI",
    "VII",
    "VIII",
    "IX",
    "X",
    "XI",
    "XII",
    "XIII",
    "XIV",
    "XV",
    "XVI",
)
_NUMBERED = "World War|Chapter|Part|Volume|Vol|Act|Book|Section|Phase|Article|Super Bowl|Appendix|Level|Stage"


def _say_money(match: re.Match[str]) -> str:
    one, many, cent, cents = _MONEY[match["sign"]]
    if match["article"] and re.match(r"[ -][a-z]", match.string[match.end() :]):  # a five dollar coffee
        many, cents = one, cent
    return (match["article"] or "") + _say_amount(match, one, many, cent, cents)


def _say_amount(match: re.Match[str], one: str, many: str, cent: str, cents: str) -> str:
    whole, part, scale = match["whole"].replace(",", ""), match["part"], (match["scale"] or "").strip()
    if scale:
        amount = f"{whole}.{part}" if part else whole
        return f"{amount} {_SCALES.get(scale.lower(), scale)} {many}"
    said = f"{_say_thousands(match['whole'])} {one if int(whole) == 1 else many}"
    if not part or not cent:
        return said
    if len(part) != 2:
        return f"{whole}.{part} {many}"
    if not int(part):
        return said
    change = f"{int(part)} {cent if int(part) == 1 else cents}"
    return f"{said} and {change}" if int(whole) else change


def _say_thousands(number: str) -> str:
    """`1,200` as `1 thousand 200`, because wetext leaves the one out; other numbers without a change."""
    match = re.fullmatch(r"1,(\d{3})(\.\d+)?", number)
    if not match:
        return number
    rest = f"{int(match[1])}{match[2] or ''}"
    return "1 thousand" if rest == "0" else f"1 thousand {rest}"


def _say_decade(match: re.Match[str]) -> str:
    century, tens = match[1], int(match[2])
    if tens:
        return f"{century} {_TENS[tens]}"
    return f"{int(century) // 10} thousands" if century.endswith("0") else f"{century} hundreds"


def _say_unit(match: re.Match[str]) -> str:
    number, word = match[1], _UNITS[match[2]]
    if number == "1":
        word = _ONE_FOOT.get(word, word.removesuffix("s"))
    return f"{number} {word}{_stop(match)}"


def _stop(match: re.Match[str]) -> str:
    """The full stop of an abbreviation, where it ends the sentence too."""
    rest = match.string[match.end() :]
    ends = not rest.strip() or re.match(r"\s+[\"“]?[A-Z]", rest)
    return "." if match[0].endswith(".") and ends else ""


def _say_digits(match: re.Match[str]) -> str:
    return ", ".join(" ".join(group) for group in re.findall(r"\d+", match[0]))


# Applied from top to bottom to English.
RULES: tuple[Rule, ...] = (
    (re.compile(r"\bMrs\.?(?= [A-Z])"), "Missus"),
    (re.compile(r"\bMr\.?(?= [A-Z])"), "Mister"),
    (re.compile(r"\bDr\.?(?= [A-Z])"), "Doctor"),
    (re.compile(r"\bProf\.(?= [A-Z])"), "Professor"),
    (re.compile(r"\bSt\.(?=\s+[A-Z])"), "Saint"),
    (re.compile(r"(?<=[a-z] )St\."), lambda match: f"Street{_stop(match)}"),
    (re.compile(r"\be\.g\.,?"), "for example,"),
    (re.compile(r"\bi\.e\.,?"), "that is,"),
    (re.compile(r"\betc\."), lambda match: f"et cetera{_stop(match)}"),
    (re.compile(r"\bvs\.?(?= )"), "versus"),
    (re.compile(r"\bapprox\.(?= )"), "approximately"),
    (re.compile(r"\bw/(?=\s)"), "with"),
    (re.compile(rf"\b({'|'.join(_SHORT_MONTHS)})\.? (?=\d)"), lambda match: f"{_SHORT_MONTHS[match[1]]} "),
    (re.compile(rf"\b({'|'.join(_DAYS)})\.(?=,? )"), lambda match: _DAYS[match[1]]),
    (re.compile(r"(?:\bNo\. ?|#)(?=\d)"), "number "),
    (re.compile(rf"\b({_NUMBERED}) ({'|'.join(_ROMAN[::-1])})\b"),
     lambda match: f"{match[1]} {_ROMAN.index(match[2]) + 1}"),
    (re.compile(r"(?<![\d/])(\d\d+)/(\d+)(?![\d/])"), r"\1 \2"),  # 24/7, 80/20: no fraction of people
    (re.compile(r"(?<=[\dkKmM])/(year|month|week|day|hour|person|yr|mo|wk|hr)\b"),
     lambda match: f" per {_PER.get(match[1], match[1])}"),
    (re.compile(r"\b(\d+) ?¢"), r"\1 cents"),
    (re.compile(r"\b(\d[\d,]*(?:\.\d+)?) ?([$£€])(?! ?\d)"), r"\2\1"),  # 5 €
    (re.compile(r"(?<![\d.,$-])(?:911|\d{3}-\d{3}-\d{4}|\d{3}-\d{4})(?![\d-])"), _say_digits),
    (re.compile(r"(?P<article>\b[Aa]n? )?(?P<sign>[$£€¥]) ?(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<part>\d+))?"
                r"(?P<scale> ?(?:thousand|million|billion|trillion|bn|[kKmMbB])\b)?"), _say_money),
    (re.compile(r"(?<![\d.,])1,\d{3}(?:\.\d+)?(?!,?\d)"), lambda match: _say_thousands(match[0])),
    (re.compile(r"(?<=\b\d) (?=000\b)|(?<=\b\d\d) (?=000\b)|(?<=\b\d\d\d) (?=000\b)"), ","),
    (re.compile(r"\b(1[1-9]|20)(\d)0s\b"), _say_decade),
    (re.compile(r"\b(\d)'(\d{1,2})(?:[\"”]|'')?(?![\d'])"), r"\1 feet \2 inches"),
    # "3 in" is mostly the preposition
    (re.compile(rf"(?<![\w.,-])(\d[\d,.]*) ?({'|'.join(sorted(_UNITS.keys() - {'in'}, key=len, reverse=True))})\b"
                r"(?:\.(?!\w))?"), _say_unit),
    (re.compile(r"(?<![\w.,-])(\d[\d,.]*) ?(in)(?:\.(?!\w)|(?= (?:wide|long|tall|deep|high|thick|by|x)\b))"),
     _say_unit),
)  # fmt: skip


def spoken_form(text: str, language: str) -> str:
    """The text as it is said.

    Args:
        text: As it is written.
        language: Code of its language; one that is not in LANGUAGES leaves the text as it is.

    Raises:
        MissingPrerequisite: The package is not installed.
    """
    if language not in LANGUAGES:
        return text
    normalizer = _normalizer(language)
    if language != "en":
        return "\n".join(str(normalizer.normalize(line)) for line in text.split("\n"))
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    # sentence by sentence, because the time of the grammar grows with the square of the length
    parts = [part for part in _SENTENCE.split(text) if part is not None]
    return "".join(_say_sentence(normalizer, part) if _TO_SAY.search(part) else part for part in parts)


def spoken_form_version() -> str:
    """What decides the spoken form: version of the package and of the rules."""
    return f"wetext {package_version('wetext') or 'none'}, rules {VERSION}"


def _say_sentence(normalizer: Any, sentence: str) -> str:
    try:
        said = str(normalizer.normalize(sentence))
    except (AssertionError, RuntimeError, ValueError):  # its grammar has no reading: the engine must find one
        return sentence
    said = said.replace('\\"', '"').replace("\\\\", "\\")  # it escapes both, and does not undo it
    said = re.sub(" {2,}", " ", re.sub(r"\b([Tt]he) the\b", r"\1", said))  # "the March 5 meeting"
    said = _MONTH.sub(lambda match: f"of {match[1].title()}", said)
    if not any(character.isalnum() for character in said):
        return sentence
    if (end := _END.search(sentence)) and not _END.search(said):  # a.m. and p.m. swallow the full stop
        said += end[0].lstrip() if end[0][0] in ".!?" else ""
    place = next(place for place, character in enumerate(said) if character.isalnum())
    begins = next((character for character in sentence if character.isalnum()), "")
    return said if begins.islower() else said[:place] + said[place].upper() + said[place + 1 :]


@lru_cache
def _normalizer(language: str) -> Any:
    try:
        from wetext import Normalizer
    except ImportError as error:
        raise MissingPrerequisite(f"no text normaliser: install it with `{extra('synth')}`") from error
    return Normalizer(lang=language, operator="tn")

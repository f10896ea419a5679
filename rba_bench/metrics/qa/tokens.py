"""English text as tokens that know which other spellings they equal.

A token is a word, a number or a mark (what separates: stops, commas, brackets, line breaks). Case and accents are kept
in `raw` alone. Hyphens join words without being a token. See `rba_bench.metrics.qa.readings` for what is made of them.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rba_bench.metrics.qa.words import (
    ABBREVIATIONS,
    ARTICLES,
    DOTTED,
    FILLERS,
    IRREGULAR,
    LETTER_UNITS,
    NO_PLURALS,
    UNITS,
    word_set,
)
from rba_bench.metrics.text import plain_characters
from rba_bench.metrics.whisper_text import american_spelling

NONE: frozenset[str] = frozenset()
SHORTEST_PLURAL = 4  # letters
LONGEST_NUMBER = 40  # characters; longer ones are compared as written


@dataclass(frozen=True, slots=True)
class Token:
    """One word, number or mark.

    Attributes:
        text: Folded form.
        raw: As written.
        forms: Spellings it equals.
        parts: What it contains: the year of a date.
        later_forms: Spellings it equals behind another word only: the 8 of `Henry VIII`.
        kind: `word`, `number` or `mark`.
    """

    text: str
    raw: str
    forms: frozenset[str]
    parts: frozenset[str] = NONE
    later_forms: frozenset[str] = NONE
    kind: str = "word"

    @property
    def skip(self) -> bool:
        """May stand between the words of an answer, or be missing there: marks, articles, hesitation."""
        return self.kind == "mark" or self.text in ARTICLES or self.text in FILLERS


def word(text: str, raw: str | None = None, *also_own: str) -> Token:
    """A word token."""
    return Token(text, text if raw is None else raw, frozenset((text, *also_own)))


def number(text: str, raw: str = "", *also_own: str) -> Token:
    """A number token."""
    return Token(text, raw or text, frozenset((text, *also_own)), kind="number")


_FOLDED = str.maketrans(
    {"œ": "oe", "ø": "o", "æ": "ae", "ß": "ss", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ı": "i"}
)
_UNIT_TAIL = "kph|km|cm|mm|kg|mph|kmh|ml|am|pm|bn|mi|ft|lb|lbs|m|g|l|k|c|f|bc|bce|ad|ce|x|°"
_PATTERN = re.compile(
    rf"""
    (?P<date>(?<![\w/.])(?:\d{{4}}-\d{{1,2}}-\d{{1,2}}|\d{{1,2}}([/.])\d{{1,2}}\2\d{{4}})(?![\w/]))
    |(?P<clock>(?<!\w)\d{{1,2}}:\d{{2}}(?!\d))
    |(?P<number>(?<![\w.])(?:-(?=[\d.]))?(?:(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?(?:\s\d+/\d+|/\d+)?|\.\d+)
        (?:st|nd|rd|th|'?s)?(?:(?!\w)|(?=(?:{_UNIT_TAIL})\b)))
    |(?P<symbol>[A-Za-z]\+\+|(?<!\w)[A-Za-z][\#♯♭](?!\w)|(?<!\w)(?:AB|[A-Z])[+-](?![\w+-])|(?<!\w)\.[A-Za-z]\w*)
    |(?P<word>[^\W_]+(?:['’][^\W_]+)*'?|(?<=[^\W_])\.[A-Za-z]{{2,3}}(?!\w))
    |(?P<mark>\.\.+|\s-+(?=\s)|[.,;:?!()\[\]{{}}<>"/|\n—…•])
    |(?P<sign>[&%$€£¥¢₹°+=@#])
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BULLET = re.compile(r"(?m)^[ \t]*(?:[-*•+]|\(?\d{1,2}[.)])[ \t]+(?=\S)")
_LETTERED = re.compile(r"(?<!\S)(?:\(?(?:[a-hA-H]|\d{1,2})\)|\d{1,2}\.)[ \t]+(?=[^\W\d])")
_CHOICES = re.compile(r"(?<!\S)[A-H][.:][ \t]+(?=[^\W\d_]{2}|\d)")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", "01234567890123456789")
_NEGATED = word_set(
    "aint dont doesnt didnt isnt arent wasnt werent cant couldnt wouldnt shouldnt hasnt havent hadnt wont"
)
_HOSTS = word_set("it he she that this there here what who where when how let i you we they")
_POLAR = {"nope": "no", "nah": "no", "yeah": "yes", "yep": "yes", "yup": "yes", "yea": "yes", "aye": "yes"}
_CLITICS = {"re": "are", "ll": "will", "ve": "have", "m": "am", "d": "would"}


def fold(text: str) -> str:
    """Lower case without accents."""
    apart = unicodedata.normalize("NFKD", text.casefold().translate(_FOLDED))
    return "".join(char for char in apart if not unicodedata.combining(char))


def tokenize(text: str) -> list[Token]:
    """The tokens of a text as written, before numbers, names and dates are read."""
    text = _prepare(text)
    tokens: list[Token] = []
    for match in _PATTERN.finditer(text):
        kind, raw = str(match.lastgroup), match[0]
        if raw == "." and tokens and _is_abbreviation(tokens[-1], text[match.end() : match.end() + 2]):
            tokens[-1] = replace(tokens[-1], raw=f"{tokens[-1].raw}.")  # initials are put together later
        elif kind == "word":
            tokens += _word_tokens(raw)
        elif kind == "mark":
            tokens.append(Token(raw.strip(" -") or ("\n" if "\n" in raw else "—"), raw, NONE, kind="mark"))
        elif kind == "symbol":
            symbol = raw.lower().replace("♯", "#")
            tokens.append(Token(symbol, raw, frozenset({symbol})))
        elif kind == "sign":
            name = {"&": "and", "+": "plus", "=": "equals", "@": "at", "#": "number"}.get(raw) or UNITS[raw]
            tokens.append(word(name, raw, *(("and",) if raw == "+" else ())))  # Procter + Gamble
        elif kind == "clock":
            tokens.append(number(raw.lstrip("0"), raw, raw.replace(":", "")))
        elif len(raw) > LONGEST_NUMBER or re.search(r"/0+(?!\d)|\..*/", raw):
            tokens.append(word(raw))
        else:
            tokens.append(Token(raw.lower().replace(",", ""), raw, NONE, kind=f"{kind}!"))  # read later
    return tokens


def _prepare(text: str) -> str:
    """The text without marks of lists and typesetting, fractions and powers as digits."""
    text = plain_characters(text).replace("*", "").replace("_", " ")
    text = re.sub(r"[^\W\D0-9]", lambda digit: str(unicodedata.decimal(digit[0])), text)
    if len(_BULLET.findall(text)) > 1:  # one such line may be the answer itself: "7. That is all."
        text = _BULLET.sub("\n", text)
    text = re.sub(r"(?<=[A-Za-z])\$(?=[A-Za-z])", "s", text)  # Ke$ha
    text = re.sub(r"(?<=\b[A-Za-z])!(?=[a-z]+\b)", "i", text)  # P!nk
    text = re.sub(r"(?i)(?<=\d)(\s*)km/?h\b", r"\1kph", text)
    if len(_CHOICES.findall(text)) > 2:
        text = _CHOICES.sub("\n", text)
    if len(_LETTERED.findall(text)) > 1:
        text = _LETTERED.sub("\n", text)
    text = re.sub(r"(?<=\d)[⁰¹²³⁴-⁹]+", lambda power: "^" + power[0].translate(_SUPER), text)
    text = re.sub(r"(\d?)([¼-¾⅐-⅞])", _fraction, text.translate(_SUPER))
    return re.sub(r"\bN[o°º]\.?\s*(?=\d)|#(?=\d)", "number ", text)


def _fraction(match: re.Match[str]) -> str:
    written = unicodedata.normalize("NFKC", match[2]).replace("\u2044", "/")
    return f"{match[1]} {written}" if match[1] else written


def _is_abbreviation(token: Token, following: str) -> bool:
    """Whether a full stop belongs to the word before it, given the two characters behind the stop."""
    if len(token.raw) == 1 and token.text == token.raw.lower() and token.raw.isalpha():
        return True
    return token.raw.lower() in DOTTED and bool(following.strip())


def _word_tokens(raw: str) -> list[Token]:
    text = fold(raw).replace("’", "'").strip("'")
    if raw.startswith("."):
        return [word(text, raw, text[1:])]  # Node.js, Node JS
    if raw.strip("'") == "n":  # rock 'n' roll
        return [word("n", raw, "and")]
    head, _, tail = text.rpartition("'")
    if text in _NEGATED or (tail == "t" and head.endswith("n")):
        text = text.replace("'", "")
        verb = {"aint": "is", "cant": "can", "wont": "will"}.get(text, text[:-2])
        return [word(verb, raw), word("not", "")] if verb else [word("not", raw)]  # is n't
    if head and tail in _CLITICS:
        return [word(head, raw[: len(head)]), word(_CLITICS[tail], tail)]
    if head and tail == "s":
        if head in _HOSTS:
            return [word(head, raw[: len(head)]), word("is", tail)]
        return [word(head, raw, f"{head}s")]
    if text in _POLAR:
        return [word(text, raw, _POLAR[text])]
    if text == "cannot":
        return [word("can", raw), word("not", "")]
    return [_spelled_word(text.replace("'", ""), raw)]


def _spelled_word(text: str, raw: str) -> Token:
    """A word with the spellings it equals: American, long for an abbreviation, singular."""
    american = american_spelling().get(text, text)
    forms = {american, text, *ABBREVIATIONS.get(text, ())}
    if american in UNITS and american not in LETTER_UNITS:
        forms.add(UNITS[american])
    if text == "none":
        forms.add("0")
    if raw.endswith("in'"):
        forms.add(f"{text}g")  # believin'
    if any(letter in raw.casefold() for letter in "äöü"):
        forms.add(fold(raw.casefold().translate(_UMLAUTS)).strip("'"))
    if raw.islower():
        forms |= {singular(form) for form in (american, text)}
    return Token(american, raw, frozenset(forms))


def singular(text: str) -> str:
    """A common noun without its plural ending."""
    if text in IRREGULAR:
        return IRREGULAR[text]
    if len(text) < SHORTEST_PLURAL or text in NO_PLURALS or text.endswith(("ss", "us", "is")):
        return text
    if not text.endswith("s"):
        return text
    if text.endswith("ies") and len(text) > SHORTEST_PLURAL:
        return f"{text[:-3]}y"
    return text[:-2] if text.endswith(("ches", "shes", "xes", "sses", "oes")) else text[:-1]


def merge_tokens(tokens: list[Token], text: str, *also_own: str) -> Token:
    """One word token for several."""
    return word(text, " ".join(token.raw for token in tokens), *also_own)


def text_at(tokens: Sequence[Token], place: int) -> str:
    """Text of the token at a place, "" behind the last one."""
    return tokens[place].text if place < len(tokens) else ""


def ordinals(value: int | str) -> set[str]:
    """A number with each of the endings of ordinals."""
    return {f"{value}{ending}" for ending in ("st", "nd", "rd", "th")}

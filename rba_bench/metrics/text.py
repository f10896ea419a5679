"""The characters and the normal form that every text metric starts from.

`plain_characters` undoes what a keyboard, a word processor or a web page does to the same words: curly apostrophes,
invisible characters, special spaces and hyphens, full-width forms, accents written in two pieces. `normalize` then goes
through Whisper's normaliser for English, and through one after Whisper's for the other languages.
"""

import re
import unicodedata
from functools import lru_cache

from rba_bench.metrics.languages import base_language
from rba_bench.metrics.whisper_text import english_normalizer

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "km"})  # one token per character
LONGEST_KEPT = 1000  # characters of a text whose normal form is kept for a while
VERSION = 2  # of `normalize`; 1 was Whisper's own for every language

_APOSTROPHES = "‘’‚‛ʹʻʼʽˈ′‵`´ꞌ׳"
_QUOTES = "“”„‟«»‹›″‶〝〞〟״"
_HYPHENS = "‐‑‒–−⁃﹣"  # with the minus sign; longer dashes become the em dash
_DASHES = "—―⸺⸻﹘"
_LINES = "\u2028\u2029\x85\x0b\x0c"
_SIMPLER = {_APOSTROPHES: "'", _QUOTES: '"', _HYPHENS: "-", _DASHES: "—", _LINES: "\n"}
_TABLE = str.maketrans({sign: simple for signs, simple in _SIMPLER.items() for sign in signs})
# Invisible although not of category Cf: grapheme joiner, Hangul fillers, Mongolian and other variation selectors, and
# the blank of Braille.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Kinds of compatibility form that are the same character for a reader. Not `super`, `sub` and `fraction`: 10² is not
# 102, and 3½ not 31/2.
_SAME = ("<wide>", "<narrow>", "<compat>", "<noBreak>", "<font>", "<circle>", "<square>", "<small>", "<vertical>") + (
    "<initial>", "<medial>", "<final>", "<isolated>")  # fmt: skip

_BRACKETED = re.compile(r"[<\[][^>\]]*[>\]]|\([^)]+?\)")
# Points of Arabic (harakat, Quranic signs, tatweel; not the hamza and madda above) and of Hebrew (vowels, cantillation)
_POINTS = re.compile(
    "[\u0610-\u061a\u0640\u064b-\u0652\u0656-\u0658\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]"
)
_STRESS = re.compile("([аеєиіїоуыэюяѣѵ]\u0308?)\u0301")
_SARA_AM = re.compile("([\u0e4d\u0ecd])([\u0e48-\u0e4b\u0ec8-\u0ecb])?([\u0e32\u0eb2])")
_GERESH = re.compile(r"""(?<=[א-ת])['"](?=[א-ת])""")
_PERSIAN = str.maketrans({"ي": "ی", "ى": "ی", "ك": "ک"})
# Scripts that are written without spaces: Thai, Lao, Burmese, Khmer, kana, Han
_SCRIPTS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3031-\u3035\u303b\u3041-\u3096\u3099-\u309f\u30a1-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9fe\uaa60-\uaa7f\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNITS = re.compile(f"[{_SCRIPTS}0-9]|[^\\s0-9{_SCRIPTS}]+")  # digits one by one; other letters in words


def plain_characters(text: str) -> str:
    """`text` with one character for each thing a reader tells apart, in Unicode's composed form (NFC).

    Apostrophes and quotation marks become `'` and `"`, hyphens and the minus sign `-`, long dashes `—`, spaces of all
    widths a space, line separators a line break; full-width and presentation forms their usual characters; zero-width
    characters, soft hyphens, byte order and direction marks, and control characters go. Case, accents, punctuation,
    superscripts and fractions stay.
    """
    if text.isascii() and text.isprintable():
        return text.replace("`", "'")
    cleaned = "".join(map(_plain, _INVISIBLE.sub("", text).translate(_TABLE)))
    return unicodedata.normalize("NFC", cleaned.translate(_TABLE))


def is_blank(text: str | None) -> bool:
    """Whether a reader sees nothing: no text, or spaces, line breaks and invisible characters alone."""
    return not plain_characters(text or "").strip()


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    if category == "Cf":
        return ""
    if category == "Cc":
        return character if character in "\n\t" else "\n" if character == "\r" else ""
    form = unicodedata.decomposition(character)
    if form.startswith(_SAME) and not form.startswith("<compat> 0020"):  # spacing accents are not spaces
        return unicodedata.normalize("NFKC", character)
    return character


def normalize(text: str, lang: str = "en") -> str:
    """`text` in lower case, without punctuation, with single spaces: words, or units where no spaces are written.

    English goes through Whisper's `EnglishTextNormalizer` (numbers, contractions, spelling). Other languages follow
    Whisper's `BasicTextNormalizer` (Radford et al. 2022, appendix C): bracketed text goes, punctuation and symbols
    become spaces. Unlike it, this keeps the marks that are vowels and tones (Devanagari, Tamil, Thai, ...), drops the
    marks that spelling leaves to the reader (Arabic and Hebrew vowel points, stress marks on Cyrillic), takes digits of
    every script as 0 to 9, and lowers the Turkish dotted and dotless i to what they are. Chinese, Japanese, Thai, Lao,
    Burmese and Khmer come apart into characters and digits, while words of other scripts among them stay whole.
    """
    return _normalize_once(text, lang) if len(text) <= LONGEST_KEPT else _normalize(text, lang)


@lru_cache(maxsize=4096)
def _normalize_once(text: str, lang: str) -> str:
    """Both error rates take the same texts, and many models answer to the same reference."""
    return _normalize(text, lang)


def _normalize(text: str, lang: str) -> str:
    base = base_language(lang)
    text = plain_characters(text)
    if base == "en":
        return english_normalizer()(text).strip()
    if base in ("tr", "az"):
        text = text.replace("I", "ı").replace("İ", "i")
    text = _BRACKETED.sub("", text.lower())
    text = _STRESS.sub(r"\1", unicodedata.normalize("NFD", text))
    text = _SARA_AM.sub(_joined_am, unicodedata.normalize("NFC", _POINTS.sub("", text)))
    if base == "ca":
        text = text.replace("l·l", "ll")  # one word: col·legi
    if base == "he":
        text = _GERESH.sub("", text)
    if base in ("fa", "ur"):
        text = text.translate(_PERSIAN)
    text = "".join(_spoken(character) for character in text)
    return " ".join(_UNITS.findall(text) if base in UNSPACED else text.split())


def _spoken(character: str) -> str:
    """A letter, mark or digit as it is, digits as 0 to 9; a space for anything else."""
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    return character if kind[0] in "LN" or kind in ("Mn", "Mc") else " "


def _joined_am(match: re.Match[str]) -> str:
    """Thai and Lao write the vowel AM as one character, after a tone mark; compatibility forms take it apart."""
    tone = match[2] or ""
    return tone + ("\u0e33" if match[3] == "\u0e32" else "\u0eb3")

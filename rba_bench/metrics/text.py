"""The characters and the normal form that every text metric starts from.

`plain_characters` undoes what a keyboard, a word processor or a web page does to the same words: curly apostrophes,
invisible characters, special spaces and hyphens, full-width forms, accents written in two pieces. `normalize` then goes
through Whisper's normalisers.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from rba_bench.metrics.languages import base_language

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "km"})  # one token per character

_APOSTROPHES = "‘’‚‛ʹʻʼʽˈ′‵`´ꞌ׳"
_QUOTES = "“”„‟«»‹›″‶〝〞〟״"
_HYPHENS = "‐‑‒–−⁃﹣"  # with the minus sign; longer dashes become the em dash
_DASHES = "—―⸺⸻﹘"
_LINES = "\u2028\u2029\x85\x0b\x0c"
_TABLE = str.maketrans(
    {
        **dict.fromkeys(_APOSTROPHES, "'"),
        **dict.fromkeys(_QUOTES, '"'),
        **dict.fromkeys(_HYPHENS, "-"),
        **dict.fromkeys(_DASHES, "—"),
        **dict.fromkeys(_LINES, "\n"),
    }
)
# Invisible although not of category Cf: grapheme joiner, Hangul fillers, Mongolian and other variation selectors, and
# the blank of Braille.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Kinds of compatibility form that are the same character for a reader. Not `super`, `sub` and `fraction`: 10² is not
# 102, and 3½ not 31/2.
_SAME = ("<wide>", "<narrow>", "<compat>", "<noBreak>", "<font>", "<circle>", "<square>", "<small>", "<vertical>") + (
    "<initial>", "<medial>", "<final>", "<isolated>")  # fmt: skip


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
    """`text` in Whisper's normal form: lower case, no punctuation, single spaces.

    English goes through `EnglishTextNormalizer` (numbers, contractions, spelling), other languages through
    `BasicTextNormalizer`; languages written without spaces are split into characters.
    """
    return _normalizer(base_language(lang))(plain_characters(text)).strip()


@lru_cache(maxsize=64)
def _normalizer(lang: str) -> Callable[[str], str]:
    from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer  # seconds: it imports torch

    return EnglishTextNormalizer() if lang == "en" else BasicTextNormalizer(split_letters=lang in UNSPACED)

"""Words of texts in any script, as the comparisons of this package see them."""

import re
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b

_WORD = re.compile(r"[^\W_]+")
# Thai to Burmese, Khmer, kana, ideographs: scripts that put no space between words
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def words(text: str) -> list[str]:
    """The words of a text: NFKC, case folded, letters, marks and digits only.

    In scripts without spaces every letter is a word of its own, with the marks on it. Vowel signs of Indian scripts are
    marks, so they belong to their words (`filters.normalise` leaves them out).
    """
    if text.isascii():
        return _WORD.findall(text.casefold())
    found: list[str] = []
    grows = ""  # what may join the last word: "marks", or "letters" as well
    for character in unicodedata.normalize("NFKC", text).casefold():
        if unicodedata.category(character)[0] == "M":
            if grows:
                found[-1] += character
        elif not character.isalnum():
            grows = ""
        elif _UNSPACED.match(character):
            found.append(character)
            grows = "marks"
        elif grows == "letters":
            found[-1] += character
        else:
            found.append(character)
            grows = "letters"
    return found


def shingles(tokens: Sequence[str], size: int) -> list[str]:
    """All runs of `size` words, each joined by spaces; a shorter text is one run, and [] has none."""
    if len(tokens) <= size:
        return [" ".join(tokens)] if tokens else []
    return [" ".join(tokens[start : start + size]) for start in range(len(tokens) - size + 1)]


def hash64(text: str) -> int:
    """BLAKE2b of a text in 64 bits: the same on every machine and in every process."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")

"""Is a text in the expected language? By lingua (https://github.com/pemistahl/lingua-py), with care for short texts.

Instructions are short, and hold names and foreign words: "Who is Angela Merkel?", "Translate 'guten Morgen'". So the
question is not which language is the likeliest, but whether the expected one is ruled out: a text is dropped if lingua
gives that language less than `least` of its confidence, both for the whole text and for the text without quotations
and names. Texts of fewer than `SHORTEST` words are never dropped.

lingua compares `CANDIDATES` and the expected language by letter triples alone ("low accuracy mode"): 65 MB and a third
of a millisecond a text, so that every worker process can have a detector. The longer n-grams of its other mode need
ten times the memory.
"""

import re
from functools import lru_cache
from typing import Any

from rba_bench.errors import MissingPrerequisite
from rba_bench.installing import extra
from rba_bench.progress import say
from rba_bench.synthesis.texts.words import words

# Languages that language models write, and those of the test sets, by ISO 639-1
CANDIDATES = (
    "ar", "bg", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "he", "hi", "hr", "hu", "id",
    "it", "ja", "ko", "lt", "lv", "mn", "nb", "nl", "pl", "pt", "ro", "ru", "sk", "sl", "sr", "sv", "ta", "th", "tr",
    "uk", "vi", "zh",
)  # fmt: skip
LEAST = 0.01  # confidence
SHORTEST = 3  # words
_OTHER_CODES = {"no": "nb", "iw": "he", "in": "id", "fil": "tl"}
_QUOTED = re.compile(r"\"[^\"]+\"|(?<!\w)'[^']+'(?!\w)|[«“„‘「『][^»”“’」』]+[»”“’」』]")
# capitalised, inside a sentence; "I" is no name
_NAME = re.compile(r"(?<=[^\s.!?:;¿¡]\s)[A-ZÀ-ÖØ-ÞΆ-ΩА-ЯЁІЇЄҐ][\w'’-]+")


class LanguageCheck:
    """Compares texts with one language.

    Args:
        language: ISO 639-1 code, with or without a region (`de`, `pt-BR`, `sv-SE`).
        least: Confidence below which the language is ruled out, from 0 to 1.

    Attributes:
        active: False for a language that lingua does not know: nothing is dropped then, as a line on stderr says.

    Raises:
        MissingPrerequisite: lingua is not installed.
    """

    def __init__(self, language: str, least: float = LEAST) -> None:
        self.code = re.split(r"[-_]", language.lower())[0]
        self.code = _OTHER_CODES.get(self.code, self.code)
        self.least = least
        self._detector = _detector(self.code)
        self.active = self._detector is not None

    def differs(self, text: str) -> str | None:
        """The code of the likeliest language where the expected one is ruled out, else None."""
        if self._detector is None or len(words(text)) < SHORTEST:
            return None
        likeliest = ""
        for version in dict.fromkeys((text, without_names(text))):
            values = {
                value.language.iso_code_639_1.name.lower(): value.value
                for value in self._detector.compute_language_confidence_values(version)
            }
            likeliest = likeliest or max(values, key=lambda code: values[code])
            if values[self.code] >= self.least or not any(values.values()):  # all 0: a text without letters
                return None
        return likeliest


@lru_cache(maxsize=4)
def _detector(code: str) -> Any:
    """A detector that knows the language `code` among others, None where lingua does not know it."""
    try:
        from lingua import IsoCode639_1, LanguageDetectorBuilder
    except ImportError as error:
        raise MissingPrerequisite(
            f"the language of texts is told by lingua: install it with `{extra('synth')}`, or set check_language=false"
        ) from error
    known = getattr(IsoCode639_1, code.upper(), None) if code.isalpha() else None
    if known is None:
        say(f"lingua does not know the language {code!r}: texts in other languages are not dropped")
        return None
    others = [getattr(IsoCode639_1, other.upper()) for other in CANDIDATES if other != code]
    return LanguageDetectorBuilder.from_iso_codes_639_1(known, *others).with_low_accuracy_mode().build()


def without_names(text: str) -> str:
    """The text without quotations and capitalised words inside sentences; the whole where fewer than two remain."""
    rest = " ".join(_NAME.sub(" ", _QUOTED.sub(" ", text)).split())
    return rest if len(words(rest)) >= 2 else text

"""Word and character errors of transcripts after Whisper's text normalisers, as rows that can be summed.

A row is `(errors, reference length)`; the rate of a set is the sum of the errors over the sum of the lengths
(`error_rate` in `rba_bench.metrics.aggregate`), so long clips weigh more, as everywhere in speech recognition. Errors
are the substitutions, deletions and insertions of jiwer's minimal alignment.

Both sides go through the normaliser of the language (`rba_bench.metrics.text.normalize`): what Whisper's own error
rates were computed with. In languages written without spaces (`UNSPACED`) a word is one character, so WER and CER agree
there and CER is the number to read. The normaliser replaces combining marks by spaces, so error rates of Indic scripts
compare with Whisper's and with nothing else.
"""

from rba_bench.metrics.languages import base_language
from rba_bench.metrics.text import UNSPACED, normalize


def word_statistics(hypothesis: str, reference: str, lang: str = "en") -> tuple[int, int]:
    """Word errors of one transcript and the number of words of its reference.

    An empty hypothesis deletes every word. A reference that is empty, or normalises to nothing (`[laughter]`), has
    length 0, and every word heard there is an insertion.
    """
    import jiwer

    wanted = normalize(reference, lang)
    found = jiwer.process_words(wanted, normalize(hypothesis, lang))
    return found.substitutions + found.deletions + found.insertions, len(wanted.split())


def character_statistics(hypothesis: str, reference: str, lang: str = "en") -> tuple[int, int]:
    """Character errors of one transcript and the number of characters of its reference.

    The single spaces between words count as characters, except in languages written without them.
    """
    import jiwer

    wanted, heard = (_characters(text, lang) for text in (reference, hypothesis))
    found = jiwer.process_characters(wanted, heard)
    return found.substitutions + found.deletions + found.insertions, len(wanted)


def primary_error(target_lang: str) -> str:
    """The error rate to rank by: `cer` for languages written without spaces, else `wer`."""
    return "cer" if base_language(target_lang) in UNSPACED else "wer"


def _characters(text: str, lang: str) -> str:
    words = normalize(text, lang).split()
    return ("" if base_language(lang) in UNSPACED else " ").join(words)

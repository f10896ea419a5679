"""Word and character errors of transcripts after Whisper's text normalisers, as rows that can be summed.

A row is `(errors, reference length)`; the rate of a set is the sum of the errors over the sum of the lengths
(`error_rate` in `rba_bench.metrics.aggregate`), so long clips weigh more, as everywhere in speech recognition. Errors
are the substitutions, deletions and insertions of jiwer's minimal alignment.

Both sides go through `rba_bench.metrics.text.normalize`: in English, and in languages written with Latin, Greek or
Cyrillic letters, what Whisper's own error rates were computed with. Where vowels and tones are marks (Indic scripts,
Thai), they count here; Whisper's normaliser blanks them out. In languages written without spaces (`UNSPACED`) the
unit of both rates is the character, a digit, or a whole word of another script ("mixed error rate"), so WER and CER
agree there and a preamble in English costs its words and not its letters.
"""

from rba_bench.metrics.languages import base_language
from rba_bench.metrics.text import UNSPACED, normalize


def word_statistics(hypothesis: str, reference: str, lang: str = "en") -> tuple[int, int]:
    """Word errors of one transcript and the number of words of its reference.

    An empty hypothesis deletes every word. A reference that is empty, or normalises to nothing (`[laughter]`), has
    length 0, and every word of the hypothesis is an insertion.
    """
    import jiwer

    target = normalize(reference, lang)
    alignment = jiwer.process_words(target, normalize(hypothesis, lang))
    return alignment.substitutions + alignment.deletions + alignment.insertions, len(target.split())


def character_statistics(hypothesis: str, reference: str, lang: str = "en") -> tuple[int, int]:
    """Character errors of one transcript and the number of characters of its reference.

    Characters are code points of the composed form, marks included. The single spaces between words count, except in
    languages written without them, where the units are those of `word_statistics`.
    """
    import jiwer

    if base_language(lang) in UNSPACED:
        return word_statistics(hypothesis, reference, lang)
    target, output = (" ".join(normalize(text, lang).split()) for text in (reference, hypothesis))
    alignment = jiwer.process_characters(target, output)
    return alignment.substitutions + alignment.deletions + alignment.insertions, len(target)


def primary_error(target_lang: str) -> str:
    """The error rate to rank by: `cer` for languages written without spaces, else `wer`."""
    return "cer" if base_language(target_lang) in UNSPACED else "wer"

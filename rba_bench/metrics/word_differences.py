"""What a recogniser understood, word by word beside what was said, in the words that error rates count."""

from functools import lru_cache
from typing import NamedTuple

from rba_bench.metrics.text import normalize

SAME, SUBSTITUTED, INSERTED, DELETED = "same", "substituted", "inserted", "deleted"
LONGEST_KEPT = 1000  # characters of two texts whose alignment is kept
_KINDS = {"equal": SAME, "substitute": SUBSTITUTED, "insert": INSERTED, "delete": DELETED}


class Difference(NamedTuple):
    """A run of words that are the same, or differ in one way.

    Attributes:
        kind: SAME, SUBSTITUTED, INSERTED (words that were not said) or DELETED (words that the transcript lacks).
        said: Words of the text, "" for insertions.
        recognised: Words of the transcript, "" for deletions.
    """

    kind: str
    said: str
    recognised: str


def word_differences(said: str, transcript: str, language: str = "en") -> list[Difference]:
    """Align two texts after the normaliser of word error rates, by jiwer's minimal alignment.

    The words are those of `rba_bench.metrics.wer.word_statistics`: in lower case, without punctuation, numbers as
    digits; characters in languages that are written without spaces.

    Args:
        said: What was spoken.
        transcript: Of the recogniser.
        language: Of both.
    """
    if len(said) + len(transcript) <= LONGEST_KEPT:
        return list(_aligned_once(said, transcript, language))
    return list(_aligned(said, transcript, language))


def _aligned(said: str, transcript: str, language: str) -> tuple[Difference, ...]:
    import jiwer

    target, output = _words(said, language), _words(transcript, language)
    if not target or not output:
        found = [Difference(DELETED, " ".join(target), ""), Difference(INSERTED, "", " ".join(output))]
        return tuple(one for one in found if one.said or one.recognised)
    chunks = jiwer.process_words(" ".join(target), " ".join(output)).alignments[0]
    return tuple(
        Difference(
            _KINDS[chunk.type],
            " ".join(target[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(output[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in chunks
    )


_aligned_once = lru_cache(maxsize=4096)(_aligned)  # many models give the same short answer to one item


@lru_cache(maxsize=4096)  # many transcripts of one text
def _words(text: str, language: str) -> list[str]:
    return normalize(text, language).split()


def error_rate(differences: list[Difference]) -> float | None:
    """Word error rate of an alignment; None where nothing was said."""
    words = sum(len(one.said.split()) for one in differences)
    errors = sum(
        max(len(one.said.split()), len(one.recognised.split())) for one in differences if one.kind != SAME
    )
    return errors / words if words else None

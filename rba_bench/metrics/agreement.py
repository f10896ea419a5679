"""How much several answers to one instruction agree, as means over the pairs of answers.

    exact_agreement   share of pairs whose normalised texts are equal
    token_overlap     mean token F1 of the pairs (symmetric, words in any order)
    mean_cosine       mean cosine of the pairs' sentence vectors

Agreement is no quality: a model that always says the same agrees with itself perfectly. An empty answer agrees with
nothing, not even with another empty one, so silence is never rewarded.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from rba_bench.metrics.text import normalize


def exact_agreement(answers: Sequence[str], lang: str = "en") -> float:
    """Share of pairs of `answers` that are equal after Whisper's normaliser, in [0, 1].

    Raises:
        ValueError: fewer than two answers.
    """
    return _pairwise([_words(answer, lang) for answer in answers], lambda a, b: float(a == b and bool(a)))


def token_overlap(answers: Sequence[str], lang: str = "en") -> float:
    """Mean over pairs of `answers` of `2 * common / (n + m)` of their normalised words, in [0, 1].

    Raises:
        ValueError: fewer than two answers.
    """

    def f1(a: list[str], b: list[str]) -> float:
        common = sum((Counter(a) & Counter(b)).values())
        return 2 * common / max(len(a) + len(b), 1)

    return _pairwise([_words(answer, lang) for answer in answers], f1)


def mean_cosine(vectors: np.ndarray) -> float:
    """Mean cosine over the pairs of rows of `vectors` [n, d]; a row of zeros has cosine 0 with everything.

    Raises:
        ValueError: fewer than two rows.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if len(rows) < 2:
        raise ValueError("agreement needs at least two answers")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    cosines = unit @ unit.T
    return float(cosines[np.triu_indices(len(rows), 1)].mean())


def _pairwise(answers: Sequence[list[str]], similarity: Callable[[list[str], list[str]], float]) -> float:
    if len(answers) < 2:
        raise ValueError("agreement needs at least two answers")
    values = [similarity(a, b) for a, b in combinations(answers, 2)]
    return sum(values) / len(values)


def _words(answer: str, lang: str) -> list[str]:
    # an answer of symbols alone normalises to nothing and is then compared as written
    return normalize(answer, lang).split() or answer.casefold().split()

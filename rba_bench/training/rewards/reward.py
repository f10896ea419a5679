"""The base class of rewards, and the rewards that compare an answer with the teacher's answer.

Text rewards compare words and need no model; all lie between 0 and 1. Comparing the best sample with the worst one
needs the order alone, but where the size counts (SCST, minimum risk, ODPO, weighted sums) a translation must not weigh
a hundred times as much as an answer. `Similarity` compares meanings, by the cosine of sentence embeddings, and
`TeacherLogprob` is how likely the text teacher would have given the answer.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import RbaError
from rba_bench.metrics.agreement import token_overlap
from rba_bench.metrics.bleu import sentence_bleu, sentence_chrf
from rba_bench.metrics.ifeval import if_rate
from rba_bench.metrics.languages import base_language
from rba_bench.metrics.qa import alias_match, asserted_match, exact_match
from rba_bench.metrics.text import UNSPACED
from rba_bench.progress import say
from rba_bench.textlm.embeddings import SentenceEmbedder

if TYPE_CHECKING:
    from rba_bench.textlm.local import LocalTextLM


NOT_JUDGED = math.nan


class Reward(ABC):
    """Scores answers; higher is better, NaN means "not judged": such an answer takes part in nothing.

    A value must not depend on batch mates or earlier calls, and no gradient runs through it.
    """

    @abstractmethod
    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""

    def counts(self) -> dict[str, int]:
        """Answers so far that were left out, or not read to their end, by reason."""
        return {}

    def run_dummy_forwards(self) -> None:  # noqa: B027  # most rewards share no weights
        """Where processes share the reward's weights: dummy forward passes until no process scores any more."""


@contextmanager
def naming_key(key: str) -> Iterator[None]:
    """Put the recipe key in front of what is wrong with its value."""
    try:
        yield
    except RbaError as error:
        raise type(error)(f"{key}: {error}") from error


class TextReward(Reward):
    """A reward from one function of (answer, teacher's answer, target language)."""

    def __init__(self, score: Callable[[str, str, str], float]) -> None:
        self._score = score

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        return [
            self._score(response, row.response, row.target_lang)
            for row, response in zip(rows, responses, strict=True)
        ]


class ReferenceReward(Reward):
    """Whether an answer holds one of the correct ones: the references of the set, or the teacher's answer without any.

    Args:
        match: of an answer, the correct ones and the language; 0 or 1.
    """

    def __init__(self, match: Callable[[str, Sequence[str], str], float]) -> None:
        self._match = match

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        return [
            self._match(response, row.references or [row.response], row.target_lang)
            for row, response in zip(rows, responses, strict=True)
        ]


class ConstraintReward(Reward):
    """Share of the constraints of the set that an answer keeps to, 0 to 1, as `metrics.ifeval.if_rate` judges it."""

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response); NaN for a row without constraints."""
        values = []
        for row, response in zip(rows, responses, strict=True):
            rate = if_rate(json.loads(row.constraints), response) if row.constraints else None
            values.append(NOT_JUDGED if rate is None else rate)
        return values


TEXT_REWARDS: dict[str, Reward] = {
    "bleu": TextReward(lambda answer, teacher, lang: sentence_bleu(answer, teacher, lang) / 100),
    "chrf": TextReward(lambda answer, teacher, lang: sentence_chrf(answer, teacher) / 100),
    "exact": TextReward(lambda answer, teacher, lang: exact_match(answer, [teacher], lang)),
    "asserted": ReferenceReward(asserted_match),
    "alias": ReferenceReward(alias_match),
    "checks": ConstraintReward(),
    "overlap": TextReward(lambda answer, teacher, lang: token_overlap([answer, teacher], lang)),
}


def extra_words(answer: str, teacher: str, lang: str) -> int:
    """Words of `answer` beyond the number of words of `teacher`; characters in languages written without spaces."""
    counts = [
        len("".join(text.split())) if base_language(lang) in UNSPACED else len(text.split())
        for text in (answer, teacher)
    ]
    return max(0, counts[0] - counts[1])


class Similarity(Reward):
    """Cosine of the sentence vectors of answer and teacher's answer, in [-1, 1]; 0 where one has no words.

    Embedding models read a few hundred tokens and drop the rest; how many texts that happened to is counted.

    Args:
        embedder: The embedding model; its prompt, if it has one, stands before both texts.
    """

    def __init__(self, embedder: SentenceEmbedder) -> None:
        self.embedder = embedder

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        return self.between(responses, [row.response for row in rows])

    def between(self, texts: Sequence[str], others: Sequence[str]) -> list[float]:
        """The cosine of each text and the other of its place."""
        if not texts:
            return []
        before = self.embedder.cut
        vectors = self.embedder.vectors([*texts, *others]).astype(np.float64)
        if self.embedder.cut and not before:
            say(
                f"similarity: {self.embedder.folder.name} reads {self.embedder.model.max_seq_length} tokens of a text;"
                " some answers are longer, and their end does not count"
            )
        ours, theirs = vectors[: len(texts)], vectors[len(texts) :]
        sizes = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        products = (ours * theirs).sum(axis=1)
        return [float(dot / size) if size > 0 else 0.0 for dot, size in zip(products, sizes, strict=True)]

    def counts(self) -> dict[str, int]:
        """Texts whose end was not read."""
        return {"similarity_cut": self.embedder.cut}


class TeacherLogprob(Reward):
    """Log-likelihood of the answer given the text instruction, under the text teacher.

    Args:
        teacher: The text LM.
        mean: nats a token instead of nats an answer. Every token costs, so of the sums those of short answers are the
            largest; the mean tells which answer the teacher would have written more readily, whatever its length.
    """

    def __init__(self, teacher: "LocalTextLM", mean: bool = False) -> None:
        self.teacher = teacher
        self.mean = mean

    def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
        """One number per (row, response)."""
        sums = self.teacher.logprobs([row.user_text for row in rows], list(responses))
        if not self.mean:
            return list(sums)
        sizes = [self.teacher.answer_length(response) for response in responses]
        return [value / size for value, size in zip(sums, sizes, strict=True)]

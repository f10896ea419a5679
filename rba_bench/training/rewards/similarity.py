"""How close the answer's meaning is to that of the teacher's answer: cosine of sentence embeddings."""

from collections.abc import Sequence

import numpy as np

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.progress import say
from rba_bench.textlm.embeddings import SentenceEmbedder


class Similarity:
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
        found = self.embedder.vectors([*texts, *others]).astype(np.float64)
        if self.embedder.cut and not before:
            say(
                f"similarity: {self.embedder.folder.name} reads {self.embedder.model.max_seq_length} tokens of a text;"
                " some answers are longer, and their end does not count"
            )
        ours, theirs = found[: len(texts)], found[len(texts) :]
        sizes = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        products = (ours * theirs).sum(axis=1)
        return [
            float(product / size) if size > 0 else 0.0 for product, size in zip(products, sizes, strict=True)
        ]

    def counts(self) -> dict[str, int]:
        """Texts whose end was not read."""
        return {"similarity_cut": self.embedder.cut}

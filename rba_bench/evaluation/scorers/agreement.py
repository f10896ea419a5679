"""How much the answers to one instruction agree over its voices.

Every sample gets the value of its group (the samples of its cluster), so the mean over samples is the mean over groups,
the breakdown is by topic, and intervals draw whole instructions. Metrics, all in [0, 1]:

    answer_agreement   share of pairs of answers that are equal after normalisation
    answer_overlap     mean token F1 of the pairs
    answer_cosine      mean cosine of the pairs' sentence embeddings, where the task names an embedding model
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from rba_bench.errors import UserError
from rba_bench.evaluation.metric import ItemScore, metrics_of
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers.scorer import Scorer, ScorerOptions
from rba_bench.metrics.agreement import exact_agreement, mean_cosine, token_overlap
from rba_bench.textlm.embeddings import (
    EMBEDDING,
    SentenceEmbedder,
    embedding_folder,
    embedding_library,
    embedding_sha256,
)

NO_EMBEDDING = "none"


class Consistency(Scorer):
    """Agreement over voices: the scorer of a `{name: consistency, ...}` entry.

    Its options: `embedding`, folder or Hub id of a sentence-transformers model, or `none`; `revision` on the Hub.

    Args:
        embedding: Folder of a sentence-transformers model, None to leave the cosine out.
        embedding_name: What the record calls that model.
        device: Torch device it runs on.
        batch_size: Answers per batch.
    """

    name = "consistency"

    def __init__(
        self, embedding: Path | None, embedding_name: str, device: str = "cpu", batch_size: int = 32
    ) -> None:
        self.embedder = SentenceEmbedder(embedding, device, batch_size) if embedding else None
        self._identity = (
            {"name": embedding_name, "sha256": embedding_sha256(embedding)} if embedding else None
        )
        ways = {
            "answer_agreement": "pairs:equal|whisper-normalizer",
            "answer_overlap": "pairs:token-f1|whisper-normalizer",
            "answer_cosine": f"pairs:cosine|{embedding_name}",
        }
        metrics = [replace(m, signature=f"{m.name}|{ways[m.name]}") for m in metrics_of(self.name)]
        self.metrics = tuple(metrics if embedding else metrics[:2])
        self._report: dict[str, Any] = {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], options: ScorerOptions) -> Self:
        """The scorer of an entry.

        Raises:
            UserError: unknown options.
            MissingPrerequisite: the package or the model is not there; found before anything is answered.
        """
        if unknown := sorted(set(config) - {"embedding", "revision"}):
            raise UserError(f"unknown option {', '.join(unknown)} of consistency; known: embedding, revision")
        name = str(config.get("embedding") or EMBEDDING)
        if name == NO_EMBEDDING:
            return cls(None, "")
        embedding_library()
        copy = options.data_dir / name if options.data_dir is not None else Path(name)  # absolute names stay
        path = str(copy) if copy.is_dir() else name
        remedy = (
            f"download it with `hf download {name} --local-dir DATA/{name}` where DATA is your --data-dir"
        )
        folder = embedding_folder(path, str(config.get("revision") or "main"), remedy)
        return cls(folder, Path(name).name, options.device, options.batch_size)

    @classmethod
    def metric_names(cls, config: Mapping[str, Any], options: ScorerOptions) -> tuple[str, ...]:
        """Without the cosine where no embedding model is wanted."""
        names = super().metric_names(config, options)
        return names[:2] if str(config.get("embedding")) == NO_EMBEDDING else names

    def describe(self) -> dict[str, Any]:
        """The embedding model by content."""
        return {"name": self.name, "version": 1, "embedding": self._identity}

    def score(self, samples: Sequence[Sample]) -> list[ItemScore]:
        """The values of each sample's group.

        An item that the model failed on has no answer to compare; its group is scored without it. A group with fewer
        than two answers has no value.
        """
        groups: dict[str, list[int]] = {}
        for position, sample in enumerate(samples):
            if sample.status != "error":
                groups.setdefault(sample.cluster, []).append(position)
        vectors = None
        if self.embedder is not None:
            vectors = self.embedder.vectors([sample.extracted for sample in samples])  # [n, d], 0 if empty
        scores = [ItemScore() for _ in samples]
        for members in groups.values():
            score = _group_score([samples[i] for i in members], None if vectors is None else vectors[members])
            for position in members:
                scores[position] = score
        sizes = [len(members) for members in groups.values()]
        self._report = {
            "groups": len(sizes),
            "pairs": sum(math.comb(size, 2) for size in sizes),
            "groups_without_a_pair": sum(size < 2 for size in sizes),
            "answers_left_out": sum(sample.status == "error" for sample in samples),
        }
        return scores

    def report(self) -> dict[str, Any]:
        """How many groups and pairs there were."""
        return dict(self._report)


def _group_score(members: Sequence[Sample], vectors: np.ndarray | None) -> ItemScore:
    """The agreement of the answers of one group; `vectors` `[n, d]` are of their texts, None without a model."""
    if len(members) < 2:
        return ItemScore(failure="no other answer to the same instruction to compare with")
    answers, lang = [sample.extracted for sample in members], members[0].target_lang
    scores: dict[str, float | list[int]] = {
        "answer_agreement": exact_agreement(answers, lang),
        "answer_overlap": token_overlap(answers, lang),
    }
    if vectors is not None:
        scores["answer_cosine"] = mean_cosine(vectors)
    return ItemScore(scores)

"""How much the answers to one instruction agree over its voices.

Every sample gets the value of its group (the samples of its cluster), so the mean over samples is the mean over groups,
the breakdown is by topic, and intervals draw whole instructions. Metrics, all in [0, 1]:

    answer_agreement   share of pairs of answers that are equal after normalisation
    answer_overlap     mean token F1 of the pairs
    answer_cosine      mean cosine of the pairs' sentence embeddings, where the task names an embedding model
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.errors import UserError
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers.scorer import Addition, Cost, FinishOptions
from rba_bench.metrics.agreement import exact_agreement, mean_cosine, token_overlap
from rba_bench.textlm.embeddings import (
    EMBEDDING,
    SentenceEmbedder,
    embedding_folder,
    embedding_library,
    embedding_sha256,
)

_PAIRED = {"answer_agreement": exact_agreement, "answer_overlap": token_overlap}
NO_EMBEDDING = "none"


class Consistency:
    """See the module.

    Args:
        embedding: Folder of a sentence-transformers model, None to leave the cosine out.
        name: What the record calls that model.
        device: Torch device it runs on.
        batch_size: Answers per batch.
    """

    def __init__(self, embedding: Path | None, name: str, device: str = "cpu", batch_size: int = 32) -> None:
        self.embedder = SentenceEmbedder(embedding, device, batch_size) if embedding else None
        self._identity = {"name": name, "sha256": embedding_sha256(embedding)} if embedding else None
        own = (
            Metric("answer_agreement", signature="answer_agreement|pairs:equal|whisper-normalizer"),
            Metric("answer_overlap", signature="answer_overlap|pairs:token-f1|whisper-normalizer"),
        )
        cosine = Metric("answer_cosine", signature=f"answer_cosine|pairs:cosine|{name}")
        self.metrics: tuple[Metric, ...] = (*own, cosine) if embedding else own
        self._report: dict[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        """The embedding model by content."""
        return {"name": "consistency", "version": 1, "embedding": self._identity}

    def cost(self, samples: Sequence[Sample]) -> Cost:
        """Nothing is asked of a judge."""
        del samples
        return Cost(calls=0, cached=0, dollars=0.0)

    def finish(self, samples: Sequence[Sample]) -> list[Addition]:
        """The values of each sample's group.

        A clip that could not be heard has no answer to compare; its group goes on without it. A group with fewer
        than two answers has no value.
        """
        groups: dict[str, list[int]] = {}
        for position, sample in enumerate(samples):
            if sample.status != "error":
                groups.setdefault(sample.cluster, []).append(position)
        vectors = self._vectors([sample.extracted for sample in samples])
        additions = [Addition() for _ in samples]
        for members in groups.values():
            addition = self._group([samples[i] for i in members], vectors[members] if len(vectors) else None)
            for position in members:
                additions[position] = addition
        sizes = [len(members) for members in groups.values()]
        self._report = {
            "groups": len(sizes),
            "pairs": sum(math.comb(size, 2) for size in sizes),
            "groups_without_a_pair": sum(size < 2 for size in sizes),
            "answers_left_out": sum(sample.status == "error" for sample in samples),
        }
        return additions

    def report(self) -> dict[str, Any]:
        """How many groups and pairs there were."""
        return dict(self._report)

    def _group(self, members: Sequence[Sample], vectors: np.ndarray | None) -> Addition:
        if len(members) < 2:
            return Addition(failed="no other answer to the same instruction to compare with")
        answers, lang = [sample.extracted for sample in members], members[0].target_lang
        scores = {name: similarity(answers, lang) for name, similarity in _PAIRED.items()}
        if vectors is not None:
            scores["answer_cosine"] = mean_cosine(vectors)
        return Addition(scores)

    def _vectors(self, answers: Sequence[str]) -> np.ndarray:
        """Sentence vectors [n, d], zeros for empty answers; nothing where no cosine is wanted."""
        return np.zeros((0, 0)) if self.embedder is None else self.embedder.vectors(answers)


def make(config: Mapping[str, Any], options: FinishOptions) -> Consistency:
    """The finisher of a task.

    Args:
        config: `embedding`: folder or Hub id of a sentence-transformers model, or `none`; `revision` on the Hub.
        options: Device and batch size.

    Raises:
        UserError: unknown options.
        MissingPrerequisite: the package or the model is not there; found before anything is answered.
    """
    if strangers := sorted(set(config) - {"embedding", "revision"}):
        raise UserError(f"unknown option {', '.join(strangers)} of consistency; known: embedding, revision")
    name = str(config.get("embedding") or EMBEDDING)
    if name == NO_EMBEDDING:
        return Consistency(None, "")
    embedding_library()
    found = _beside_the_data(name, options.data_dir)
    remedy = f"download it with `hf download {name} --local-dir DATA/{name}` where DATA is your --data-dir"
    folder = embedding_folder(found, str(config.get("revision") or "main"), remedy)
    shown = Path(name).name
    return Consistency(folder, shown, options.device, options.batch_size)


def _beside_the_data(name: str, data_dir: Path | None) -> str:
    """A copy of the model in the data folder, under its whole name, if there is one."""
    copy = None if data_dir is None or Path(name).is_absolute() else data_dir / name
    return str(copy) if copy is not None and copy.is_dir() else name

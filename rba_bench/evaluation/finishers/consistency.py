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

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.finishers.base import Addition, Cost, FinishOptions
from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import Sample
from rba_bench.files import read_json, sha256_file, sha256_json
from rba_bench.metrics.agreement import exact_agreement, mean_cosine, token_overlap

_PAIRED = {"answer_agreement": exact_agreement, "answer_overlap": token_overlap}
EMBEDDING = "sentence-transformers/paraphrase-mpnet-base-v2"
NO_EMBEDDING = "none"
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*/*.json", "*/*.safetensors"]


class Consistency:
    """See the module.

    Args:
        embedding: Folder of a sentence-transformers model, None to leave the cosine out.
        name: What the record calls that model.
        device: Torch device it runs on.
        batch_size: Answers per batch.
    """

    def __init__(self, embedding: Path | None, name: str, device: str = "cpu", batch_size: int = 32) -> None:
        self.embedding, self.name = embedding, name
        self.device, self.batch_size = device, batch_size
        self._identity = {"name": name, "sha256": _folder_sha256(embedding)} if embedding else None
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
        if self.embedding is None:
            return np.zeros((0, 0))
        distinct = sorted({answer for answer in answers if answer.strip()})
        known = dict(zip(distinct, self._encode(distinct), strict=True))
        width = len(next(iter(known.values()))) if known else 1
        return np.stack([known.get(answer, np.zeros(width)) for answer in answers])

    def _encode(self, texts: list[str]) -> np.ndarray:
        if not texts:
            return np.zeros((0, 1))
        model = _library().SentenceTransformer(str(self.embedding), device=self.device, local_files_only=True)
        return np.asarray(model.encode(texts, batch_size=self.batch_size, show_progress_bar=False))


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
    _library()
    folder = _local(_beside_the_data(name, options.data_dir), str(config.get("revision") or "main"))
    shown = Path(name).name
    return Consistency(folder, shown, options.device, options.batch_size)


def _library() -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingPrerequisite(
            "no sentence embeddings: install them with `pip install 'rba-bench[consistency]'`"
        ) from error
    return sentence_transformers


def _beside_the_data(name: str, data_dir: Path | None) -> str:
    """A copy of the model in the data folder, under its whole name, if there is one."""
    copy = None if data_dir is None or Path(name).is_absolute() else data_dir / name
    return str(copy) if copy is not None and copy.is_dir() else name


def _local(name: str, revision: str) -> Path:
    """The folder of a sentence-transformers model."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError

    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=MODEL_FILES))
        except HFValidationError as error:
            raise MissingPrerequisite(f"no embedding model at {name}: correct the path") from error
        except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise MissingPrerequisite(
                f"cannot get the embedding model {name} from the Hub ({reason}): download it with "
                f"`hf download {name} --local-dir DATA/{name}` where DATA is your --data-dir"
            ) from error
    if not (folder / "modules.json").is_file():
        raise MissingPrerequisite(f"{folder} holds no sentence-transformers model: it has no modules.json")
    return folder


def _folder_sha256(folder: Path) -> str:
    """Hash of names and contents of the files that its modules are made of; other formats beside them do not count."""
    parts = {folder / str(module.get("path", "")) for module in read_json(folder / "modules.json")}
    files = sorted({f for part in {folder, *parts} for p in MODEL_FILES[:4] for f in part.glob(p)})
    return sha256_json([[file.relative_to(folder).as_posix(), sha256_file(file)] for file in files])

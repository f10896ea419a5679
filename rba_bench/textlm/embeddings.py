"""Sentence embeddings by sentence-transformers: its model folder, the hash of its files, and vectors of texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.files import read_json, sha256_file, sha256_json
from rba_bench.installing import extra
from rba_bench.textlm.weights import HUB_ID

EMBEDDING = "sentence-transformers/paraphrase-mpnet-base-v2"
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*/*.json", "*/*.safetensors"]


class SentenceEmbedder:
    """A sentence-transformers model, loaded at the first text.

    Args:
        folder: As `embedding_folder` returned it.
        device: Torch device it runs on.
        batch_size: Texts per batch.
        prompt: Name of one of the model's own prompts that is put before every text (the families of E5 and
            Qwen3-Embedding have some), "" for none.

    Attributes:
        cut: Number of texts so far that were longer than the model's input; their end was left out.
    """

    def __init__(self, folder: Path, device: str = "cpu", batch_size: int = 32, prompt: str = "") -> None:
        self.folder, self.device, self.batch_size, self.prompt = folder, device, batch_size, prompt
        self.cut = 0
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The loaded model.

        Raises:
            MissingPrerequisite: sentence-transformers is not installed.
            UserError: the folder cannot be loaded, or the model has no prompt of that name.
        """
        if self._model is None:
            library = embedding_library()
            try:
                model = library.SentenceTransformer(
                    str(self.folder), device=self.device, local_files_only=True
                )
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                reason = first_line(error)
                raise UserError(f"{self.folder} cannot be loaded as an embedding model: {reason}") from error
            if self.prompt and self.prompt not in model.prompts:
                names = ", ".join(sorted(model.prompts)) or "none"
                raise UserError(f"{self.folder} has no prompt {self.prompt!r}; it has: {names}")
            self._model = model
        return self._model

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Sentence vectors [n, d], zeros for texts without a word; equal texts are read once."""
        from transformers import PreTrainedTokenizerBase

        distinct = sorted({text for text in texts if text.strip()})
        if not distinct:
            return np.zeros((len(texts), 1))
        room, tokenizer = self.model.max_seq_length, getattr(self.model[0], "tokenizer", None)
        if room is not None and isinstance(tokenizer, PreTrainedTokenizerBase):  # word vectors cut nothing
            before = self.model.prompts[self.prompt] if self.prompt else ""
            rows = tokenizer([before + text for text in distinct], verbose=False)["input_ids"]
            self.cut += sum(len(row) > room for row in rows)
        options: dict[str, Any] = {"prompt_name": self.prompt} if self.prompt else {}
        vectors = self.model.encode(distinct, batch_size=self.batch_size, show_progress_bar=False, **options)
        by_text = dict(zip(distinct, np.asarray(vectors), strict=True))
        zeros = np.zeros(np.shape(vectors)[1])
        return np.stack([by_text.get(text, zeros) for text in texts])


def embedding_library() -> Any:
    """The package sentence-transformers. Raises MissingPrerequisite if it is not installed."""
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingPrerequisite(
            f"no sentence embeddings: install them with `{extra('consistency')}`"
        ) from error
    return sentence_transformers


def embedding_folder(name: str, revision: str = "main", remedy: str = "") -> Path:
    """The folder of a sentence-transformers model.

    Args:
        name: A folder, or a Hub id (downloaded once into the Hub cache), with its own `@REVISION` or without.
        revision: On the Hub, where the id names none.
        remedy: What the message says to do where the Hub cannot provide it.

    Raises:
        MissingPrerequisite: No such folder, the Hub cannot provide it, or it holds another kind of model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError

    folder, hub_id = Path(name), HUB_ID.fullmatch(name)
    if not folder.is_dir():
        repo, revision = (hub_id["repo"], hub_id["revision"] or revision) if hub_id else (name, revision)
        try:
            folder = Path(snapshot_download(repo, revision=revision, allow_patterns=MODEL_FILES))
        except HFValidationError as error:
            raise MissingPrerequisite(f"no embedding model at {name}: correct the path") from error
        except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError) as error:
            reason = first_line(error)
            raise MissingPrerequisite(
                f"cannot get the embedding model {name} from the Hub ({reason}): "
                + (remedy or f"download it with `hf download {name} --local-dir DIR` and give DIR")
            ) from error
    if not (folder / "modules.json").is_file():
        raise MissingPrerequisite(f"{folder} holds no sentence-transformers model: it has no modules.json")
    return folder


def embedding_sha256(folder: Path) -> str:
    """Hash of names and contents of the files that its modules are made of; other formats beside them do not count."""
    parts = {folder / str(module.get("path", "")) for module in read_json(folder / "modules.json")}
    files = sorted({f for part in {folder, *parts} for p in MODEL_FILES[:4] for f in part.glob(p)})
    return sha256_json([[file.relative_to(folder).as_posix(), sha256_file(file)] for file in files])

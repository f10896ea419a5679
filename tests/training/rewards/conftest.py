"""Tiny random reward models, and embeddings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

MakeClassifier = Callable[..., Path]


@pytest.fixture(scope="session")
def classifier_dir(tmp_path_factory: pytest.TempPathFactory, tiny_textlm_dir: Path) -> MakeClassifier:
    """Writes a random classifier of the tiny Llama's shape with its tokenizer; one folder for each set of changes."""
    from transformers import AutoConfig, AutoTokenizer, LlamaForSequenceClassification

    made: dict[tuple[Any, ...], Path] = {}

    def make(outputs: int = 1, **config: Any) -> Path:
        key = (outputs, *sorted(config.items()))
        if key not in made:
            tokenizer = AutoTokenizer.from_pretrained(tiny_textlm_dir)
            with torch.random.fork_rng():
                torch.manual_seed(2)
                shape = AutoConfig.from_pretrained(tiny_textlm_dir, num_labels=outputs, **config)
                model = LlamaForSequenceClassification(shape)
            made[key] = tmp_path_factory.mktemp("reward") / "model"
            model.save_pretrained(made[key])
            tokenizer.save_pretrained(made[key])
        return made[key]

    return make


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "paris", "london", "is", "the", "capital", "city", "a", "big"]
WORDS += ["garden", "lake", "plant", "tree", "and", "water"]


@pytest.fixture(scope="session")
def bert_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WordPiece vocabulary of a few words."""
    file = tmp_path_factory.mktemp("bert") / "vocab.txt"
    file.write_text("\n".join(WORDS))
    return file


@pytest.fixture(scope="session")
def embedding_dir(tmp_path_factory: pytest.TempPathFactory, bert_vocabulary: Path) -> Path:
    """A tiny random BERT with mean pooling and a named prompt, as sentence-transformers saves it; reads 12 tokens."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("embedding")
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = BertModel(BertConfig(vocab_size=len(WORDS), **size))
    model.save_pretrained(folder / "bert")
    BertTokenizerFast(str(bert_vocabulary)).save_pretrained(folder / "bert")
    reader = models.Transformer(str(folder / "bert"), max_seq_length=12)
    pooling = models.Pooling(reader.get_embedding_dimension())
    whole = SentenceTransformer(modules=[reader, pooling], device="cpu", prompts={"same": "the big city "})
    whole.save(str(folder / "st"))
    return folder / "st"

"""The scorer `consistency` over samples, with a sentence-transformers folder built here."""

import builtins
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.scorers import agreement
from rba_bench.evaluation.scorers.scorer import ScorerOptions

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "paris",
    "london",
    "is",
    "the",
    "capital",
    "city",
    "a",
    "big",
    ".",
]


def sample(position: int, cluster: str, answer: str, status: str = "ok") -> Sample:
    return Sample(
        doc_id=position, id=f"i{position}", kind="chat", group="geography", cluster=cluster, audio_sha256="0" * 64,
        duration=1.0, prompt="", instruction="name the capital", source_lang="en", target_lang="en",
        response=f" {answer}", extracted=answer, references=[], scores={}, status=status, n_tokens=1, seed=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT with mean pooling, as sentence-transformers saves it."""
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("embedding")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(WORDS), **size)).save_pretrained(folder / "bert")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    transformer = models.Transformer(str(folder / "bert"), max_seq_length=32)
    pooling = models.Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder / "st"))
    return folder / "st"


def make(embedding: Path | str, tmp_path: Path) -> agreement.Consistency:
    return agreement.Consistency.from_config({"embedding": str(embedding)}, ScorerOptions(cache=tmp_path))


def test_every_sample_gets_the_value_of_its_group(tmp_path: Path) -> None:
    answers = {"x": ["Paris", "paris.", "Paris is the capital"], "y": ["London", "London"]}
    pairs = [(cluster, text) for cluster, texts in answers.items() for text in texts]
    mixed = [pairs[i] for i in (0, 3, 1, 4, 2)]  # the order of the samples does not matter
    scorer = make("none", tmp_path)
    found = scorer.score([sample(i, *pair) for i, pair in enumerate(mixed)])
    for (cluster, _), addition in zip(mixed, found, strict=True):
        expected = {"x": (1 / 3, (1 + 2 / 5 + 2 / 5) / 3), "y": (1.0, 1.0)}[cluster]
        assert addition.scores["answer_agreement"] == pytest.approx(expected[0])
        assert addition.scores["answer_overlap"] == pytest.approx(expected[1])
        assert not addition.failure
    assert [metric.name for metric in scorer.metrics] == ["answer_agreement", "answer_overlap"]
    assert scorer.report()["groups"] == 2 and scorer.report()["pairs"] == 4


def test_cosine_equals_that_of_the_models_own_vectors(embedding: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["paris is the capital", "london is a big city", "paris", "paris is the capital"]
    scorer = make(embedding, tmp_path)
    found = scorer.score([sample(i, "x", text) for i, text in enumerate(texts)])
    vectors = SentenceTransformer(str(embedding), device="cpu").encode(texts)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.mean([float(a @ b) for a, b in itertools.combinations(unit, 2)])
    assert [a.scores["answer_cosine"] for a in found] == pytest.approx([expected] * 4, abs=1e-5)
    assert [metric.name for metric in scorer.metrics][-1] == "answer_cosine"


def test_empty_answers_have_no_direction(embedding: Path, tmp_path: Path) -> None:
    scorer = make(embedding, tmp_path)
    found = scorer.score(
        [sample(0, "x", "paris"), sample(1, "x", "paris"), sample(2, "x", "", "empty"), sample(3, "y", "", "empty"),
         sample(4, "y", "", "empty")]
    )  # fmt: skip
    assert found[0].scores == pytest.approx(
        {"answer_agreement": 1 / 3, "answer_overlap": 1 / 3, "answer_cosine": 1 / 3}
    )
    assert found[4].scores == {"answer_agreement": 0.0, "answer_overlap": 0.0, "answer_cosine": 0.0}


def test_a_clip_that_was_not_heard_is_left_out_and_a_single_answer_has_no_score(tmp_path: Path) -> None:
    samples = [
        sample(0, "x", "paris"), sample(1, "x", "", "error"), sample(2, "x", "paris"),
        sample(3, "y", "london"), sample(4, "y", "", "error"),
    ]  # fmt: skip
    found = make("none", tmp_path).score(samples)
    assert found[0].scores["answer_agreement"] == found[2].scores["answer_agreement"] == 1.0
    assert found[1].scores == {} and not found[1].failure  # its own status says why
    assert found[3].scores == {} and "no other answer" in found[3].failure


def test_the_identity_is_the_models_content(embedding: Path, tmp_path: Path) -> None:
    import shutil

    moved = tmp_path / embedding.name
    shutil.copytree(embedding, moved)
    (moved / "README.md").write_text("changed")
    first, second = make(embedding, tmp_path).describe(), make(moved, tmp_path).describe()
    assert first == second and json.dumps(first)
    assert str(embedding) not in json.dumps(first)
    config = json.loads((moved / "modules.json").read_text())
    (moved / "modules.json").write_text(json.dumps(config[:1]))
    assert make(moved, tmp_path).describe() != first
    assert make("none", tmp_path).describe() == {"name": "consistency", "version": 1, "embedding": None}
    cost = make("none", tmp_path).cost([])
    assert (cost.calls, cost.dollars) == (0, 0.0)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"embeding": "none"}, UserError, "unknown option embeding"),
        ({"embedding": "/no/such/place"}, MissingPrerequisite, "correct the path"),
    ],
)
def test_bad_options_are_one_line(
    config: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(error, match=message):
        agreement.Consistency.from_config(config, ScorerOptions(cache=tmp_path))


def test_a_copy_in_the_data_folder_is_found_by_its_name(embedding: Path, tmp_path: Path) -> None:
    options = ScorerOptions(cache=tmp_path, data_dir=embedding.parent.parent)
    found = agreement.Consistency.from_config(
        {"embedding": f"{embedding.parent.name}/{embedding.name}"}, options
    )
    assert found.describe() == make(embedding, tmp_path).describe()


def test_a_folder_that_is_no_sentence_model(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(MissingPrerequisite, match=r"no modules\.json"):
        make(tmp_path, tmp_path)


def test_offline_the_hub_model_is_a_missing_prerequisite(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("sentence_transformers")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        MissingPrerequisite, match="hf download sentence-transformers/paraphrase-mpnet-base-v2"
    ):
        agreement.Consistency.from_config({}, ScorerOptions(cache=tmp_path))


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "sentence_transformers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPrerequisite, match=r"\[consistency\]"):
        agreement.Consistency.from_config({}, ScorerOptions(cache=tmp_path))
    assert make("none", tmp_path).metrics  # needs no package

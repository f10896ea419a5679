"""Cosine of sentence embeddings with the teacher's answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.textlm.embeddings import SentenceEmbedder
from rba_bench.training.options.nested_options import RewardOptions
from rba_bench.training.rewards import Similarity, build_reward

pytest.importorskip("sentence_transformers")
ANSWERS = ["plant a tree", "plant a tree and water the garden", "london", "", " "]


def cosines(folder: Path, answers: list[str], teacher: str, prompt: str = "") -> list[float]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    vectors = [model.encode(prompt + text) for text in [teacher, *answers]]
    unit = [vector / np.linalg.norm(vector) for vector in vectors]
    return [float(unit[0] @ one) for one in unit[1:]]


def test_values_are_the_models_cosines_and_silence_has_none(
    rows: list[AlignmentRow], embedding_dir: Path
) -> None:
    row = rows[15]  # "plant a tree and water the garden"
    found = Similarity(SentenceEmbedder(embedding_dir))([row] * 5, ANSWERS)
    assert found[:3] == pytest.approx(cosines(embedding_dir, ANSWERS[:3], row.response), abs=1e-5)
    assert found[1] == pytest.approx(1.0) and found[0] != found[2] and found[3:] == [0.0, 0.0]
    assert Similarity(SentenceEmbedder(embedding_dir))([], []) == []


def test_a_prompt_of_the_model_stands_before_both_texts(
    rows: list[AlignmentRow], embedding_dir: Path
) -> None:
    options = RewardOptions(
        instruct="similarity", similarity_model=str(embedding_dir), similarity_prompt="same"
    )
    found = build_reward(options, ["instruct"])([rows[15]], ["london"])
    expected = cosines(embedding_dir, ["london"], rows[15].response, "the big city ")
    assert found == pytest.approx(expected, abs=1e-5)
    assert found != pytest.approx(cosines(embedding_dir, ["london"], rows[15].response), abs=1e-3)


def test_texts_longer_than_the_model_reads_are_counted(
    rows: list[AlignmentRow], embedding_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = replace(rows[15], response="plant a tree")
    reward = Similarity(SentenceEmbedder(embedding_dir))  # reads 12 tokens, two of them special
    reward([row] * 2, [" ".join(["garden"] * 10), " ".join(["garden"] * 11)])
    assert reward.counts() == {"similarity_cut": 1}
    assert "reads 12 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({}, MissingPrerequisite, r"^reward\.similarity_model: name a sentence-transformers model"),
        (
            {"similarity_model": "/no/such/place"},
            MissingPrerequisite,
            r"^reward\.similarity_model: .*correct",
        ),
        (
            {"similarity_prompt": "quary"},
            UserError,
            r"^reward\.similarity_model: .* no prompt 'quary'; .*same",
        ),
    ],
)
def test_what_is_missing_is_named(
    changes: dict[str, str], error: type[Exception], message: str, embedding_dir: Path
) -> None:
    given = {"similarity_model": str(embedding_dir), **changes} if "similarity_prompt" in changes else changes
    with pytest.raises(error, match=message):
        build_reward(RewardOptions(qa="similarity", **given), ["qa"])  # type: ignore[arg-type]

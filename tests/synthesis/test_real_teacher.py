"""The way through a real language model: tiny, and taught a few turns by heart."""

from pathlib import Path

import pytest
from stages_of import candidates

from rba_bench.audio.alignment_set import AlignmentSet
from rba_bench.errors import MissingPrerequisite, RbaError
from rba_bench.synthesis import pipeline
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

TURNS = (
    ("plan a trip to the lake", "pack a bag"),
    ("what is the largest river", "the amazon"),
    ("write a letter to a friend", "dear friend"),
    ("who painted the garden", "an artist"),
)


@pytest.fixture(scope="module")
def taught_dir(tiny_textlm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model after it has learnt TURNS, so that it writes words and ends its turns."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_textlm_dir)
    model = AutoModelForCausalLM.from_pretrained(tiny_textlm_dir, dtype=torch.float32)
    texts = [f"<|bos|><|user|>{ask}<|end|><|assistant|>{answer}<|end|>" for ask, answer in TURNS]
    batch = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("taught") / "teacher"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(taught_dir: Path) -> SynthesisRecipe:
    return SynthesisRecipe(
        teacher=str(taught_dir),
        tagger=None,
        n_instructions=3,
        round_size=16,
        batch_size=7,
        instruction_max_new_tokens=40,
        response_max_new_tokens=40,
        voices_per_instruction=2,
        shard_size=2,
    )


def test_a_language_model_writes_answers_and_is_spoken(tmp_path: Path, recipe: SynthesisRecipe) -> None:
    pytest.importorskip("espeakng_loader")
    data = AlignmentSet.open(pipeline.synthesize(recipe, tmp_path / "one"))
    assert len(data.rows()) == 6 and len(data.groups()) == 3
    assert {row.kind for row in data.rows()} == {"instruct"} and all(row.response for row in data.rows())
    assert data.manifest["teacher"]["pre_query_template"] == "<|bos|><|user|>"
    assert len(data.manifest["teacher"]["weights_sha256"]) == 64
    rebatched = recipe.model_copy(update={"batch_size": 16})
    assert AlignmentSet.open(pipeline.synthesize(rebatched, tmp_path / "two")).sha256 == data.sha256


def test_a_teacher_that_never_ends_its_turn_is_given_up(tmp_path: Path, recipe: SynthesisRecipe) -> None:
    pytest.importorskip("espeakng_loader")
    curt = recipe.model_copy(update={"instruction_max_new_tokens": 1, "max_candidates": 16})
    with pytest.raises(RbaError, match="16 candidates gave 0 of 3 usable instructions .*truncated"):
        pipeline.synthesize(curt, tmp_path / "set")
    assert len(candidates(tmp_path / "set")) == 16


def test_unbuilt_micro_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_MICRO_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(MissingPrerequisite, match="rba-bench micro build"):
        pipeline.synthesize(SynthesisRecipe(), tmp_path / "set")

"""Scores of answers, and what is dropped below a threshold."""

import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_teacher import FakeTeacher
from stages_of import decisions

from rba_bench.audio.alignment_set import MANIFEST, AlignmentSet
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import read_json, sha256_file, write_json
from rba_bench.micro import world
from rba_bench.outputs import SIGNATURE
from rba_bench.recipes import load_recipe
from rba_bench.stages import load_reward_scorer
from rba_bench.synthesis.filtering import InstructionFilter
from rba_bench.synthesis.filters import KEPT
from rba_bench.synthesis.pipeline import synthesize
from rba_bench.synthesis.quality import LikelihoodScorer, QualityOptions, load_scorer
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.tagging import LikelihoodLabeller
from rba_bench.textlm.local import LocalTextLM

TEXTS = ("the lake", "what is the capital", "name a river", "a big garden", "is it late", "who was here")
ANSWERS = ("a", "the capital is london", "the river is long and wide", "no", "it is", "nobody that we know")


def recipe_with(quality: dict[str, Any] | None, **keys: Any) -> SynthesisRecipe:
    known = {"n_instructions": 8, "round_size": 8, "shard_size": 4, "voices_per_instruction": 1, **keys}
    return SynthesisRecipe.model_validate({**known, "text_filters": {"quality": quality}})


def candidate(index: int) -> dict[str, Any]:
    labels = {"kind": "instruct", "prompt": "", "instruction": TEXTS[index], "topic": "", "difficulty": ""}
    answer = {"reason": KEPT, "response": ANSWERS[index]}
    languages = {"source_lang": "en", "target_lang": "en"}
    return {"index": index, "text": TEXTS[index], "reason": KEPT, "answer": answer, **labels, **languages}


def test_a_likelihood_is_the_mean_over_the_tokens_of_the_answer(tiny_textlm_dir: Path) -> None:
    lm = LocalTextLM.from_pretrained(tiny_textlm_dir, batch_size=2)
    expected = []
    for text, answer in zip(TEXTS, ANSWERS, strict=True):
        prompt = f"<|bos|><|user|>{text}<|end|><|assistant|>"
        ids = lm.tokenizer(
            f"{prompt}{answer}<|end|>", add_special_tokens=False, return_tensors="pt"
        ).input_ids
        start = len(lm.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        with torch.inference_mode():
            logprobs = lm.model(input_ids=ids).logits[0].log_softmax(-1)
        tokens = [logprobs[place - 1, ids[0, place]] for place in range(start, ids.shape[1])]
        expected.append(float(torch.stack(tokens).mean()))
    scorer = LikelihoodScorer(lm)
    assert scorer.score(TEXTS, ANSWERS) == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.1
    found = scorer.score(["x" * 2_000, TEXTS[1]], [ANSWERS[0], ANSWERS[1]])  # no room for the first
    assert math.isnan(found[0]) and found[1] == pytest.approx(expected[1], abs=1e-4)
    assert scorer.score([], []) == []


def test_the_teacher_scores_unless_another_model_is_named(tiny_textlm_dir: Path) -> None:
    teacher = LocalTextLM.from_pretrained(tiny_textlm_dir)
    own = load_scorer(QualityOptions(scorer="likelihood"), teacher)
    assert isinstance(own, LikelihoodScorer) and own.model is teacher
    named = load_scorer(QualityOptions(scorer="likelihood", model="micro"), teacher)
    rng = random.Random(0)
    items = [world.sample_item(rng, split="train") for _ in range(12)]
    texts, answers = [item.user_text for item in items], [world.sample_answer(rng, item) for item in items]
    scores, mixed = named.score(texts, answers), named.score(texts, [*answers[1:], answers[0]])
    assert sum(scores) > sum(mixed) + len(
        items
    )  # it was taught this world: other answers cost more than a nat
    assert own.score(texts, answers) != pytest.approx(scores, abs=0.1)
    assert named.identity()["weights_sha256"] != own.identity()["weights_sha256"]


def test_answers_below_the_threshold_give_their_places_back(tiny_textlm_dir: Path) -> None:
    scorer = LikelihoodScorer(LocalTextLM.from_pretrained(tiny_textlm_dir))
    scores = scorer.score([f"{text} now" for text in TEXTS], ANSWERS)
    least = sorted(scores)[2] + 0.001  # three are below it
    recipe = recipe_with({"scorer": "likelihood", "min": least}, n_instructions=6, answer_prompt=" now")
    filters = InstructionFilter(recipe, scorer=scorer)
    asked = [candidate(i) for i in range(len(TEXTS))]
    asked[5] |= {"answer": {"reason": "empty", "response": ""}}
    found, state = filters.decide(asked)
    for i, decision in enumerate(found[:5]):
        assert decision["score"] == pytest.approx(scores[i], abs=1e-4)
        assert decision["answer"] == (KEPT if scores[i] >= least else "low_score")
        assert ("response" in decision) == (decision["answer"] == KEPT)
    assert found[5]["answer"] == "empty" and "score" not in found[5]
    kept = sum(decision["answer"] == KEPT for decision in found)
    assert 0 < kept < 4 and filters.kinds.total() == kept and not filters.enough
    assert len(state["texts"]) == 6  # a text whose answer was bad is not asked again
    recording = InstructionFilter(recipe_with({"scorer": "likelihood"}), scorer=scorer)
    assert {decision["answer"] for decision in recording.decide(asked[:5])[0]} == {KEPT}


def test_what_the_scorer_cannot_read_is_dropped_and_said(tiny_textlm_dir: Path) -> None:
    lm = LocalTextLM.from_pretrained(tiny_textlm_dir)
    asked = [candidate(0), candidate(1)]
    asked[0]["answer"]["response"] = "x " * 600
    found, _ = InstructionFilter(recipe_with({"scorer": "likelihood"}), scorer=LikelihoodScorer(lm)).decide(
        asked
    )
    assert [decision["answer"] for decision in found] == ["not_scored", KEPT] and "score" not in found[0]


def test_a_set_with_a_threshold_counts_what_it_dropped_and_is_resumed(tmp_path: Path) -> None:
    """The teacher and the reward model of the micro world."""
    pytest.importorskip("espeakng_loader")
    options = {"scorer": "reward", "model": "micro", "device": "cpu"}
    recorded = recipe_with(options)
    with pytest.raises(UserError, match="`rba-bench synth` knows the reward models"):
        synthesize(recorded, tmp_path / "alone")
    synthesize(recorded, tmp_path / "all", load_reward=load_reward_scorer)
    scores = sorted(one["score"] for one in decisions(tmp_path / "all") if one.get("answer") == KEPT)
    assert len(scores) == 8 and scores[0] < scores[-1]
    least = scores[4]
    recipe, out = recipe_with({**options, "min": least}), tmp_path / "set"
    data = AlignmentSet.open(synthesize(recipe, out, load_reward=load_reward_scorer))
    assert len({row.group_id for row in data.rows()}) == 8
    answers = data.manifest["filters"]["answers"]["dropped"]
    low = [one for one in decisions(out) if one.get("answer") == "low_score"]
    assert answers["low_score"]["n"] == len(low) > 0 and "quality.min" in answers["low_score"]["meaning"]
    assert all(one["score"] < least for one in low)
    assert all(one["score"] >= least for one in decisions(out) if one.get("answer") == KEPT)
    quality = data.manifest["quality"]
    assert quality["scorer"] == "reward" and quality["min"] == least and len(quality["weights_sha256"]) == 64
    torn = shutil.copytree(out, tmp_path / "torn")
    for name in (MANIFEST, "done/filter-00000.json"):
        (torn / name).unlink()
    again = recipe_with({**options, "min": least, "batch_size": 3})
    assert AlignmentSet.open(synthesize(again, torn, load_reward=load_reward_scorer)).sha256 == data.sha256
    assert sha256_file(torn / "filter/filter-00000.jsonl.gz") == sha256_file(
        out / "filter/filter-00000.jsonl.gz"
    )
    with pytest.raises(UserError, match=r"text_filters.quality.min"):
        synthesize(recorded, torn, load_reward=load_reward_scorer)


def test_a_teacher_scores_its_own_answers_while_it_writes_others(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    recipe = recipe_with({"scorer": "likelihood"}, n_instructions=4, round_size=4, answer_prompt=" please")
    data = AlignmentSet.open(synthesize(recipe, tmp_path / "set"))
    kept = [one for one in decisions(tmp_path / "set") if one.get("answer") == KEPT]
    assert len(kept) == 4 and data.manifest["quality"]["scorer"] == "likelihood"
    scorer = load_scorer(QualityOptions(scorer="likelihood", model="micro"), FakeTeacher())
    texts = [f"{one['prompt']} {one['instruction']}".strip() + " please" for one in kept]
    expected = scorer.score(texts, [one["response"] for one in kept])
    assert [one["score"] for one in kept] == pytest.approx(expected, abs=1e-3)


def test_a_folder_of_a_version_without_scores_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    recipe = SynthesisRecipe.model_validate(
        {
            "n_instructions": 3,
            "round_size": 8,
            "voices_per_instruction": 1,
            "text_filters": {"near_duplicates": {}},
        }
    )
    out = synthesize(recipe, tmp_path / "set", teacher=FakeTeacher())
    signature = read_json(out / SIGNATURE)
    assert sorted(signature["config"]["text_filters"]) == [
        "against",
        "decontaminate",
        "near_duplicates",
        "rules",
    ]
    assert "models" not in signature["config"]
    write_json(out / SIGNATURE, signature)
    (out / MANIFEST).unlink()
    before = sha256_file(out / "shards/part-00000.parquet")
    assert synthesize(recipe, out, teacher=FakeTeacher()) == out
    assert sha256_file(out / "shards/part-00000.parquet") == before


def test_other_weights_under_the_same_name_decide_again(tiny_textlm_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_textlm_dir, tmp_path / "moved")
    model = LocalTextLM.from_pretrained(tiny_textlm_dir).model
    with torch.no_grad():
        model.get_input_embeddings().weight[0] += 1
    model.save_pretrained(tmp_path / "other")
    for file in tiny_textlm_dir.glob("*"):
        if not (tmp_path / "other" / file.name).exists():
            shutil.copy(file, tmp_path / "other" / file.name)

    def settings(folder: Path) -> dict[str, Any]:
        labeller = LikelihoodLabeller(LocalTextLM.from_pretrained(folder))
        return InstructionFilter(recipe_with(None), labeller).settings({"seed": 0})

    assert settings(tiny_textlm_dir) == settings(folder) != settings(tmp_path / "other")
    assert InstructionFilter(recipe_with(None)).settings({"seed": 0}) == {"seed": 0}


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ({"scorer": "reward"}, "needs `model`"),
        ({"scorer": "likelihood", "output": 1}, "belongs to scorer reward"),
        ({"scorer": "likelihood", "model": "openai:http://127.0.0.1:1/v1#m"}, "name a local model"),
        ({"scorer": "perplexity"}, "likelihood"),
        ({"min": -1}, "scorer"),
    ],
)
def test_options_that_cannot_be_are_refused(quality: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(SynthesisRecipe, values={"text_filters": {"quality": quality}})


def test_models_that_cannot_score_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"name a local model with text_filters.quality.model"):
        load_scorer(QualityOptions(scorer="likelihood"), FakeTeacher())
    with pytest.raises(MissingPrerequisite, match="nowhere"):
        load_scorer(QualityOptions(scorer="likelihood", model="./nowhere/at/all"), FakeTeacher())
    with pytest.raises(MissingPrerequisite, match=r"text_filters.quality.model: .*nowhere"):
        load_reward_scorer(QualityOptions(scorer="reward", model="./nowhere/at/all"))
    with pytest.raises(UserError, match="not translations"):
        values = {"source": {"manifest": "clips.csv"}, "text_filters": {"quality": {"scorer": "likelihood"}}}
        load_recipe(SynthesisRecipe, values=values)

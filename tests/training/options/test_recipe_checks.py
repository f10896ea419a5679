"""What a recipe asks for and will not get is told, and nothing else is."""

import re
from pathlib import Path

import pytest

from rba_bench.recipes import load_recipe
from rba_bench.training.options.presets import METHODS
from rba_bench.training.options.recipe_checks import (
    KEY_CONDITIONS,
    _leaves,
    idle_values,
    thin_groups,
    unread_keys,
)
from rba_bench.training.training_recipe import TrainingRecipe

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))
OF_TRAINING = [path for path in RECIPES if re.search(r"^method:", path.read_text(), re.MULTILINE)]


@pytest.mark.parametrize("path", OF_TRAINING, ids=lambda path: path.stem)
def test_shipped_recipes_come_out_silent(path: Path) -> None:
    recipe = load_recipe(TrainingRecipe, path)
    assert unread_keys(recipe) == [] and idle_values(recipe) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_method_alone_comes_out_silent(method: str) -> None:
    recipe = load_recipe(TrainingRecipe, None, [f"method={method}"])
    assert unread_keys(recipe) == [] and idle_values(recipe) == []


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["method=sft", "beta=0.3"], "sft does not read beta: it has no preference term"),
        (
            ["method=sft", "temperature=0.7", "refresh_every=4"],
            "sft does not read temperature, refresh_every: it samples nothing",
        ),
        (["method=sft", "truncated=drop"], "sft does not read truncated: it samples nothing"),
        (["method=kd", "preference_reduction=token"], "kd does not read preference_reduction"),
        (["method=dpo", "sft_reduction=token"], "dpo does not read sft_reduction: sft_weight is 0"),
        (["method=rba-group", "policy_reduction=sequence"], "it has no policy gradient"),
        (["method=diva", "distillation_reduction=sequence"], "it does not learn distributions"),
        (["method=sft", "sft_weight=0.5"], "cross entropy is its whole loss"),
        (["method=kd", "reference=base"], "kd does not read reference"),
        (["method=dpo", "opponent_every=5"], "its reference is not an opponent"),
        (["method=rba-single", "reward.qa=chrf"], "rba-single does not read reward.qa: it uses no reward"),
        (["method=rba-single", "group_by=clip"], "does not compare samples"),
        (["method=rba-group", "student_fraction=0.5"], "student_fraction: only gkd"),
        (["method=rba-group", "reward.judge_max_tokens=99"], "no judge is used"),
        (["method=rba-group", "policy_gradient.kl_weight=0.5"], "it has no policy gradient"),
        (["method=mrt", "policy_gradient.clip_low=0.1"], "grpo, dapo and tars use it"),
        (["method=grpo", "policy_gradient.mrt_sharpness=2"], "only mrt uses it"),
        (["method=grpo", "reward.min_gap=1"], "it picks no pairs"),
        (
            ["method=dpo", "preference.simpo_gamma=1"],
            "dpo does not read preference.simpo_gamma: only simpo uses it",
        ),
        (["method=kd", "teacher.jsd_weight=0.1"], "teacher.divergence is not jsd"),
        (["method=gkd", "teacher.top_k=8"], "computes every step"),
        (["method=kd", "teacher.memory_mb=8"], "teacher.top_k 0 keeps nothing"),
        (["method=sft", "teacher.answers.prompt=Go on"], "trains on the answers of its set"),
        (["method=audiochatllama", "teacher.answers.prompt=Go on"], "its LLM answers the transcript alone"),
        (
            ["method=sft", "train_parts=[projector]", "learning_rates.llm=1e-5"],
            "train_parts does not name llm",
        ),
        (
            ["method=sft", "train_parts=[llm]", "learning_rates.llm=1e-5", "learning_rate=1"],
            "sft does not read learning_rate: learning_rates names one",
        ),
        (["method=sft", "epochs=2", "steps=7"], "epochs decides"),
        (
            ["method=sft", "validate_ends=false", "validation.items=7", "batch_size=4"],
            "validation.items, batch_size: nothing is validated",
        ),
        (["method=sft", "train_parts=[encoder]", "encoder_cache=x"], "the encoder trains"),
    ],
)
def test_keys_that_a_method_does_not_read_are_told_in_one_line(overrides: list[str], line: str) -> None:
    told = unread_keys(load_recipe(TrainingRecipe, None, overrides))
    assert len(told) == 1 and line in told[0], told


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=sft", "beta=0.1"],  # as it is anyway
        ["method=sft", "eval_every=5", "validation.metric=reward", "max_new_tokens=9", "reward.qa=chrf"],
        ["method=grpo", "policy_gradient.kl_weight=0", "reference=none"],
        ["method=scst", "group_by=clip", "samples_per_clip=2"],
        ["method=rba-group", "reward.instruct=judge", "reward.judge=openai:http://x#m", "reward.judge_max_tokens=9"],
        ["method=blsp", "teacher.answers.prompt=Go on", "teacher.answers.temperature=1", "teacher.answers.top_p=0.5"],
        ["method=sft", "lora.r=4"],
        ["method=dpo", "preference_reduction=token"],
        ["method=rba-single", "preference_reduction=sequence"],
        ["method=scst", "policy_reduction=sequence"],
    ],
)  # fmt: skip
def test_keys_that_are_read_are_not_told(overrides: list[str]) -> None:
    assert unread_keys(load_recipe(TrainingRecipe, None, overrides)) == []


def test_needs_name_keys_that_there_are() -> None:
    keys = {key for key, _ in _leaves(TrainingRecipe())}
    sections = {".".join(key.split(".")[:depth]) for key in keys for depth in (1, 2)}
    assert {name for need in KEY_CONDITIONS for name in need.keys} <= keys | sections


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["steps=200", "warmup_steps=200"], "warmup_steps 200 is not below steps 200"),
        (["steps=200", "warmup_steps=3000"], "never reaches its full value"),
        (["steps=200", "warmup_steps=190"], "leaves 10 of 200 steps"),
        (["steps=20", "eval_every=50"], "eval_every 50 is above steps 20"),
        (["steps=20", "eval_every=5", "validation.patience=4"], "validated 4 times"),
        (["steps=20", "refresh_every=21"], "refresh_every 21 is above steps 20"),
        (["steps=20", "method=spin", "opponent_every=20"], "the opponent stays the base model"),
        (["temperature=[0.5,1,1.5]", "voices_per_group=2"], "temperature names 3 values, but a group has 2"),
    ],
)
def test_values_that_cannot_take_effect_are_told(overrides: list[str], line: str) -> None:
    told = idle_values(load_recipe(TrainingRecipe, None, overrides))
    assert len(told) == 1 and line in told[0], told


def test_values_at_the_edge_are_not_told() -> None:
    edge = ["steps=200", "warmup_steps=160", "eval_every=200", "refresh_every=200", "temperature=[0.5,1]"]
    assert idle_values(load_recipe(TrainingRecipe, None, edge)) == []


def test_a_set_with_fewer_voices_or_groups_than_wanted_is_told() -> None:
    recipe = TrainingRecipe(method="sft", voices_per_group=4, groups_per_step=3)
    assert thin_groups([4, 4, 5], recipe) == []
    (line,) = thin_groups([4, 1, 3, 4], recipe)
    assert "2 of 4 groups have fewer voices (the fewest 1); they give fewer clips a step" in line
    filled, few = thin_groups([2, 2], recipe.model_copy(update={"method": "rba-group", "pairs": "group"}))
    assert "clips are sampled several times to fill them" in filled
    assert "groups_per_step 3 is above the 2 groups" in few

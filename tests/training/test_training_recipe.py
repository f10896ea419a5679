"""The training recipe, the shipped ones, the schedule and the order of the data."""

from pathlib import Path

import pytest

from rba_bench.errors import UserError
from rba_bench.recipes import load_recipe
from rba_bench.training.recipe import TrainingRecipe
from rba_bench.training.trainer import schedule_factor

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("method", ["sft", "rba-single", "rba-group"])
def test_shipped_recipes_load(method: str) -> None:
    recipe = load_recipe(TrainingRecipe, RECIPES / f"{method}.yaml")
    assert (recipe.method, recipe.base, recipe.track) == (method, "micro", "micro")


def test_shipped_recipes_differ_only_where_the_methods_do() -> None:
    shared = (
        "steps",
        "groups_per_step",
        "voices_per_group",
        "learning_rate",
        "warmup_steps",
        "schedule",
        "train_parts",
    )
    loaded = [
        load_recipe(TrainingRecipe, RECIPES / f"{name}.yaml") for name in ("sft", "rba-single", "rba-group")
    ]
    assert len({tuple(getattr(recipe, name) for name in shared) for recipe in loaded}) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=gropo"], "method"),
        (["method=spin", "reference=base"], "`reference: opponent`"),
        (["method=mrt", "group_by=instruction"], "group_by"),
        (["method=grpo", "reference=none"], "kl_weight to 0"),
        (["method=tdpo", "reference=none"], "tdpo"),
        (["method=grpo", "group_by=clip"], "samples_per_clip must be at least 2"),
        (
            ["method=grpo", "group_by=clip", "samples_per_clip=4", "policy_gradient.baseline=modality"],
            "modality",
        ),
        (["select=best"], "set eval_every"),
        (["method=diva", "teacher.model=micro"], "teacher.model to self"),
        (["temperature=[]"], "at least one"),
        (["beta=0"], "beta"),
        (["train_parts=[]"], "train_parts"),
        (["train_parts=[llm,llm]"], "each once"),
        (["train_parts=[projector]", "lora.r=4"], "add `llm` to train_parts"),
        (["method=dpo", "reference=false"], "`reference: base`"),
        (["method=rba-group", "voices_per_group=1"], "at least 2"),
        (["reward.qa=gpt"], "reward.qa"),
        (["reward.aq=alias"], "did you mean 'qa'"),
        (["steps=1.5"], "steps"),
    ],
)
def test_wrong_recipes_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(TrainingRecipe, None, overrides)
    assert message in str(caught.value)


def test_what_a_method_implies() -> None:
    assert not TrainingRecipe(method="sft", reference=True).uses_reference
    assert TrainingRecipe(method="dpo").uses_reference
    assert TrainingRecipe(method="dpo").sft_weight == 0 and TrainingRecipe().sft_weight == 0.2
    assert TrainingRecipe(method="odpo").pairs == "group" and TrainingRecipe(method="odpo").uses_reward
    assert TrainingRecipe(method="mrt").samples_per_clip == 4
    assert not TrainingRecipe(method="dapo", policy_gradient={"kl_weight": 0}).uses_reference
    assert TrainingRecipe(method="gkd").uses_rollout and not TrainingRecipe(method="kd").uses_rollout
    assert TrainingRecipe(method="rba-group", reference=True).uses_reference
    assert not TrainingRecipe(train_parts=("encoder",)).encoder_frozen


def test_schedule_by_hand() -> None:
    linear = TrainingRecipe(steps=14, warmup_steps=4, schedule="linear")
    assert [schedule_factor(step, linear) for step in (0, 3, 4, 9, 14)] == pytest.approx(
        [0.2, 0.8, 1.0, 0.5, 0.0]
    )
    cosine = TrainingRecipe(steps=14, warmup_steps=4, schedule="cosine")
    assert [schedule_factor(step, cosine) for step in (4, 9, 14)] == pytest.approx([1.0, 0.5, 0.0])
    constant = TrainingRecipe(steps=14, warmup_steps=0)
    assert [schedule_factor(step, constant) for step in (0, 13, 50)] == [1.0, 1.0, 1.0]

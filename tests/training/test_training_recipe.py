"""The training recipe, the shipped ones, the schedule and the order of the data."""

from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.recipes import load_recipe
from rba_bench.training.model.trainable_parts import rates_at, schedule_factor
from rba_bench.training.training_recipe import PartRates, TrainingRecipe

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
    assert TrainingRecipe(method="dpo").sft_weight == 0
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


def scales(**values: Any) -> tuple[Any, ...]:
    recipe = TrainingRecipe(**values)
    return recipe.preference_reduction, recipe.sft_reduction, recipe.beta, recipe.sft_weight


def test_sizes_follow_the_reduction() -> None:
    """Long answers: means where nothing holds the sums together; the paper's scalars are for sums."""
    assert scales() == scales(method="rba-group") == ("token", "token", 2.0, 1.0)
    assert scales(preference_reduction="sequence") == ("sequence", "sequence", 0.1, 0.2)
    assert scales(preference_reduction="sequence", beta=0.3, sft_weight=0.5, sft_reduction="token") == (
        "sequence", "token", 0.3, 0.5
    )  # fmt: skip
    assert scales(method="simpo") == ("token", "token", 2.0, 0.0)
    assert scales(method="dpo") == scales(method="tdpo") == ("sequence", "sequence", 0.1, 0.0)
    assert scales(method="dpo", preference_reduction="token") == ("token", "token", 2.0, 0.0)
    assert scales(method="ipo")[2] == scales(method="ipo", preference_reduction="sequence")[2] == 0.1


def test_policy_gradients_have_the_reduction_of_their_papers_or_another() -> None:
    assert [TrainingRecipe(method=name).policy_reduction for name in ("grpo", "dapo")] == [
        "sequence",
        "token",
    ]
    summed = TrainingRecipe(method="mrt", policy_reduction="sequence")
    assert (summed.sft_reduction, TrainingRecipe(method="mrt").sft_reduction) == ("sequence", "token")
    assert TrainingRecipe(method="grpo").sft_reduction == "token"  # beside means of answers


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"method": "simpo", "preference_reduction": "sequence"}, "simpo has `preference_reduction: token`"),
        ({"method": "tdpo", "preference_reduction": "token"}, "tdpo has `preference_reduction: sequence`"),
        ({"method": "dapo", "policy_reduction": "sequence"}, "dapo has `policy_reduction: token`"),
        ({"length_normalized": True}, "preference_reduction and sft_reduction, `token`"),
        ({"preference_reduction": "tokens"}, "'token' or 'sequence'"),
        ({"preference_reduction": ["token"]}, "'token' or 'sequence'"),
    ],
)
def test_reductions_that_a_method_cannot_have(override: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingRecipe(**override)


@pytest.mark.parametrize("method", ["rba-single", "dpo", "ipo", "simpo", "sft", "kd", "grpo", "mrt", "scst"])
def test_a_recipe_of_an_older_run_means_what_it_meant(method: str) -> None:
    """Older runs wrote every key down, with one for all terms."""
    recipe = TrainingRecipe(method=method, length_normalized=False, max_new_tokens=48)
    means = method in ("ipo", "simpo")
    assert recipe.preference_reduction == ("token" if means else "sequence")
    assert (recipe.sft_reduction, recipe.truncated) == ("sequence", "keep")
    if recipe.kind == "policy-gradient":
        assert recipe.policy_reduction == "sequence"
    assert "length_normalized" not in recipe.resolved()


def test_a_continued_run_meets_its_schedule_after_another_warm_up() -> None:
    """An optimiser without memory starts at step 8 of 14: two fifths, three fifths, ... of what the schedule says."""
    linear = TrainingRecipe(steps=14, warmup_steps=4, schedule="linear")
    found = [schedule_factor(step, linear, 8) for step in (8, 9, 12, 13)]
    assert found == pytest.approx([0.2 * 0.6, 0.4 * 0.5, 0.2, 0.1])
    early = [schedule_factor(step, linear, 2) for step in (2, 3, 6, 9)]
    assert early == pytest.approx([0.2, 0.4, 0.8, 0.5])


def test_the_log_names_the_rates_of_parts_only_where_they_differ() -> None:
    both = TrainingRecipe(learning_rate=1e-3, warmup_steps=1, train_parts=("projector", "llm"))
    assert rates_at(0, both) == {"learning_rate": 5e-4}
    differ = both.model_copy(update={"learning_rates": PartRates(llm=1e-4, encoder=1.0)})
    assert rates_at(1, differ) == {
        "learning_rate": 1e-3,
        "learning_rate_projector": 1e-3,
        "learning_rate_llm": 1e-4,
    }

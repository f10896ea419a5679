"""Which recipe a training run starts from."""

from pathlib import Path

import pytest

from rba_bench.training.options.choice import resolve_recipe


def test_the_shipped_base_takes_the_recipe_of_the_methods_name(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = resolve_recipe("rba-single", None, ["base=micro"], False)
    assert (recipe.max_new_tokens, recipe.preference_reduction, recipe.beta) == (32, "sequence", 0.1)
    assert recipe == resolve_recipe(None, None, [], False) and capsys.readouterr().err == ""


def test_another_base_takes_what_the_method_sets_for_long_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = resolve_recipe(None, None, ["base=micro", "base=runs/mine", "steps=7"], False)
    assert (recipe.method, recipe.base, recipe.track, recipe.steps) == ("rba-single", "runs/mine", "full", 7)
    assert (recipe.max_new_tokens, recipe.truncated) == (512, "mask")
    assert (recipe.preference_reduction, recipe.sft_reduction) == ("token", "token")
    assert (recipe.beta, recipe.sft_weight) == (2.0, 1.0)
    assert "--recipe rba-single uses the micro world's recipe" in capsys.readouterr().err
    assert resolve_recipe("dpo", None, ["base=x", "track=micro"], False).track == "micro"


def test_a_named_recipe_is_taken_as_it_is() -> None:
    assert resolve_recipe(None, Path("rba-group"), ["base=runs/mine"], False).max_new_tokens == 32

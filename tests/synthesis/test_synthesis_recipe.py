"""The synthesis recipe: its file, its defaults, its errors."""

from pathlib import Path

import pytest

from rba_bench.errors import UserError
from rba_bench.recipes import load_recipe
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

MICRO = Path(__file__).parents[2] / "recipes" / "synth-micro.yaml"


def test_the_shipped_recipe_shows_the_defaults_and_its_own_mix_of_kinds() -> None:
    mix = {"instruct": 200, "qa": 80, "s2tt": 120}
    assert load_recipe(SynthesisRecipe, MICRO) == SynthesisRecipe.model_validate({"kinds": mix})


def test_the_shipped_question_set_has_one_voice_and_short_answers() -> None:
    recipe = load_recipe(SynthesisRecipe, MICRO.with_name("synth-qa-micro.yaml"))
    assert (recipe.voices_per_instruction, recipe.max_answer_words) == (1, 5)
    assert recipe.kinds == {"qa": recipe.n_instructions}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("voices_per_instuction=2", "did you mean 'voices_per_instruction'"),
        ("voices_per_instruction=99", "has only 16 voices"),
        ("voice_bank=trian", "did you mean 'train'"),
        ("noise_colours=[wite]", "did you mean 'white'"),
        ("snr_db=[20, 5]", r"\[low, high\]"),
        ("speed=[0, 1]", "between 0.25 and 4"),
        ("kinds={qa: 3}", "must add up to 400"),
        ("kinds={song: 400}", "'instruct', 'qa' or 's2tt'"),
        ("instruction_temperature=0", "greater than 0"),
        ("n_instructions=none", "must be a whole number"),
    ],
)
def test_mistakes_are_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(SynthesisRecipe, MICRO, [override])
    assert "\n" not in str(caught.value)

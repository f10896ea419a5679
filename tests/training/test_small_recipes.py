"""The recipes of real models load, and train."""

from pathlib import Path

import pytest

from rba_bench.files import read_json, read_jsonl
from rba_bench.recipes import load_recipe, recipe_file, recipes_dir
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.training.options.recipe_checks import unread_keys
from rba_bench.training.training_recipe import TrainingRecipe
from rba_bench.training.training_run import train

METHODS = sorted({path.stem for path in (recipes_dir() / "small").glob("*.yaml")} - {"synth"})


@pytest.mark.parametrize("method", METHODS)
def test_a_recipe_of_small_trains_two_steps(
    method: str, tiny_composite_dir: Path, tiny_textlm_dir: Path, alignment_dir: Path, tmp_path: Path
) -> None:
    file = recipe_file(f"small/{method}")
    as_shipped = load_recipe(TrainingRecipe, file)
    assert (as_shipped.method, as_shipped.track) == (method, "small") and not list(unread_keys(as_shipped))
    assert (
        str(as_shipped.alignment_set) == "runs/small/alignment-set"
    )  # where the comment says `synth` writes
    # In the length of answers and of the run alone is the test smaller than what users run.
    smaller = [f"base={tiny_composite_dir}", f"alignment_set={alignment_dir}", "steps=2", "warmup_steps=0"]
    smaller += ["groups_per_step=2", "voices_per_group=2", "precision=float32", "validate_ends=false"]
    smaller += ["report=false", "eval_every=0", "select=last"]
    if as_shipped.uses_rollout:
        smaller += ["max_new_tokens=6", "truncated=keep"]  # a random model seldom ends
    if as_shipped.uses_reward:
        smaller += [f"reward.teacher={tiny_textlm_dir}"]
    out = tmp_path / "out"
    train(load_recipe(TrainingRecipe, file, smaller), out)
    log = list(read_jsonl(out / "train_log.jsonl"))
    assert [record["step"] for record in log] == [1, 2] and all(record["grad_norm"] > 0 for record in log)
    trained = read_json(out / "rba_run.json")
    assert trained["track"] == "small" and (as_shipped.lora is None or trained["recipe"]["lora"]["r"] == 16)


def test_the_set_of_small_is_one_that_a_real_teacher_can_make() -> None:
    recipe = load_recipe(SynthesisRecipe, recipe_file("small/synth"))
    assert recipe.tagger is None and not recipe.exclude_test  # both know only the micro world
    assert recipe.instruction_top_p < 1 and recipe.response_temperature == 0
    longest = {
        load_recipe(TrainingRecipe, recipe_file(f"small/{method}")).max_answer_tokens for method in METHODS
    }
    assert longest == {recipe.response_max_new_tokens}

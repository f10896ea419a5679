"""`rba-bench train`: an alignment set and a base SpeechLM in, a checkpoint out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rba_bench.cli import defaults, options
from rba_bench.cli.output import emit, emit_json, stdout_reserved
from rba_bench.progress import say
from rba_bench.quickstart import STANDARD_SET, SYNTHESIS
from rba_bench.shipped import recipe_file
from rba_bench.training.presets import Method

if TYPE_CHECKING:
    from rba_bench.training.recipe import TrainingRecipe


DEFAULT_METHOD = "rba-single"


def command(
    method: Annotated[
        Method | None,
        typer.Option(
            "--method", help="Objective; rba-single unless the recipe says otherwise.", show_default=False
        ),
    ] = None,
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    out: options.Out = None,
    seed: Annotated[int | None, typer.Option("--seed", help="As --set seed=N.", show_default=False)] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="As --set steps=N.", show_default=False)
    ] = None,
    trust: options.Trust = False,
    as_json: options.Json = False,
) -> None:
    """Align a SpeechLM with its teacher.

    With no options: RBA-Single on the micro track, on the alignment set under runs/ (made first if there is none).
    A rerun resumes.
    """
    checked = _recipe(method, recipe, [*(set_ or ()), *_shorthands(seed, steps)], trust)
    folder = out or defaults.run_folder("checkpoints", checked.method, checked.resolved())
    _provide_alignment_set(checked)
    if out is None:
        say(f"checkpoint: {folder} (choose with --out)")
    with stdout_reserved():
        from rba_bench.training.run import train

        result = train(checked, folder)
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes the first one speaks
    if as_json:
        emit_json(result)
    else:
        emit(str(result.path))


def _shorthands(seed: int | None, steps: int | None) -> list[str]:
    named = (("seed", seed), ("steps", steps))
    return [f"{key}={value}" for key, value in named if value is not None]


def _recipe(method: str | None, recipe: Path | None, overrides: list[str], trust: bool) -> "TrainingRecipe":
    from rba_bench.recipes import load_recipe
    from rba_bench.training.recipe import TrainingRecipe

    chosen = [f"method={method}"] if method is not None else []
    path = recipe_file(recipe or method or DEFAULT_METHOD)
    return load_recipe(TrainingRecipe, path, [*chosen, *overrides], trust)


def _provide_alignment_set(recipe: "TrainingRecipe") -> None:
    """Make (or finish) the standard micro set where a run wants it and it is not there."""
    from rba_bench.audio.alignment_set import MANIFEST

    folder = STANDARD_SET
    wanted = folder in [Path(one.path) for one in recipe.alignment_sets]
    if recipe.track != "micro" or not wanted or (folder / MANIFEST).is_file():
        return
    say(f"no alignment set at {folder} yet: making the standard one first")
    from rba_bench.recipes import load_recipe
    from rba_bench.synthesis.pipeline import synthesize
    from rba_bench.synthesis.recipe import SynthesisRecipe

    with stdout_reserved():
        synthesize(load_recipe(SynthesisRecipe, recipe_file(SYNTHESIS)), folder)

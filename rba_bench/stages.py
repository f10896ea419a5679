"""Synthesis and training with defaults for everything that the user leaves out; each choice is told on stderr.

The commands and the Python interface both call these functions.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.outputs import RUNS, run_folder
from rba_bench.progress import say
from rba_bench.recipes import recipe_file

if TYPE_CHECKING:
    from rba_bench.synthesis.ray_cluster import RayOptions
    from rba_bench.training.training_recipe import TrainingRecipe
    from rba_bench.training.training_run import TrainResult

SYNTHESIS = "synth-micro"
STANDARD_SET = RUNS / "quickstart" / "alignment-set"  # what the shipped training recipes read
TRACK = "micro"


def make_set(
    recipe: Path | str | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    workers: int | None = 0,
    ray: "RayOptions | None" = None,
) -> Path:
    """Make the alignment set of a recipe, or finish it.

    Args:
        recipe: A file, the name of a shipped recipe, or keys and values; None for the micro world's.
        overrides: `key=value` texts.
        out: Folder; None for one under `runs/`.
        workers: Processes that speak; 0 for this one, None for as many as the set is worth.
        ray: The Ray cluster to use; None for this machine alone.

    Raises:
        UserError: the recipe is wrong, or the folder belongs to another one.
        MissingPrerequisite: no teacher or no voices.
    """
    from rba_bench.evaluation.task_texts import task_texts
    from rba_bench.recipes import load_recipe
    from rba_bench.synthesis.pipeline import synthesize
    from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

    if isinstance(recipe, Mapping):
        parsed = load_recipe(SynthesisRecipe, None, overrides, values=recipe)
    else:
        parsed = load_recipe(SynthesisRecipe, recipe_file(recipe or SYNTHESIS), overrides)
    standard = recipe is None and not overrides
    folder = out or (STANDARD_SET if standard else run_folder("alignment-sets", "set", parsed.resolved()))
    if out is None:
        say(f"alignment set: {folder} (choose with --out)")
    return synthesize(
        parsed,
        folder,
        workers=workers,
        test_sets=lambda: task_texts(download=False),
        ray=ray,
    )


def training_recipe(
    method: str | None,
    recipe: Path | str | Mapping[str, Any] | None,
    overrides: Sequence[str],
    continue_from: Path | None,
    trust: bool,
) -> "TrainingRecipe":
    """The recipe of a training run, see `rba_bench.training.options.choice`; says which of its keys nothing reads."""
    from rba_bench.training.options.choice import continued_recipe, resolve_recipe
    from rba_bench.training.options.recipe_checks import unread_keys

    if continue_from is not None and recipe is None and method is None:
        parsed = continued_recipe(continue_from, overrides, trust)
    else:
        parsed = resolve_recipe(method, recipe, overrides, trust)
    for line in unread_keys(parsed) if os.environ.get("RANK", "0") == "0" else ():
        say(line)  # of several processes the first one speaks
    return parsed


def run_training(
    recipe: "TrainingRecipe", out: Path | None = None, continue_from: Path | None = None
) -> "TrainResult":
    """Train, or resume a training; makes the standard alignment set of the micro track where the recipe needs it.

    Args:
        recipe: The run.
        out: Its folder; None for one under `runs/`.
        continue_from: Folder of another run that this one goes on from.

    Raises:
        RbaError: see `rba_bench.training.training_run.train`.
    """
    from rba_bench.audio.alignment_set import MANIFEST
    from rba_bench.training.training_run import train

    origin = {} if continue_from is None else {"continue_from": str(continue_from.resolve())}
    folder = out or run_folder("checkpoints", recipe.method, recipe.resolved() | origin)
    uses_standard_set = STANDARD_SET in [Path(source.path) for source in recipe.alignment_sets]
    if recipe.track == TRACK and uses_standard_set and not (STANDARD_SET / MANIFEST).is_file():
        say(f"no alignment set at {STANDARD_SET} yet: making the standard one first")
        make_set(SYNTHESIS, out=STANDARD_SET)
    if out is None:
        say(f"checkpoint: {folder} (choose with --out)")
    return train(recipe, folder, continue_from)

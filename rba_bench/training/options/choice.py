"""The recipe of a training run: from a file, a method's name, the method's defaults, or a finished run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.progress import say
from rba_bench.recipes import load_recipe, parse_override, recipe_file
from rba_bench.training.training_recipe import TrainingRecipe

DEFAULT_METHOD = "rba-single"
# The recipes that have a method's name are for the micro world: answers of one short line, a small model. Another base
# starts from the defaults of the method, which are for answers of hundreds of tokens.
FULL_TRACK = ("track=full",)


def resolve_recipe(
    method: str | None,
    recipe: Path | str | Mapping[str, Any] | None,
    overrides: Sequence[str] = (),
    trust: bool = False,
) -> TrainingRecipe:
    """The recipe of a run.

    Args:
        method: Name of the objective; None for the recipe's own, or RBA-Single.
        recipe: A file, the name of a shipped recipe, or keys and values; None for the shipped one of the method's name,
            or for the method's defaults where the overrides name another base than the micro world's.
        overrides: `key=value` texts.
        trust: Whether models may run their own Python code.

    Raises:
        UserError: no such recipe, an unknown key or an invalid value.
    """
    method_override = [f"method={method}"] if method is not None else []
    if isinstance(recipe, Mapping):
        return load_recipe(TrainingRecipe, None, [*method_override, *overrides], trust, recipe)
    bases = [value for key, value in map(parse_override, overrides) if key == ("base",)]
    if recipe is None and bases and (base := str(bases[-1])) != "micro":
        name = method or DEFAULT_METHOD
        say(
            f"base {base}: using the defaults of method {name}; --recipe {name} uses the micro world's recipe"
        )
        return load_recipe(TrainingRecipe, None, [*FULL_TRACK, f"method={name}", *overrides], trust)
    path = recipe_file(recipe or method or DEFAULT_METHOD)
    return load_recipe(TrainingRecipe, path, [*method_override, *overrides], trust)


def continued_recipe(run: Path, overrides: Sequence[str], trust: bool = False) -> TrainingRecipe:
    """The recipe of a finished run, changed by overrides.

    Raises:
        UserError: there is no such run, or an override is wrong.
    """
    from rba_bench.training import continuing

    values = continuing.continued_values(continuing.find_origin(run))
    return load_recipe(TrainingRecipe, None, overrides, trust, values)

"""`rba-bench train server`: what a vLLM server needs to draw a training run's answers."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.progress import say, stdout_reserved
from rba_bench.shipped import recipe_file
from rba_bench.training.options.presets import Method


def command(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the text decoder.")],
    method: Annotated[
        Method | None, typer.Option("--method", help="As for the run.", show_default=False)
    ] = None,
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length", min=1, help="Longest prompt and answer, in tokens; the model's own by default.",
            show_default=False,
        ),
    ] = None,
    trust: options.Trust = False,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Write the text decoder of a recipe's base model and print the command that serves it with vLLM.

    The server may run in an environment, on GPUs and on a machine of its own, as long as it sees the same files. Give
    the run the same recipe with --set rollout.engine=vllm.
    """
    from rba_bench.recipes import load_recipe
    from rba_bench.training.recipe import TrainingRecipe

    chosen = [f"method={method}"] if method is not None else []
    checked = load_recipe(
        TrainingRecipe, recipe_file(recipe or method or "rba-single"), [*chosen, *(set_ or ())], trust
    )
    with stdout_reserved():
        from rba_bench.training.rollouts.serving import export, serve_command

        layers = export(checked, out)
    variables, words = serve_command(checked, out, layers, max_length)
    line = " ".join([*(f"{name}={value}" for name, value in variables.items()), shlex.join(words)])
    say(f"{out} holds the text decoder; serve it where vLLM (0.32 or later) is installed:")
    if as_json:
        emit_json({"path": str(out), "environment": variables, "command": words})
    else:
        emit(line)

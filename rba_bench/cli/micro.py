"""`rba-bench micro`: the models of the miniature world."""

import typer

from rba_bench.assets import load_world, weights_folder
from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.files import read_json
from rba_bench.outputs import RUNS
from rba_bench.progress import say, stdout_reserved

app = typer.Typer(help="The miniature world that makes everything run offline.", rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keeps `build` a sub-command although it is the only one."""


@app.command("build")
def build_micro_command(out: options.Out = None, as_json: options.Json = False) -> None:
    """Train the teacher, base and reward model of the miniature world again.

    From random weights, with fixed seeds. Takes up to 40 minutes on two cores.
    """
    folder = out
    if folder is None:  # where the package looks for its models, unless that would overwrite the shipped ones
        is_missing = not (weights_folder() / "provenance.json").is_file()
        folder = weights_folder() if is_missing else RUNS / "micro-build"
        say(f"micro models: {folder} (choose with --out)")
    with stdout_reserved():
        provenance = load_world("builder").build_weights(folder)
    say(f"use these models with RBA_MICRO_WEIGHTS={folder}")
    if as_json:
        emit_json({"weights": folder, "provenance": read_json(provenance)})
    else:
        emit(str(folder))

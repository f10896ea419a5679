"""`rba-bench small`: the base of the track small, built again."""

from pathlib import Path
from typing import Annotated

import typer

from rba_bench.assets import SMALL, load_world
from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.files import read_json
from rba_bench.outputs import RUNS
from rba_bench.progress import say, stdout_reserved

app = typer.Typer(help="The base of the track small: real models that fit a laptop.", rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keeps `build` a sub-command although it is the only one."""


@app.command("build")
def build_small_command(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Output folder. The same command with the same folder resumes an unfinished build.",
        ),
    ] = RUNS / "small-build",
    processes: Annotated[int, typer.Option("--processes", min=1, help="Processes that speak.")] = 2,
    half: Annotated[
        bool, typer.Option("--bfloat16", help="Compute in bfloat16, where the processor is faster at that.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train the connector of asset:small-base again.

    Its clips are spoken by espeak-ng and flite, and its sentences come from WordNet (Debian: flite, wordnet-base).
    Takes up to 3 hours on two cores.
    """
    with stdout_reserved():
        facts = load_world("builder", SMALL).build_weights(out, processes=processes, half=half)
    folder = facts.parent
    say(f"use it with --model {folder}, or for asset:small-base with RBA_SMALL_WEIGHTS={folder.parent}")
    if as_json:
        emit_json({"connector": folder, "facts": read_json(facts)})
    else:
        emit(str(folder))

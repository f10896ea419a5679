"""`rba-bench small`: the connectors of the track small, built again."""

from pathlib import Path
from typing import Annotated

import typer

from rba_bench.assets import SMALL, load_world
from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.files import read_json
from rba_bench.outputs import RUNS
from rba_bench.progress import say, stdout_reserved

app = typer.Typer(help="The models of the track small: real ones that fit a laptop.", rich_markup_mode=None)


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
    connector: Annotated[
        str,
        typer.Option(
            "--connector",
            metavar="KIND",
            help="What compresses: decoder (Whisper's, as shipped) or ctc (trained from the start, hears less).",
        ),
    ] = "decoder",
    processes: Annotated[int, typer.Option("--processes", min=1, help="Processes that speak.")] = 2,
    half: Annotated[
        bool,
        typer.Option(
            "--bfloat16",
            help="Train what compresses in bfloat16, where the processor is faster at that.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train the connector of asset:small-base again.

    Its clips are spoken by espeak-ng. With --connector ctc also by flite, and sentences come from WordNet (Debian:
    flite, wordnet-base).
    """
    with stdout_reserved():
        builder = load_world("builder", SMALL)
        facts = builder.build_weights(out, builder.plan_of(connector), processes, half)
    say(f"for asset:small-base set RBA_SMALL_WEIGHTS={facts.parent.parent}")
    _show(facts, as_json)


@app.command("align")
def align_small_command(
    method: Annotated[
        str, typer.Option("--method", metavar="METHOD", help="sft or rba-single, of recipes/small.")
    ],
    base: Annotated[
        str,
        typer.Option("--base", metavar="CONNECTOR", help="Folder of a connector, or asset:NAME."),
    ] = "asset:small-base",
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Output folder. The same command with the same folder resumes an unfinished run.",
        ),
    ] = RUNS / "small-aligned",
    as_json: options.Json = False,
) -> None:
    """Align the projector of a connector on asset:small-alignment, with a method of recipes/small."""
    with stdout_reserved():
        facts = load_world("builder", SMALL).build_aligned(method, out / method, base)
    _show(facts, as_json)


def _show(facts: Path, as_json: bool) -> None:
    folder = facts.parent
    say(f"use it with --model {folder}")
    if as_json:
        emit_json({"connector": folder, "facts": read_json(facts)})
    else:
        emit(str(folder))

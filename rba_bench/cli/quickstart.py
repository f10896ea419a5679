"""`rba-bench quickstart`: the whole way in one command."""

from typing import Annotated, Literal

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.progress import stdout_reserved


def quickstart_command(
    track: Annotated[
        Literal["small", "micro"] | None,
        typer.Option(
            "--track",
            help="small: real models, 230 MB to fetch once; micro: the models that ship with rba-bench. By default "
            "small, or micro where the weights cannot be fetched.",
            show_default=False,
        ),
    ] = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Run the whole way on real models: evaluate, synthesise, align, compare, listen.

    Evaluates the text model, a cascade and the speech model on a slice of the track small, aligns the speech model for
    a few steps on data that is made on the spot, and prints a leaderboard and the path of a page with clips and
    answers. Takes about seven minutes on two cores. The same command resumes an interrupted run.
    """
    with stdout_reserved():
        from rba_bench.quickstart import run_quickstart

        result = run_quickstart(out, track)
    if as_json:
        emit_json(result.summary())
        return
    from rba_bench.leaderboard.board import print_board

    print_board(result.board)
    for name, path in result.paths():
        emit(f"{name:<22} {path}")

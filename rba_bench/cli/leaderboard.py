"""`rba-bench leaderboard`: run records in, tables out."""

from pathlib import Path
from typing import Annotated

import typer

from rba_bench.cli import defaults, options
from rba_bench.cli.output import emit, emit_json, stdout_reserved

app = typer.Typer(help="Tables from run records.", rich_markup_mode=None)
OUT = defaults.RUNS / "leaderboard"


@app.callback()
def _group() -> None:
    """Keeps `build` a sub-command although it is the only one."""


@app.command("build")
def build(
    records: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RECORDS]...", help="Run folders or folders of them; runs/eval by default."),
    ] = None,
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Build Markdown and CSV tables.

    Takes complete runs; only runs of equal protocol share a table.
    """
    with stdout_reserved():
        from rba_bench.leaderboard import build as boards

        result = boards.build(records or [defaults.RUNS / "eval"], out or OUT)
    if as_json:
        emit_json(result)
    else:
        emit(str(result))

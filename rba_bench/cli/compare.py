"""`rba-bench compare`: two runs on the same items, in pairs."""

from pathlib import Path
from typing import Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.progress import stdout_reserved

RUN_HELP = "Run folder or run.json; or a folder of runs, e.g. runs/eval/sft."


def command(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help=RUN_HELP)],
    run_b: Annotated[Path, typer.Argument(metavar="RUN_B", help="The other one, subtracted from RUN_A.")],
    across: Annotated[
        bool, typer.Option("--across", help="Two runs of the same items, though task or protocol differ.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Compare two runs item by item.

    Takes runs of equal task, protocol and test set. Of two folders, every such pair.
    """
    with stdout_reserved():
        from rba_bench.leaderboard.contrasts import LEGEND, compare

        result = compare(run_a, run_b, across)
    if as_json:
        emit_json(result.to_dict())
        return
    for comparison in result.comparisons:
        for line in comparison.heading():
            emit(line)
        table = comparison.table()
        emit_table(table.headings, table.rows)
        emit()
    for line in (LEGEND, *(f"left out: {reason}" for reason in result.left_out)):
        emit(line)

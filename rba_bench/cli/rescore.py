"""`rba-bench rescore`: scores again from the responses that runs have kept."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rba_bench.cli import eval_options, options
from rba_bench.cli.output import emit, emit_json
from rba_bench.progress import stdout_reserved

if TYPE_CHECKING:
    from rba_bench.evaluation.rescored_runs import Rescored


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, run.json files, or folders of runs."),
    ],
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="MODEL|none",
            help="Judge anew, or leave judged metrics out; by default the verdicts stay.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(
            "--task", metavar="FILE", help="YAML of a task that is not shipped.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the new records; by default in place.",
            show_default=False,
        ),
    ] = None,
    data_dir: eval_options.DataDir = None,
    device: eval_options.Device = None,
    as_json: options.Json = False,
) -> None:
    """Score finished runs again, without the model.

    Takes the kept responses through today's task, metrics and normalisers. Each record says what it was before.
    """
    with stdout_reserved():
        from rba_bench.evaluation.rescored_runs import rescore_runs
        from rba_bench.evaluation.rescoring import RescoreOptions

        chosen = RescoreOptions(judge=judge, task=task, data_dir=data_dir, device=device)
        remaining = iter(rescore_runs(runs, chosen, out))
    found = []
    for one in iter(lambda: _next(remaining), None):
        found.append(one)
        if not as_json:
            emit(one.line())
    if as_json:
        emit_json([one.to_dict() for one in found])


def _next(remaining: "Iterator[Rescored]") -> "Rescored | None":
    """The next run; each is told when it is done, as a later one may fail."""
    with stdout_reserved():
        return next(remaining, None)

"""`rba-bench leaderboard verify`: records computed again from their responses, and answers of their models."""

from pathlib import Path
from typing import Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.errors import UserError
from rba_bench.outputs import RUNS
from rba_bench.progress import stdout_reserved


def verify_records_command(
    records: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RECORDS]...",
            help="Run folders, folders that contain them, or a leaderboard. Default: runs/eval.",
        ),
    ] = None,
    rerun: Annotated[
        int,
        typer.Option(
            "--rerun", metavar="N", min=0, help="Let the model answer N random items of each record again."
        ),
    ] = 0,
    item: Annotated[
        str | None,
        typer.Option(
            "--item",
            metavar="ID",
            help="Let the model answer this one item again, by its id or number.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Model for --rerun and --item, in the form of `eval --model`.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            min=0,
            help="Random seed of the items that --rerun chooses, to choose the same again. Default: a new one.",
            show_default=False,
        ),
    ] = None,
    attest: Annotated[
        bool,
        typer.Option(
            "--attest",
            help="If --rerun finds every answer equal, keep this as attestation.json beside the record.",
        ),
    ] = False,
    by: Annotated[
        str, typer.Option("--by", metavar="NAME", help="Who attests, to be shown.", show_default=False)
    ] = "",
    data_dir: options.DataDir = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="DEVICE", help="Torch device for --rerun.", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Verify run records by computing them again from their responses.

    Shows what does not follow from the responses and what cannot be verified. Exit code 1 if a record is at fault.
    """
    if model is not None and not rerun and item is None:
        raise UserError("--model is for --rerun N: add --rerun N, or leave out --model")
    if rerun and item is not None:
        raise UserError("--item names the item and --rerun draws some: leave out one of them")
    with stdout_reserved():
        from rba_bench.leaderboard import verify as verification

        again = verification.Rerun(rerun, seed, item, model, device, attest, by)
        checked = verification.verify_records(records or [RUNS / "eval"], data_dir)
        if rerun or item is not None:
            checked = verification.add_rerun(checked, again, data_dir)
    if as_json:
        emit_json(checked.to_dict())
    else:
        for line in checked.lines():
            emit(line)
    if not checked.ok:
        raise typer.Exit(1)

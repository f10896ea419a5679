"""`rba-bench synth`: a teacher model and voices in, an alignment set out."""

from pathlib import Path
from typing import Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.errors import UserError
from rba_bench.progress import stdout_reserved
from rba_bench.stages import make_set


def command(
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    out: options.Out = None,
    seal: Annotated[
        Path | None,
        typer.Option(
            "--seal",
            metavar="DIR",
            help="Make nothing: check DIR, parquet files of another tool, and write its manifest.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            metavar="N",
            help="With --seal: hear N clips, drawn at random, not all; the manifest says what that can miss.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Make an alignment set.

    The teacher writes instructions and answers them, voices speak the instructions. A rerun resumes.
    """
    if seal is not None:
        _refuse_beside_seal(recipe, set_, out)
        from rba_bench.audio.sealing import seal as check

        with stdout_reserved():
            check(seal, sample)
        _render(seal, as_json)
        return
    if sample is not None:
        raise UserError("--sample goes with --seal DIR: a set that is made here needs no hearing")
    with stdout_reserved():
        made = make_set(recipe, set_ or (), out)
    _render(made, as_json)


def _refuse_beside_seal(*given: object) -> None:
    if any(given):
        raise UserError("--seal takes a folder as it is: drop --recipe, --set and --out")


def _render(made: Path, as_json: bool) -> None:
    from rba_bench.audio.alignment_set import MANIFEST
    from rba_bench.files import read_json

    manifest = read_json(made / MANIFEST)
    if as_json:
        emit_json({"alignment_set": made, "counts": manifest["counts"], "checksums": manifest["checksums"]})
    else:
        emit(str(made))

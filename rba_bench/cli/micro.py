"""`rba-bench micro`: the miniature world that makes everything run offline."""

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, stdout_reserved

app = typer.Typer(help="The miniature world: make its models.", rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keeps `build` a sub-command although it is the only one."""


@app.command("build")
def build(out: options.Out = None, as_json: options.Json = False) -> None:
    """Make teacher, base, reward model again.

    From nothing, seeded; up to 40 minutes on two cores.
    """
    with stdout_reserved():
        from rba_bench.micro.build import run

        made = run.build(out)
    if as_json:
        emit_json(made)
    else:
        emit(str(made))

"""`rba-bench doctor`: is everything there that a run needs?"""

from typing import TYPE_CHECKING

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, stdout_reserved
from rba_bench.errors import MissingPrerequisite

if TYPE_CHECKING:
    from rba_bench.doctor import Report


def command(as_json: options.Json = False) -> None:
    """Check what is installed, and how to get the rest."""
    with stdout_reserved():
        from rba_bench import doctor

        report = doctor.examine()
    if as_json:
        emit_json(report)
    else:
        _render(report)
    if not report.ready:
        raise typer.Exit(MissingPrerequisite.exit_code)


def _render(report: "Report") -> None:
    width = max(len(check.name) for check in report.checks)
    group = ""
    for check in report.checks:
        if check.group != group:
            group = check.group
            emit(f"\n{group}")
        emit(f"{'ok' if check.ok else '--':<3} {check.name:<{width}} {check.found}")
        if not check.ok:
            emit(f"    fix: {check.fix}")

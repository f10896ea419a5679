"""`rba-bench doctor`: is everything there that a run needs?"""

from typing import TYPE_CHECKING, Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.progress import stdout_reserved

if TYPE_CHECKING:
    from rba_bench.doctor import Report


def command(
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="URL[#MODEL]",
            help="Say what this server offers instead: key, models, context lengths.",
            show_default=False,
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="With --endpoint: send small requests to see what its model takes."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Check what is installed, and how to get the rest; or what a server offers."""
    if endpoint is not None:
        _survey(endpoint, probe, as_json)
        return
    if probe:
        raise UserError("--probe asks a server: name it with --endpoint URL#MODEL")
    with stdout_reserved():
        from rba_bench import doctor

        report = doctor.examine()
    if as_json:
        emit_json(report)
    else:
        _render(report)
    if not report.ready:
        raise typer.Exit(MissingPrerequisite.exit_code)


def _survey(endpoint: str, probe: bool, as_json: bool) -> None:
    from rba_bench.textlm.endpoints import survey

    with stdout_reserved():
        findings = survey.survey_server(endpoint, probe)
    if as_json:
        emit_json(findings)
    else:
        for finding in findings:
            emit(f"{'ok' if finding.ok else '--':<3} {finding.name:<8} {finding.found}")
    needed = "answers" if probe else "model"
    if not any(finding.ok for finding in findings if finding.name == needed):
        raise typer.Exit(RbaError.exit_code)


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

"""`rba-bench doctor`: what is installed, what is missing, and what a server offers."""

from typing import Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.progress import stdout_reserved


def doctor_command(
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            metavar="URL[#MODEL]",
            help="Check this OpenAI-compatible server instead: API key, models, context lengths.",
            show_default=False,
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="With --endpoint: send small requests to find out which inputs and options the model accepts.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Check what is installed and show how to get what is missing; or check a server."""
    if endpoint is not None:
        _print_server(endpoint, probe, as_json)
        return
    if probe:
        raise UserError("--probe sends requests to a server: name the server with --endpoint URL#MODEL")
    with stdout_reserved():
        from rba_bench import doctor

        report = doctor.examine()
    if as_json:
        emit_json(report)
    else:
        width, group = max(len(check.name) for check in report.checks), ""
        for check in report.checks:
            if check.group != group:
                group = check.group
                emit(f"\n{group}")
            emit(f"{'ok' if check.ok else '--':<3} {check.name:<{width}} {check.found}")
            if not check.ok:
                emit(f"    fix: {check.fix}")
    if not report.ready:
        raise typer.Exit(MissingPrerequisite.exit_code)


def _print_server(endpoint: str, probe: bool, as_json: bool) -> None:
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

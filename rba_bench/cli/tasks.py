"""`rba-bench tasks`: the tasks that come with rba-bench."""

from typing import Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, emit_table

COLUMNS = ("name", "benchmark", "track", "protocol", "version", "metrics")
app = typer.Typer(help="List the tasks, or describe one.", rich_markup_mode=None)


@app.command("list")
def list_command(as_json: options.Json = False) -> None:
    """List all tasks."""
    from rba_bench.evaluation import task_registry

    entries = [{column: getattr(spec, column) for column in COLUMNS} for spec in task_registry.list_tasks()]
    if as_json:
        emit_json(entries)
        return
    values = [entry.values() for entry in entries]
    emit_table(COLUMNS, [[", ".join(v) if isinstance(v, list) else v for v in row] for row in values])


@app.command("show")
def show_command(
    name: Annotated[
        str, typer.Argument(metavar="TASK", help="Name of a task or benchmark, see `tasks list`.")
    ],
    as_json: options.Json = False,
) -> None:
    """Describe one task: source, licence, size, prompt, metrics."""
    from rba_bench.evaluation import task_registry

    details = task_registry.describe_task(name)
    if as_json:
        emit_json(details)
        return
    for spec in details["tasks"]:
        facts = {key: value for key, value in spec.items() if key not in ("name", "config")}
        texts = (
            f"{key} {' + '.join(map(str, value)) if isinstance(value, list) else value}"
            for key, value in facts.items()
        )
        emit(f"{spec['name']}: {', '.join(texts)}")
    emit()
    emit(details["readme"].rstrip())

"""`rba-bench cite`: BibTeX of what a task is made of."""

from typing import Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.progress import say, stdout_reserved


def cite_command(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TASK]...",
            help="Tasks, groups or benchmarks, see `tasks list`. Default: only rba-bench and its method.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print BibTeX entries for tasks.

    Entries of the benchmarks behind the tasks, of rba-bench, and of lm-eval, on which it runs.
    """
    with stdout_reserved():
        from rba_bench.evaluation.citations import cite_tasks

        found = cite_tasks(tasks or [])
    for task in found.own:
        say(
            f"{task}: no publication of its own to cite; `rba-bench tasks show {task}` says what it is made of"
        )
    if as_json:
        entries = [{"key": entry.key, "bibtex": entry.bibtex} for entry in found.entries]
        emit_json({"entries": entries, "without_publication": found.own})
        return
    emit("\n".join(entry.bibtex for entry in found.entries).rstrip("\n"))

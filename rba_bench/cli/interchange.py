"""Commands of `rba-bench leaderboard` that give records to others and take them in: `export`, `submit`, `review`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.leaderboard.exports import formats as export_formats
from rba_bench.outputs import RUNS
from rba_bench.progress import say, stdout_reserved

if TYPE_CHECKING:
    from rba_bench.leaderboard.submission import Submission

RUN_HELP = "Run folder, run.json, or a folder that contains runs, such as runs/eval/sft."
Records = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[RECORDS]...", help="Run folders, or folders that contain them. Default: runs/eval."
    ),
]


def export_records_command(
    form: Annotated[
        export_formats.Format,
        typer.Option("--format", help="Format to write.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="PATH",
            help="File for latex and markdown, folder for the other formats.",
            show_default=False,
        ),
    ],
    records: Records = None,
    baseline: Annotated[
        str,
        typer.Option("--baseline", metavar="MODEL", help="Model that the tables show differences from."),
    ] = "sft",
    organization: Annotated[
        str,
        typer.Option(
            "--organization",
            metavar="NAME",
            help="Who evaluated. Required by every-eval-ever.",
            show_default=False,
        ),
    ] = "",
    relationship: Annotated[
        export_formats.Relationship,
        typer.Option("--relationship", help="Between who evaluated and who made the models."),
    ] = "other",
    source_url: Annotated[
        str,
        typer.Option(
            "--source-url",
            metavar="URL",
            help="Address where the records can be read, named in the files.",
            show_default=False,
        ),
    ] = "",
    as_json: options.Json = False,
) -> None:
    """Export scores to the Hub's eval results, Every Eval Ever, model cards, LaTeX or Markdown.

    Verifies every record first. Partial records are refused.
    """
    with stdout_reserved():
        from rba_bench.leaderboard.exports.export import export_records
        from rba_bench.leaderboard.exports.origin import make_origin

        origin = make_origin(organization, relationship, source_url)
        result = export_records(records or [RUNS / "eval"], form, out, origin, baseline)
    for line in result.left_out:
        say(f"left out: {line}")
    if as_json:
        emit_json(result)
        return
    for file in result.files:
        emit(str(file))


def submit_runs_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help=RUN_HELP)],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder of all boards, to which the run is added. Default: leaderboards.",
            show_default=False,
        ),
    ] = None,
    data_dir: options.DataDir = None,
    as_json: options.Json = False,
) -> None:
    """Check a run, pack it for a pull request, and show its row on the board.

    Refuses partial and faulty runs: then nothing is written, and the exit code is 1.
    """
    with stdout_reserved():
        from rba_bench.leaderboard import submission as submissions

        boards = out or submissions.BOARDS
        checked = submissions.check_submission([run], boards, data_dir)
        folders = submissions.pack_submission(checked, boards) if checked.ok else []
    if as_json:
        emit_json({**checked.to_dict(), "folders": folders})
    else:
        _show_submission(checked, folders)
    if not checked.ok:
        raise typer.Exit(1)


def _show_submission(checked: "Submission", folders: list[Path]) -> None:
    from rba_bench.leaderboard.submission import RERUN
    from rba_bench.leaderboard.tables import print_tables

    print_tables(checked.tables, [f"note: {note}" for note in checked.notes])
    for line in checked.refused:
        emit(f"refused: {line}")
    for folder in folders:
        emit(f"packed: {folder}")
    if folders:
        emit("Send these folders, and nothing else, as a pull request.")
        emit(f"To test the responses themselves: {RERUN.format(folder=folders[0])}")


def review_changes_command(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Commit or branch that the boards belong to.")],
    head: Annotated[
        str, typer.Argument(metavar="HEAD", help="Commit or branch with the new records; fetched.")
    ],
    repository: Annotated[
        Path,
        typer.Option("--repository", metavar="DIR", help="Checkout of BASE. Nothing of HEAD is checked out."),
    ] = Path("."),
    data_dir: options.DataDir = None,
    as_json: options.Json = False,
) -> None:
    """Review the records that a pull request adds, and print a report in Markdown.

    Reads the files of HEAD from git as data and runs none of them. Exit code 1 if a record is refused.
    """
    with stdout_reserved():
        from rba_bench.leaderboard.review import review_changes

        found = review_changes(repository, base, head, data_dir)
    if as_json:
        emit_json(found.to_dict())
    else:
        emit(found.markdown().rstrip("\n"))
    if not found.ok:
        raise typer.Exit(1)

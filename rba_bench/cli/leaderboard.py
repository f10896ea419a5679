"""`rba-bench leaderboard`: run records in, tables out; `compare`: paired differences; `view`: pages of samples."""

import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from rba_bench.cli import interchange, options, verifying
from rba_bench.cli.output import emit, emit_json
from rba_bench.errors import UserError
from rba_bench.outputs import RUNS
from rba_bench.progress import say, stdout_reserved

app = typer.Typer(help="Build and verify leaderboards from run records.", rich_markup_mode=None)
OUT = RUNS / "leaderboard"
RUN_HELP = interchange.RUN_HELP
Records = interchange.Records
app.command("export")(interchange.export_records_command)
app.command("submit")(interchange.submit_runs_command)
app.command("review")(interchange.review_changes_command)


@app.command("build")
def build_board_command(
    records: Records = None,
    out: options.Out = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="MODEL",
            help="Model, or training method, that the other rows are compared with. Default: sft.",
            show_default=False,
        ),
    ] = None,
    ceiling: Annotated[
        str | None,
        typer.Option(
            "--ceiling",
            metavar="NAME",
            help="Text LLM that modality gaps are measured from, if there are several.",
            show_default=False,
        ),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Include partial runs (--limit) and mark them.")
    ] = False,
    equal_length: Annotated[
        bool,
        typer.Option(
            "--equal-length", help="Add win rates at equal length, which are estimated from at least 12 runs."
        ),
    ] = False,
    clips: Annotated[
        int | None,
        typer.Option(
            "--clips",
            metavar="N",
            min=0,
            help="Clips of each test set beside the pages, where its licence allows that; 20 MB at most in all. "
            "Default: 20.",
            show_default=False,
        ),
    ] = None,
    reported: Annotated[
        bool,
        typer.Option(
            "--reported", help="Build the tables of a paper; RECORDS is the folder with their YAML files."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=1,
            help="Processes. Default: one a core for many records, else one. The board is the same with any number.",
            show_default=False,
        ),
    ] = None,
    verify_again: Annotated[
        bool,
        typer.Option(
            "--verify-again", help="Verify every record, including those that an earlier build verified."
        ),
    ] = False,
    reported_page: Annotated[
        str | None,
        typer.Option(
            "--reported-page",
            metavar="ADDRESS",
            help="Page of reported numbers that the front page links to, such as ../paper/index.html.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Build a leaderboard: pages for a browser, and tables in Markdown and CSV.

    Verifies every record first, once. Only runs with the same protocol share a table. If the board in --out is among
    RECORDS, options that are not given are as it was built with.
    """
    if reported:
        _build_reported(records or [], out, as_json)
        return
    with stdout_reserved():
        from rba_bench.leaderboard.board import build_board

        result = build_board(
            records or [RUNS / "eval"],
            out or OUT,
            baseline,
            allow_partial,
            ceiling,
            equal_length,
            workers,
            verify_again,
            reported_page=reported_page,
            clips=clips,
        )
    if as_json:
        emit_json({"out": result.out, "files": result.files, "leaderboard": result.data})
        return
    from rba_bench.leaderboard.board import print_board

    print_board(result)


@app.command("index")
def build_index_command(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder in which leaderboards lie, each in its own.")
    ] = Path("leaderboards"),
    as_json: options.Json = False,
) -> None:
    """Write the first page of several leaderboards, with a link to each and its answer in a sentence."""
    with stdout_reserved():
        from rba_bench.leaderboard.landing import build_index

        result = build_index(folder)
    if as_json:
        emit_json(result)
    else:
        emit(str(result.page))


app.command("verify")(verifying.verify_records_command)


@app.command("card")
def model_card_command(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Folder of the checkpoint.")],
    records: Records = None,
    as_json: options.Json = False,
) -> None:
    """Write a checkpoint's scores into its model card.

    Uses complete records of exactly these weights and verifies them. Scores of an earlier call are replaced.
    """
    with stdout_reserved():
        from rba_bench.hub import write_missing_card
        from rba_bench.leaderboard.model_card import write_results

        write_missing_card(checkpoint)
        written = write_results(checkpoint, records or [RUNS / "eval"])
    for line in written.left_out:
        say(f"records left out: {line}")
    if as_json:
        emit_json(written)
    else:
        emit(str(written.card))


def _build_reported(folders: list[Path], out: Path | None, as_json: bool) -> None:
    from rba_bench.leaderboard import paper

    if len(folders) != 1:
        raise UserError("--reported takes one folder of tables, such as leaderboards/paper")
    result = paper.build_paper_tables(folders[0], out)
    if as_json:
        emit_json({"tables": list(result.tables), "files": result.files})
        return
    for file in result.files:
        emit(str(file))


def view_command(
    records: Records = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write the pages into a folder instead of serving them.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            help="Show only the first N items of each task. Default: all; with --out 200.",
            show_default=False,
        ),
    ] = None,
    data_dir: options.DataDir = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="Port of this machine; 0 for any free one. Default: 8021, or any free one where it is taken.",
            show_default=False,
        ),
    ] = None,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the first page in the browser.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show runs in the browser: clips, and the answers of all models side by side.

    Serves pages to this machine alone until Ctrl-C. Runs in progress are shown, and new answers appear by themselves.
    """
    paths = records or [RUNS / "eval"]
    if out is not None:
        if port is not None or open_browser:
            raise UserError("--out writes files and serves nothing: leave out --port and --open")
        _write_pages(paths, out, limit, data_dir, as_json)
        return
    with stdout_reserved():
        from rba_bench.leaderboard.site.local_runs import LocalRuns
        from rba_bench.leaderboard.site.local_site import LocalSite
        from rba_bench.leaderboard.site.server import SiteServer

        runs = LocalRuns(paths, limit)
        now = runs.read()
    for note in now.notes:
        say(note)
    with SiteServer(LocalSite(runs, data_dir).file, port) as server:
        emit_json({"url": server.url, "tasks": list(now.sections)}) if as_json else emit(server.url)
        say("serving this machine alone; Ctrl-C ends it")
        if open_browser:
            webbrowser.open(server.url)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _write_pages(
    paths: list[Path], out: Path, limit: int | None, data_dir: Path | None, as_json: bool
) -> None:
    with stdout_reserved():
        from rba_bench.leaderboard.site.local_site import LIMIT, write_site

        written = write_site(paths, out, limit or LIMIT, data_dir)
    for note in written.notes:
        say(note)
    if as_json:
        emit_json(written)
    else:
        emit(str(written.page))


def compare_command(
    run_a: Annotated[Path, typer.Argument(metavar="RUN_A", help=RUN_HELP)],
    run_b: Annotated[
        Path,
        typer.Argument(metavar="RUN_B", help="The other run; its scores are subtracted from those of RUN_A."),
    ],
    across: Annotated[
        bool,
        typer.Option(
            "--across", help="Compare two runs on the same items although their task or protocol differs."
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Compare two runs item by item.

    The runs must have the same task, protocol and test set. Of two folders, every such pair is compared.
    """
    with stdout_reserved():
        from rba_bench.leaderboard.compare_runs import LEGEND, compare_runs
        from rba_bench.leaderboard.tables import print_tables

        result = compare_runs(run_a, run_b, across)
    if as_json:
        emit_json(result.to_dict())
        return
    for comparison in result.comparisons:
        for line in comparison.heading():
            emit(line)
        print_tables([comparison.table()], [])
    print_tables([], [LEGEND, *(f"left out: {reason}" for reason in result.left_out)])

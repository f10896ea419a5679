"""The board on a terminal."""

from rich.console import Console
from rich.text import Text

from rba_bench.leaderboard.build import INDEX, BuildResult
from rba_bench.leaderboard.pages import SHORT, reference_notes
from rba_bench.plain import printable

WIDE = 140  # columns where stdout is a file or a pipe and has no width of its own


def render_terminal(result: BuildResult, console: Console | None = None) -> None:
    """Print the summary tables, the warnings and the path of the full board; by default on stdout."""
    out = console or Console(highlight=False)
    if console is None and not out.is_terminal:
        out = Console(highlight=False, width=WIDE)
    for table in result.tables:
        out.print(table.rich())
    for line in (*reference_notes(result.groups), *result.warnings):
        out.print(Text(printable(line)))
    out.print(Text("95 % intervals; * leaves out zero. Task, n, protocol hash, date:"))
    for group in result.groups:
        record = group.record
        behind = f"{group.task}, n = {record.n}, {group.protocol_hash[:SHORT]}, {record.created[:10]}"
        out.print(Text(f"  {behind}"))
    out.print(Text(f"Board: {printable(result.out / INDEX)}"))

"""The page of a paper's tables: reported numbers with their source, apart from everything that was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from rba_bench.leaderboard.site.shell import PAGE, SHELL_FILES, render_page, site_assets
from rba_bench.leaderboard.tables import TextTable


@dataclass(frozen=True)
class ReportedTable:
    """A table as it is shown.

    Attributes:
        name: Of its files.
        version: Of the paper.
        table: What was printed, and what can be computed from it.
        metric: What the numbers are.
        place: Paper, version, date and place in it.
        url: Address of the source.
        evidence: Whether the paper was read, or a report of it.
        remarks: Notes, and where the print contradicts itself.
    """

    name: str
    version: str
    table: TextTable
    metric: str
    place: str
    url: str
    evidence: str
    remarks: Sequence[str]


def reported_files(tables: Sequence[ReportedTable], about: str) -> dict[str, bytes]:
    """The page with its styles.

    Args:
        tables: In the order of the page.
        about: What the numbers are and what not.
    """
    page = render_page(
        "reported.html.jinja",
        title="The paper's numbers",
        root="",
        nav=[(each.name, f"#table-{place}") for place, each in enumerate(tables, 1)],
        tables=tables,
        about=about,
        quote=quote,
    )
    return {PAGE: page.encode(), **site_assets(*SHELL_FILES)}

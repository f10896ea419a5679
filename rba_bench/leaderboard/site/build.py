"""The files of the site of a board, made from its runs; they are part of the board, so `verify` makes them again.

    index.html                 the front page
    site/board.js              what its table shows at first
    site/settings/<section>.js what the front page loads of one setting when it is asked for
    site/*.css, site/*.js      styles and scripts, the same on every board
    samples/<section>/...      pages of samples
    clips/<hash>.flac          some of their clips

The same runs give the same bytes.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from rba_bench.errors import UserError
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.site.front import front_files
from rba_bench.leaderboard.site.reported import ReportedTable
from rba_bench.leaderboard.site.samples import sample_files
from rba_bench.leaderboard.site.shell import SHELL_FILES, site_assets
from rba_bench.leaderboard.worker_processes import Mapped
from rba_bench.untrusted import plain

# Names of the site's files, for a regular expression; nothing else is ever removed from a folder.
NAMES = (
    r"index\.html|site/[a-z]+\.(css|js)|site/settings/[\w.=+-]+\.js|"
    r"samples/[\w.=+-]+/(index\.html|summary\.js|items-\d{4,}\.js)|clips/[0-9a-f]+\.flac"
)

_ADDRESS = re.compile(r"https?://[^\s<>\"'`\\]+|[\w.+=-]+(/[\w.+=-]+)*/?", re.ASCII)


def page_address(address: str) -> str:
    """An address of a page on the web or beside the board; nothing that runs (`javascript:`) or reads the disk.

    Raises:
        UserError: it is another one.
    """
    if address and not _ADDRESS.fullmatch(address):
        raise UserError(
            f"{plain(address)} cannot be linked to: give an https address, or a path as seen from the board such as "
            "../paper/index.html"
        )
    return address


def site_files(
    sections: Mapping[str, BoardGroup],
    warnings: Sequence[str],
    tables: Sequence[str],
    reported: str = "",
    clips: Collection[str] = (),
    reported_tables: Sequence[ReportedTable] | None = None,
    mapped: Mapped = map,
) -> dict[str, bytes]:
    """Every file of the site by its name, without the clips.

    Args:
        sections: Groups by the name of their section.
        warnings: Sentences that a reader should know.
        tables: Names of the other files of the board that the front page links to.
        reported: Address of a page of reported numbers, as seen from the board; "" for none.
        clips: Names of the clips that lie beside the pages.
        reported_tables: Of the page `reported`, see `front_files`.
        mapped: Maps a function to jobs, perhaps in several processes.

    Raises:
        UserError: `reported` is no address that a page may link to.
    """
    samples = sample_files(sections, clips, mapped)
    linked = {name for name in sections if f"samples/{name}/index.html" in samples}
    return {
        **front_files(sections, warnings, tables, linked, page_address(reported), reported_tables),
        **site_assets(*SHELL_FILES),
        **samples,
    }

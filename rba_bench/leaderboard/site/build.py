"""The files of the site of a board, made from its runs; they are part of the board, so `verify` makes them again.

    index.html                 the front page
    site/settings/<section>.js what the front page loads of one setting when it is asked for
    site/*.css, site/*.js      styles and scripts, the same on every board
    samples/<section>/...      pages of samples
    clips/<hash>.flac          some of their clips

The same runs give the same bytes.
"""

from collections.abc import Collection, Mapping, Sequence

from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.site.front import front_files
from rba_bench.leaderboard.site.samples import sample_files
from rba_bench.leaderboard.site.shell import SHELL_FILES, site_assets

# Names of the site's files, for a regular expression; nothing else is ever removed from a folder.
NAMES = (
    r"index\.html|site/[a-z]+\.(css|js)|site/settings/[\w.=+-]+\.js|"
    r"samples/[\w.=+-]+/(index\.html|summary\.js|items-\d{4,}\.js)|clips/[0-9a-f]+\.flac"
)


def site_files(
    sections: Mapping[str, BoardGroup],
    warnings: Sequence[str],
    tables: Sequence[str],
    clips: Collection[str] = (),
) -> dict[str, bytes]:
    """Every file of the site by its name, without the clips.

    Args:
        sections: Groups by the name of their section.
        warnings: Sentences that a reader should know.
        tables: Names of the other files of the board that the front page links to.
        clips: Names of the clips that lie beside the pages.
    """
    samples = sample_files(sections, clips)
    linked = {name for name in sections if f"samples/{name}/index.html" in samples}
    return {
        **front_files(sections, warnings, tables, linked),
        **site_assets(*SHELL_FILES, "front.js"),
        **samples,
    }

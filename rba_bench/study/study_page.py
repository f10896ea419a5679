"""The page of a study for a browser, in the shell of the leaderboards."""

from collections.abc import Sequence

from rba_bench.leaderboard.columns import metric_heading
from rba_bench.leaderboard.pages import MICRO
from rba_bench.leaderboard.site.forest import Differences, Forest, draw_forest
from rba_bench.leaderboard.site.shell import PAGE, SHELL_FILES, render_page, site_assets
from rba_bench.leaderboard.tables import TextTable, rounded
from rba_bench.study.analysis import Analysis, StudyRow
from rba_bench.study.study_tables import BUDGET_NAMES

DIGITS = 1  # behind the point, as in the tables


def study_page_files(
    analysis: Analysis,
    sentences: Sequence[str],
    claims: TextTable | None,
    tables: Sequence[TextTable],
    conditions: Sequence[str],
    failures: Sequence[str],
    legend: str,
    downloads: Sequence[str],
) -> dict[str, bytes]:
    """The page with its styles, by their names in the folder of the report.

    Args:
        analysis: The numbers.
        sentences: What they show, the most important one first.
        claims: What became of the claims.
        tables: All other tables.
        conditions: How the methods were trained.
        failures: Runs that failed.
        legend: How the numbers were computed.
        downloads: Files of the report to link to.
    """
    page = render_page(
        "study.html.jinja",
        title=f"Study, {analysis.study.track} track",
        root="",
        nav=[("Differences", "#differences"), ("Tables", "#tables"), ("Conditions", "#conditions")],
        micro=MICRO.replace("**", "") if analysis.study.track == "micro" else "",
        baseline=analysis.study.baseline,
        sentences=[_text(sentence) for sentence in sentences],
        claims=claims,
        forests=_forests(analysis),
        tables=tables,
        conditions=[_text(line) for line in conditions],
        failures=failures,
        legend=_text(" ".join(legend.split())),
        downloads=downloads,
    )
    return {PAGE: page.encode(), **site_assets(*SHELL_FILES)}


def _text(markdown: str) -> str:
    """A sentence of the Markdown page without its code marks."""
    return markdown.replace("`", "")


def _forests(analysis: Analysis) -> list[tuple[str, Forest]]:
    """A forest plot per budget and decoding, of the metrics that the tables show."""
    forests = []
    for budget in analysis.data.budgets:
        for protocol in analysis.protocols:
            rows = [
                row for row in analysis.rows if row.main and (row.part, row.protocol) == (budget, protocol)
            ]
            forest = draw_forest([_block(task, rows) for task in dict.fromkeys(row.task for row in rows)])
            if forest is not None:
                forests.append((f"{BUDGET_NAMES[budget]}, {protocol} decoding", forest))
    return forests


def _block(task: str, rows: Sequence[StudyRow]) -> Differences:
    found = [row for row in rows if row.task == task]
    first = found[0]
    differences = []
    for row in found:
        if row.versus is not None:
            points = (row.versus.value, row.versus.low, row.versus.high)
            shown = [round(rounded(100 / row.scale * point), DIGITS) + 0.0 for point in points]
            differences.append((row.method, [*shown, row.better]))
    metric = metric_heading(first.metric, first.scale, True)
    return Differences(task, metric, DIGITS, not first.higher_is_better, differences)

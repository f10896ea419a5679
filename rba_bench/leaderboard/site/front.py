"""The front page of a leaderboard: the answer, pictures, and the main table with its data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.columns import score_cell
from rba_bench.leaderboard.loaded_runs import MODEL
from rba_bench.leaderboard.pages import MICRO, first_and_last_day, reference_notes
from rba_bench.leaderboard.provenance import MEANINGS, PROVENANCES
from rba_bench.leaderboard.site.answer import answer_of, missing_references, noun_of
from rba_bench.leaderboard.site.facts import (
    TYPES,
    Model,
    Setting,
    baseline_name,
    front_data,
    in_order,
    judge_of,
    models_of,
    setting_data,
    settings_of,
)
from rba_bench.leaderboard.site.findings import findings_of
from rba_bench.leaderboard.site.forest import difference_forest, gap_forest
from rba_bench.leaderboard.site.pictures import robustness_charts, training_charts
from rba_bench.leaderboard.site.reported import ReportedTable
from rba_bench.leaderboard.site.shell import FOLDER, PAGE, call_script, render_page, site_assets
from rba_bench.leaderboard.site.tradeoffs import machines_of, tradeoffs_of
from rba_bench.leaderboard.site.without_speech import without_speech
from rba_bench.leaderboard.tables import NOTHING, SHORT, TextTable
from rba_bench.leaderboard.test_sets import shipped_task
from rba_bench.metrics.bootstrap import RESAMPLES
from rba_bench.metrics.interval import FEWEST

STATIC_CELLS, STATIC_COLUMNS = 400, 20  # scores that a reader without scripts sees; index.md has all
SCRIPTS = ("parts.js", "texts.js", "columns.js", "filters.js", "comparison.js", "front.js")  # in this order
DATA = (
    f"{FOLDER}/board.js"  # what the table of scores shows at first; not in the page, which would be too large
)
SETTINGS = f"{FOLDER}/settings"  # a file per setting, loaded when it is asked for


def front_files(
    sections: Mapping[str, BoardGroup],
    warnings: Sequence[str],
    tables: Sequence[str],
    linked: set[str],
    reported: str = "",
    reported_tables: Sequence[ReportedTable] | None = None,
) -> dict[str, bytes]:
    """The front page and the data that it loads.

    Args:
        sections: Groups by the name of their section.
        warnings: Sentences that a reader should know.
        tables: Names of the CSV files of the board.
        linked: Sections that have a page of samples.
        reported: Address of a page of reported numbers, "" for none.
        reported_tables: Those of its tables that are of the board's benchmarks; None where it is not known what it
            holds.
    """
    settings = in_order(settings_of(sections))
    models = models_of(settings)
    page = render_page(
        "front.html.jinja",
        title=f"Leaderboard, {settings[0].group.record.track} track",
        root="",
        scripts=[*(f"{FOLDER}/{name}" for name in SCRIPTS), DATA],
        nav=[
            ("Answer", "#main"),
            ("Scores", "#scores"),
            ("Downloads", "#downloads"),
            ("How to read", "#reading"),
        ],
        reported=reported,
        reported_tables=reported_tables,
        elsewhere=reported_tables is not None,
        **_texts(settings, models, warnings, tables),
        **_pictures(settings, models),
    )
    data = call_script("rbaBoard", front_data(settings, models, linked))
    files = {PAGE: page.encode(), DATA: data, **site_assets(*SCRIPTS)}
    for setting in settings:
        content = setting_data(setting, models)
        files[f"{SETTINGS}/{setting.section}.js"] = call_script("rbaSetting", setting.section, content)
        setting.group.release()
    return files


def _texts(
    settings: Sequence[Setting], models: Sequence[Model], warnings: Sequence[str], tables: Sequence[str]
) -> dict[str, Any]:
    """What the template says in words."""
    groups = [setting.group for setting in settings]
    runs = [run for group in groups for run in group.runs]
    n_models = sum(model.kind == MODEL for model in models)
    noun = noun_of(settings)
    counts = [
        count(n_models, "model"),
        *([count(len(models) - n_models, "reference")] if len(models) > n_models else []),
        count(len(settings), noun) + (" (a task with its decoding and its clips)" if noun != "task" else ""),
    ]
    return {
        "micro": MICRO.replace("**", "") if groups[0].record.track == "micro" else "",
        "counts": ", ".join(counts),
        "days": first_and_last_day(run.record.created for run in runs),
        "answer": answer_of(settings),
        "findings": findings_of(settings),
        "baseline": baseline_name(settings),
        "noun": noun,
        "warnings": warnings,
        "missing": list(missing_references(settings)),
        "references": [note.replace("`", "") for note in reference_notes(groups)],
        "machines": machines_of(settings),
        "downloads": [(name, quote(name)) for name in tables],
        "protocols": [_protocol(setting) for setting in settings],
        "provenances": [(label, MEANINGS[label]) for label in reversed(PROVENANCES)],
        "resamples": f"{RESAMPLES:,}",
        "fewest": FEWEST,
        "controlled": any(group.controls for group in groups),
        "constants": any(row.kind == "constant" for group in groups if group.controls for row in group.rows),
        "static": _static_table(settings, models),
    }


def _pictures(settings: Sequence[Setting], models: Sequence[Model]) -> dict[str, Any]:
    """What the template shows."""
    return {
        "differences": difference_forest(settings),
        "gaps": gap_forest(settings),
        "tradeoffs": tradeoffs_of(
            [each for each in settings if not each.group.perturbation] or settings, models
        ),
        "speechless": without_speech(settings),
        "robustness": robustness_charts(settings),
        "training": training_charts(settings),
    }


@dataclass(frozen=True)
class StaticTable:
    """What stands in place of the table of scores where no script runs.

    Attributes:
        table: Scores with their intervals.
        total: Rows that there are.
        more: Whether the table lacks rows or settings.
    """

    table: TextTable
    total: int
    more: bool


def _static_table(settings: Sequence[Setting], models: Sequence[Model]) -> StaticTable:
    """As many scores as `STATIC_CELLS` allows: the first settings, and of these the first rows."""
    few = settings[:STATIC_COLUMNS]
    shown = models[: max(1, STATIC_CELLS // len(few))]
    cells = {
        (row.label, place): score_cell(setting.group, row, setting.group.primary)
        for place, setting in enumerate(few)
        for row in setting.group.rows
    }
    headings = [
        f"{setting.title}, {setting.metric}{'' if setting.higher_is_better else ', lower is better'}"
        for setting in few
    ]
    rows = [
        [
            model.label,
            TYPES[model.kind],
            *(cells.get((model.label, place), NOTHING) for place in range(len(few))),
        ]
        for model in shown
    ]
    table = TextTable(["model", "type", *headings], rows, numeric_from=2)
    return StaticTable(table, len(models), len(rows) < len(models) or len(few) < len(settings))


def _protocol(setting: Setting) -> dict[str, Any]:
    """What a setting measures, for the table at the end."""
    group = setting.group
    return {
        "title": setting.title,
        "decoding": group.record.protocol,
        "metric": setting.metric + ("" if setting.higher_is_better else ", lower is better"),
        "n_items": group.record.data["n_items"],
        "judge": judge_of(group) or "none",
        "protocol": group.protocol_hash[:SHORT],
        "test_set": group.data_hash[:SHORT],
        "days": first_and_last_day(run.record.created for run in group.runs),
        "known": shipped_task(group.task) is not None,
    }


def count(number: int, noun: str) -> str:
    """`1 model`, `2 models`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"

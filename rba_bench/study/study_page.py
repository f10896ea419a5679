"""The page of a study for a browser, in the shell of the leaderboards: answer, comparisons, pictures, tables."""

from collections.abc import Iterator, Sequence
from typing import Any

from rba_bench.leaderboard.columns import metric_heading
from rba_bench.leaderboard.pages import MICRO
from rba_bench.leaderboard.site.shell import FOLDER, PAGE, SHELL_FILES, call_script, render_page, site_assets
from rba_bench.leaderboard.tables import TextTable
from rba_bench.study import pictures
from rba_bench.study.analysis import Analysis
from rba_bench.study.study_answer import (
    BUDGET_NAMES,
    Grid,
    MethodOutcomes,
    Outcome,
    answer_sentence,
    outcome_grids,
    reading,
    task_name,
)
from rba_bench.study.study_texts import conditions, failures, legend
from rba_bench.training.step_curve import POINTS

KINDS = {1: "better", -1: "worse", 0: "open"}  # classes of the styles
BADGES = {1: "good", -1: "bad", 0: ""}
SCRIPT, STYLE, DATA = "study.js", "study.css", f"{FOLDER}/curves.js"
NAV = {
    "methods": "Methods",
    "claims": "Claims",
    "differences": "Differences",
    "cost": "Cost",
    "training": "Training",
    "tables": "Tables",
    "downloads": "Downloads",
    "conditions": "Conditions",
}


def study_page_files(
    analysis: Analysis, tables: Sequence[TextTable], downloads: Sequence[str]
) -> dict[str, bytes]:
    """The page with its styles, scripts and data, by their names in the folder of the report.

    Args:
        analysis: The numbers.
        tables: Tables of scores, differences, shares and cost.
        downloads: Files of the report to link to.
    """
    data = analysis.data
    parts = {"claims": list(_claims(analysis)), **_pictures(analysis)}
    parts["grids"] = [_grid(grid) for grid in outcome_grids(analysis)]
    empty = {"methods": not parts["grids"], "cost": not parts["costs"], "training": not parts["panels"]}
    empty["claims"] = not parts["claims"]
    page = render_page(
        "study.html.jinja",
        title=f"Study of training methods, {analysis.study.track} track",
        root="",
        scripts=[f"{FOLDER}/{SCRIPT}", *([DATA] if parts["panels"] else [])],
        styles=[f"{FOLDER}/{STYLE}"],
        nav=[(text, f"#{name}") for name, text in NAV.items() if not empty.get(name)],
        micro=MICRO.replace("**", "") if analysis.study.track == "micro" else "",
        baseline=analysis.study.baseline,
        answer=_text(answer_sentence(analysis)),
        reading=reading(analysis),
        tables=tables,
        conditions=[_text(line) for line in conditions(data)],
        failures=list(failures(data)),
        legend=_text(" ".join(legend(data).split())),
        downloads=downloads,
        points=POINTS,
        **parts,
    )
    files = {PAGE: page.encode(), **site_assets(*SHELL_FILES, SCRIPT, STYLE)}
    if parts["panels"]:
        content = pictures.curve_data(data.curves, tuple(analysis.study.methods))
        files[DATA] = call_script("rbaCurves", content)
    return files


def _text(markdown: str) -> str:
    """A sentence of the Markdown page without its code marks."""
    return markdown.replace("`", "")


def _pictures(analysis: Analysis) -> dict[str, Any]:
    """What the template draws."""
    curves = analysis.data.curves
    budget = next((part for part in BUDGET_NAMES if any(curve.part == part for curve in curves)), "")
    costs, cost_legend = pictures.cost_panels(analysis)
    return {
        "forests": pictures.difference_forests(analysis),
        "costs": costs,
        "cost_legend": cost_legend,
        "budget_legend": pictures.budget_legend(analysis),
        "panels": pictures.curve_panels(curves, analysis.study.methods, budget),
        "curve_budget": BUDGET_NAMES.get(budget, ""),
        "seed_legend": pictures.seed_legend(curves),
    }


def _grid(grid: Grid) -> dict[str, Any]:
    """A grid as the template takes it."""
    tasks = [
        {"name": task_name(row), "metric": metric_heading(row.metric, row.scale, row.higher_is_better)}
        for row in grid.tasks
    ]
    methods, untrained = ([_grid_row(each) for each in group] for group in (grid.methods, grid.untrained))
    return {
        "title": grid.title,
        "tasks": tasks,
        "methods": methods,
        "untrained": untrained,
        "reach": grid.reach,
    }


def _grid_row(outcomes: MethodOutcomes) -> dict[str, Any]:
    cells = [
        None
        if cell is None
        else {
            "kind": KINDS[cell.row.better],
            "word": cell.row.outcome,
            "difference": cell.difference.replace("-", "\u2212"),
            "interval": cell.interval.replace("-", "\u2212"),
        }
        for cell in outcomes.cells
    ]
    balance = sum(cell.row.better for cell in outcomes.cells if cell is not None)
    return {
        "method": outcomes.method,
        "seeds": outcomes.seeds,
        "summary": outcomes.summary,
        "balance": balance,
        "cells": cells,
    }


def _claims(analysis: Analysis) -> Iterator[dict[str, Any]]:
    """Every claim with its tests."""
    for text in dict.fromkeys(verdict.text for verdict in analysis.verdicts):
        rows = [
            {
                "task": f"{verdict.row.task} {verdict.row.metric}",
                "budget": BUDGET_NAMES[verdict.budget],
                "difference": Outcome(verdict.row).interval.replace("-", "\u2212"),
                "outcome": verdict.row.outcome,
                "verdict": verdict.word,
                "badge": BADGES[verdict.row.better],
            }
            for verdict in analysis.verdicts
            if verdict.text == text
        ]
        yield {"text": text, "rows": rows}

"""The report of a study: a folder that can be published, and made again from itself.

    index.html, site/  the page for a browser
    index.md           the answer, comparisons, claims, tables, conditions
    scores.csv, differences.csv, seeds.csv, cost.csv    every number in full precision; shares.csv with a ceiling
    study.json         the recipe, the measured time budget, failures, and all numbers for programs
    scores/<budget>/<method>-seed<N>.json.gz            scores per item, from which all is computed; no answers
    curves.csv         what the trainings logged, thinned

`study.json`, `scores/` and `curves.csv` are what a report is made from; the same ones give the same bytes.
"""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rba_bench.errors import UserError
from rba_bench.files import write_atomic, write_json
from rba_bench.leaderboard.tables import TextTable, csv_text, json_text, rounded
from rba_bench.recipes import suggest
from rba_bench.study.analysis import Analysis, StudyData
from rba_bench.study.curves import CURVES, flat_curves, load_curves, match_curves
from rba_bench.study.folder import SCORES, Cell, StudyFolder
from rba_bench.study.scores import load_all_scores, scores_path
from rba_bench.study.study_answer import answer_sentence, grid_table, method_sentence, outcome_grids, reading
from rba_bench.study.study_markdown import index_page
from rba_bench.study.study_page import study_page_files
from rba_bench.study.study_recipe import BUDGETS, StudyRecipe
from rba_bench.study.study_tables import (
    claim_table,
    cost_rows,
    cost_table,
    flat_differences,
    flat_scores,
    flat_seeds,
    flat_shares,
    score_tables,
)
from rba_bench.study.study_texts import without_paths
from rba_bench.study.time_budget import TimePlan
from rba_bench.untrusted import read_untrusted_json

INDEX, FACTS = "index.md", "study.json"
SCHEMA_VERSION = 2  # 2: the words of the verdicts on claims


@dataclass(frozen=True)
class StudyReport:
    """A rendered study.

    Attributes:
        folder: Its folder.
        data: Content of `study.json`.
        tables: For the terminal.
        sentences: What the numbers show, for the terminal.
    """

    folder: Path
    data: dict[str, Any]
    tables: tuple[TextTable, ...]
    sentences: tuple[str, ...]


def collect_study(study: StudyRecipe, out: Path) -> StudyData:
    """What a study folder holds so far."""
    folder = StudyFolder(out)
    failures = [
        {"budget": budget, "method": method, "seed": seed, "error": error}
        for budget in BUDGETS
        for method in study.methods
        for seed in study.seeds
        if (error := folder.failure(Cell(budget, method, seed)))
    ]
    systems = tuple(load_all_scores(folder.scores))
    curves = match_curves(systems, load_curves(folder.report / CURVES), [folder])
    return StudyData(study, systems, TimePlan(study, folder).content, tuple(failures), curves)


def load_study(folder: Path) -> StudyData:
    """What a published report was made from.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        facts = read_untrusted_json(folder / FACTS)
        study = StudyRecipe.model_validate(facts["recipe"])
        systems = tuple(load_all_scores(folder / SCORES))
        curves = match_curves(systems, load_curves(folder / CURVES))
        return StudyData(study, systems, facts["time"], tuple(facts["failures"]), curves)
    except FileNotFoundError as error:
        raise UserError(f"no study report in {folder}: it has no {FACTS}") from error
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder / FACTS} is not a study report: {reason}") from error


def with_curves(data: StudyData, folders: Iterable[Path]) -> StudyData:
    """The same study with the training curves of the checkpoints that study folders still hold.

    Args:
        data: The study.
        folders: Folders in which parts of it were run (`--out`).

    Raises:
        UserError: no checkpoint of this study is in one of them, or a file is damaged.
    """
    curves = data.curves
    for folder in folders:
        found = match_curves(data.systems, (), [StudyFolder(folder)])
        if not found:
            raise UserError(f"--curves: {folder} holds no finished training of this study: name its --out")
        curves = match_curves(data.systems, (*curves, *found))
    return replace(data, curves=curves)


def with_baseline(data: StudyData, method: str) -> StudyData:
    """The same scores, compared with another method; claims are about the recipe's baseline and are left out.

    Raises:
        UserError: the study has no run of it.
    """
    trained = {name for budget in data.budgets for name in data.runs(budget)}
    if method not in trained:
        raise UserError(f"--baseline: this study has no run of {method!r}{suggest(method, sorted(trained))}")
    return replace(data, study=data.study.model_copy(update={"baseline": method, "claims": ()}))


def write_study_report(data: StudyData, folder: Path) -> StudyReport:
    """Compute everything and write it beside the scores.

    Raises:
        UserError: no finished run, or runs that cannot be compared.
    """
    if not data.budgets:
        raise UserError("no run of this study is finished yet")
    analysis = Analysis(data)
    scores, differences, costs = flat_scores(analysis), flat_differences(analysis), cost_rows(data)
    content = rounded(
        {
            "schema_version": SCHEMA_VERSION,
            "recipe": without_paths(data.study.resolved()),
            "time": data.time,
            "failures": list(data.failures),
            "answer": {
                "sentence": answer_sentence(analysis).replace("`", ""),
                "caution": reading(analysis).replace("`", ""),
            },
            "comparisons": len(analysis.compared),
            "marked": sum(row.better != 0 for row in analysis.compared),
            "claims": [
                {
                    "claim": v.text,
                    "budget": v.budget,
                    "task": v.row.task,
                    "metric": v.row.metric,
                    "outcome": v.row.outcome,
                    "verdict": v.word,
                }
                for v in analysis.verdicts
            ],
            "differences": differences,
            "scores": scores,
            "cost": costs,
        }
    )
    csvs = {"scores": scores, "differences": differences, "seeds": flat_seeds(analysis), "cost": costs}
    csvs |= {"shares": flat_shares(analysis), "curves": flat_curves(data.curves)}
    for name, rows in csvs.items():
        if rows:
            write_atomic(folder / f"{name}.csv", csv_text(rows))
        else:  # of an earlier report
            (folder / f"{name}.csv").unlink(missing_ok=True)
    write_atomic(folder / FACTS, json_text(content))
    tables, claims = [*score_tables(analysis), cost_table(data)], claim_table(analysis)
    write_atomic(folder / INDEX, index_page(analysis, claims, tables))
    downloads = [INDEX, FACTS, *(f"{name}.csv" for name, rows in csvs.items() if rows)]
    for name, file_bytes in study_page_files(analysis, tables, downloads).items():
        write_atomic(folder / name, file_bytes)
    shown = [
        *tables,
        *(grid_table(analysis, grid) for grid in outcome_grids(analysis)),
        *([claims] if claims else []),
    ]
    claimed = dict.fromkeys(claim.method for claim in data.study.claims)
    compared = {row.method for row in analysis.compared}
    sentences = [method_sentence(analysis, method) for method in claimed if method in compared]
    return StudyReport(
        folder, content, tuple(shown), (*sentences, answer_sentence(analysis), reading(analysis))
    )


def publish_study_report(report: StudyReport, to: Path) -> Path:
    """Copy a report to a folder; one that an earlier study left there is replaced.

    Raises:
        UserError: the folder holds something else.
    """
    if to.exists() and any(to.iterdir()) and not (to / FACTS).is_file():
        raise UserError(f"{to} holds something else than a study: choose another --publish")
    temporary = to.with_name(f".{to.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(report.folder, temporary)
    shutil.rmtree(to, ignore_errors=True)
    temporary.rename(to)
    return to


def load_published(study: StudyRecipe, published: Path) -> StudyData:
    """A published report that a study can go on from.

    Args:
        study: The recipe that goes on.
        published: Folder of the report.

    Raises:
        UserError: there is no report, or it is of another study.
    """
    data = load_study(published)
    ours, theirs = (without_paths(recipe.identity()) for recipe in (study, data.study))
    if others := sorted(key for key in ours if ours[key] != theirs[key]):
        raise UserError(
            f"{published} is of another study: `{others[0]}` is {theirs[others[0]]} there and {ours[others[0]]} here"
        )
    return data


def take_over(data: StudyData, out: Path) -> int:
    """Put the finished runs of a report into a study's folder, which keeps what it has; returns how many were put."""
    folder, taken = StudyFolder(out), 0
    for system in data.systems:
        if not (folder.scores / scores_path(system.part, system.method, system.seed)).is_file():
            system.save(folder.scores)
            taken += 1
    if data.curves:
        kept = load_curves(folder.report / CURVES)
        if curves := match_curves(load_all_scores(folder.scores), (*data.curves, *kept)):
            write_atomic(folder.report / CURVES, csv_text(flat_curves(curves)))
    if data.time and not folder.time_file.is_file():
        write_json(folder.time_file, data.time)
    return taken

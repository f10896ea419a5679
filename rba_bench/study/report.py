"""The report of a study: a folder that can be published, and made again from itself.

    index.html, site/  the same for a browser
    index.md           conditions, sentences, claims, tables
    scores.csv, differences.csv, seeds.csv, cost.csv    every number in full precision; shares.csv with a ceiling
    study.json         the recipe, the measured time budget, failures, and all numbers for programs
    scores/<budget>/<method>-seed<N>.json.gz            scores per item, from which all is computed; no answers

The same scores give the same bytes.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rba_bench.errors import UserError
from rba_bench.files import write_atomic, write_json
from rba_bench.leaderboard.pages import MICRO, first_and_last_day, hash_cell, protocol_table
from rba_bench.leaderboard.tables import SHORT, TextTable, csv_text, json_text, rounded
from rba_bench.metrics.bootstrap import RESAMPLES, SEED
from rba_bench.recipes import suggest
from rba_bench.study.analysis import Analysis, StudyData
from rba_bench.study.folder import SCORES, Cell, StudyFolder
from rba_bench.study.scores import load_all_scores, scores_path
from rba_bench.study.study_page import study_page_files
from rba_bench.study.study_recipe import BUDGETS, StudyRecipe, dotted_changes
from rba_bench.study.study_tables import (
    BUDGET_NAMES,
    claim_table,
    cost_rows,
    cost_table,
    flat_differences,
    flat_scores,
    flat_seeds,
    flat_shares,
    score_tables,
    summary_sentences,
)
from rba_bench.study.time_budget import TimePlan
from rba_bench.untrusted import plain, read_untrusted_json

INDEX, FACTS = "index.md", "study.json"
SCHEMA_VERSION = 1
LEGEND = """A number is the mean over the training seeds with its 95 % interval; `±` is the standard deviation over the
seeds. A difference is taken seed by seed on the same items; `*` marks an interval that excludes zero, each for its
own difference alone. Intervals cover both the choice of items and the choice of seeds: Student's t for the sum of the
variance between items ({resamples} resamples, items with equal text together, the same for all systems) and the
variance of the mean over seeds, with Satterthwaite's degrees of freedom. Corpus scores are computed per seed from
summed statistics. Where {seeds} seeds differ much, intervals are wide: read the spread beside them. Differences of
untrained systems are from the baseline at the first budget. A share is a mean score divided by that of the system
that reads the transcript, with the items of both drawn together. Random seed of the resampling: {seed}.
"""


@dataclass(frozen=True)
class StudyReport:
    """A rendered study.

    Attributes:
        folder: Its folder.
        data: Content of `study.json`.
        tables: For the terminal.
        sentences: What the numbers show.
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
    return StudyData(study, systems, TimePlan(study, folder).content, tuple(failures))


def load_study(folder: Path) -> StudyData:
    """What a published report was made from.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        facts = read_untrusted_json(folder / FACTS)
        study = StudyRecipe.model_validate(facts["recipe"])
        systems = tuple(load_all_scores(folder / SCORES))
        return StudyData(study, systems, facts["time"], tuple(facts["failures"]))
    except FileNotFoundError as error:
        raise UserError(f"no study report in {folder}: it has no {FACTS}") from error
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder / FACTS} is not a study report: {reason}") from error


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
            "recipe": _without_paths(data.study.resolved()),
            "time": data.time,
            "failures": list(data.failures),
            "comparisons": len(analysis.compared),
            "marked": sum(row.better != 0 for row in analysis.compared),
            "claims": [
                {
                    "claim": v.text,
                    "budget": v.budget,
                    "task": v.row.task,
                    "metric": v.row.metric,
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
    csvs["shares"] = flat_shares(analysis)
    for name, rows in csvs.items():
        if rows:
            write_atomic(folder / f"{name}.csv", csv_text(rows))
    write_atomic(folder / FACTS, json_text(content))
    tables, claims = [*score_tables(analysis), cost_table(data)], claim_table(analysis)
    sentences = tuple(summary_sentences(analysis))
    write_atomic(folder / INDEX, _index_page(analysis, sentences, claims, tables))
    page = study_page_files(
        analysis,
        sentences,
        claims,
        tables,
        conditions=list(_conditions(data)),
        failures=list(_failures(data)),
        legend=_legend(data),
        downloads=[INDEX, FACTS, *(f"{name}.csv" for name, rows in csvs.items() if rows)],
    )
    for name, file_bytes in page.items():
        write_atomic(folder / name, file_bytes)
    return StudyReport(folder, content, (*tables, *([claims] if claims else [])), sentences)


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
    ours, theirs = (_without_paths(recipe.identity()) for recipe in (study, data.study))
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
    if data.time and not folder.time_file.is_file():
        write_json(folder.time_file, data.time)
    return taken


def _without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without folders of this machine, for publishing."""
    from rba_bench.evaluation.plan import relative_spec

    paths: dict[str, Any] = {
        key: relative_spec(value)
        for key, value in recipe.items()
        if key in ("base", "alignment_set") and value
    }
    if isinstance(references := recipe.get("references"), dict):
        paths["references"] = {name: relative_spec(spec) for name, spec in references.items()}
    return {**recipe, **paths}


def _index_page(
    analysis: Analysis, sentences: tuple[str, ...], claims: TextTable | None, tables: list[TextTable]
) -> str:
    data = analysis.data
    banner = [MICRO] if data.study.track == "micro" else []
    conditions = "\n".join(f"- {line}" for line in _conditions(data))
    blocks = [f"# Study, {data.study.track} track", *banner, conditions]
    failures = [f"- {failure}" for failure in _failures(data)]
    blocks += ["\n".join(failures)] if failures else []
    blocks += ["## Results", "\n".join(f"- {sentence}" for sentence in sentences)]
    blocks += ["### The paper's claims", claims.markdown()] if claims else []
    blocks += ["## Tables", _legend(data)]
    for table in tables:
        blocks += [f"### {table.title}", table.markdown()]
    rows = []
    for task, metrics in analysis.study.tasks.items():
        scores = next((system.tasks[task] for system in data.systems if task in system.tasks), None)
        if scores is not None:
            n = f"{len(scores.clusters)} ({len(set(scores.clusters))} texts)"
            hashes = hash_cell(scores.protocol_hash), hash_cell(scores.data_hash)
            rows.append([task, ", ".join(metrics), n, *hashes])
    blocks += [protocol_table(rows, ["task", "metrics", "n", "protocol", "test set"])]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def _failures(data: StudyData) -> Iterator[str]:
    """A sentence per run that failed."""
    for each in data.failures:
        yield (
            f"Failed: {plain(each['method'])}, seed {plain(each['seed'])}, {BUDGET_NAMES[each['budget']]}: "
            f"{plain(each['error'])}"
        )


def _legend(data: StudyData) -> str:
    seeds = max(len(runs) for budget in data.budgets for runs in data.runs(budget).values())
    return LEGEND.format(resamples=f"{RESAMPLES:,}", seeds=seeds, seed=SEED)


def _conditions(data: StudyData) -> Iterator[str]:
    """Base, data, steps, seeds and machine in sentences."""
    study = data.study
    runs = [run for budget in data.budgets for found in data.runs(budget).values() for run in found]
    cost = runs[0].cost
    paths = _without_paths({"base": study.base, "alignment_set": study.alignment_set})
    base, alignment_set = (plain(paths[key]) if paths[key] else "" for key in ("base", "alignment_set"))
    base = f"made by the study's warm-up from {base}" if study.warmup else base
    alignment_set = alignment_set or study.synthesis.recipe + _changes_text(study.synthesis.set)
    bases = dict.fromkeys(f"`{plain(run.cost.get('base_sha256', ''))[:SHORT]}`" for run in runs)
    yield f"Base: {base} ({', '.join(bases)}). Alignment set: {alignment_set}."
    if len(bases) > 1:
        yield "The base was made more than once, on different machines: the runs start from bases that are not equal."
    if study.warmup:
        yield f"Warm-up: {plain(study.warmup.recipe)}{_changes_text(study.warmup.set)}."
    time, seconds = "", data.time.get("seconds")
    if "time" in data.budgets and seconds is not None:
        like = f" (the mean of `{data.time['like']}` at equal steps)" if data.time.get("like") else ""
        time = f", and as many as its measured speed allows in {seconds:.0f} s{like} at equal time"
    yield (
        f"Every method: {study.steps} steps at equal steps{time}; seeds {', '.join(map(str, study.seeds))}"
        f"{_changes_text(study.common)}."
    )
    for sentence in study.left_out:
        yield f"Left out: {plain(sentence)}"
    for name, choice in study.methods.items():
        if choice.set:
            yield f"`{plain(name)}`: {plain(choice.recipe)}{_changes_text(choice.set)}"
    hardware, versions = cost.get("hardware") or {}, cost.get("versions") or {}
    shown = [name for name in versions if name in ("rba_bench", "torch", "transformers")]
    packages = ", ".join(f"{name} {versions[name]}" for name in shown)
    device = (
        f"{hardware.get('device', '')} {hardware.get('name', '')}, {hardware.get('threads', '?')} threads"
    )
    days = first_and_last_day(plain(run.cost.get("created", "")) for run in runs)
    yield f"{len(runs)} runs, {days}, {plain(f'{device.strip()}; {packages}')}."


def _changes_text(changes: dict[str, Any]) -> str:
    return "; " + ", ".join(f"`{plain(change)}`" for change in dotted_changes(changes)) if changes else ""

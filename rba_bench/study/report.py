"""A study as a folder that can be published, and made again from itself.

    index.md           conditions, sentences, claims, tables
    scores.csv, differences.csv, seeds.csv, cost.csv    every number in full precision
    study.json         the recipe, the measured time budget, failures, and all numbers for programs
    scores/<budget>/<method>-seed<N>.json.gz            what it is computed from; no answers

The same scores give the same bytes.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rba_bench.errors import UserError
from rba_bench.files import write_atomic
from rba_bench.leaderboard.build import MICRO
from rba_bench.leaderboard.tables import Markdown, TextTable, csv_text, rounded
from rba_bench.metrics.bootstrap import RESAMPLES, SEED
from rba_bench.plain import json_safe, plain
from rba_bench.study import pages, scores
from rba_bench.study.analysis import Analysis, StudyData
from rba_bench.study.folder import Cell, StudyFolder
from rba_bench.study.recipe import BUDGETS, StudyRecipe, overrides
from rba_bench.study.timing import TimePlan
from rba_bench.untrusted import read_json

INDEX, FACTS, SCORES = "index.md", "study.json", "scores"
SCHEMA_VERSION = 1
LEGEND = """A number is the mean over the training seeds with its 95 % interval; `±` is the standard deviation over the
seeds. A difference is taken seed by seed on the same items; `*` marks an interval that leaves out zero, each for its
own difference alone. Intervals cover both the choice of items and the choice of seeds: Student's t for the sum of the
variance between items ({resamples} resamples, those with equal text together, the same for all systems) and the
variance of the mean over seeds, with Satterthwaite's degrees of freedom. Corpus scores are computed per seed from
summed statistics. With {seeds} seeds that stray, intervals are wide: read the spread beside them. Differences of
untrained systems are from the baseline at the first budget. Random seed of the draws: {seed}.
"""


@dataclass(frozen=True)
class Report:
    """A rendered study.

    Attributes:
        folder: Where it lies.
        data: Content of `study.json`.
        tables: For the terminal.
        sentences: What stands out.
    """

    folder: Path
    data: dict[str, Any]
    tables: tuple[TextTable, ...]
    sentences: tuple[str, ...]


def collect(study: StudyRecipe, out: Path) -> StudyData:
    """What a study folder holds so far."""
    folder = StudyFolder(out)
    failures = [
        {"budget": budget, "method": method, "seed": seed, "error": error}
        for budget in BUDGETS
        for method in study.methods
        for seed in study.seeds
        if (error := folder.failure(Cell(budget, method, seed)))
    ]
    systems = tuple(scores.read_all(folder.report / SCORES))
    return StudyData(study, systems, TimePlan(study, folder).content, tuple(failures))


def load(folder: Path) -> StudyData:
    """A report read back.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        facts = read_json(folder / FACTS)
        study = StudyRecipe.model_validate(facts["recipe"])
        return StudyData(
            study, tuple(scores.read_all(folder / SCORES)), facts["time"], tuple(facts["failures"])
        )
    except FileNotFoundError as error:
        raise UserError(f"no study report in {folder}: it has no {FACTS}") from error
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / FACTS} is not a study report: {' '.join(str(error).split())[:200]}"
        ) from error


def write(data: StudyData, folder: Path) -> Report:
    """Compute everything and write it beside the scores.

    Raises:
        UserError: no finished run, or runs that cannot be compared.
    """
    if not data.budgets:
        raise UserError("no run of this study is finished yet")
    analysis = Analysis(data)
    content = rounded(_content(analysis))
    csvs = {
        "scores.csv": pages.flat_scores(analysis),
        "differences.csv": pages.flat_differences(analysis),
        "seeds.csv": pages.flat_seeds(analysis),
        "cost.csv": pages.cost_rows(data),
    }
    for name, rows in csvs.items():
        if rows:
            write_atomic(folder / name, csv_text(rows))
    write_atomic(folder / FACTS, json_safe(json.dumps(content, indent=1, ensure_ascii=False)) + "\n")
    write_atomic(folder / INDEX, _index(analysis))
    claims = pages.claim_table(analysis)
    tables = (*pages.score_tables(analysis), pages.cost_table(data), *([claims] if claims else []))
    return Report(folder, content, tables, tuple(pages.sentences(analysis)))


def publish(report: Report, to: Path) -> Path:
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


def _content(analysis: Analysis) -> dict[str, Any]:
    data = analysis.data
    return {
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
        "differences": pages.flat_differences(analysis),
        "scores": pages.flat_scores(analysis),
        "cost": pages.cost_rows(data),
    }


def _without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without folders of this machine, for publishing."""
    from rba_bench.evaluation.plan import relative

    return {
        key: relative(value) if key in ("base", "alignment_set") and value else value
        for key, value in recipe.items()
    }


def _index(analysis: Analysis) -> str:
    data = analysis.data
    blocks = ["# Study, micro track", MICRO, _conditions(data)]
    blocks += ["\n".join(f"- {line}" for line in _failed(data))] if data.failures else []
    claims = pages.claim_table(analysis)
    blocks += ["## What came out", "\n".join(f"- {line}" for line in pages.sentences(analysis))]
    blocks += ["### The paper's claims", claims.markdown()] if claims else []
    blocks += ["## Tables", _legend(data)]
    for table in [*pages.score_tables(analysis), pages.cost_table(data)]:
        blocks += [f"### {table.title}", table.markdown()]
    blocks += [_behind(analysis)]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def _legend(data: StudyData) -> str:
    seeds = max(len(runs) for budget in data.budgets for runs in data.of(budget).values())
    return LEGEND.format(resamples=f"{RESAMPLES:,}", seeds=seeds, seed=SEED)


def _failed(data: StudyData) -> list[str]:
    return [
        f"Failed: {plain(one['method'])}, seed {plain(one['seed'])}, {pages.BUDGET_NAMES[one['budget']]}: "
        f"{plain(one['error'])}"
        for one in data.failures
    ]


def _conditions(data: StudyData) -> str:
    study = data.study
    runs = [run for budget in data.budgets for found in data.of(budget).values() for run in found]
    cost = runs[0].cost
    shown = _without_paths({"base": study.base, "alignment_set": study.alignment_set})
    named = {key: plain(value) if value else value for key, value in shown.items()}
    base = f"made by the study's warm-up from {named['base']}" if study.warmup else named["base"]
    dates = sorted(plain(run.cost.get("created", ""))[:10] for run in runs)
    lines = [
        f"Base: {base} (`{plain(cost.get('base_sha256', ''))[:8]}`). Alignment set: "
        f"{named['alignment_set'] or study.synthesis.recipe + _changes(study.synthesis.set)}.",
        f"Every method: {study.steps} steps at equal steps{_time(data)}; seeds {', '.join(map(str, study.seeds))}"
        f"{_changes(study.common)}.",
        *(
            f"`{plain(name)}`: {plain(choice.recipe)}{_changes(choice.set)}"
            for name, choice in study.methods.items()
            if choice.set
        ),
        f"{len(runs)} runs, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, {_machine(cost)}.",
    ]
    if study.warmup:
        lines.insert(1, f"Warm-up: {plain(study.warmup.recipe)}{_changes(study.warmup.set)}.")
    return "\n".join(f"- {line}" for line in lines)


def _changes(changes: dict[str, Any]) -> str:
    return "; " + ", ".join(f"`{plain(change)}`" for change in overrides(changes)) if changes else ""


def _time(data: StudyData) -> str:
    seconds = data.time.get("seconds")
    if "time" not in data.budgets or seconds is None:
        return ""
    like = f" (the mean of `{data.time['like']}` at equal steps)" if data.time.get("like") else ""
    return f", and as many as its measured speed allows in {seconds:.0f} s{like} at equal time"


def _machine(cost: dict[str, Any]) -> str:
    hardware, versions = cost.get("hardware") or {}, cost.get("versions") or {}
    parts = [
        f"{name} {value}"
        for name, value in versions.items()
        if name in ("rba_bench", "torch", "transformers")
    ]
    where = f"{hardware.get('device', '')} {hardware.get('name', '')}, {hardware.get('threads', '?')} threads"
    return plain(f"{where.strip()}; {', '.join(parts)}")


def _behind(analysis: Analysis) -> str:
    """What stands behind the columns."""
    rows = []
    for task, metrics in analysis.study.tasks.items():
        found = next((one.tasks[task] for one in analysis.data.systems if task in one.tasks), None)
        if found is not None:
            texts = len(set(found.clusters))
            rows.append([task, ", ".join(metrics), f"{len(found.clusters)} ({texts} texts)",
                         Markdown(f"`{found.protocol_hash[:8]}`"), Markdown(f"`{found.data_hash[:8]}`")])  # fmt: skip
    headings = ["task", "metrics", "n", "protocol", "test set"]
    return "### What stands behind the columns\n\n" + TextTable(headings, rows, numeric_from=9).markdown()

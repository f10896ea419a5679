"""The tables and sentences of a study.

A study as a folder that can be published, and made again from itself.

    index.md           conditions, sentences, claims, tables
    scores.csv, differences.csv, seeds.csv, cost.csv    every number in full precision
    study.json         the recipe, the measured time budget, failures, and all numbers for programs
    scores/<budget>/<method>-seed<N>.json.gz            what it is computed from; no answers

The same scores give the same bytes.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rba_bench.errors import UserError
from rba_bench.files import write_atomic
from rba_bench.leaderboard.pages import MICRO
from rba_bench.leaderboard.tables import NOTHING, Markdown, TextTable, csv_text, rounded
from rba_bench.metrics.bootstrap import RESAMPLES, SEED
from rba_bench.study import scores
from rba_bench.study.analysis import Analysis, Estimate, Row, StudyData
from rba_bench.study.folder import REFERENCE, Cell, StudyFolder
from rba_bench.study.study_recipe import BUDGETS, StudyRecipe, overrides
from rba_bench.study.time_budget import TimePlan
from rba_bench.untrusted import json_safe, plain, read_untrusted_json

BUDGET_NAMES = {"steps": "equal steps", "time": "equal time"}


def score_tables(analysis: Analysis) -> list[TextTable]:
    """Per budget and decoding: scores, then differences from the baseline."""
    found = []
    for budget in analysis.data.budgets:
        for protocol in analysis.protocols:
            rows = [*analysis.table(REFERENCE, protocol), *analysis.table(budget, protocol)]
            under = f"{BUDGET_NAMES[budget]}, {protocol} decoding"
            found.append(_table(rows, f"Scores, {under}", score_cell))
            rows = [row for row in rows if row.part != REFERENCE or budget == analysis.data.budgets[0]]
            if any(row.versus for row in rows):
                title = f"Difference from {analysis.study.baseline}, {under}, same items and seeds"
                found.append(_table(rows, title, versus_cell))
    return found


def _table(rows: Sequence[Row], title: str, cell: Callable[[Row], str]) -> TextTable:
    tasks = list(dict.fromkeys(row.task for row in rows))
    methods = list(dict.fromkeys((row.part, row.method) for row in rows))
    found = {(row.part, row.method, row.task): row for row in rows}
    headings = ["method", *(_heading(next(row for row in rows if row.task == task)) for task in tasks)]
    cells = [
        [
            method + (" (untrained)" if part == REFERENCE else ""),
            *(
                cell(found[part, method, task]) if (part, method, task) in found else NOTHING
                for task in tasks
            ),
        ]
        for part, method in methods
    ]
    return TextTable(headings, cells, title)


def _heading(row: Row) -> str:
    name = row.task.removeprefix("micro_study_").removesuffix("_sampled")
    return f"{name} {row.metric}" + (" %" if row.scale == 1 else "")


def score_cell(row: Row) -> str:
    """`mean [low, high] ±spread`."""
    return _estimate(row.score, 100.0 / row.scale, signed=False)


def versus_cell(row: Row) -> str:
    """The difference, with `*` where the interval leaves out zero."""
    if row.versus is None:
        return "(baseline)"
    return _estimate(row.versus, 100.0 / row.scale, signed=True) + (" *" if row.versus.mark else "")


def _estimate(found: Estimate, factor: float, signed: bool) -> str:
    form = "+.1f" if signed else ".1f"
    value, low, high = (format(number * factor, form) for number in (found.value, found.low, found.high))
    spread = "" if math.isnan(found.spread) else f" ±{found.spread * factor:.1f}"
    return f"{value} [{low}, {high}]{spread}"


def cost_rows(data: StudyData) -> list[dict[str, Any]]:
    """What the training of every method cost, mean over its seeds."""
    rows = []
    for budget in data.budgets:
        for method, runs in data.of(budget).items():
            costs = [run.cost for run in runs]
            steps, wall = _mean(costs, "steps"), _mean(costs, "wall_time_s")
            peak = _mean(costs, "peak_memory_bytes")
            rows.append(
                {
                    "budget": budget,
                    "method": method,
                    "seeds": len(runs),
                    "steps": steps,
                    "wall_time_s": wall,
                    "seconds_per_step": None if not steps or wall is None else wall / steps,
                    "encoding_s": _mean(costs, "encoding_s"),
                    "answers_sampled": _mean(costs, "answers_sampled"),
                    "answers_judged": _mean(costs, "answers_judged"),
                    "peak_memory_mb": None if peak is None else peak / 2**20,
                }
            )
    return rows


def _mean(costs: Sequence[dict[str, Any]], key: str) -> float | None:
    found = [float(cost[key]) for cost in costs if cost.get(key) is not None]
    return sum(found) / len(found) if found else None


def cost_table(data: StudyData) -> TextTable:
    """The cost of training."""
    headings = ["budget", "method", "seeds", "steps", "wall time s", "s a step", "encoding s", "answers sampled",
                "answers judged", "peak memory MB"]  # fmt: skip
    forms = {"wall_time_s": ".0f", "seconds_per_step": ".3f"}
    cells = [
        [
            BUDGET_NAMES[row["budget"]],
            row["method"],
            *(_shown(value, forms.get(key, ".0f")) for key, value in list(row.items())[2:]),
        ]
        for row in cost_rows(data)
    ]
    return TextTable(headings, cells, "Cost of training, mean over seeds", numeric_from=2)


def _shown(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def claim_table(analysis: Analysis) -> TextTable | None:
    """The claims and what became of them."""
    headings = ["claim", "budget", "task", "difference", "verdict"]
    cells = [
        [v.text, BUDGET_NAMES[v.budget], f"{v.row.task} {v.row.metric}", versus_cell(v.row), v.word]
        for v in analysis.verdicts
    ]
    return TextTable(headings, cells, "Claims", numeric_from=9) if cells else None


def sentences(analysis: Analysis) -> list[str]:
    """What stands out, in words made from the numbers: how many marks, where a claimed method loses, who is best."""
    compared = analysis.compared
    marked = [row for row in compared if row.better]
    better, by_chance = sum(row.better > 0 for row in marked), round(0.05 * len(compared), 1)
    found = [
        f"{len(compared)} differences from `{analysis.study.baseline}` are shown; {len(marked)} of them have intervals "
        f"clear of zero ({better} better, {len(marked) - better} worse), "
        f"and about {by_chance} would by chance alone if no method differed."
    ]
    for method in dict.fromkeys(claim.method for claim in analysis.study.claims):
        found += _own(method, [row for row in compared if row.method == method], analysis.study.baseline)
    return found + _best(analysis)


def _own(method: str, rows: Sequence[Row], baseline: str) -> list[str]:
    if not rows:
        return []
    won, lost = ([row for row in rows if row.better == sign] for sign in (1, -1))
    below = [row for row in rows if row.gain < 0 and not row.better]
    parts = [
        f"`{plain(method)}` against `{baseline}`, {len(rows)} comparisons: better on {_named(won)}; "
        f"worse on {_named(lost)}; "
        f"unresolved on {len(rows) - len(won) - len(lost)}, of which {len(below)} lie below zero"
    ]
    return [parts[0] + (f" ({_named(below)})." if below else ".")]


def _named(rows: Sequence[Row]) -> str:
    if not rows:
        return "none"
    return ", ".join(
        f"{plain(row.task)} at {BUDGET_NAMES[row.part]} {versus_cell(row).removesuffix(' *')}" for row in rows
    )


def _best(analysis: Analysis) -> list[str]:
    """The highest point estimate of every task, and whether it is told from the baseline."""
    found = []
    for budget in analysis.data.budgets:
        leaders = []
        for task in analysis.study.tasks:
            rows = [row for row in analysis.rows if row.main and (row.part, row.task) == (budget, task)]
            if rows:
                best = max(
                    rows, key=lambda row: row.score.value if row.higher_is_better else -row.score.value
                )
                leaders.append(f"{plain(task)}: `{plain(best.method)}`" + (" *" if best.better else ""))
        found.append(
            f"Highest mean at {BUDGET_NAMES[budget]} (`*`: clear of `{analysis.study.baseline}`): {', '.join(leaders)}."
        )
    return found


def flat_scores(analysis: Analysis) -> list[dict[str, Any]]:
    """Every score in full precision."""
    return [{**_which(row), "seeds": len(row.seeds), **_numbers(row.score)} for row in analysis.rows]


def flat_differences(analysis: Analysis) -> list[dict[str, Any]]:
    """Every difference from the baseline in full precision."""
    return [
        {
            **_which(row),
            "baseline": analysis.study.baseline,
            "seeds": len(row.versus_seeds),
            **_numbers(row.versus),
            "better": row.better,
        }
        for row in analysis.rows
        if row.versus is not None
    ]


def flat_seeds(analysis: Analysis) -> list[dict[str, Any]]:
    """The score of every single run."""
    return [
        {**_which(row), "seed": seed, "value": value}
        for row in analysis.rows
        for seed, value in zip(row.seeds, row.score.by_seed, strict=True)
    ]


def _which(row: Row) -> dict[str, Any]:
    return {
        "budget": row.part,
        "method": row.method,
        "task": row.task,
        "decoding": row.protocol,
        "metric": row.metric,
        "n": row.n,
        "left_out": row.n_left_out,
    }


def _numbers(found: Estimate) -> dict[str, Any]:
    spread = None if math.isnan(found.spread) else found.spread
    return {"value": found.value, "low": found.low, "high": found.high, "spread_over_seeds": spread}


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
        facts = read_untrusted_json(folder / FACTS)
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
        "scores.csv": flat_scores(analysis),
        "differences.csv": flat_differences(analysis),
        "seeds.csv": flat_seeds(analysis),
        "cost.csv": cost_rows(data),
    }
    for name, rows in csvs.items():
        if rows:
            write_atomic(folder / name, csv_text(rows))
    write_atomic(folder / FACTS, json_safe(json.dumps(content, indent=1, ensure_ascii=False)) + "\n")
    write_atomic(folder / INDEX, _index(analysis))
    claims = claim_table(analysis)
    tables = (*score_tables(analysis), cost_table(data), *([claims] if claims else []))
    return Report(folder, content, tables, tuple(sentences(analysis)))


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
        "differences": flat_differences(analysis),
        "scores": flat_scores(analysis),
        "cost": cost_rows(data),
    }


def _without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without folders of this machine, for publishing."""
    from rba_bench.evaluation.plan import relative_spec

    return {
        key: relative_spec(value) if key in ("base", "alignment_set") and value else value
        for key, value in recipe.items()
    }


def _index(analysis: Analysis) -> str:
    data = analysis.data
    blocks = ["# Study, micro track", MICRO, _conditions(data)]
    blocks += ["\n".join(f"- {line}" for line in _failed(data))] if data.failures else []
    claims = claim_table(analysis)
    blocks += ["## What came out", "\n".join(f"- {line}" for line in sentences(analysis))]
    blocks += ["### The paper's claims", claims.markdown()] if claims else []
    blocks += ["## Tables", _legend(data)]
    for table in [*score_tables(analysis), cost_table(data)]:
        blocks += [f"### {table.title}", table.markdown()]
    blocks += [_behind(analysis)]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def _legend(data: StudyData) -> str:
    seeds = max(len(runs) for budget in data.budgets for runs in data.of(budget).values())
    return LEGEND.format(resamples=f"{RESAMPLES:,}", seeds=seeds, seed=SEED)


def _failed(data: StudyData) -> list[str]:
    return [
        f"Failed: {plain(one['method'])}, seed {plain(one['seed'])}, {BUDGET_NAMES[one['budget']]}: "
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

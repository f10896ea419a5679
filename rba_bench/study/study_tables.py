"""Tables of a study: scores and differences per budget and decoding, claims, cost, and the rows of the CSV files."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rba_bench.leaderboard.columns import metric_heading
from rba_bench.leaderboard.tables import ALL_TEXT, NOTHING, TextTable, interval_text, matrix_table
from rba_bench.study.analysis import Analysis, StudyData, StudyRow
from rba_bench.study.folder import REFERENCE
from rba_bench.study.seed_estimates import SeedEstimate
from rba_bench.study.study_answer import BUDGET_NAMES, task_name

COST_COLUMNS = {  # field of `cost_rows`: heading and format
    "seeds": ("seeds", ".0f"),
    "steps": ("steps", ".0f"),
    "wall_time_s": ("wall time s", ".0f"),
    "seconds_per_step": ("s per step", ".3f"),
    "encoding_s": ("encoding s", ".0f"),
    "answers_sampled": ("answers sampled", ".0f"),
    "answers_judged": ("answers judged", ".0f"),
    "peak_memory_mb": ("peak memory MB", ".0f"),
}


def score_tables(analysis: Analysis) -> list[TextTable]:
    """Per budget and decoding: scores, then differences from the baseline."""
    tables = []
    for budget in analysis.data.budgets:
        for protocol in analysis.protocols:
            shown = [row for row in analysis.rows if row.main and row.protocol == protocol]
            rows = [row for part in (REFERENCE, budget) for row in shown if row.part == part]
            setting = f"{BUDGET_NAMES[budget]}, {protocol} decoding"
            tables.append(_table_of_tasks(rows, f"Scores, {setting}", estimate_cell))
            if budget != analysis.data.budgets[0]:  # references are compared at the first budget
                rows = [row for row in rows if row.part != REFERENCE]
            if any(row.versus for row in rows):
                title = f"Difference from {analysis.study.baseline}, {setting}, same items and seeds"
                tables.append(_table_of_tasks(rows, title, difference_cell))
            rows = [row for part in (REFERENCE, budget) for row in shown if row.part == part and row.share]
            if rows:
                title = f"Share of the score of {analysis.study.ceiling} in percent, {setting}, same items"
                tables.append(_table_of_tasks(rows, title, share_cell))
    return tables


def _table_of_tasks(rows: Sequence[StudyRow], title: str, cell: Callable[[StudyRow], str]) -> TextTable:
    methods: dict[tuple[str, str], str] = {}
    tasks: dict[str, str] = {}
    for row in rows:
        methods[row.part, row.method] = row.method + (" (untrained)" if row.part == REFERENCE else "")
        name = task_name(row).removesuffix("_sampled")  # the title tells the decoding
        tasks.setdefault(row.task, f"{name} {metric_heading(row.metric, row.scale, row.higher_is_better)}")
    cells = {((row.part, row.method), row.task): cell(row) for row in rows}
    return matrix_table(title, "method", methods, tasks, cells)


def estimate_cell(row: StudyRow) -> str:
    """`mean [low, high] ±spread`."""
    return _estimate_text(row.score, row.scale, signed=False)


def difference_cell(row: StudyRow) -> str:
    """The difference, with `*` where the interval excludes zero."""
    if row.versus is None:
        return "(baseline)"
    return _estimate_text(row.versus, row.scale, signed=True) + (" *" if row.versus.mark else "")


def share_cell(row: StudyRow) -> str:
    """The share of the ceiling's score in percent."""
    return NOTHING if row.share is None else _estimate_text(row.share, 1.0, signed=False)


def _estimate_text(estimate: SeedEstimate, scale: float, signed: bool) -> str:
    ends = (estimate.value, estimate.low, estimate.high)
    spread = "" if math.isnan(estimate.spread) else f" ±{estimate.spread * 100.0 / scale:.1f}"
    return interval_text(ends, 100.0 / scale, signed=signed) + spread


def cost_rows(data: StudyData) -> list[dict[str, Any]]:
    """What the training of every method cost, mean over its seeds."""
    rows = []
    for budget in data.budgets:
        for method, runs in data.runs(budget).items():
            costs = [run.cost for run in runs]

            def mean(key: str, costs: Sequence[Mapping[str, Any]] = costs) -> float | None:
                values = [float(cost[key]) for cost in costs if cost.get(key) is not None]
                return sum(values) / len(values) if values else None

            steps, wall_time, peak = mean("steps"), mean("wall_time_s"), mean("peak_memory_bytes")
            rows.append(
                {
                    "budget": budget,
                    "method": method,
                    "seeds": len(runs),
                    "steps": steps,
                    "wall_time_s": wall_time,
                    "seconds_per_step": None if not steps or wall_time is None else wall_time / steps,
                    "encoding_s": mean("encoding_s"),
                    "answers_sampled": mean("answers_sampled"),
                    "answers_judged": mean("answers_judged"),
                    "peak_memory_mb": None if peak is None else peak / 2**20,
                }
            )
    return rows


def cost_table(data: StudyData) -> TextTable:
    """The cost of training."""
    cells = []
    for row in cost_rows(data):
        numbers = ((row[key], form) for key, (_, form) in COST_COLUMNS.items())
        texts = (NOTHING if number is None else format(number, form) for number, form in numbers)
        cells.append([BUDGET_NAMES[row["budget"]], row["method"], *texts])
    headings = ["budget", "method", *(heading for heading, _ in COST_COLUMNS.values())]
    return TextTable(headings, cells, "Cost of training, mean over seeds", numeric_from=2)


def claim_table(analysis: Analysis) -> TextTable | None:
    """The claims and what became of them, None if the study has none."""
    headings = ["claim", "budget", "task", "difference", "paired test", "claim is"]
    cells = [
        [
            v.text,
            BUDGET_NAMES[v.budget],
            f"{v.row.task} {v.row.metric}",
            difference_cell(v.row),
            v.row.outcome,
            v.word,
        ]
        for v in analysis.verdicts
    ]
    return TextTable(headings, cells, "Claims", numeric_from=ALL_TEXT) if cells else None


def flat_scores(analysis: Analysis) -> list[dict[str, Any]]:
    """Every score in full precision."""
    rows = analysis.rows
    return [{**_row_fields(row), "seeds": len(row.seeds), **_estimate_fields(row.score)} for row in rows]


def flat_differences(analysis: Analysis) -> list[dict[str, Any]]:
    """Every difference from the baseline in full precision."""
    return [
        {
            **_row_fields(row),
            "baseline": analysis.study.baseline,
            "seeds": len(row.versus_seeds),
            **_estimate_fields(row.versus),
            "better": row.better,
        }
        for row in analysis.rows
        if row.versus is not None
    ]


def flat_shares(analysis: Analysis) -> list[dict[str, Any]]:
    """Every share of the ceiling's score in full precision."""
    return [
        {
            **_row_fields(row),
            "ceiling": analysis.study.ceiling,
            "seeds": len(row.seeds),
            **_estimate_fields(row.share),
        }
        for row in analysis.rows
        if row.share is not None
    ]


def flat_seeds(analysis: Analysis) -> list[dict[str, Any]]:
    """The score of every single run."""
    return [
        {**_row_fields(row), "seed": seed, "value": value}
        for row in analysis.rows
        for seed, value in zip(row.seeds, row.score.by_seed, strict=True)
    ]


def _row_fields(row: StudyRow) -> dict[str, Any]:
    return {
        "budget": row.part,
        "method": row.method,
        "task": row.task,
        "decoding": row.protocol,
        "metric": row.metric,
        "n": row.n,
        "left_out": row.n_left_out,
    }


def _estimate_fields(estimate: SeedEstimate) -> dict[str, Any]:
    spread = None if math.isnan(estimate.spread) else estimate.spread
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "spread_over_seeds": spread}

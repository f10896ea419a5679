"""The tables and sentences of a study."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from rba_bench.leaderboard.tables import NOTHING, TextTable
from rba_bench.plain import plain
from rba_bench.study.analysis import Analysis, Row, StudyData
from rba_bench.study.folder import REFERENCE
from rba_bench.study.statistics import Estimate

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

"""Pictures of a study's page: differences, score against the cost of training, training curves."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from markupsafe import Markup

from rba_bench.leaderboard.columns import metric_heading
from rba_bench.leaderboard.site import svg
from rba_bench.leaderboard.site.axes import Axis, linear_axis, tick_text
from rba_bench.leaderboard.site.forest import Differences, Forest, draw_forest
from rba_bench.leaderboard.site.scatter import Point, place_labels, point_group
from rba_bench.leaderboard.site.tradeoffs import LegendEntry, Panel
from rba_bench.leaderboard.tables import interval_text, rounded
from rba_bench.study.analysis import Analysis, StudyRow
from rba_bench.study.curves import Curve
from rba_bench.study.folder import REFERENCE
from rba_bench.study.study_answer import BUDGET_NAMES, task_name
from rba_bench.study.study_recipe import BASE
from rba_bench.study.study_tables import cost_rows

DIGITS = 1  # behind the point, as in the tables
SHAPES = {"steps": "model", "time": "cascade"}  # marks of the budgets: a circle, a triangle
FAR = 3.0  # a point is left out that makes the range of all others so many times as wide
SEEDS = 5  # ways in which lines differ; further seeds repeat them
SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)  # of a curve, in the table of its numbers
# Title and unit of a curve; whether all methods measure it alike, so that their panels get one axis
CURVE_FIGURES: dict[str, tuple[str, bool]] = {
    "loss": ("loss", False),
    "accuracy": ("reward accuracy: share of pairs whose chosen answer the model prefers", True),
    "validation_loss": ("loss of held-out answers, nats per answer", True),
    "validation_reward": ("reward of answers to held-out items", True),
    "margin": ("margin of the pairs, nats", False),
    "reward": ("mean reward of the samples", True),
    "sft": ("SFT term of the loss", False),
    "preference": ("preference term of the loss", False),
    "divergence": ("divergence from the teacher", False),
    "kl": ("KL divergence from the reference", False),
    "length": ("length of the samples, tokens", True),
    "truncated": ("share of samples that were cut off", True),
    "tokens": ("tokens in the loss of a step", True),
    "grad_norm": ("norm of the gradient", False),
    "learning_rate": ("learning rate", True),
}
LINE = Markup(  # of a legend
    '<svg class="mark" width="26" height="10" aria-hidden="true" focusable="false"><g class="{}"><polyline class="{}" '
    'points="1,5 25,5"/></g></svg>'
)
FIRST = "loss"  # what the page draws without a script


def difference_forests(analysis: Analysis) -> list[tuple[str, Forest]]:
    """A forest plot per budget and decoding, of the metrics that the tables show."""
    forests = []
    for budget in analysis.data.budgets:
        for protocol in analysis.protocols:
            rows = [row for row in analysis.compared if (row.part, row.protocol) == (budget, protocol)]
            forest = draw_forest([_block(task, rows) for task in dict.fromkeys(row.task for row in rows)])
            if forest is not None:
                forests.append((f"{BUDGET_NAMES[budget]}, {protocol} decoding".capitalize(), forest))
    return forests


def _block(task: str, rows: Sequence[StudyRow]) -> Differences:
    found = [row for row in rows if row.task == task]
    first = found[0]
    differences = []
    for row in found:
        if row.versus is not None:
            points = (row.versus.value, row.versus.low, row.versus.high)
            differences.append((row.method, [*_points(row, points), row.better]))
    metric = metric_heading(first.metric, first.scale, True)
    return Differences(task_name(first), metric, DIGITS, not first.higher_is_better, differences)


def _points(row: StudyRow, values: Iterable[float]) -> list[float]:
    """Numbers on a scale of 100 as they are shown."""
    return [round(rounded(100 / row.scale * value), DIGITS) + 0.0 for value in values]


def cost_panels(analysis: Analysis) -> tuple[list[Panel], list[LegendEntry]]:
    """Score against the time of training, a panel per task; points carry the number of their method."""
    seconds = {
        (row["budget"], row["method"]): row["wall_time_s"]
        for row in cost_rows(analysis.data)
        if row["wall_time_s"]
    }
    numbers = {method: str(place + 1) for place, method in enumerate(analysis.study.methods)}
    panels, named = [], set()
    for task in analysis.study.tasks:
        rows = [row for row in analysis.rows if row.main and row.task == task]
        drawn, beyond = _near([row for row in rows if (row.part, row.method) in seconds])
        if len(drawn) < 2:
            continue
        named |= {row.method for row in drawn}
        points = [
            _cost_point(row, numbers[row.method], seconds[row.part, row.method], drawn) for row in drawn
        ]
        base = [
            _points(row, [row.score.value])[0] for row in rows if (row.part, row.method) == (REFERENCE, BASE)
        ]
        title = f"{task_name(drawn[0])}, {metric_heading(drawn[0].metric, drawn[0].scale, True)}"
        title += "" if drawn[0].higher_is_better else " (lower is better, so the axis is reversed)"
        if beyond:
            left_out = (f"{row.method} {_points(row, [row.score.value])[0]:g}" for row in beyond)
            title += f"; beyond the picture: {', '.join(left_out)}"
        panels.append(Panel(title, _scatter(points, base, title, not drawn[0].higher_is_better)))
    legend = [
        LegendEntry(number, Markup(""), method, "") for method, number in numbers.items() if method in named
    ]
    return panels, legend


def _scatter(points: Sequence[Point], levels: Sequence[float], title: str, reverse: bool) -> Markup:
    """Scores with their intervals by training time; `levels` are drawn across."""
    y_values = [*levels, *(end for point in points for end in (point.low, point.high))]
    plot = svg.Plot(
        440, 270, 40, 14, 10, 34,
        linear_axis([point.x for point in points], count=5),
        linear_axis(y_values, reverse=reverse),
    )  # fmt: skip
    pieces = plot.frame("training time of a run, s", "", [tick_text(tick) for tick in plot.x_axis.ticks])
    line = Markup('<line class="front" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    for level in levels:
        across = f"{plot.place(plot.x_axis.low, level)[1]:.1f}"
        pieces.append(line.format(plot.left, plot.width - plot.right, across, across))
    spots = [plot.place(point.x, point.y) for point in points]
    labels = place_labels(spots, plot)
    pieces += [
        point_group(plot, point, spot, label)
        for point, spot, label in zip(points, spots, labels, strict=True)
    ]
    description = "; ".join(point.title for point in points)
    return svg.figure(plot.width, plot.height, f"{title}: score against training time", description, pieces)


def budget_legend(analysis: Analysis) -> list[tuple[Markup, str]]:
    """The marks of the budgets, and the line of the base."""
    marks = [(svg.legend_mark(SHAPES[budget]), BUDGET_NAMES[budget]) for budget in analysis.data.budgets]
    if analysis.data.runs(REFERENCE).get(BASE):
        marks.append((LINE.format("", "front"), f"{BASE}, untrained"))
    return marks


def _near(rows: Sequence[StudyRow]) -> tuple[list[StudyRow], list[StudyRow]]:
    """Rows that one axis shows, and those that lie so far from them that it would show nothing else."""
    near, beyond = list(rows), []
    while len(near) > 2:
        middle = median(row.score.value for row in near)
        last = max(near, key=lambda row: abs(row.score.value - middle))
        others = [row.score.value for row in near if row is not last]
        width = max(others) - min(others)
        if not width or max(*others, last.score.value) - min(*others, last.score.value) <= FAR * width:
            break
        near.remove(last)
        beyond.append(last)
    return near, beyond


def _cost_point(row: StudyRow, number: str, seconds: float, drawn: Sequence[StudyRow]) -> Point:
    """A point whose interval ends at most one range of all scores beyond them, so that the scores can be told apart."""
    values = [each.score.value for each in drawn]
    reach = (max(values) - min(values)) or 1.0
    value, low, high = _points(row, (row.score.value, row.score.low, row.score.high))
    floor, ceiling = _points(row, (min(values) - reach / 2, max(values) + reach / 2))
    title = f"{row.method} at {BUDGET_NAMES[row.part]}: {interval_text((value, low, high))}, {seconds:.0f} s"
    return Point(
        number, title, SHAPES[row.part], rounded(seconds), value, max(low, floor), min(high, ceiling)
    )


@dataclass(frozen=True)
class CurvePanel:
    """The runs of one method.

    Attributes:
        method: The method.
        picture: Its curves.
        rows: Numbers: the seed, then the figure at `SHOWN`.
    """

    method: str
    picture: Markup
    rows: list[tuple[str, list[str]]]


def curve_panels(curves: Sequence[Curve], methods: Iterable[str], budget: str) -> list[CurvePanel]:
    """The loss of the runs under one budget by training step, a panel per method."""
    shown = [curve for curve in curves if curve.part == budget]
    steps = [step for curve in shown for step, _ in _values(curve, "step")]
    if not steps:
        return []
    x_axis = linear_axis([0.0, *steps], count=3)
    seeds = sorted({curve.seed for curve in shown})
    panels = []
    for method in methods:
        lines = {
            curve.seed: values
            for curve in shown
            if curve.method == method and (values := _values(curve, "step"))
        }
        if lines:
            picture = _curve_picture(
                method, {seeds.index(seed): line for seed, line in lines.items()}, seeds, x_axis
            )
            rows = [(f"{method}, seed {seed}", _some(line)) for seed, line in lines.items()]
            panels.append(CurvePanel(method, picture, rows))
    return panels


def _values(curve: Curve, against: str) -> list[tuple[float, float]]:
    """Places and values of the first figure, where both are known."""
    pairs = ((point[against], point[FIRST]) for point in curve.points)
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _some(line: Sequence[tuple[float, float]]) -> list[str]:
    """The values at some places of a line."""
    return [f"{line[round(share * (len(line) - 1))][1]:.4g}" for share in SHOWN]


def _curve_picture(
    method: str, lines: dict[int, list[tuple[float, float]]], seeds: Sequence[int], x_axis: Axis
) -> Markup:
    """One panel; `study.js` draws the others like it."""
    y_axis = linear_axis([y for line in lines.values() for _, y in line], count=3)
    plot = svg.Plot(260, 150, 40, 12, 8, 32, x_axis, y_axis)
    pieces = plot.frame("training step", "", [tick_text(tick) for tick in x_axis.ticks])
    for number, line in lines.items():
        corners = " ".join("{:.1f},{:.1f}".format(*plot.place(x, y)) for x, y in line)
        pieces.append(
            Markup('<g class="seed-{}"><title>{}</title><polyline class="curve" points="{}"/></g>').format(
                number % SEEDS, f"seed {seeds[number]}", corners
            )
        )
    description = "; ".join(
        f"seed {seeds[number]}: {line[0][1]:.4g} at step {line[0][0]:g}, {line[-1][1]:.4g} at step {line[-1][0]:g}"
        for number, line in lines.items()
    )
    return svg.figure(plot.width, plot.height, f"{method}: loss by training step", description, pieces)


def seed_legend(curves: Iterable[Curve]) -> list[tuple[Markup, str]]:
    """The lines of the seeds."""
    seeds = sorted({curve.seed for curve in curves})
    return [
        (LINE.format(f"seed-{place % SEEDS}", "curve"), f"seed {seed}") for place, seed in enumerate(seeds)
    ]


def curve_data(curves: Sequence[Curve], methods: Sequence[str]) -> dict[str, Any]:
    """What `study.js` draws from: figures that some run has, and the points of every run."""
    seeds = sorted({curve.seed for curve in curves})
    names = [
        name
        for name in CURVE_FIGURES
        if any(point[name] is not None for curve in curves for point in curve.points)
    ]
    return {
        "figures": [
            {"name": name, "title": title, "shared": shared}
            for name in names
            for title, shared in [CURVE_FIGURES[name]]
        ],
        "budgets": [
            [budget, text] for budget, text in BUDGET_NAMES.items() if any(c.part == budget for c in curves)
        ],
        "methods": [method for method in methods if any(curve.method == method for curve in curves)],
        "seeds": seeds,
        "runs": [
            {
                "budget": curve.part,
                "method": curve.method,
                "seed": curve.seed,
                **{
                    name: [point[name] for point in curve.points]
                    for name in ("step", "seconds", *names)
                    if any(point[name] is not None for point in curve.points)
                },
            }
            for curve in curves
        ],
    }

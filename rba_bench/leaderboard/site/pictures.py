"""The pictures of the front page beside its forest plots: speed, robustness, training.

Each names the table that holds its numbers.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from rba_bench.leaderboard.board_groups import BoardRow
from rba_bench.leaderboard.loaded_runs import MODEL
from rba_bench.leaderboard.site import svg
from rba_bench.leaderboard.site.axes import Axis, linear_axis, tick_text
from rba_bench.leaderboard.site.facts import TYPES, Model, Setting, speed_of
from rba_bench.leaderboard.tables import interval_text
from rba_bench.untrusted import plain

PANELS, POINTS = 12, 800  # settings whose speeds are drawn, and their points together
LABELLED = 25  # points of a panel up to which each has its number
LINES = 8  # of a chart
MOST_POINTS = 100  # of a curve; a record of rba-bench has at most 33


@dataclass(frozen=True)
class Panel:
    """A picture with its heading."""

    title: str
    picture: Markup


@dataclass(frozen=True)
class LegendEntry:
    """The number of a model on the panels, and what it stands for."""

    number: str
    mark: Markup
    label: str
    type: str


def speed_panels(
    settings: Sequence[Setting], models: Sequence[Model]
) -> tuple[list[Panel], list[LegendEntry]]:
    """Score against speed, a panel per setting; points carry the number of their model, which the legend names."""
    numbers = {model.label: str(place + 1) for place, model in enumerate(models)}
    named: set[str] = set()
    panels: list[Panel] = []
    for setting in settings[: min(PANELS, max(1, POINTS // len(models)))]:
        rows = [(row, speed) for row in setting.group.rows if (speed := speed_of(row.run.record))]
        if len(rows) < 2:
            continue
        leading = _leading(setting, rows)
        points = []
        for row, speed in rows:
            value, low, high = setting.score(row)
            leads = row.label in leading
            number = numbers[row.label] if leads or row.kind != MODEL or len(rows) <= LABELLED else ""
            named |= {row.label} if number else set()
            title = (
                f"{row.label}: {interval_text((value, low, high), digits=setting.digits)} at RTFx {speed:g}"
            )
            points.append(svg.Point(number, title, row.kind, speed, value, low, high, leads))
        description = "; ".join(point.title for point in points[:LABELLED])
        picture = svg.scatter(
            points, "RTFx, seconds of audio per second", setting.metric, f"{setting.title}: score against speed",
            description, reverse=not setting.higher_is_better,
        )  # fmt: skip
        panels.append(Panel(f"{setting.title}, {_direction(setting)}", picture))
    legend = [
        LegendEntry(numbers[model.label], svg.legend_mark(model.kind), model.label, TYPES[model.kind])
        for model in models
        if model.label in named
    ]
    return panels, legend


def _direction(setting: Setting) -> str:
    return setting.metric + (
        "" if setting.higher_is_better else " (lower is better, so the axis is reversed)"
    )


def _leading(setting: Setting, rows: Sequence[tuple[BoardRow, float]]) -> set[str]:
    """Systems that take speech in of which none is both faster and better."""
    sign = 1 if setting.higher_is_better else -1
    systems = [
        (row.label, sign * setting.score(row)[0], speed)
        for row, speed in rows
        if row.kind in (MODEL, "cascade")
    ]
    return {
        label
        for label, score, speed in systems
        if not any(s >= score and v >= speed and (s, v) != (score, speed) for _, s, v in systems)
    }


def machines_of(settings: Sequence[Setting]) -> list[str]:
    """The machines that speeds were measured on."""
    names: dict[str, None] = {}
    for setting in settings:
        for run in setting.group.runs:
            hardware = run.record.hardware
            device = plain(hardware.get("device", "")) or "unknown device"
            chip = plain(hardware.get("cpu" if device == "cpu" else "name", ""))
            names[f"{device} ({chip})" if chip else device] = None
    return list(names)


def robustness_charts(settings: Sequence[Setting]) -> list[Panel]:
    """Scores of the settings that differ only in how the clips were changed, from unchanged to most changed."""
    families: dict[tuple[str, str], list[Setting]] = {}
    for setting in settings:
        families.setdefault((setting.group.task, setting.group.record.protocol), []).append(setting)
    return [chart for family in families.values() if (chart := _robustness_chart(family)) is not None]


def _robustness_chart(family: Sequence[Setting]) -> Panel | None:
    levels = sorted(family, key=lambda setting: _level(setting.group.perturbation))
    names = [setting.group.perturbation or "unchanged" for setting in levels]
    if len(levels) < 2 or len(set(names)) < len(names) or names == ["unchanged"]:
        return None
    values: dict[str, list[tuple[float, float, float, float]]] = {}
    for x, setting in enumerate(levels):
        for row in setting.group.rows:
            value, low, high = setting.score(row)
            values.setdefault(row.label, []).append((float(x), value, low, high))
    lines = [svg.Line(label, found) for label, found in values.items() if len(found) > 1][:LINES]
    if not lines:
        return None
    first = levels[0]
    axis = Axis(0.0, float(len(levels) - 1), tuple(float(x) for x in range(len(levels))))
    description = "; ".join(
        f"{line.label}: " + ", ".join(f"{names[int(x)]} {value:g}" for x, value, *_ in line.values)
        for line in lines
    )
    title = f"{first.group.task}: score by change of the clips"
    chart = svg.line_chart(
        lines, axis, names, "how every clip was changed", title, description, not first.higher_is_better
    )
    return Panel(f"{first.group.task}, {_direction(first)}", chart)


def _level(perturbation: str) -> tuple[bool, str, float]:
    """Place of a perturbation on its axis: none first; of one kind, from mild to strong."""
    number = re.search(r"-?\d+(\.\d+)?", perturbation)
    kind = re.sub(r"-?\d+(\.\d+)?", "", perturbation)
    amount = float(number[0]) if number else 0.0
    falls = kind.startswith(("noise", "clip"))  # decibels of speech above noise: less is stronger
    return bool(perturbation), kind, -amount if falls else amount


@dataclass(frozen=True)
class TrainingChart:
    """Curves of one metric of validation, with the numbers in rows of label, step and value."""

    title: str
    picture: Markup
    rows: list[tuple[str, str, str]]


# Figures of a training's own log that are drawn beside its validations, and what they are called.
CURVES = {"loss": "loss in training (of each method its own)", "accuracy": "reward accuracy in training"}


def training_charts(settings: Sequence[Setting]) -> list[TrainingChart]:
    """What the aligned models logged during training and scored on their validation sets, as their records tell."""
    by_figure: dict[str, dict[str, list[tuple[float, float, float, float]]]] = {}
    for setting in settings:
        for row in setting.group.rows:
            for figure, history in _histories(row.run.record.model.get("training")):
                if len(history) > 1:
                    by_figure.setdefault(figure, {})[row.label] = [(x, y, y, y) for x, y in history]
    charts = []
    for figure, curves in by_figure.items():
        lines = [svg.Line(label, values) for label, values in sorted(curves.items())][:LINES]
        axis = linear_axis([value[0] for line in lines for value in line.values])
        texts = [tick_text(tick) for tick in axis.ticks]
        title = f"{figure}, by training step"
        rows = [(line.label, f"{x:g}", f"{y:g}") for line in lines for x, y, *_ in line.values]
        description = "; ".join(f"{label} at step {step}: {value}" for label, step, value in rows[:40])
        charts.append(
            TrainingChart(
                title, svg.line_chart(lines, axis, texts, "training step", title, description), rows
            )
        )
    return charts


def _histories(training: Any) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Figures of a training with their points; a record is somebody else's, so any other form gives none."""
    if not isinstance(training, Mapping):
        return
    validations, curve = training.get("validations"), training.get("curve")
    if isinstance(validations, Mapping) and isinstance(validations.get("history"), list):
        metric = plain(validations.get("metric", ""))
        yield f"{metric} on the validation set", list(_numbers(validations["history"]))
    if isinstance(curve, Mapping) and isinstance(curve.get("step"), list):
        for figure, title in CURVES.items():
            if isinstance(values := curve.get(figure), list):
                pairs = zip(curve["step"][:MOST_POINTS], values[:MOST_POINTS], strict=False)
                yield title, list(_numbers([list(pair) for pair in pairs]))


def _numbers(history: Sequence[Any]) -> Iterator[tuple[float, float]]:
    for entry in history:
        if isinstance(entry, list) and len(entry) == 2 and all(_is_number(each) for each in entry):
            yield float(entry[0]), float(f"{entry[1]:.4g}")


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and abs(value) < 1e12
    )

"""Charts of lines on the front page: scores under changed clips, and validation scores during training.

A chart of many lines names a few of them and draws the others thin and grey.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from rba_bench.leaderboard.board_groups import BoardRow
from rba_bench.leaderboard.loaded_runs import MODEL
from rba_bench.leaderboard.site import svg
from rba_bench.leaderboard.site.axes import Axis, linear_axis, tick_text
from rba_bench.leaderboard.site.facts import Setting, in_order, judge_of, level_of
from rba_bench.leaderboard.site.tradeoffs import direction
from rba_bench.untrusted import plain

LINES = 8  # of a chart that have a colour and a name
THIN = 24  # of a chart that have neither
MOMENTS = 40  # of a training that are drawn
CHARTS = 6  # of each sort on a page
ROWS = 120  # numbers beside a chart
TOLD = 40  # values that a description tells

Values = list[tuple[float, float, float, float]]  # x, y, and the interval of y


@dataclass(frozen=True)
class Chart:
    """A chart of lines.

    Attributes:
        title: Its heading.
        picture: The lines.
        legend: Number, mark and name of each line that has a colour.
        thin: Lines without a name.
        left_out: Lines that are not drawn.
        rows: Numbers: name, place on the horizontal axis, value.
        unlisted: Numbers that are not among them.
    """

    title: str
    picture: Markup
    legend: list[tuple[str, Markup, str]]
    thin: int
    left_out: int
    rows: list[tuple[str, str, str]]
    unlisted: int


def _chart(
    curves: Mapping[str, Values],
    axis: Axis,
    texts: Sequence[str],
    names: tuple[str, str, str, str],
    reverse: bool = False,
) -> Chart:
    """A chart of curves, the most important first.

    Args:
        curves: By name.
        axis: The horizontal axis.
        texts: At its ticks.
        names: Heading, title, and what the axes show: the horizontal one, the vertical one.
        reverse: Whether less is better.
    """
    heading, title, x_name, y_name = names
    listed = list(curves.items())
    lines = [svg.Line(label, values, str(place)) for place, (label, values) in enumerate(listed[:LINES], 1)]
    others = [svg.Line(label, values) for label, values in listed[LINES : LINES + THIN]]

    named = dict(zip(axis.ticks, texts, strict=True))
    rows = [(label, named.get(x, f"{x:g}"), f"{y:g}") for label, values in listed for x, y, *_ in values]
    description = "; ".join(f"{label} at {x}: {y}" for label, x, y in rows[:TOLD])
    picture = svg.line_chart(lines, axis, texts, x_name, title, description, reverse, y_name, others)
    legend = [(line.mark, svg.line_mark(place), line.label) for place, line in enumerate(lines)]
    return Chart(
        heading,
        picture,
        legend,
        len(others),
        len(listed) - len(lines) - len(others),
        rows[:ROWS],
        max(0, len(rows) - ROWS),
    )


def robustness_charts(settings: Sequence[Setting]) -> list[Chart]:
    """Scores of the settings that differ only in how the clips were changed: a chart for each kind of change."""
    families: dict[tuple[str, ...], list[Setting]] = {}
    for setting in in_order(settings):
        group = setting.group
        key = (group.task, group.record.protocol, group.data_hash, judge_of(group))
        families.setdefault(key, []).append(setting)
    charts = []
    for family in families.values():
        unchanged = [setting for setting in family if not setting.group.perturbation]
        kinds: dict[str, list[Setting]] = {}
        for setting in family:
            if setting.group.perturbation:
                kinds.setdefault(level_of(setting.group.perturbation)[0], []).append(setting)
        charts += [_robustness_chart([*unchanged, *changed]) for changed in kinds.values()]
    return [chart for chart in charts if chart is not None][:CHARTS]


def _robustness_chart(family: Sequence[Setting]) -> Chart | None:
    levels = sorted(
        family, key=lambda setting: (bool(setting.group.perturbation), level_of(setting.group.perturbation))
    )
    names = [setting.group.perturbation or "unchanged" for setting in levels]
    if len(levels) < 2 or len(set(names)) < len(names):
        return None
    values: dict[str, Values] = {}
    for x, setting in enumerate(levels):
        for row in setting.group.rows:
            value, low, high = setting.score(row)
            values.setdefault(row.label, []).append((float(x), value, low, high))
    rows = {row.label: row for setting in reversed(levels) for row in setting.group.rows}
    order = sorted(
        (label for label, found in values.items() if len(found) > 1),
        key=lambda label: _importance(rows[label]),
    )
    if not order:
        return None
    first = levels[0]
    axis = Axis(0.0, float(len(levels) - 1), tuple(float(x) for x in range(len(levels))))
    changed = [setting.group.perturbation for setting in levels if setting.group.perturbation]
    family_name = f"{first.group.task}, {' to '.join(dict.fromkeys((changed[0], changed[-1])))}"
    title = f"{family_name}: score by change of the clips"
    return _chart(
        {label: values[label] for label in order}, axis, names,
        (f"{family_name}, {direction(first)}", title, "how every clip was changed", first.metric),
        not first.higher_is_better,
    )  # fmt: skip


def _importance(row: BoardRow) -> tuple[bool, bool]:
    """Which lines get a name first: baseline, references, then models by their score."""
    return not row.is_baseline, row.kind == MODEL


# Figures of a training's own log that are drawn beside its validations, and what they are called.
CURVES = {"loss": "loss in training (of each method its own)", "accuracy": "reward accuracy in training"}


def training_charts(settings: Sequence[Setting]) -> list[Chart]:
    """What the aligned models logged during training and scored on their validation sets, as their records tell."""
    by_figure: dict[str, dict[str, Values]] = {}
    for setting in settings:
        for row in sorted(setting.group.rows, key=lambda row: not row.is_baseline):
            for figure, history in _histories(row.run.record.model.get("training")):
                if len(history) > 1:
                    by_figure.setdefault(figure, {})[row.label] = [(x, y, y, y) for x, y in history]
    charts = []
    for figure, curves in list(by_figure.items())[:CHARTS]:
        axis = linear_axis([value[0] for values in curves.values() for value in values])
        texts = [tick_text(tick) for tick in axis.ticks]
        title = f"{figure}, by training step"
        charts.append(_chart(curves, axis, texts, (title, title, "training step", figure)))
    return charts


def _histories(training: Any) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Figures of a training with their points; a record is somebody else's, so any other form gives none."""
    if not isinstance(training, Mapping):
        return
    validations, curve = training.get("validations"), training.get("curve")
    if isinstance(validations, Mapping) and isinstance(validations.get("history"), list):
        metric = plain(validations.get("metric", ""))
        yield f"{metric} on the validation set", _thinned(list(_numbers(validations["history"])))
    if isinstance(curve, Mapping) and isinstance(curve.get("step"), list):
        for figure, title in CURVES.items():
            if isinstance(values := curve.get(figure), list):
                pairs = [list(pair) for pair in zip(curve["step"], values, strict=False)]
                yield title, _thinned(list(_numbers(pairs)))


def _thinned(history: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOMENTS` of the points, evenly, with the first and the last."""
    last = len(history) - 1
    places = (
        {round(place * last / (MOMENTS - 1)) for place in range(MOMENTS)}
        if last >= MOMENTS
        else range(last + 1)
    )
    return [history[place] for place in sorted(places)]


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

"""Score against speed and score against size: what a better score costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rba_bench.evaluation.records import RunRecord
from rba_bench.leaderboard.board_groups import BoardRow
from rba_bench.leaderboard.loaded_runs import MODEL
from rba_bench.leaderboard.site.axes import tick_text
from rba_bench.leaderboard.site.facts import TYPES, Model, Setting, parts_of, size_of, speed_of
from rba_bench.leaderboard.site.scatter import Axes, Point, scatter
from rba_bench.leaderboard.site.svg import legend_mark
from rba_bench.leaderboard.tables import interval_text
from rba_bench.untrusted import plain

PANELS, POINTS = 12, 800  # settings of which a picture is drawn, and the points of all pictures together
LABELLED = 25  # points of a panel up to which each has its number
CONSTANT = "constant"  # kind of the rows that have no speed or size worth a place


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
    size: str = ""


@dataclass(frozen=True)
class _Cost:
    """What a score is drawn against: its value in a record, its names, and whether less of it is better."""

    of: Callable[[RunRecord], float | None]
    axis: str
    word: str
    text: Callable[[float], str]
    less: bool


def size_text(parameters: float) -> str:
    """A number of parameters to three digits: `173 M`, `7.04 B`."""
    for unit, amount in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if parameters >= amount * 0.9995:
            return f"{parameters / amount:.3g} {unit}"
    return f"{parameters:.3g}"


SPEED = _Cost(speed_of, "RTFx, seconds of audio per second", "RTFx", tick_text, False)
SIZE = _Cost(size_of, "parameters", "parameters", size_text, True)


@dataclass(frozen=True)
class Tradeoffs:
    """The pictures of both kinds, and the legend of their numbers."""

    speeds: list[Panel]
    sizes: list[Panel]
    legend: list[LegendEntry]


def tradeoffs_of(settings: Sequence[Setting], models: Sequence[Model]) -> Tradeoffs:
    """A panel per setting of each kind; points carry the number of their model, which the legend names."""
    numbers = {model.label: str(place + 1) for place, model in enumerate(models)}
    few = settings[: min(PANELS, max(1, POINTS // (2 * len(models))))]
    named: set[str] = set()
    speeds, sizes = (
        [panel for setting in few if (panel := _panel(setting, cost, numbers, named)) is not None]
        for cost in (SPEED, SIZE)
    )
    records = {row.label: row.run.record for setting in settings for row in setting.group.rows}
    legend = [
        LegendEntry(
            numbers[model.label],
            legend_mark(model.kind),
            model.label,
            TYPES[model.kind],
            _size(records[model.label]),
        )
        for model in models
        if model.label in named
    ]
    return Tradeoffs(speeds, sizes, legend)


def _panel(setting: Setting, cost: _Cost, numbers: dict[str, str], named: set[str]) -> Panel | None:
    """One picture; None where fewer than two systems have a place on it. Adds to the labels that are `named`."""
    rows = [
        (row, value)
        for row in setting.group.rows
        if row.kind != CONSTANT and (value := cost.of(row.run.record))
    ]
    if len(rows) < 2:
        return None
    leading = _leading(setting, rows, cost)
    points = []
    for row, value in rows:
        leads = row.label in leading
        shown = leads or row.kind != MODEL or len(rows) <= LABELLED
        title = f"{_score(setting, row)} at {cost.text(value)} {cost.word}"
        number = numbers[row.label] if shown else ""
        points.append(Point(number, title, row.kind, value, *_ends(setting, row), leads))
        named |= {row.label} if shown else set()
    levels = []
    for row in setting.group.rows:
        if row.kind == CONSTANT:
            levels.append(
                Point(numbers[row.label], _score(setting, row), CONSTANT, 0.0, *_ends(setting, row))
            )
            named.add(row.label)
    description = "; ".join(point.title for point in (*points[:LABELLED], *levels))
    axes = Axes(cost.axis, setting.metric, not setting.higher_is_better, cost.text, dodge=cost.less)
    title = f"{setting.title}: score against {'size' if cost.less else 'speed'}"
    return Panel(f"{setting.title}, {direction(setting)}", scatter(points, axes, title, description, levels))


def direction(setting: Setting) -> str:
    """The metric, and that its axis is turned round where lower is better."""
    return setting.metric + (
        "" if setting.higher_is_better else " (lower is better, so the axis is reversed)"
    )


def _score(setting: Setting, row: BoardRow) -> str:
    return f"{row.label}: {interval_text(_ends(setting, row), digits=setting.digits)}"


def _ends(setting: Setting, row: BoardRow) -> tuple[float, float, float]:
    value, low, high = setting.score(row)
    return value, low, high


def _leading(setting: Setting, rows: Sequence[tuple[BoardRow, float]], cost: _Cost) -> set[str]:
    """Systems that take speech in of which none is better in score and in cost."""
    sign, cost_sign = 1 if setting.higher_is_better else -1, -1 if cost.less else 1
    systems = [
        (row.label, sign * setting.score(row)[0], cost_sign * value)
        for row, value in rows
        if row.kind in (MODEL, "cascade")
    ]
    return {
        label
        for label, score, gain in systems
        if not any(s >= score and g >= gain and (s, g) != (score, gain) for _, s, g in systems)
    }


def _size(record: RunRecord) -> str:
    """Number of parameters, with that of the parts where the record tells it; "" where it does not say."""
    total = size_of(record)
    if total is None:
        return ""
    parts = " + ".join(f"{name} {size_text(amount)}" for name, amount in parts_of(record))
    return f"{size_text(total)} parameters" + (f" ({parts})" if parts else "")


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

"""Figures as inline SVG, drawn from numbers that are rounded already, so that every processor draws the same.

Marks and lines get classes, never colours, so that a figure follows light and dark; no element has a style attribute,
which the policy of the pages forbids. Texts are escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rba_bench.leaderboard.site.axes import Axis, linear_axis, log_axis, tick_text

LABEL = 18  # letters of a name beside a line
ROOM = 0.25  # of the width of an axis that a number needs beside zero


def interval_mark(axis: Axis, value: float, low: float, high: float, mark: int) -> Markup:
    """One line of a forest plot, as wide as its cell: grid, zero, interval and value.

    What lies beyond the axis is drawn at its end, with a mark.
    """
    pieces = [
        Markup('<line class="{}" x1="{}" x2="{}" y1="0" y2="100%"/>').format(
            "zero" if tick == 0 else "grid", place, place
        )
        for tick, place in ((tick, _percent(axis.share(tick))) for tick in axis.ticks)
    ]
    kind = {1: "better", -1: "worse"}.get(mark, "open")
    ends = sorted((axis.share(low), axis.share(high)))
    pieces.append(
        Markup('<line class="range {}" x1="{}" x2="{}" y1="50%" y2="50%"/>').format(
            kind, *map(_percent, ends)
        )
    )
    point = _percent(axis.share(value))
    if mark:
        pieces.append(Markup('<circle class="point {}" cx="{}" cy="50%" r="4"/>').format(kind, point))
    else:
        pieces.append(Markup('<circle class="point open" cx="{}" cy="50%" r="3.5"/>').format(point))
    beyond = (("-6", "\u2039", low < axis.low), ("100%", "\u203a", high > axis.high))
    pieces += [
        Markup('<text x="{}" y="75%" class="beyond">{}</text>').format(x, sign)
        for x, sign, is_so in beyond
        if is_so
    ]
    return _svg('<svg class="interval" aria-hidden="true" focusable="false">', pieces)


def interval_axis(axis: Axis) -> Markup:
    """The numbers above a column of intervals: zero, and the ends where there is room beside it."""
    pieces = []
    zero = axis.share(0.0)
    for tick in dict.fromkeys((axis.ticks[0], 0.0, axis.ticks[-1])):
        share = axis.share(tick)
        if tick and abs(share - zero) < ROOM:
            continue
        anchor = "start" if share < 0.03 else "end" if share > 0.97 else "middle"
        pieces.append(
            Markup('<text x="{}" y="12" text-anchor="{}">{}</text>').format(
                _percent(share), anchor, tick_text(tick)
            )
        )
    return _svg('<svg class="interval axis" aria-hidden="true" focusable="false">', pieces)


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot.

    Attributes:
        label: Short text beside it; "" for a small point without text and interval.
        title: What a pointer shows.
        shape: `model`, `ceiling`, `cascade` or `constant`.
        x: Its place.
        y: Its height.
        low: Lower end of the interval of `y`.
        high: Upper end.
        leads: Whether no other point is both better and faster.
    """

    label: str
    title: str
    shape: str
    x: float
    y: float
    low: float
    high: float
    leads: bool = False


def scatter(
    points: Sequence[Point], x_name: str, y_name: str, title: str, description: str, reverse: bool
) -> Markup:
    """Points with the intervals of their heights, and the line of those that lead."""
    width, height, left, right, top, bottom = 300, 200, 34, 20, 8, 32
    x_axis = log_axis([point.x for point in points])
    y_axis = linear_axis([end for point in points for end in (point.low, point.high)], reverse=reverse)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + x_axis.share(x) * (width - left - right),
            height - bottom - y_axis.share(y) * (height - top - bottom),
        )

    pieces = frame(x_axis, y_axis, (width, height, left, right, top, bottom), x_name)
    front = sorted((place(point.x, point.y) for point in points if point.leads), key=lambda each: each[0])
    if len(front) > 1:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in _steps(front))
        pieces.append(Markup('<polyline class="front" points="{}"/>').format(corners))
    spots = [place(point.x, point.y) for point in points]
    labels = place_labels(spots)
    for point, (x, y), label in zip(points, spots, labels, strict=True):
        if not point.label:  # one of hundreds
            pieces.append(point_mark(point.shape, x, y, small=True))
            continue
        ends = (f"{place(point.x, end)[1]:.1f}" for end in (point.low, point.high))
        bar = Markup('<line class="range {}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            point.shape, f"{x:.1f}", f"{x:.1f}", *ends
        )
        text = Markup('<text class="label" x="{}" y="{}">{}</text>').format(
            f"{label[0]:.1f}", f"{label[1] + 3.5:.1f}", point.label
        )
        mark = point_mark(point.shape, x, y)
        pieces.append(Markup("<g><title>{}</title>{}{}{}</g>").format(point.title, bar, mark, text))
    return figure(width, height, title, description, pieces)


@dataclass(frozen=True)
class Line:
    """A line of a chart: `values` holds x, y and, where it has one, the interval of y."""

    label: str
    values: Sequence[tuple[float, float, float, float]]


def line_chart(
    lines: Sequence[Line],
    x_axis: Axis,
    x_texts: Sequence[str],
    x_name: str,
    title: str,
    description: str,
    reverse: bool = False,
) -> Markup:
    """Lines with their names at the right end; each has a class of its own, `line-0`, `line-1` ..."""
    width, height, left, right, top, bottom = 420, 220, 40, 120, 8, 34
    y_axis = linear_axis(
        [end for line in lines for value in line.values for end in value[1:]], reverse=reverse
    )

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + x_axis.share(x) * (width - left - right),
            height - bottom - y_axis.share(y) * (height - top - bottom),
        )

    pieces = frame(x_axis, y_axis, (width, height, left, right, top, bottom), x_name, x_texts)
    ends = [place(*line.values[-1][:2]) for line in lines]
    heights = _spread([y for _, y in ends], 12.0, top + 4.0, height - bottom - 2.0)
    for number, (line, label_y) in enumerate(zip(lines, heights, strict=True)):
        name = f"line-{number % 8}"
        marks = [Markup("<title>{}</title>").format(line.label)]
        corners = " ".join("{:.1f},{:.1f}".format(*place(*value[:2])) for value in line.values)
        marks.append(Markup('<polyline class="curve" points="{}"/>').format(corners))
        for x, y, low, high in line.values:
            spot, bar = place(x, y), [place(x, end)[1] for end in (low, high)]
            marks.append(
                Markup('<circle cx="{}" cy="{}" r="2.5"/>').format(*(f"{each:.1f}" for each in spot))
            )
            if low != high:
                marks.append(
                    Markup('<line x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
                        f"{spot[0]:.1f}", *(f"{each:.1f}" for each in bar)
                    )
                )
        short = line.label if len(line.label) <= LABEL else line.label[: LABEL - 1] + "…"
        marks.append(
            Markup('<text class="label" x="{}" y="{}">{}</text>').format(
                f"{width - right + 8}", f"{label_y + 4:.1f}", short
            )
        )
        pieces.append(Markup('<g class="{}">{}</g>').format(name, Markup("").join(marks)))
    return figure(width, height, title, description, pieces)


def frame(
    x_axis: Axis,
    y_axis: Axis,
    sizes: tuple[int, int, int, int, int, int],
    x_name: str,
    x_texts: Sequence[str] = (),
) -> list[Markup]:
    """Grid, ticks and the name of the horizontal axis."""
    width, height, left, right, top, bottom = sizes
    pieces = []
    for tick in y_axis.ticks:
        y = height - bottom - y_axis.share(tick) * (height - top - bottom)
        pieces.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text x="{}" y="{}" text-anchor="end">{}</text>'
            ).format(left, width - right, f"{y:.1f}", f"{y:.1f}", left - 5, f"{y + 3.5:.1f}", tick_text(tick))
        )
    for place, tick in enumerate(x_axis.ticks):
        x = left + x_axis.share(tick) * (width - left - right)
        text = x_texts[place] if x_texts else tick_text(tick)
        pieces.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text x="{}" y="{}" text-anchor="middle">{}</text>'
            ).format(
                f"{x:.1f}",
                f"{x:.1f}",
                height - bottom,
                height - bottom + 4,
                f"{x:.1f}",
                height - bottom + 15,
                text,
            )
        )
    middle = (left + width - right) / 2
    pieces.append(
        Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            f"{middle:.1f}", height - 3, x_name
        )
    )
    return pieces


def point_mark(shape: str, x: float, y: float, small: bool = False) -> Markup:
    """The mark of a kind of row."""
    if small:
        return Markup('<circle class="{}" cx="{}" cy="{}" r="1.5"/>').format(shape, f"{x:.1f}", f"{y:.1f}")
    if shape == "ceiling":
        return Markup('<rect class="{}" x="{}" y="{}" width="7" height="7"/>').format(
            shape, f"{x - 3.5:.1f}", f"{y - 3.5:.1f}"
        )
    if shape == "cascade":
        corners = f"{x:.1f},{y - 4.5:.1f} {x - 4:.1f},{y + 3:.1f} {x + 4:.1f},{y + 3:.1f}"
        return Markup('<polygon class="{}" points="{}"/>').format(shape, corners)
    if shape == "constant":
        corners = f"{x:.1f},{y - 4.5:.1f} {x + 4.5:.1f},{y:.1f} {x:.1f},{y + 4.5:.1f} {x - 4.5:.1f},{y:.1f}"
        return Markup('<polygon class="{}" points="{}"/>').format(shape, corners)
    return Markup('<circle class="{}" cx="{}" cy="{}" r="3.5"/>').format(shape, f"{x:.1f}", f"{y:.1f}")


def legend_mark(shape: str) -> Markup:
    """The mark of a kind of row, for a legend."""
    return _svg(
        '<svg class="mark" width="12" height="12" aria-hidden="true" focusable="false">',
        [point_mark(shape, 6, 6)],
    )


def _steps(front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of the line behind which nothing leads: down at each point, then level to the next, faster one."""
    corners = [front[0]]
    for x, y in front[1:]:
        corners += [(corners[-1][0], y), (x, y)]
    return corners


def place_labels(spots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where the number of each point stands: the first free place around it, else at its right."""
    taken = list(spots)
    placed = []
    for x, y in spots:
        places = [
            (x + dx, y + dy)
            for dx, dy in ((6, 0), (-12, 0), (5, -9), (5, 9), (-11, -9), (-11, 9), (-3, -14), (-3, 14))
        ]
        free = [
            (a, b)
            for a, b in places
            if all(abs(a + 3 - u) > 7 or abs(b - v) > 8 for u, v in taken if (u, v) != (x, y))
        ]
        best = (free or places)[0]
        taken.append((best[0] + 3, best[1]))
        placed.append(best)
    return placed


def _spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights moved apart so that texts at them do not lie over each other, in the order given."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    moved = list(heights)
    for before, place in zip([None, *order], order, strict=False):
        floor = low if before is None else moved[before] + gap
        moved[place] = max(moved[place], floor)
    ceiling = high
    for place in reversed(order):
        moved[place] = min(moved[place], ceiling)
        ceiling = moved[place] - gap
    return moved


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _svg(start: str, pieces: Sequence[Markup]) -> Markup:
    return Markup(start) + Markup("").join(pieces) + Markup("</svg>")


def figure(width: int, height: int, title: str, description: str, pieces: Sequence[Markup]) -> Markup:
    """A figure with its name and what it shows in words."""
    head = Markup(
        '<svg class="figure" viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>'
    ).format(width, height, title, description)
    return head + Markup("").join(pieces) + Markup("</svg>")

"""Scatter plots: one value of each system against another, with the intervals of the heights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rba_bench.leaderboard.site.axes import linear_axis, log_axis, tick_text
from rba_bench.leaderboard.site.svg import Plot, figure, shape_mark

SIDE_BY_SIDE = 9.0  # units between points of equal x


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
        leads: Whether no other point is better in both.
    """

    label: str
    title: str
    shape: str
    x: float
    y: float
    low: float
    high: float
    leads: bool = False


@dataclass(frozen=True)
class Axes:
    """What stands at the axes of a scatter plot.

    Attributes:
        x_name: What lies to the right.
        y_name: What lies upwards.
        reverse: Whether less is better upwards.
        x_text: How a number of the horizontal axis is written.
        dodge: Whether points of equal x stand side by side.
    """

    x_name: str
    y_name: str
    reverse: bool = False
    x_text: Callable[[float], str] = tick_text
    dodge: bool = False


def scatter(
    points: Sequence[Point], axes: Axes, title: str, description: str, levels: Sequence[Point] = ()
) -> Markup:
    """Points with the intervals of their heights, the line of those that lead, and levels without an x of their own.

    Args:
        points: With positive x, which stands on a logarithmic axis.
        axes: What the axes say.
        title: Of the picture.
        description: The same in words.
        levels: Drawn as lines across the whole picture.
    """
    plot = Plot(
        300, 208, 46, 20, 8, 32,
        log_axis([point.x for point in points]),
        linear_axis([end for each in (*points, *levels) for end in (each.low, each.high)], reverse=axes.reverse),
    )  # fmt: skip
    texts = [axes.x_text(tick) for tick in plot.x_axis.ticks]
    pieces = plot.frame(axes.x_name, axes.y_name, texts)
    pieces += [_level(plot, each) for each in levels]
    spots = [plot.place(point.x, point.y) for point in points]
    spots = _side_by_side(points, spots, plot) if axes.dodge else spots
    front = sorted(spot for point, spot in zip(points, spots, strict=True) if point.leads)
    if len(front) > 1:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in _steps(front))
        pieces.append(Markup('<polyline class="front" points="{}"/>').format(corners))
    labelled = any(point.label for point in points)
    labels = (
        place_labels(spots, plot) if labelled else spots
    )  # of hundreds none has one, and places cost their square
    pieces += [
        point_group(plot, point, spot, label)
        for point, spot, label in zip(points, spots, labels, strict=True)
    ]
    return figure(plot.width, plot.height, title, description, pieces)


def point_group(plot: Plot, point: Point, spot: tuple[float, float], label: tuple[float, float]) -> Markup:
    """A point at `spot` with its interval, and its label where that stands; small where it has no label."""
    x, y = spot
    if not point.label:  # one of hundreds
        return shape_mark(point.shape, x, y, small=True)
    ends = (f"{plot.place(point.x, end)[1]:.1f}" for end in (point.low, point.high))
    bar = Markup('<line class="range {}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        point.shape, f"{x:.1f}", f"{x:.1f}", *ends
    )
    text = Markup('<text class="label" x="{}" y="{}">{}</text>').format(
        f"{label[0]:.1f}", f"{label[1] + 3.5:.1f}", point.label
    )
    return Markup("<g><title>{}</title>{}{}{}</g>").format(
        point.title, bar, shape_mark(point.shape, x, y), text
    )


def _level(plot: Plot, point: Point) -> Markup:
    """A line across the picture with its mark and label at the right end."""
    y = plot.place(plot.x_axis.high, point.y)[1]
    end = plot.width - plot.right
    line = Markup('<line class="level" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        plot.left, end, f"{y:.1f}", f"{y:.1f}"
    )
    text = Markup('<text class="label" x="{}" y="{}">{}</text>').format(
        end + 7, f"{y + 3.5:.1f}", point.label
    )
    return Markup("<g><title>{}</title>{}{}{}</g>").format(
        point.title, line, shape_mark(point.shape, end, y), text
    )


def _side_by_side(
    points: Sequence[Point], spots: Sequence[tuple[float, float]], plot: Plot
) -> list[tuple[float, float]]:
    """Spots of equal x moved apart, around it, in the order of the points."""
    moved = list(spots)
    by_x: dict[float, list[int]] = {}
    for place, point in enumerate(points):
        by_x.setdefault(point.x, []).append(place)
    for places in by_x.values():
        step = min(SIDE_BY_SIDE, 60.0 / len(places))
        for order, place in enumerate(places):
            x = spots[place][0] + (order - (len(places) - 1) / 2) * step
            moved[place] = (min(max(x, plot.left + 4.0), plot.width - plot.right - 4.0), spots[place][1])
    return moved


def _steps(front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Corners of the line behind which nothing leads: level to the next point, then up or down to it."""
    corners = [front[0]]
    for x, y in front[1:]:
        rises = y < corners[-1][1]
        corners += [(x, corners[-1][1]) if rises else (corners[-1][0], y), (x, y)]
    return corners


def place_labels(spots: Sequence[tuple[float, float]], plot: Plot) -> list[tuple[float, float]]:
    """Where the number of each point stands: the first free place around it, else at its right."""
    taken = list(spots)
    placed = []
    for x, y in spots:
        places = [
            (x + dx, y + dy)
            for dx, dy in ((6, 0), (-12, 0), (5, -9), (5, 9), (-11, -9), (-11, 9), (-3, -14), (-3, 14))
        ]
        others = [spot for spot in taken if spot != (x, y)]
        free = (
            (a, b)
            for a, b in places
            if plot.left < a < plot.width - 8
            and not any(abs(a + 3 - u) <= 7 and abs(b - v) <= 8 for u, v in others)
        )
        best = next(free, places[0])
        taken.append((best[0] + 3, best[1]))
        placed.append(best)
    return placed

"""Figures as inline SVG, drawn from numbers that are rounded already, so that every processor draws the same.

Marks and lines get classes, never colours, so that a figure follows light and dark; no element has a style attribute,
which the policy of the pages forbids. Texts are escaped.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rba_bench.leaderboard.site.axes import Axis, linear_axis, tick_text

LABEL = 18  # letters of a name beside a line
COLOURS = 8  # classes of lines
ROWS = 3  # of texts below an axis, at most
X_LETTERS = 20  # of a text below an axis
Y_LETTERS = 32  # of the name of a vertical axis
ROOM = 0.42  # of the width of an axis that a number needs beside zero


def interval_mark(axis: Axis, value: float, low: float, high: float, mark: int) -> Markup:
    """One line of a forest plot, as wide as its cell: grid, zero, interval and value; filled where `mark` is not 0.

    What lies beyond the axis is drawn at its end, with a mark.
    """
    return score_mark(axis, (value, low, high), {1: "better", -1: "worse"}.get(mark, "open"))


def score_mark(axis: Axis, ends: tuple[float, float, float], kind: str, level: float | None = None) -> Markup:
    """A value with its interval, as wide as its cell.

    Args:
        axis: Of the whole column.
        ends: Value, lower and upper end.
        kind: Class of the mark; `open` is not filled.
        level: Where a dashed line stands, for a value that all rows are read against.
    """
    value, low, high = ends
    pieces = [
        Markup('<line class="{}" x1="{}" x2="{}" y1="0" y2="100%"/>').format(
            "zero" if tick == 0 else "grid", place, place
        )
        for tick, place in ((tick, _percent(axis.share(tick))) for tick in axis.ticks)
    ]
    if level is not None:
        place = _percent(axis.share(level))
        pieces.append(Markup('<line class="level" x1="{}" x2="{}" y1="0" y2="100%"/>').format(place, place))
    places = sorted((axis.share(low), axis.share(high)))
    pieces.append(
        Markup('<line class="range {}" x1="{}" x2="{}" y1="50%" y2="50%"/>').format(
            kind, *map(_percent, places)
        )
    )
    point, radius = _percent(axis.share(value)), "3.5" if kind == "open" else "4"
    pieces.append(Markup('<circle class="point {}" cx="{}" cy="50%" r="{}"/>').format(kind, point, radius))
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
class Line:
    """A line of a chart: `values` holds x, y and the interval of y (y twice where it has none).

    Attributes:
        label: Its name.
        values: From left to right.
        mark: Short text at its end that a legend explains; "" for the name.
    """

    label: str
    values: Sequence[tuple[float, float, float, float]]
    mark: str = ""


@dataclass(frozen=True)
class Plot:
    """A field with two axes and room for their numbers; sizes are in units of the picture."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_axis: Axis
    y_axis: Axis

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a pair of values stands."""
        return (
            self.left + self.x_axis.share(x) * (self.width - self.left - self.right),
            self.height - self.bottom - self.y_axis.share(y) * (self.height - self.top - self.bottom),
        )

    def frame(self, x_name: str, y_name: str, x_texts: Sequence[str]) -> list[Markup]:
        """Grid, numbers and names of the axes."""
        end, ground = self.width - self.right, self.height - self.bottom
        pieces = []
        for tick in self.y_axis.ticks:
            y = self.place(self.x_axis.low, tick)[1]
            pieces.append(
                Markup(
                    '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
                    '<text x="{}" y="{}" text-anchor="end">{}</text>'
                ).format(
                    self.left, end, f"{y:.1f}", f"{y:.1f}", self.left - 5, f"{y + 3.5:.1f}", tick_text(tick)
                )
            )
        places = [self.place(tick, self.y_axis.low)[0] for tick in self.x_axis.ticks]
        for x, text, row in zip(places, x_texts, _text_rows(places, x_texts), strict=True):
            pieces.append(
                Markup(
                    '<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>'
                    '<text x="{0}" y="{3}" text-anchor="middle">{4}</text>'
                ).format(f"{x:.1f}", ground, ground + 4, ground + 15 + 11 * row, text)
            )
        middle = f"{(self.left + end) / 2:.1f}"
        pieces.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                middle, self.height - 3, x_name
            )
        )
        if y_name:
            height = f"{(self.top + ground) / 2:.1f}"
            pieces.append(
                Markup(
                    '<text x="9" y="{0}" text-anchor="middle" transform="rotate(-90 9 {0})">{1}</text>'
                ).format(height, _cut(y_name, Y_LETTERS))
            )
        return pieces


def _rows_needed(count: int, texts: Sequence[str], width: float) -> int:
    """Rows that texts below an axis of this width need so as not to lie over each other."""
    longest = max(map(_text_width, texts), default=0.0) + 8.0
    return min(ROWS, max(1, math.ceil(longest * (count - 1) / width)))


def _text_width(text: str) -> float:
    """About how wide a text of a picture is; letters of East Asia are twice as wide."""
    return sum(10.5 if unicodedata.east_asian_width(letter) in "WF" else 5.8 for letter in text)


def _cut(text: str, letters: int) -> str:
    """At most so many letters, the last of them three dots where some are left out."""
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _text_rows(places: Sequence[float], texts: Sequence[str]) -> list[int]:
    """The row of each text below an axis: one for all where they fit side by side."""
    width = places[-1] - places[0] if len(places) > 1 else 1.0
    rows = _rows_needed(len(places), texts, width) if len(places) > 1 else 1
    return [place % rows for place in range(len(places))]


def line_chart(
    lines: Sequence[Line],
    x_axis: Axis,
    x_texts: Sequence[str],
    x_name: str,
    title: str,
    description: str,
    reverse: bool = False,
    y_name: str = "",
    others: Sequence[Line] = (),
) -> Markup:
    """Lines with their names at the right end; each has a class of its own, `line-0`, `line-1` ...

    Args:
        lines: Those with colours; where one has a mark, all marks stand at the ends in place of the names.
        x_axis: The horizontal axis.
        x_texts: What is written at its ticks.
        x_name: What it shows.
        title: Of the picture.
        description: The same in words.
        reverse: Whether less is better, so that the vertical axis is turned round.
        y_name: What the vertical axis shows.
        others: Thin lines without names and intervals, below the others.
    """
    marked = any(line.mark for line in lines)
    x_texts = [_cut(text, X_LETTERS) for text in x_texts]
    half = _text_width(x_texts[-1]) / 2 + 4.0 if x_texts else 0.0  # of the last text, which stands at the end
    left, right = 40 + 12 * bool(y_name), max(26, math.ceil(half)) if marked else 120
    rows = _rows_needed(len(x_texts), x_texts, 420 - left - right)
    values = [value for line in lines for value in line.values]
    heights = [end for value in values for end in value[1:]]
    heights += [value[1] for line in others for value in line.values]
    y_axis = linear_axis(heights, reverse=reverse)
    plot = Plot(420, 220 + 11 * (rows - 1), left, right, 8, 34 + 11 * (rows - 1), x_axis, y_axis)
    pieces = plot.frame(x_name, y_name, x_texts)
    for line in others:
        title_of = Markup("<title>{}</title>").format(line.label)
        pieces.append(Markup('<g class="other">{}{}</g>').format(title_of, _curve(plot, line)))
    ends = [plot.place(*line.values[-1][:2]) for line in lines]
    spread = _spread([y for _, y in ends], 12.0, plot.top + 4.0, plot.height - plot.bottom - 2.0)
    for number, (line, label_y) in enumerate(zip(lines, spread, strict=True)):
        marks = [Markup("<title>{}</title>").format(line.label), _curve(plot, line)]
        marks += [_spot(plot, *value) for value in line.values]
        text = line.mark if marked else _cut(line.label, LABEL)
        marks.append(
            Markup('<text class="label" x="{}" y="{}">{}</text>').format(
                plot.width - plot.right + 8, f"{label_y + 4:.1f}", text
            )
        )
        pieces.append(Markup('<g class="line-{}">{}</g>').format(number % COLOURS, Markup("").join(marks)))
    return figure(plot.width, plot.height, title, description, pieces)


def line_mark(number: int) -> Markup:
    """A piece of line number `number` of a chart, for a legend."""
    return _svg(
        '<svg class="mark" width="22" height="12" aria-hidden="true" focusable="false">',
        [
            Markup('<g class="line-{}"><polyline class="curve" points="0,6 22,6"/></g>').format(
                number % COLOURS
            )
        ],
    )


def _curve(plot: Plot, line: Line) -> Markup:
    corners = " ".join("{:.1f},{:.1f}".format(*plot.place(*value[:2])) for value in line.values)
    return Markup('<polyline class="curve" points="{}"/>').format(corners)


def _spot(plot: Plot, x: float, y: float, low: float, high: float) -> Markup:
    """A value with its interval, where it has one."""
    across, height = plot.place(x, y)
    spot = Markup('<circle cx="{}" cy="{}" r="2.5"/>').format(f"{across:.1f}", f"{height:.1f}")
    if low == high:
        return spot
    ends = [f"{plot.place(x, end)[1]:.1f}" for end in (low, high)]
    return spot + Markup('<line x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(f"{across:.1f}", *ends)


def shape_mark(shape: str, x: float, y: float, small: bool = False) -> Markup:
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
        [shape_mark(shape, 6, 6)],
    )


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
    """A whole picture with its title and the same in words."""
    head = Markup(
        '<svg class="figure" viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>'
    ).format(width, height, title, description)
    return head + Markup("").join(pieces) + Markup("</svg>")

"""Figures of an alignment set as PNG: durations, topics, difficulty, voices, word error rates, filters.

Equal statistics give equal bytes for one version of matplotlib: no date and no version is written.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rba_bench.audio.set_labels import SOURCE, is_labelled, paper_shares
from rba_bench.audio.set_statistics import ERRORS, KEPT, SECONDS, SetStatistics, quantiles
from rba_bench.untrusted import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (5.6, 3.1)  # inches
DPI = 120
BARS = 16  # labels of a figure
LETTERS = 28  # of a label
ENOUGH = ("surplus", "quota")  # reasons that are no fault of what was left out: in the table alone
# ground, ink, lines, the set, what it is compared with: the colours of the pages
LIGHT = ("#ffffff", "#1b2430", "#d9dee6", "#1f5fbf", "#c2410c")
DARK = ("#1b212a", "#e6eaf0", "#323b48", "#7fb0ff", "#ffb067")


@dataclass(frozen=True)
class SetFigure:
    """One distribution of a set.

    Attributes:
        name: Of its file, without ending.
        title: What it shows.
        summary: The same in words, for whoever does not see it.
        columns, rows: The numbers behind it, for a table.
        draw: Draws it.
    """

    name: str
    title: str
    summary: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    draw: "Callable[[Axes, Sequence[str]], None]"


def can_draw() -> bool:
    """Whether matplotlib is installed and works: a set must not fail at its end for want of figures."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def set_figures(statistics: SetStatistics) -> list[SetFigure]:
    """The distributions that a set has; nothing is drawn yet."""
    figures = [
        _histogram("durations", "Durations", "seconds", statistics.seconds, SECONDS, np.inf),
        *(_labels(column, statistics) for column in ("topic", "difficulty")),
        _voices(statistics),
        _histogram("wer", "Word error rate of a recogniser", "per cent", 100 * statistics.wer, ERRORS, 100.0),
        _filters(statistics),
    ]
    return [figure for figure in figures if figure is not None]


def draw_figure(figure: SetFigure, colours: Sequence[str] = LIGHT) -> bytes:
    """PNG of a figure, about 670 x 370 pixels.

    Args:
        figure: From `set_figures`.
        colours: LIGHT or DARK.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ground, ink, lines, *_ = colours
    settings = {
        **{"text.parse_math": False, "font.family": "DejaVu Sans", "font.size": 10.5},
        **{"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink},
        **{"axes.edgecolor": lines, "grid.color": lines, "axes.facecolor": ground, "axes.axisbelow": True},
    }
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # letters that the font does not have
        sheet = Figure(figsize=SIZE, dpi=DPI, facecolor=ground, layout="constrained")
        axes = sheet.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        figure.draw(axes, colours)
        sink = io.BytesIO()
        sheet.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def _histogram(
    name: str, title: str, unit: str, values: np.ndarray, at: tuple[float, ...], most: float
) -> SetFigure | None:
    """A histogram of numbers of clips; what is above `most` is in its last bar."""
    known = values[~np.isnan(values)]
    found = quantiles(known, at)
    if not found:
        return None

    def draw(axes: "Axes", colours: Sequence[str]) -> None:
        from matplotlib.ticker import MaxNLocator

        top = min(float(known.max()), most)
        edges = np.linspace(0.0, max(top, 1.0), min(40, max(8, len(known) // 4)) + 1)
        counts, _ = np.histogram(np.minimum(known, edges[-1]), edges)
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colours[3], edgecolor=colours[0])
        axes.axvline(found["p50"], color=colours[4], linestyle="--")
        beyond = f"; last bar: {most:g} and more" if float(known.max()) > most else ""
        axes.set_xlabel(f"{unit} (dashed: median{beyond})")
        axes.set_ylabel("clips")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")

    named = {"p0": "lowest", "p50": "median", "p100": "highest"}
    rows: list[tuple[Any, ...]] = [
        (named.get(key, key.replace("p", "percentile ")), f"{value:,.1f}")
        for key, value in found.items()
        if key != "n"
    ]
    summary = f"{found['n']:,} clips; {unit}: mean {found['mean']:.1f}, median {found['p50']:.1f}, "
    summary += f"95 % below {found['p95']:.1f}, at most {found['p100']:.1f}."
    return SetFigure(name, title, summary, ("quantity", unit), rows, draw)


def _labels(column: str, statistics: SetStatistics) -> SetFigure | None:
    """Shares of labels, beside those of the paper where they are the same labels."""
    found = statistics.labels[column]
    if not is_labelled(found):
        return None
    rows = paper_shares(column, found)
    clips = statistics.clips
    table: list[tuple[Any, ...]] = [
        (label or "none", n, f"{100 * n / clips:.1f}", "" if share is None else f"{share:.1f}")
        for label, n, share in rows
    ]
    compared = any(share is not None for _, _, share in rows)
    shown = [(label or "none", 100 * n / clips, share or 0.0) for label, n, share in rows][:BARS]

    def draw(axes: "Axes", colours: Sequence[str]) -> None:
        names, shares, paper = zip(*shown, strict=True)
        places = np.arange(len(names))
        height = 0.4 if compared else 0.7
        axes.barh(places - (0.2 if compared else 0.0), shares, height, color=colours[3], label="this set")
        if compared:
            axes.barh(places + 0.2, paper, height, color=colours[4], hatch="///", edgecolor=colours[0],
                      linewidth=0, label=SOURCE)  # fmt: skip
            axes.figure.legend(frameon=False, loc="outside upper right", ncols=2)
        _name_bars(axes, names, "per cent of clips")

    largest = sorted(shown, key=lambda entry: -entry[1])[:3]
    summary = "Most frequent: " + ", ".join(f"{label} {share:.1f} %" for label, share, _ in largest) + "."
    columns = (column, "clips", "per cent", "paper, per cent")
    width = 4 if compared else 3
    name = {"topic": "topics"}.get(column, column)
    title = name.capitalize() + (f" beside the {SOURCE}" if compared else "")
    return SetFigure(name, title, printable(summary), columns[:width], [row[:width] for row in table], draw)


def _voices(statistics: SetStatistics) -> SetFigure | None:
    """Clips of each voice; of many voices, as a line over all."""
    voices = statistics.voices()
    if not any(voices):
        return None
    counts = [count.clips for count in voices.values()]

    def draw(axes: "Axes", colours: Sequence[str]) -> None:
        if len(voices) <= BARS:
            axes.barh(np.arange(len(counts)), counts, 0.7, color=colours[3])
            _name_bars(axes, [name or "none" for name in voices], "clips")
        else:
            axes.fill_between(np.arange(1, len(counts) + 1), counts, step="mid", color=colours[3])
            axes.set_xlabel("voices, the most frequent first")
            axes.set_ylabel("clips")
            axes.set_ylim(bottom=0)
            axes.grid(axis="y")

    rows = [
        (
            name or "none",
            count.clips,
            f"{count.hours:.2f}",
            "" if count.wer is None else f"{100 * count.wer:.1f}",
        )
        for name, count in voices.items()
    ]
    summary = f"{len(voices):,} voices with {min(counts):,} to {max(counts):,} clips each."
    return SetFigure(
        "voices", "Voices", summary, ("voice", "clips", "hours", "mean WER, per cent"), rows, draw
    )


def _filters(statistics: SetStatistics) -> SetFigure | None:
    """What was left out, by reason."""
    found = [count for count in statistics.filters if count.reason not in (KEPT, *ENOUGH)]
    dropped = sorted(found, key=lambda count: -count.n)
    if not dropped:
        return None

    def draw(axes: "Axes", colours: Sequence[str]) -> None:
        names = [f"{count.part}: {count.reason}" for count in dropped[:BARS]]
        axes.barh(np.arange(len(names)), [count.n for count in dropped[:BARS]], 0.7, color=colours[3])
        _name_bars(axes, names, "number")

    rows = [(count.part, count.reason, count.n, count.meaning) for count in statistics.filters]
    named = ", ".join(f"{count.reason} {count.n:,}" for count in dropped[:3])
    summary = printable(f"{sum(count.n for count in dropped):,} were left out, most for: {named}.")
    return SetFigure(
        "filters", "What was left out", summary, ("part", "reason", "number", "meaning"), rows, draw
    )


def _name_bars(axes: "Axes", names: Sequence[str], unit: str) -> None:
    """Names and unit of horizontal bars, the first at the top."""
    from matplotlib.ticker import MaxNLocator

    axes.set_yticks(np.arange(len(names)), [printable(name, LETTERS) for name in names])
    axes.set_ylim(max(len(names), 4) - 0.5, -0.5)  # few bars stay thin
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(unit)
    axes.grid(axis="x")


def figure_files(figures: Sequence[SetFigure], dark: bool) -> Iterator[tuple[str, bytes]]:
    """File names and PNGs of figures, in light colours and, with `dark`, in dark ones as NAME-dark.png too."""
    for figure in figures:
        yield f"{figure.name}.png", draw_figure(figure)
        if dark:
            yield f"{figure.name}-dark.png", draw_figure(figure, DARK)

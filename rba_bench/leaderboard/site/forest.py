"""Forest plots: differences with their intervals, drawn in the cells of a table that holds their numbers as well."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from markupsafe import Markup

from rba_bench.leaderboard.board_groups import BoardRow
from rba_bench.leaderboard.columns import label_text
from rba_bench.leaderboard.loaded_runs import CEILING, MODEL
from rba_bench.leaderboard.site import svg
from rba_bench.leaderboard.site.axes import linear_axis
from rba_bench.leaderboard.site.facts import Setting
from rba_bench.leaderboard.tables import interval_text

OPEN_ROWS = 40  # that are shown at once; the blocks after them unfold
MOST_BLOCKS = 24  # of a board
MOST_ROWS = 90  # of all blocks of a board together; its main table has all rows
FAR = 2.0  # times what nine of ten ends keep to: an axis does not go further
MINUS = "\u2212"
WORDS = {1: "better", -1: "worse", 0: "not told apart"}
BEHIND = {1: "behind", -1: "ahead", 0: "not told apart"}  # of a row, where the ceiling is better or worse


@dataclass(frozen=True)
class Differences:
    """What one block of a forest plot shows.

    Attributes:
        title: The task or setting.
        metric: With its unit.
        digits: Behind the point.
        mirrored: Whether lower is better, so that the mirror image is drawn.
        rows: By label, as points on a scale of 100: value, ends of the interval, and the mark of `Setting.difference`.
    """

    title: str
    metric: str
    digits: int
    mirrored: bool
    rows: Sequence[tuple[str, Sequence[float]]]


@dataclass(frozen=True)
class ForestRow:
    """A difference: of which row, drawn, in numbers, in words."""

    label: str
    mark: Markup
    text: str
    verdict: str


@dataclass(frozen=True)
class ForestBlock:
    """The rows of one block, and how many more there are."""

    title: str
    metric: str
    mirrored: bool
    rows: list[ForestRow]
    left_out: int


@dataclass(frozen=True)
class Forest:
    """Blocks on one axis; `clipped` if something lies beyond its ends; how many more blocks there are."""

    axis: Markup
    blocks: list[ForestBlock]
    clipped: bool
    unlisted: int = 0

    def parts(self) -> tuple["Forest", "Forest | None"]:
        """The blocks that are shown at once, and the others; None where there are none."""
        count = shown_at_once([len(block.rows) for block in self.blocks])
        rest = self.blocks[count:]
        return replace(self, blocks=self.blocks[:count]), replace(self, blocks=rest) if rest else None


def shown_at_once(sizes: Sequence[int]) -> int:
    """How many blocks of these numbers of rows are shown at once, at least one."""
    totals = accumulate(sizes)
    return max(1, sum(total <= OPEN_ROWS for total in totals))


def difference_forest(settings: Sequence[Setting]) -> Forest | None:
    """Paired differences of the models from the baseline; None where there are none."""

    def difference(setting: Setting, row: BoardRow) -> list[float] | None:
        return setting.difference(row.versus.get(setting.group.primary)) if row.kind == MODEL else None

    return _board_forest(_blocks(settings, difference))


def gap_forest(settings: Sequence[Setting]) -> Forest | None:
    """Modality gaps: what the LLM that reads the transcript scores above each system, larger gaps to the right."""

    def difference(setting: Setting, row: BoardRow) -> list[float] | None:
        gap = setting.difference(row.gap.get(setting.group.primary))
        return None if row.kind in (CEILING, "constant") else gap

    return _board_forest(_blocks(settings, difference), BEHIND, colour=-1)


def _board_forest(
    blocks: Sequence[Differences], words: Mapping[int, str] = WORDS, colour: int = 1
) -> Forest | None:
    """The first blocks of a board: with 40 tasks all of them would be a quarter of the page."""
    shown = blocks[:MOST_BLOCKS]
    drawn = draw_forest(shown, words, colour, MOST_ROWS)
    return drawn and replace(drawn, unlisted=len(blocks) - len(shown))


def _blocks(
    settings: Sequence[Setting], difference: Callable[[Setting, BoardRow], list[float] | None]
) -> list[Differences]:
    blocks = []
    for setting in settings:
        rows = [
            (label_text(row.label, row.kind), gap)
            for row in setting.group.rows
            if (gap := difference(setting, row)) is not None
        ]
        mirrored = not setting.higher_is_better
        if rows:
            blocks.append(Differences(setting.title, setting.metric, setting.digits, mirrored, rows))
    return blocks


def draw_forest(
    blocks: Sequence[Differences], words: Mapping[int, str] = WORDS, colour: int = 1, most: int = 10**6
) -> Forest | None:
    """All blocks on one axis; None where no block has a row.

    Args:
        blocks: In the order of the page; those without rows are left out.
        words: What a mark means.
        colour: What a mark is multiplied with to be good or bad for the row.
        most: Rows of all blocks together, of which each gets as many but at least two.
    """
    blocks = [block for block in blocks if block.rows]
    if not blocks:
        return None
    each = max(2, most // len(blocks))
    ends = [end for block in blocks for _, gap in block.rows[:each] for end in _drawn(block, gap)]
    reach = _reach(ends)
    axis = linear_axis([0.0, *(min(max(end, -reach), reach) for end in ends)], count=3)
    drawn = []
    for block in blocks:
        rows = []
        for label, gap in block.rows[:each]:
            value, low, high, mark = gap
            text = interval_text((value, low, high), digits=block.digits, signed=True).replace("-", MINUS)
            picture = svg.interval_mark(axis, *_drawn(block, gap), colour * int(mark))
            rows.append(ForestRow(label, picture, text, words[int(mark)]))
        left_out = len(block.rows) - len(rows)
        drawn.append(ForestBlock(block.title, block.metric, block.mirrored, rows, left_out))
    clipped = any(not axis.low <= end <= axis.high for end in ends)
    return Forest(svg.interval_axis(axis), drawn, clipped)


def _reach(ends: Sequence[float]) -> float:
    """How far from zero the axis goes: to the end, but not for few that lie far beyond all others."""
    distances = sorted(abs(end) for end in ends)
    usual = FAR * distances[int(0.9 * (len(distances) - 1))]
    return usual if usual and distances[-1] > usual else distances[-1]


def _drawn(block: Differences, gap: Sequence[float]) -> tuple[float, float, float]:
    value, low, high = gap[:3]
    return (-value, -high, -low) if block.mirrored else (value, low, high)

"""What a study found, in one sentence and in a table of methods and tasks, from the paired differences alone."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from rba_bench.leaderboard.columns import metric_heading
from rba_bench.leaderboard.tables import NOTHING, TextTable, interval_text, number_texts
from rba_bench.study.analysis import OUTCOMES, Analysis, StudyRow
from rba_bench.study.folder import REFERENCE
from rba_bench.untrusted import plain

BUDGET_NAMES = {"steps": "equal steps", "time": "equal time"}
ALPHA = 0.05  # share of differences that a 95 % interval tells from zero though there is none
VERBS = {1: "supports", -1: "contradicts", 0: "does not support"}
NAMED = 3  # methods that the answer names


def reading(analysis: Analysis) -> str:
    """What the words of the comparisons mean, and how many of them rest on a single training."""
    alone = sum(len(row.versus_seeds) == 1 for row in analysis.compared)
    caution = (
        f" {alone} of the {_count(len(analysis.compared), 'comparison')} {_are(alone)} of one training seed: their "
        "intervals cover the test items alone, and another seed may turn them."
    )
    return (
        "Better or worse: the 95 % interval of the difference, over test items and training seeds, lies on one side of "
        "zero. Not told apart: the interval holds zero, which does not show that the two are equal."
    ) + (caution if alone else "")


def answer_sentence(analysis: Analysis) -> str:
    """The result of all comparisons with the baseline, and of the claims, beside what chance alone would give."""
    compared, baseline = analysis.compared, analysis.study.baseline
    if not compared:
        return (
            f"No run can be compared: the baseline `{baseline}` has no finished run beside another method's."
        )
    better, worse = (sum(row.better == sign for row in compared) for sign in (1, -1))
    chance = ALPHA / 2 * len(compared)
    lead = (
        f"No method is shown to be better than `{baseline}`"
        if better <= chance
        else f"{_winners(compared)} better than `{baseline}` on some tasks"
    )
    claims = _claims_clause(analysis)
    return (
        f"{lead}: of {_count(len(compared), 'paired comparison')}, {better} {_come(better)} out better and {worse} "
        f"worse, where chance alone would make about {chance:.1f} of each if all methods were equal{claims}."
    )


def _winners(compared: Sequence[StudyRow]) -> str:
    """The methods that are better somewhere, the most frequent first, and their verb."""
    wins = [row.method for row in compared if row.better > 0]
    methods = sorted(dict.fromkeys(wins), key=lambda method: -wins.count(method))
    names = [f"`{plain(method)}`" for method in methods[:NAMED]]
    if len(methods) > NAMED:
        names.append(f"{len(methods) - NAMED} more")
    text = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{text} {_are(len(methods))}"


def _claims_clause(analysis: Analysis) -> str:
    verdicts = analysis.verdicts
    if not verdicts:
        return ""
    supported, against = (sum(verdict.row.better == sign for verdict in verdicts) for sign in (1, -1))
    if len(verdicts) == 1:
        return f"; the one test of a published claim {VERBS[verdicts[0].row.better]} it"
    contradicted = f" and {against} {'contradicts' if against == 1 else 'contradict'} it" if against else ""
    verb = "support" if supported > 1 else "supports"
    return f"; of {len(verdicts)} tests of published claims, {supported or 'none'} {verb} its claim{contradicted}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _come(count: int) -> str:
    return "comes" if count == 1 else "come"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Outcome:
    """A cell: one method against the baseline on one task; in words and in points on a scale of 100."""

    row: StudyRow

    @property
    def difference(self) -> str:
        """The difference with its sign."""
        assert self.row.versus is not None  # a cell is a difference
        return number_texts([self.row.versus.value], 100.0 / self.row.scale, signed=True)[0]

    @property
    def interval(self) -> str:
        """The difference with its 95 % interval."""
        versus = self.row.versus
        assert versus is not None
        return interval_text((versus.value, versus.low, versus.high), 100.0 / self.row.scale, signed=True)


@dataclass(frozen=True)
class MethodOutcomes:
    """A row: one method on every task, None where it was not compared."""

    method: str
    cells: tuple[Outcome | None, ...]

    @property
    def summary(self) -> str:
        """How often it is told from the baseline."""
        marks = [cell.row.better for cell in self.cells if cell is not None]
        counts = [f"{marks.count(mark)} {OUTCOMES[mark]}" for mark in (1, -1) if mark in marks]
        return f"{', '.join(counts) or 'none'} of {len(marks)}"

    @property
    def seeds(self) -> str:
        """Training seeds behind its differences: `3`, or `1 to 3` where tasks differ."""
        counts = sorted(len(cell.row.versus_seeds) for cell in self.cells if cell is not None)
        return " to ".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))


@dataclass(frozen=True)
class Grid:
    """Every method on every task under one budget.

    Attributes:
        budget: The budget.
        tasks: A row of each task, which tells its metric and decoding.
        methods: Trained methods.
        untrained: Reference systems, whose differences are not counted among the comparisons.
        reach: Per task, half of the width of an interval in points, the median over the methods.
    """

    budget: str
    tasks: tuple[StudyRow, ...]
    methods: tuple[MethodOutcomes, ...]
    untrained: tuple[MethodOutcomes, ...]
    reach: tuple[str, ...]

    @property
    def title(self) -> str:
        """The budget in words."""
        return BUDGET_NAMES[self.budget].capitalize()


def outcome_grids(analysis: Analysis) -> Iterator[Grid]:
    """A grid per budget in which something is compared; references stand in the first one."""
    for budget in analysis.data.budgets:
        parts = (budget, REFERENCE) if budget == analysis.data.budgets[0] else (budget,)
        rows = [row for row in analysis.rows if row.main and row.versus is not None and row.part in parts]
        tasks = {row.task: row for row in rows if row.part == budget}
        if not tasks:
            continue
        cells = {(row.part, row.method, row.task): Outcome(row) for row in rows}
        methods, untrained = (
            tuple(
                MethodOutcomes(method, tuple(cells.get((part, method, task)) for task in tasks))
                for method in dict.fromkeys(row.method for row in rows if row.part == part)
            )
            for part in (budget, REFERENCE)
        )
        reach = tuple(
            _reach([row for row in rows if (row.part, row.task) == (budget, task)]) for task in tasks
        )
        yield Grid(budget, tuple(tasks.values()), methods, untrained, reach)


def _reach(rows: Sequence[StudyRow]) -> str:
    """Half of the width of the intervals: how large a difference must be to be told from zero."""
    widths = [(row.versus.high - row.versus.low) / 2 for row in rows if row.versus is not None]
    return "±" + number_texts([median(widths)], 100.0 / rows[0].scale)[0]


def task_name(row: StudyRow) -> str:
    """A task as tables of a study call it: without the prefix of tasks that are for studies alone."""
    return re.sub("^(micro|small)_study_", "", row.task)


def grid_table(analysis: Analysis, grid: Grid) -> TextTable:
    """The grid as a table of text; a difference without a word is not told from zero."""
    headings = ["method", "seeds", "told apart"]
    headings += [
        f"{task_name(row)} {metric_heading(row.metric, row.scale, row.higher_is_better)}"
        for row in grid.tasks
    ]
    lines = [
        [
            *(
                (each.method, each.seeds, each.summary)
                if not suffix
                else (each.method + suffix, NOTHING, NOTHING)
            ),
            *map(_cell_text, each.cells),
        ]
        for suffix, group in (("", grid.methods), (" (untrained)", grid.untrained))
        for each in group
    ]
    lines.append(["half width of an interval, median", NOTHING, NOTHING, *grid.reach])
    title = f"Against {analysis.study.baseline}, {BUDGET_NAMES[grid.budget]}"
    return TextTable(headings, lines, title, numeric_from=3)


def _cell_text(cell: Outcome | None) -> str:
    """The difference, and its word where it is told from zero."""
    if cell is None:
        return NOTHING
    return f"{cell.difference} {cell.row.outcome}" if cell.row.better else cell.difference


def method_sentence(analysis: Analysis, method: str) -> str:
    """Where one method is better and where it is worse than the baseline, for the terminal."""
    rows = [row for row in analysis.compared if row.method == method]

    def text(sign: int) -> str:
        return ", ".join(
            f"{task_name(row)} at {BUDGET_NAMES[row.part]} ({Outcome(row).difference})"
            for row in rows
            if row.better == sign
        )

    parts = [f"{OUTCOMES[sign]} on {places}" for sign in (1, -1) if (places := text(sign))]
    open_ = sum(row.better == 0 for row in rows)
    parts.append(f"{OUTCOMES[0]} in {open_} of {_count(len(rows), 'comparison')}")
    return f"`{plain(method)}`: {'; '.join(parts)}."

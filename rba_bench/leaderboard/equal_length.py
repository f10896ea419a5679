"""Win rates at equal length, with the effect of length and the difficulties estimated from the runs of a table.

For instruction sets without published difficulties. An estimate of one board: another run changes the others' rates a
little, so it stands beside the raw rate and nothing is ranked by it. It is left out where the runs are too few, or too
alike in length, to tell what length does (`rba_bench.metrics.lc_pooled`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rba_bench.evaluation.lengths import VERSUS, baseline_of, is_win_rate
from rba_bench.leaderboard import pages
from rba_bench.leaderboard.board_groups import Group, Row
from rba_bench.leaderboard.tables import TextTable
from rba_bench.metrics.bootstrap import Interval
from rba_bench.metrics.lc_pooled import (
    FEWEST_SYSTEMS,
    LARGEST_ERROR,
    RESAMPLES,
    Pooled,
    pooled,
    pooled_intervals,
)

DIGITS = 5  # the fit stops a little earlier or later on another processor


@dataclass(frozen=True)
class EqualLength:
    """What was estimated for one group.

    Attributes:
        group: Whose.
        fit: The model of the whole board.
        intervals: Rate of each row at equal length, in the order of `group.rows`.
    """

    group: Group
    fit: Pooled
    intervals: Sequence[Interval]

    def blocks(self) -> list[str]:
        """A line and a table for the page."""
        return [self._note(), self._table().markdown()]

    def _note(self) -> str:
        return (
            f"Win rates at equal length, with difficulties estimated from these {len(self.intervals)} runs (nothing is "
            f"ranked by them; another run changes them a little). Effect of length, in logits per standard deviation: "
            f"{self.fit.slope:+.2f}, standard error {self.fit.slope_error:.2f}."
        )

    def _table(self) -> TextTable:
        metric = self.group.primary
        rows = [
            [
                pages.marked(row.label, row.kind),
                f"{100 * each.value:.1f} [{100 * each.low:.1f}, {100 * each.high:.1f}]",
                pages.score_cell(self.group, row, metric),
                pages.length_cell(self.group, row, metric),
            ]
            for row, each in zip(self.group.rows, self.intervals, strict=True)
        ]
        return TextTable(["model", f"{metric} % at equal length", f"{metric} %", pages.LENGTH], rows)

    def flat_rows(self) -> list[dict[str, Any]]:
        """Rows for CSV."""
        return [
            {
                "task": self.group.task,
                "protocol_hash": self.group.protocol_hash,
                "data_hash": self.group.data_hash,
                "model": row.label,
                "metric": self.group.primary,
                "raw": row.run.record.metrics[self.group.primary].value,
                "at_equal_length": round(each.value, DIGITS),
                "low": round(each.low, DIGITS),
                "high": round(each.high, DIGITS),
                "n": each.n,
                "method": each.method,
                "runs": len(self.intervals),
                "slope": round(self.fit.slope, DIGITS),
                "slope_error": round(self.fit.slope_error, DIGITS),
            }
            for row, each in zip(self.group.rows, self.intervals, strict=True)
        ]


def estimate(group: Group) -> EqualLength | str:
    """The rates of a group that is ranked by a raw win rate; "" for another group, else why there are none."""
    metric = group.primary
    if not is_win_rate(metric) or metric.startswith("lc_"):
        return ""
    if len(group.rows) < FEWEST_SYSTEMS:
        return (
            f"{group.task}: no win rates at equal length: {len(group.rows)} runs, {FEWEST_SYSTEMS} are needed"
        )
    if any(row.run.items != group.rows[0].run.items for row in group.rows):
        return f"{group.task}: no win rates at equal length: partial runs hold other items"
    samples = group.rows[0].run.samples
    wins = np.array([_scores(row, metric) for row in group.rows])
    chars = np.array(
        [[len(sample.extracted) for sample in row.run.samples] for row in group.rows], dtype=float
    )
    against = metric.partition(VERSUS)[2]
    baseline = np.array([len(baseline_of(sample, against)) for sample in samples], dtype=float)
    kept = ~np.isnan(wins).all(axis=0)
    tables = wins[:, kept], chars[:, kept], baseline[kept]
    if not pooled(*tables).is_enough:
        return (
            f"{group.task}: no win rates at equal length: the answers of the {len(group.rows)} runs are too alike in "
            f"length to tell what it does (standard error above {LARGEST_ERROR})"
        )
    clusters = [sample.cluster for sample, is_kept in zip(samples, kept.tolist(), strict=True) if is_kept]
    return EqualLength(group, *pooled_intervals(*tables, clusters, RESAMPLES))


def _scores(row: Row, metric: str) -> list[float]:
    scored = row.run.scored(metric).tolist()
    values = row.run.item_rows(metric)[:, 0].tolist()
    return [value if is_scored else float("nan") for value, is_scored in zip(values, scored, strict=True)]

"""Win rates at equal length, with the effect of length and the difficulties estimated from the runs of a table.

For instruction sets without published difficulties. The estimate belongs to one board: another run changes the rates of
the others a little, so it stands beside the raw rate and nothing is ranked by it. It is left out where the runs are too
few, or too alike in length, to estimate the effect of length (`rba_bench.metrics.lc_pooled`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rba_bench.evaluation.lengths import VERSUS, baseline_of, is_win_rate
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.columns import LENGTH, length_cell, model_cell, score_cell
from rba_bench.leaderboard.tables import TextTable, interval_text
from rba_bench.metrics.bootstrap import Interval
from rba_bench.metrics.lc_pooled import (
    FEWEST_SYSTEMS,
    LARGEST_ERROR,
    RESAMPLES,
    PooledFit,
    fit_pooled,
    pooled_intervals,
)

DIGITS = 5  # the fit stops a little earlier or later on another processor


@dataclass(frozen=True)
class EqualLength:
    """Win rates at equal length of one group.

    Attributes:
        group: The group.
        fit: The model of the whole board.
        intervals: Rate of each row at equal length, in the order of `group.rows`.
    """

    group: BoardGroup
    fit: PooledFit
    intervals: Sequence[Interval]

    def blocks(self) -> list[str]:
        """A line and a table for the page."""
        group, metric = self.group, self.group.primary
        note = (
            f"Win rates at equal length, with difficulties estimated from these {len(self.intervals)} runs (nothing is "
            f"ranked by them; another run changes them a little). Effect of length, in logits per standard deviation: "
            f"{self.fit.slope:+.2f}, standard error {self.fit.slope_error:.2f}."
        )
        rows = [
            [
                model_cell(group, row),
                interval_text((rate.value, rate.low, rate.high), 100),
                score_cell(group, row, metric),
                length_cell(group, row, metric),
            ]
            for row, rate in zip(group.rows, self.intervals, strict=True)
        ]
        headings = ["model", f"{metric} % at equal length", f"{metric} %", LENGTH]
        return [note, TextTable(headings, rows).markdown()]

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
                "at_equal_length": round(rate.value, DIGITS),
                "low": round(rate.low, DIGITS),
                "high": round(rate.high, DIGITS),
                "n": rate.n,
                "method": rate.method,
                "runs": len(self.intervals),
                "slope": round(self.fit.slope, DIGITS),
                "slope_error": round(self.fit.slope_error, DIGITS),
            }
            for row, rate in zip(self.group.rows, self.intervals, strict=True)
        ]


def estimate_equal_length(group: BoardGroup) -> EqualLength | str:
    """The rates of a group that is ranked by a raw win rate; "" for another group, else why there are none."""
    metric, rows = group.primary, group.rows
    if not is_win_rate(metric) or metric.startswith("lc_"):
        return ""
    none = f"{group.task}: no win rates at equal length"
    if len(rows) < FEWEST_SYSTEMS:
        return f"{none}: {len(rows)} runs, {FEWEST_SYSTEMS} are needed"
    runs = [row.run for row in rows]
    if any(run.items != runs[0].items for run in runs):
        return f"{none}: partial runs hold other items"
    samples = runs[0].samples
    wins = np.array([np.where(run.has_score(metric), run.item_rows(metric)[:, 0], np.nan) for run in runs])
    chars = np.array([[len(sample.extracted) for sample in run.samples] for run in runs], dtype=float)
    against = metric.partition(VERSUS)[2]
    baseline = np.array([len(baseline_of(sample, against)) for sample in samples], dtype=float)
    scored = ~np.isnan(wins).all(axis=0)
    tables = wins[:, scored], chars[:, scored], baseline[scored]
    if not fit_pooled(*tables).is_enough:
        return (
            f"{none}: the answers of the {len(rows)} runs are too alike in length to estimate its effect "
            f"(standard error above {LARGEST_ERROR})"
        )
    clusters = [sample.cluster for sample, keep in zip(samples, scored.tolist(), strict=True) if keep]
    return EqualLength(group, *pooled_intervals(*tables, clusters, RESAMPLES))

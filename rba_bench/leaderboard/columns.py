"""Columns of a leaderboard: what stands in one cell of a page, and in one field of a CSV or JSON row.

To add a column, write a function of a group, a row and a metric, and name it in `SECTION_COLUMNS` (pages) or in
`flat_rows` (CSV, JSON and `to_pandas`). A value that needs several runs is computed in `board_groups.BoardRow` first.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rba_bench.evaluation.metric import shown_decimals
from rba_bench.evaluation.records import STATUSES, MetricValue, describe_failures
from rba_bench.leaderboard.board_groups import BoardGroup, BoardRow
from rba_bench.leaderboard.loaded_runs import CEILING, MODEL
from rba_bench.leaderboard.provenance import provenance_of
from rba_bench.leaderboard.tables import LONGEST, NOTHING, interval_text, number_texts
from rba_bench.metrics.interval import Interval
from rba_bench.untrusted import plain

LENGTH = "mean length"


class Column(NamedTuple):
    """One column of the tables of a group.

    Attributes:
        heading: May hold `{metric}` and `{baseline}`.
        cell: Text of one cell.
        win_rates_only: Whether only metrics with mean lengths have the column.
    """

    heading: str
    cell: Callable[[BoardGroup, BoardRow, str], str]
    win_rates_only: bool = False

    def title(self, group: BoardGroup, metric: str) -> str:
        """The heading for one metric of a group, with its judge."""
        value = group.record.metrics[metric]
        name = metric_heading(metric, value.scale, value.higher_is_better, value.signature)
        judge = group.judges.get(metric)
        name += f" (judge: {judge.label})" if judge else ""
        return self.heading.format(metric=name, baseline=group.baseline)


def metric_heading(metric: str, scale: float, higher_is_better: bool, signature: str = "") -> str:
    """Name of a metric with its unit, its form of length control, and its direction where lower is better."""
    unit = " %" if scale == 1 else ""
    form = next((f" ({part})" for part in signature.split("|") if part.startswith("lc:")), "")
    return metric + unit + form + ("" if higher_is_better else " (lower is better)")


def model_cell(_group: BoardGroup, row: BoardRow, _metric: str = "") -> str:
    """Label of a row, with a mark where it is a reference."""
    return label_text(row.label, row.kind)


def label_text(label: str, kind: str) -> str:
    """Label of a row, with a mark where it is a reference."""
    return label if kind == MODEL else f"{label} (ref)"


def rank_cell(_group: BoardGroup, row: BoardRow, metric: str) -> str:
    """Rank band; references have none."""
    return str(row.bands[metric]) if row.bands else "ref"


def score_cell(_group: BoardGroup, row: BoardRow, metric: str) -> str:
    """Score with its 95 % interval."""
    record = row.run.record
    value, low, high = score_texts(metric, record.metrics[metric])
    return f"{value} [{low}, {high}]" + (" (partial)" if record.partial else "")


def score_texts(metric: str, value: MetricValue) -> list[str]:
    """A score and the ends of its 95 % interval on a scale of 100, with the digits that are shown."""
    ends = (value.value, value.low, value.high)
    return number_texts(ends, 100.0 / value.scale, shown_decimals(metric, value.scale))


def length_cell(_group: BoardGroup, row: BoardRow, metric: str) -> str:
    """Mean length of the answers behind a win rate, and of the answers to beat."""
    return str(row.lengths[metric]) if metric in row.lengths else NOTHING


def n_cell(_group: BoardGroup, row: BoardRow, metric: str) -> str:
    """Items behind a score, and how many more have none: `633 (-3)`."""
    value = row.run.record.metrics[metric]
    return f"{value.n} (-{value.n_missing})" if value.n_missing else str(value.n)


def versus_cell(group: BoardGroup, row: BoardRow, metric: str) -> str:
    """Paired difference from the baseline row; an asterisk where its interval excludes zero."""
    return "(baseline)" if row.is_baseline else _difference_text(group, row.versus.get(metric), metric)


def gap_cell(group: BoardGroup, row: BoardRow, metric: str) -> str:
    """Modality gap: the text ceiling's score minus the row's on the same items."""
    return "(ceiling)" if row.kind == CEILING else _difference_text(group, row.gap.get(metric), metric)


def retained_column(control: str) -> Column:
    """Share of the score that remains under a control, with its paired interval, in percent."""

    def cell(_group: BoardGroup, row: BoardRow, metric: str) -> str:
        share = row.retained.get(control, {}).get(metric)
        if share is None:
            return "(ceiling)" if row.kind == CEILING else NOTHING
        return interval_text((share.value, share.low, share.high), 100.0)

    name = control.replace("{", "{{").replace("}", "}}")  # a heading is a template
    return Column(f"retained, {name} %", cell)


def not_ok_cell(_group: BoardGroup, row: BoardRow, _metric: str) -> str:
    """Numbers of items without a good answer, by status."""
    return describe_failures(row.run.record.statuses)


def date_cell(_group: BoardGroup, row: BoardRow, _metric: str) -> str:
    """Day of the run."""
    return row.run.record.created[:10]


MODEL_COLUMN = Column("model", model_cell)
SCORE = Column("{metric}", score_cell)
MEAN_LENGTH = Column(LENGTH, length_cell, win_rates_only=True)
VERSUS = Column("vs {baseline}", versus_cell)
GAP = Column("modality gap", gap_cell)

# The table of the primary metric in the section of a task; see `section_columns`
SECTION_COLUMNS = (
    Column("rank", rank_cell),
    MODEL_COLUMN,
    SCORE,
    MEAN_LENGTH,
    Column("n", n_cell),
    VERSUS,
    GAP,
    Column("not ok", not_ok_cell),
    Column("date", date_cell),
)


def section_columns(group: BoardGroup, metric: str) -> list[Column]:
    """The columns that a group has: lengths of win rates alone, and behind the gap what remains under each control."""
    columns = [each for each in SECTION_COLUMNS if group.has_lengths(metric) or not each.win_rates_only]
    place = columns.index(GAP) + 1
    return [*columns[:place], *map(retained_column, group.controls), *columns[place:]]


def flat_rows(group: BoardGroup) -> Iterable[dict[str, Any]]:
    """One row per run and metric, in the units of the run records, for CSV and JSON."""
    for row in group.rows:
        record, provenance = row.run.record, provenance_of(row.run).fields()
        for metric in group.metrics:
            value, band, lengths = record.metrics[metric], row.bands.get(metric), row.lengths.get(metric)
            judge = group.judges.get(metric)
            yield {
                **_group_fields(group),
                "model": row.label,
                "kind": row.kind,
                "metric": metric,
                "primary": metric == group.primary,
                "value": value.value,
                "low": value.low,
                "high": value.high,
                "n": value.n,
                "n_missing": value.n_missing,
                "mean_length": lengths.answer if lengths else None,
                "baseline_mean_length": lengths.baseline if lengths else None,
                "scale": value.scale,
                "method": plain(value.method, LONGEST),
                "signature": plain(value.signature, LONGEST),
                "judge": judge.label if judge else "",
                "judge_sha256": judge.sha256 if judge else "",
                "rank_best": band.best if band else None,
                "rank_worst": band.worst if band else None,
                "baseline": group.baseline,
                **_interval_fields("versus_baseline", row.versus.get(metric)),
                "ceiling": row.ceiling,
                **_interval_fields("modality_gap", row.gap.get(metric)),
                **_control_fields(group, row, metric),
                **{f"n_{status}": record.statuses.get(status, 0) for status in STATUSES},
                "partial": record.partial,
                "date": record.created,
                "run_id": record.run_id,
                **provenance,
            }


def breakdown_rows(group: BoardGroup) -> Iterable[dict[str, Any]]:
    """One row per run, metric and group of items (topic or direction)."""
    fields = _group_fields(group)
    for row in group.rows:
        for metric in group.metrics:
            for name, part in sorted(row.run.record.metrics[metric].breakdown.items()):
                yield {
                    **{key: fields[key] for key in ("task", "protocol", "protocol_hash", "data_hash")},
                    "model": row.label,
                    "metric": metric,
                    "group": plain(name),
                    "value": part.value,
                    "low": part.low,
                    "high": part.high,
                    "n": part.n,
                    "date": row.run.record.created,
                }


def _group_fields(group: BoardGroup) -> dict[str, Any]:
    return {
        "task": group.task,
        "benchmark": group.record.benchmark,
        "track": group.record.track,
        "protocol": group.record.protocol,
        "protocol_hash": group.protocol_hash,
        "data_hash": group.data_hash,
    }


def _interval_fields(name: str, interval: Interval | None) -> dict[str, float | None]:
    ends = (None, None, None) if interval is None else (interval.value, interval.low, interval.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _control_fields(group: BoardGroup, row: BoardRow, metric: str) -> dict[str, float | str | None]:
    """Score under each control of the group and the share that it is of the full score; empty where there is none."""
    fields: dict[str, float | str | None] = {}
    for name in group.controls:
        control = row.controls.get(name)
        value = control.record.metrics.get(metric) if control else None
        ends = Interval(value.value, value.low, value.high, value.n, "") if value else None
        share = row.retained.get(name, {}).get(metric)
        fields |= _interval_fields(f"control_{name}", ends) | _interval_fields(f"retained_{name}", share)
        fields[f"control_{name}_run_id"] = control.record.run_id if control else None
    return fields


def _difference_text(group: BoardGroup, interval: Interval | None, metric: str) -> str:
    if interval is None:
        return NOTHING
    scale = group.record.metrics[metric].scale
    ends = (interval.value, interval.low, interval.high)
    text = interval_text(ends, 100.0 / scale, shown_decimals(metric, scale), signed=True)
    return text + (" *" if interval.excludes(0.0) else "")

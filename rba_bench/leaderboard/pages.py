"""Groups of compared runs as tables: the summary, a section per task and protocol, and the flat rows of CSV files."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rba_bench.evaluation.records import STATUSES, MetricValue, RunRecord, not_ok
from rba_bench.leaderboard.board_groups import Group, Row
from rba_bench.leaderboard.loaded_runs import CEILING, KINDS, MODEL
from rba_bench.leaderboard.tables import LONGEST, NOTHING, TextTable
from rba_bench.metrics.interval import Interval
from rba_bench.untrusted import plain

JUDGE_WORDS = ("agreement", "bias", "unanimous", "judge stderr")
SHORT = 8  # hex digits of a hash on a page; the full ones are in records.json
LENGTH = "mean length"
Cell = Callable[[Group, Row, str], str]
REFERENCE_NAMES = {
    CEILING: "reference: text LLM reading the transcript (ceiling)",
    "cascade": "reference: recogniser, then the text LLM",
    "constant": "reference: one constant answer",
}


def overview(groups: Sequence[Group]) -> list[TextTable]:
    """Per protocol: primary metric of every task, then the differences from the baseline row, then the modality gap."""
    tables = []
    for protocol in sorted({group.record.protocol for group in groups}):
        chosen = [group for group in groups if group.record.protocol == protocol]
        tables.append(_overview(chosen, f"Scores, {protocol} decoding", score_cell, with_lengths=True))
        if any(row.versus for group in chosen for row in group.rows):
            title = f"Difference from {chosen[0].baseline}, {protocol} decoding, same items"
            tables.append(_overview(chosen, title, versus_cell))
        if any(row.gap for group in chosen for row in group.rows):
            title = f"Modality gap, text minus speech, {protocol} decoding, same items"
            tables.append(_overview(chosen, title, gap_cell))
    return tables


def _overview(groups: Sequence[Group], title: str, cell: Cell, with_lengths: bool = False) -> TextTable:
    rows = [(group, row) for group in groups for row in group.rows]
    found = {(row.label, id(group)): row for group, row in rows}
    kinds = {row.label: row.kind for _, row in rows}
    names = sorted(
        kinds, key=lambda label: (KINDS.index(kinds[label]), label)
    )  # tasks disagree on any other order
    columns: list[tuple[str, Group, Cell]] = []
    for group in groups:
        column = _column(group, groups)
        columns.append((f"{column} {heading(group, group.primary)}", group, cell))
        if with_lengths and group.has_lengths(group.primary):
            columns.append((f"{column} {LENGTH}", group, length_cell))
    cells = [
        [
            marked(name, kinds[name]),
            *(
                fill(group, found[name, id(group)], group.primary) if (name, id(group)) in found else NOTHING
                for _, group, fill in columns
            ),
        ]
        for name in names
    ]
    kept = [line for line in cells if any(text != NOTHING for text in line[1:])]
    return TextTable(["model", *(text for text, _, _ in columns)], kept, title)


def _column(group: Group, groups: Sequence[Group]) -> str:
    """Name of a group beside others: the benchmark, or the task where it has several, and what tells these apart."""
    alike = [other for other in groups if other.record.benchmark == group.record.benchmark]
    name = group.record.benchmark if len(alike) == 1 else group.task
    twins = [other for other in alike if other.task == group.task and other.perturb == group.perturb]
    code = f" {group.protocol_hash[:SHORT]}.{group.data_hash[:SHORT]}" if len(twins) > 1 else ""
    return name + (f" ({group.perturb})" if group.perturb else "") + code


def heading(group: Group, metric: str) -> str:
    """Name of a metric with its unit, its form of length control, and its direction where lower is better."""
    stated = group.record.metrics[metric]
    unit = " %" if stated.scale == 1 else ""
    form = next((part for part in stated.signature.split("|") if part.startswith("lc:")), "")
    unit += f" ({form})" if form else ""
    return metric + unit + ("" if stated.higher_is_better else " (lower is better)")


def score_cell(_group: Group, row: Row, metric: str) -> str:
    """Score with its 95 % interval."""
    mark = " (partial)" if row.run.record.partial else ""
    value, low, high = shown(metric, row.run.record.metrics[metric])
    return f"{value} [{low}, {high}]{mark}"


def shown(metric: str, stated: MetricValue) -> tuple[str, str, str]:
    """A score and the ends of its 95 % interval, on a scale of 100, with the digits that they are shown with."""
    factor, digits = _factor(stated), _digits(metric, stated)
    value, low, high = (f"{end * factor:.{digits}f}" for end in (stated.value, stated.low, stated.high))
    return value, low, high


def length_cell(_group: Group, row: Row, metric: str) -> str:
    """Mean length of the answers behind a win rate, and of the answers to beat."""
    return str(row.lengths[metric]) if metric in row.lengths else NOTHING


def versus_cell(group: Group, row: Row, metric: str) -> str:
    """Paired difference from the baseline row; an asterisk where its interval leaves out zero."""
    return "(baseline)" if row.is_baseline else _difference(group, row.versus.get(metric), metric)


def gap_cell(group: Group, row: Row, metric: str) -> str:
    """Modality gap: the text ceiling's score minus the row's on the same items."""
    return "(ceiling)" if row.kind == CEILING else _difference(group, row.gap.get(metric), metric)


def main_table(group: Group) -> TextTable:
    """The primary metric of a group with everything needed to judge it."""
    metric = group.primary
    told = group.has_lengths(metric)
    headings = [
        "rank",
        "model",
        heading(group, metric),
        *([LENGTH] if told else []),
        "n",
        f"vs {group.baseline}",
        "modality gap",
        "not ok",
        "date",
    ]
    rows = [
        [
            str(row.bands[metric]) if row.bands else "ref",
            marked(row.label, row.kind),
            score_cell(group, row, metric),
            *([length_cell(group, row, metric)] if told else []),
            n_cell(row.run.record.metrics[metric]),
            versus_cell(group, row, metric),
            gap_cell(group, row, metric),
            not_ok(row.run.record.statuses),
            row.run.record.created[:10],
        ]
        for row in group.rows
    ]
    return TextTable(headings, rows, group.task, numeric_from=2)


def other_table(group: Group) -> TextTable | None:
    """The other metrics with their differences from the baseline, None if there are none."""
    others = [metric for metric in group.metrics if metric != group.primary]
    if not others:
        return None
    headings = ["model"]
    for metric in others:
        headings += [heading(group, metric), f"vs {group.baseline}"]
        headings += [LENGTH] if _has_own_lengths(group, metric) else []
    rows = [
        [
            marked(row.label, row.kind),
            *(
                text
                for metric in others
                for text in (
                    score_cell(group, row, metric),
                    versus_cell(group, row, metric),
                    *([length_cell(group, row, metric)] if _has_own_lengths(group, metric) else []),
                )
            ),
        ]
        for row in group.rows
    ]
    return TextTable(headings, rows, group.task)


def _has_own_lengths(group: Group, metric: str) -> bool:
    """Whether a win rate is against another baseline, or on other items, than the one that is ranked by."""
    return any(row.lengths.get(metric) not in (None, row.lengths.get(group.primary)) for row in group.rows)


def exploit_table(group: Group) -> TextTable | None:
    """What answers that know nothing would score on the section's questions, None where no record tells."""
    table = next((run.record.exploits for run in group.runs if run.record.exploits), None)
    if table is None:
        return None
    names = [name for name in group.metrics if any(name in scores for scores in table.scores.values())]
    rows = [
        [strategy, *(f"{100 * scores[name]:.1f}" if name in scores else NOTHING for name in names)]
        for strategy, scores in table.scores.items()
    ]
    title = f"Answers that know nothing ({table.n} of the questions)"
    return TextTable([title, *(heading(group, name) for name in names)], rows, group.task)


def facts(group: Group) -> str:
    """One line on what was run: protocol, test set, metric signature, dates."""
    record = group.record
    dates = sorted({run.record.created[:10] for run in group.runs})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    decoding = plain(", ".join(f"{key} {value}" for key, value in sorted(record.decoding.items())))
    judge = "".join(f"; judge {name}" for name in _judges(record))
    perturbed = f", clips changed by {group.perturb}" if group.perturb else ""
    signature = plain(record.metrics[group.primary].signature, LONGEST).replace("|", " ")
    return (
        f"Protocol `{group.protocol_hash[:SHORT]}` ({record.protocol}: {decoding}){judge}; "
        f"test set `{group.data_hash[:SHORT]}`, {record.data['n_items']} items{perturbed}; "
        f"{group.primary}: {signature}; run {days}."
    )


def n_cell(stated: MetricValue) -> str:
    """Items behind a score, and how many more have none: `633 (-3)`."""
    return f"{stated.n} (-{stated.n_missing})" if stated.n_missing else str(stated.n)


def judges_line(group: Group) -> str:
    """How far the judges of a section agree and lean, run by run; "" where no judge reports on itself."""
    told = {row.label: _told(row.run.record.finish) for row in group.rows}
    parts = [f"`{label}` {', '.join(facts)}" for label, facts in told.items() if facts]
    return f"Judges: {'; '.join(parts)}." if parts else ""


def _judges(record: RunRecord) -> list[str]:
    """Who judged what: the rules of the micro world, or the models behind the task's finishers."""
    found = [f"`{plain(record.judge.get('name', record.judge))}`"] if record.judge else []
    for entry in record.protocol_spec.get("finish") or []:
        judge = entry.get("judge")
        found += [f"`{plain(_judge_name(judge))}` ({plain(entry.get('name', 'judge'))})"] if judge else []
    return found


def _judge_name(judge: str | Mapping[str, Any]) -> str:
    if isinstance(judge, str):
        return judge
    known = next((str(judge[key]) for key in ("name", "model") if judge.get(key)), "")
    return known or f"weights {str(judge.get('weights_sha256', 'unknown'))[:SHORT]}"


def _told(report: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    """Numbers called agreement or bias anywhere in the reports of judges, named by their path."""
    found = []
    for key, value in report.items():
        name = (*path, plain(key).replace("_", " "))
        wanted = any(word in " ".join(name) for word in JUDGE_WORDS)
        if isinstance(value, Mapping):
            ends = [value.get(end) for end in ("value", "low", "high")]
            stated = wanted and None not in ends
            found += [f"{' '.join(name)} {_interval_text(ends)}"] if stated else _told(value, name)
        elif wanted and isinstance(value, int | float) and not isinstance(value, bool):
            found.append(f"{' '.join(name)} {value:.3g}")
    return found


def _interval_text(ends: Sequence[Any]) -> str:
    value, low, high = (f"{float(end):+.3f}" for end in ends)
    return f"{value} [{low}, {high}]"


def ceilings_line(group: Group) -> str:
    """Whose text ceiling is whose, "" unless there are several."""
    parts = [f"`{row.label}` from `{row.ceiling}`" for row in group.rows if row.ceiling]
    return f"Modality gap: {'; '.join(parts)}." if len(group.ceilings) > 1 and parts else ""


def reference_notes(groups: Sequence[Group]) -> list[str]:
    """What the reference rows are, as far as there are any."""
    kinds: dict[str, dict[str, None]] = {}
    for row in (row for group in groups for row in group.rows):
        kinds.setdefault(row.kind, {})[row.label] = None
    return [
        f"{', '.join(f'`{label}`' for label in kinds[kind])} {'is a' if len(kinds[kind]) == 1 else 'are each a'} {text}"
        for kind, text in REFERENCE_NAMES.items()
        if kind in kinds
    ]


def flat_rows(group: Group) -> list[dict[str, Any]]:
    """One row per run and metric, in the units of the run records, for CSV and JSON."""
    return [_flat(group, row, metric) for row in group.rows for metric in group.metrics]


def breakdown_rows(group: Group) -> list[dict[str, Any]]:
    """One row per run, metric and group of items (topic or direction)."""
    return [
        {
            "task": group.task,
            "protocol": group.record.protocol,
            "protocol_hash": group.protocol_hash,
            "data_hash": group.data_hash,
            "model": row.label,
            "metric": metric,
            "group": plain(name),
            "value": part.value,
            "low": part.low,
            "high": part.high,
            "n": part.n,
            "date": row.run.record.created,
        }
        for row in group.rows
        for metric in group.metrics
        for name, part in sorted(row.run.record.metrics[metric].breakdown.items())
    ]


def _flat(group: Group, row: Row, metric: str) -> dict[str, Any]:
    record = row.run.record
    stated = record.metrics[metric]
    band = row.bands.get(metric)
    lengths = row.lengths.get(metric)
    return {
        "task": group.task,
        "benchmark": record.benchmark,
        "track": record.track,
        "protocol": record.protocol,
        "protocol_hash": group.protocol_hash,
        "data_hash": group.data_hash,
        "model": row.label,
        "kind": row.kind,
        "metric": metric,
        "primary": metric == group.primary,
        "value": stated.value,
        "low": stated.low,
        "high": stated.high,
        "n": stated.n,
        "n_missing": stated.n_missing,
        "mean_length": lengths.answer if lengths else None,
        "baseline_mean_length": lengths.baseline if lengths else None,
        "scale": stated.scale,
        "method": plain(stated.method, LONGEST),
        "signature": plain(stated.signature, LONGEST),
        "rank_best": band.best if band else None,
        "rank_worst": band.worst if band else None,
        "baseline": group.baseline,
        **_prefixed("versus_baseline", row.versus.get(metric)),
        "ceiling": row.ceiling,
        **_prefixed("modality_gap", row.gap.get(metric)),
        **{f"n_{status}": record.statuses.get(status, 0) for status in STATUSES},
        "partial": record.partial,
        "date": record.created,
        "run_id": record.run_id,
    }


def _prefixed(name: str, interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _difference(group: Group, interval: Interval | None, metric: str) -> str:
    if interval is None:
        return NOTHING
    stated = group.record.metrics[metric]
    factor, digits = _factor(stated), _digits(metric, stated)
    star = " *" if interval.excludes(0.0) else ""
    ends = (interval.value, interval.low, interval.high)
    value, low, high = (_signed(end * factor, digits) for end in ends)
    return f"{value} [{low}, {high}]{star}"


def _signed(number: float, digits: int) -> str:
    text = f"{number:+.{digits}f}"
    return text[1:] if not text.strip("+-0.") else text


def _digits(metric: str, stated: MetricValue) -> int:
    """Ratings from 1 to 5 differ in the second digit; all else is shown in points of a hundred."""
    return 2 if metric == "rating" and stated.scale == 100 else 1


def _factor(stated: MetricValue) -> float:
    return 100.0 / stated.scale


def marked(label: str, kind: str) -> str:
    """Label of a row, with a mark where it is a reference."""
    return label if kind == MODEL else f"{label} (ref)"

"""The counts of a set as tables for a terminal."""

from collections.abc import Iterator
from typing import Any

from rba_bench.audio.set_labels import PAPER, is_labelled, paper_shares
from rba_bench.audio.set_statistics import SetStatistics

LONGEST = 32  # lines of a table; the page and `--json` have all
Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]


def count_tables(statistics: SetStatistics) -> Iterator[Table]:
    """Columns and rows of each table that the set has."""
    summary = statistics.summary()
    totals = [
        ("instructions", f"{statistics.groups:,}"),
        ("clips", f"{statistics.clips:,}"),
        ("hours of speech", f"{statistics.hours:,.2f}"),
    ]
    for name in ("kind", "split", "source_lang", "target_lang"):
        found = summary["clips_by"][name].items()
        totals.append((name, ", ".join(f"{value or 'none'} {n:,}" for value, n in found)))
    yield ("", "in the set"), totals
    for name in PAPER:
        if is_labelled(statistics.labels[name]):
            yield _labels(name, statistics)
    yield _quantiles(summary)
    voices = [
        (name or "none", count.clips, f"{count.hours:.2f}", _percent(count.wer))
        for name, count in statistics.voices().items()
    ]
    yield ("voice", "clips", "hours", "mean WER"), _shortened(voices)
    if statistics.filters:
        rows = [(count.part, count.reason, count.n, count.meaning) for count in statistics.filters]
        yield ("filtered", "reason", "number", "meaning"), rows


def _labels(name: str, statistics: SetStatistics) -> Table:
    """Clips by label, beside the paper's shares where they are the same labels."""
    rows = [
        (label or "none", n, f"{100 * n / statistics.clips:.1f} %", "" if share is None else f"{share} %")
        for label, n, share in paper_shares(name, statistics.labels[name])
    ]
    return (name, "clips", "share", "RBA paper"), _shortened(rows)


def _quantiles(summary: dict[str, Any]) -> Table:
    """Quantiles of seconds and of word error rates, one below the other."""
    columns = ("mean", "p0", "p5", "p25", "p50", "p75", "p90", "p95", "p99", "p100")
    rows = []
    if found := summary["seconds"]:
        rows.append(("seconds", *(f"{found[name]:.1f}" if name in found else "" for name in columns)))
    if found := summary["wer"]:
        rows.append(("WER", *(_percent(found.get(name)) for name in columns)))
    return ("", *columns), rows


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.1f} %"


def _shortened(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    if len(rows) <= LONGEST:
        return rows
    return [*rows[:LONGEST], (f"and {len(rows) - LONGEST} more", *[""] * (len(rows[0]) - 1))]

"""The modality gap: what the text ceiling scores above a model on the same items."""

from collections.abc import Sequence
from pathlib import Path

from rba_bench.evaluation.records import RunRecord
from rba_bench.leaderboard.contrasts import compare
from rba_bench.metrics.interval import Interval
from rba_bench.names import folder_name


def gaps(
    records: Sequence[RunRecord], ceiling: Sequence[RunRecord], out: Path
) -> dict[tuple[str, str], Interval]:
    """Ceiling minus model, paired, by run id of the model's record and metric.

    Args:
        records: Of the model.
        ceiling: Of the ceiling, on the same tasks in the same order.
        out: Folder that both were written to.

    Raises:
        UserError: the two are not on the same items under the same protocol.
    """
    found: dict[tuple[str, str], Interval] = {}
    for own, above in zip(records, ceiling, strict=True):
        [comparison] = compare(folder(above, out), folder(own, out)).comparisons
        for contrast in comparison.metrics:
            found[own.run_id, contrast.metric] = contrast.difference
    return found


def folder(record: RunRecord, out: Path) -> Path:
    """Where `evaluate` put a record."""
    return out / folder_name(str(record.model["name"])) / record.run_id

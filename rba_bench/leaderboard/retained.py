"""What control runs (`eval --audio`) retain of the full runs that lie beside them."""

from collections.abc import Sequence
from pathlib import Path

from rba_bench.evaluation.plan import recorded_run_id
from rba_bench.evaluation.records import RUN_FILE, RunRecord
from rba_bench.leaderboard.board_groups import full_run_key, group_key
from rba_bench.leaderboard.compare_runs import record_folder
from rba_bench.leaderboard.loaded_runs import load_checked_run
from rba_bench.leaderboard.pairing import RunPair
from rba_bench.metrics.interval import Interval


def retained_shares(records: Sequence[RunRecord], out: Path) -> dict[tuple[str, str], Interval]:
    """Shares of the full runs' scores, by run id of the control and metric; nothing where the full run is not there.

    Args:
        records: Control runs.
        out: Folder that `evaluate` wrote them to.

    Raises:
        UserError: a run there is damaged.
    """
    shares: dict[tuple[str, str], Interval] = {}
    for record in records:
        control, key = record_folder(out, record), full_run_key(record)
        full = control.parent / recorded_run_id(record, key[1])
        if not (full / RUN_FILE).is_file():
            continue
        pair = RunPair(load_checked_run(control), load_checked_run(full))
        if group_key(pair.second.record) == key:
            found = {metric: pair.retained(metric) for metric in record.metrics}
            shares |= {(record.run_id, metric): share for metric, share in found.items() if share is not None}
    return shares

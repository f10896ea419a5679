"""What control runs (`eval --audio`) retain of the full runs that lie beside them."""

from collections.abc import Sequence
from pathlib import Path

from rba_bench.evaluation.plan import recorded_run_id
from rba_bench.evaluation.records import RUN_FILE, RunRecord
from rba_bench.leaderboard.board_groups import full_run_key, group_key
from rba_bench.leaderboard.compare_runs import record_folder
from rba_bench.leaderboard.judges import judges_of, same_judge
from rba_bench.leaderboard.loaded_runs import load_checked_run
from rba_bench.leaderboard.pairing import RunPair
from rba_bench.metrics.interval import Interval


def retained_shares(records: Sequence[RunRecord], out: Path) -> dict[str, dict[str, Interval]]:
    """Shares of the full runs' scores by metric, for each control (by its run id) whose full run is there.

    A metric has none where the full score is, or may be, 0, or where another judge gave it.

    Args:
        records: Control runs.
        out: Folder that `evaluate` wrote them to.

    Raises:
        UserError: a run there is damaged.
    """
    shares: dict[str, dict[str, Interval]] = {}
    for record in records:
        control, key = record_folder(out, record), full_run_key(record)
        full = control.parent / recorded_run_id(record, key[1])
        if not (full / RUN_FILE).is_file():
            continue
        pair = RunPair(load_checked_run(control), load_checked_run(full))
        if group_key(pair.second.record) == key:
            ours, theirs = judges_of(pair.first.record), judges_of(pair.second.record)
            metrics = [name for name in record.metrics if same_judge(ours.get(name), theirs.get(name))]
            found = {metric: pair.retained(metric) for metric in metrics}
            shares[record.run_id] = {metric: share for metric, share in found.items() if share is not None}
    return shares

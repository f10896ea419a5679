"""The runs of a board compared task by task, so that the samples of one task are in memory at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rba_bench.leaderboard.board_groups import BoardGroup, check_runs, form_groups, in_order
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.leaderboard.worker_processes import Mapped


@dataclass(frozen=True)
class CompareJob:
    """All runs of one task, and what they are compared with (see `BoardGroup`)."""

    runs: tuple[LoadedRun, ...]
    baseline: str
    ceiling: str | None


def compare_runs_by_task(
    runs: Sequence[LoadedRun],
    baseline: str,
    ceiling: str | None,
    mapped: Mapped,
    compared: Mapping[str, Sequence[BoardGroup]] | None = None,
) -> tuple[BoardGroup, ...]:
    """Groups of all runs with their rows, in the order of a board; samples are read again where they are asked for.

    Args:
        runs: Runs that were checked.
        baseline: See `BoardGroup`.
        ceiling: See `BoardGroup`.
        mapped: Maps a function to jobs, perhaps in several processes.
        compared: What is known already, by task.

    Raises:
        UserError: see `group_runs`.
    """
    check_runs(runs, ceiling)
    by_task: dict[str, list[LoadedRun]] = {}
    for run in runs:
        by_task.setdefault(run.record.task, []).append(run)
    known = compared or {}
    jobs = [
        CompareJob(tuple(by_task[task]), baseline, ceiling) for task in sorted(by_task) if task not in known
    ]
    found = (*known.values(), *mapped(compare_task, jobs))
    return tuple(in_order([group for groups in found for group in groups]))


def compare_task(job: CompareJob) -> list[BoardGroup]:
    """The groups of one task with their rows, and without samples."""
    first: LoadedRun | None = None
    for run in job.runs:
        run.condense(like=first)
        first = first or run
    groups = form_groups(job.runs, job.baseline, job.ceiling)
    for group in groups:
        assert group.rows and group.item_numbers  # computed now, and kept
        group.release()
    return groups

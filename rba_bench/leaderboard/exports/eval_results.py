"""Scores as `.eval_results/*.yaml`, which the Hub shows on the page of a model and on the board of a data set.

The format: https://huggingface.co/docs/hub/eval-results. It names a benchmark by its data set on the Hub; a task whose
data is not on the Hub cannot be expressed in it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import folder_name
from rba_bench.leaderboard.board_groups import BoardGroup
from rba_bench.leaderboard.columns import score_texts
from rba_bench.leaderboard.exports.origin import ExportedFiles, Origin, hub_id, runs_by_model, score_note
from rba_bench.leaderboard.loaded_runs import MODEL, LoadedRun, kind_of_run

FOLDER = ".eval_results"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def export_eval_results(groups: Sequence[BoardGroup], origin: Origin) -> ExportedFiles:
    """`<model>/.eval_results/<data set>.yaml` for each model, to be copied into its repository.

    `task_id` is the name of the task here. The board of a data set takes the ids that its own `eval.yaml` lists.

    Args:
        groups: The runs.
        origin: Its address becomes the source of each score, with the organization as its name.

    Raises:
        UserError: no run can be expressed.
    """
    from huggingface_hub import eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    files: dict[str, bytes] = {}
    left_out: list[str] = []
    for name, members in runs_by_model(groups).items():
        newest: dict[tuple[str, str], Any] = {}
        for group, run in sorted(members, key=lambda member: member[1].record.created, reverse=True):
            repo = hub_id(run.record.data.get("repo"))
            if reason := _why_not(group, run, repo, newest):
                left_out.append(f"{run.name} on {group.task}: {reason}")
            else:
                newest[repo, group.task] = _entry(group, run, repo, origin)
        for repo in dict.fromkeys(repo for repo, _ in sorted(newest)):
            entries = [entry for key, entry in sorted(newest.items()) if key[0] == repo]
            path = f"{folder_name(name)}/{FOLDER}/{folder_name(repo)}.yaml"
            files[path] = yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False).encode()
    if not files:
        reasons = {line.partition(": ")[2]: line for line in reversed(left_out)}  # the first of each
        raise UserError(f"nothing to export as eval-results: {'; '.join(sorted(reasons.values()))}")
    return ExportedFiles(files, tuple(left_out))


def _why_not(group: BoardGroup, run: LoadedRun, repo: str, newer: Mapping[tuple[str, str], Any]) -> str:
    """Why a run has no entry, "" if it has one: a board of the Hub takes one score of a model and task."""
    if kind_of_run(run) != MODEL:
        return "a reference is no model on the Hub"
    if not repo:
        return "its test set is not on the Hub"
    if group.perturbation:
        return f"its clips were changed ({group.perturbation}), so it is not a score on this benchmark"
    return "a newer run of this task is exported" if (repo, group.task) in newer else ""


def _entry(group: BoardGroup, run: LoadedRun, repo: str, origin: Origin) -> Any:
    from huggingface_hub import EvalResultEntry

    record, metric = run.record, group.primary
    revision = record.data.get("revision")
    is_commit = isinstance(revision, str) and _COMMIT.fullmatch(revision)
    return EvalResultEntry(
        dataset_id=repo,
        task_id=record.task,
        value=float(score_texts(metric, record.metrics[metric])[0]),
        dataset_revision=revision if is_commit else None,
        date=record.created,
        source_url=origin.url or None,
        source_name=(origin.organization or None) if origin.url else None,
        notes=score_note(group, run, metric),
    )

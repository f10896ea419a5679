"""The board anchored to the new judge: the same answers judged by it alone, as records and as a board of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation.records import RUN_FILE, read_record
from rba_bench.evaluation.rescoring import RescoreOptions, rescore_folder
from rba_bench.evaluation.task_registry import read_spec
from rba_bench.files import folder_name, inside
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.judge_transfer.preparing import Work
from rba_bench.leaderboard.judges import RULES, judges_of
from rba_bench.leaderboard.loaded_runs import LoadedRun
from rba_bench.textlm.judging import judge_facts

RECORDS, BOARD = "records", "board"
SHOWN = ("value", "low", "high", "n", "rank_best", "rank_worst")


def check_reanchor(work: Work) -> None:
    """Raises UserError where there is nothing that the new judge could judge alone."""
    if work.request.reanchor and all(section.by_rules for section in work.sections):
        raise UserError(
            "--reanchor needs win rates by a judge model: rules belong to their task and do not retire; leave it out"
        )


def reanchor(work: Work, out: Path) -> dict[str, Any]:
    """Let the new judge score all runs of the sections, and build the board of these and of the runs without a judge.

    A run that is there already is not judged again, unless the judge failed on some of its items.

    Returns:
        Folders, warnings of the board, and the scores of each model before and after.

    Raises:
        UserError: a task is not known here, or a column would still have another judge.
        RbaError: the judge gives hardly any usable vote.
    """
    chosen = {id(run): run for section in work.sections if not section.by_rules for run in section.group.runs}
    for run in chosen.values():
        _judge_again(run, work, out)
    unjudged = [run for run in work.runs if not judges_of(run.record)]
    partial = any(run.record.partial for run in (*chosen.values(), *unjudged))
    names = [run.name for run in chosen.values()]
    baseline = "sft" if "sft" in names else names[0]
    folders = [out / RECORDS, *(run.folder for run in unjudged)]
    board = build_board(folders, out / BOARD, baseline, partial)
    rows = [row for section in board.data["sections"] for row in section["rows"]]
    warnings = list(board.warnings)
    return {"records": RECORDS, "board": BOARD, "warnings": warnings, "rows": _before_and_after(work, rows)}


def _judge_again(run: LoadedRun, work: Work, out: Path) -> None:
    """One run below `records`, judged by the new judge; raises UserError if a metric has another one."""
    request = work.request
    target = inside(out / RECORDS, f"{folder_name(str(run.record.model['name']))}/{run.record.run_id}")
    done = (target / RUN_FILE).is_file() and not read_record(target).statuses.get("judge_failed", 0)
    if not done:
        options = RescoreOptions(
            request.new, request.task, out, request.data_dir, request.device, request.batch_size
        )
        if request.task is not None and read_spec(request.task).name != run.record.task:
            options = replace(options, task=None)
        rescore_folder(run.folder, options, out / RECORDS)
    expected = judge_facts(work.new_model.identity())
    for metric, judge in judges_of(read_record(target)).items():
        if judge.kind != RULES and dict(judge.facts) != expected:
            raise UserError(f"{target}: {metric} was not judged by {work.new_model.name}: remove the folder")


def _before_and_after(work: Work, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Score and rank band of each model on all its items, under A and under B."""
    by_run = {(row["task"], row["metric"], row["run_id"], row["data_hash"]): row for row in rows}
    result = []
    for section in work.sections:
        group = section.group
        for before in group.rows:
            key = (group.task, section.metric, before.run.record.run_id, group.data_hash)
            if key not in by_run:
                continue
            value, band = before.run.record.metrics[section.metric], before.bands.get(section.metric)
            ranks = (band.best, band.worst) if band else (None, None)
            a = dict(zip(SHOWN, (value.value, value.low, value.high, value.n, *ranks), strict=True))
            b = {name: by_run[key][name] for name in SHOWN}
            result.append(
                {"task": group.task, "metric": section.metric, "model": before.label, "a": a, "b": b}
            )
    return result

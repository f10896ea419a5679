"""`rba-bench eval`: a model and tasks in, run records out."""

import os
from typing import TYPE_CHECKING, Any

from rba_bench.cli import eval_options, options
from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.progress import stdout_reserved

if TYPE_CHECKING:
    from rba_bench.evaluation.records import RunRecord
    from rba_bench.evaluation.request import EvalRequest
    from rba_bench.metrics.interval import Interval

COLUMNS = (
    "model",
    "task",
    "protocol",
    "metric",
    "value",
    "95 % interval",
    "n",
    "not ok",
    "protocol hash",
    "date",
)
PLANNED = ("task", "items", "judge", "calls", "prompt tokens", "answer tokens", "dollars")


def command(
    task: eval_options.Tasks = None,
    model: eval_options.Model = None,
    track: eval_options.Track = None,
    data_dir: eval_options.DataDir = None,
    limit: eval_options.Limit = None,
    out: options.Out = None,
    judge: eval_options.Judge = None,
    baseline: eval_options.Baseline = None,
    gap: eval_options.Gap = None,
    perturb: eval_options.Perturb = "",
    dry_run: eval_options.DryRun = False,
    seed: eval_options.Seed = 1234,
    batch_size: eval_options.BatchSize = 32,
    batch_seconds: eval_options.BatchSeconds = None,
    device: eval_options.Device = None,
    pad: eval_options.Pad = False,
    encoder_cache: eval_options.EncoderCache = None,
    language: eval_options.Language = None,
    template: eval_options.Template = None,
    trust: options.Trust = False,
    retry_errors: eval_options.RetryErrors = False,
    cache: eval_options.Cache = True,
    as_json: options.Json = False,
) -> None:
    """Score a SpeechLM on spoken tasks.

    Each task leaves a run record; micro tasks run under greedy and under sampled decoding. A rerun resumes.
    """
    from rba_bench.evaluation.request import OUT, make_request
    from rba_bench.textlm.template import parse

    given: dict[str, Any] = {
        "limit": limit, "out": out or OUT, "judge": judge, "baseline": baseline, "perturb": perturb, "seed": seed,
        "data_dir": data_dir, "batch_size": batch_size, "batch_seconds": batch_seconds, "device": device,
        "retry_errors": retry_errors, "use_cache": cache, "trust": trust, "pad": pad, "encoder_cache": encoder_cache,
        "language": language, "template": parse(template or ()),
    }  # fmt: skip
    with stdout_reserved():
        request = make_request(task, model or ("constant" if dry_run else None), track, **given)
        if dry_run:
            from rba_bench.evaluation.dry_run import estimate

            estimates = estimate(request)
        else:
            records, gaps = _evaluate(request, gap)
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes the first one speaks
    if dry_run:
        _render_plan(estimates, as_json)
    else:
        _render(records, gaps, as_json)


def _evaluate(
    request: "EvalRequest", gap: str | None
) -> "tuple[list[RunRecord], dict[tuple[str, str], Interval]]":
    """Records, and by run id and metric the paired difference to the ceiling where one is asked for."""
    from dataclasses import replace

    from rba_bench.evaluation.runner import evaluate

    records = evaluate(request)
    if gap is None:
        return records, {}
    from rba_bench.leaderboard.gaps import gaps

    ceiling = evaluate(replace(request, model=gap))
    return [*records, *ceiling], gaps(records, ceiling, request.out)


def _render_plan(estimates: "list[Any]", as_json: bool) -> None:
    if as_json:
        emit_json(estimates)
        return
    emit_table(PLANNED, [estimate.row() for estimate in estimates])
    emit("at most: answers are taken to be as long as the task allows, and no vote to be kept from before")


def _render(records: "list[RunRecord]", gaps: "dict[tuple[str, str], Interval]", as_json: bool) -> None:
    if as_json:
        emit_json(records)
        return
    from rba_bench.evaluation.records import UNSCORED

    columns = (*COLUMNS[:6], "gap (ceiling - model)", *COLUMNS[6:]) if gaps else COLUMNS
    emit_table(columns, [row for record in records for row in _rows(record, gaps)])
    _render_exploits(records)
    if any(record.partial for record in records):
        emit("partial: --limit cut the test set, so no leaderboard takes these records")
    for record in records:
        missing = {name: metric.n_missing for name, metric in record.metrics.items() if metric.n_missing}
        if missing:
            counts = ", ".join(f"{name} {n}" for name, n in missing.items())
            reasons = [status for status in (*UNSCORED, "judge_failed") if record.statuses.get(status)]
            why = (
                f" ({', '.join(f'{status} {record.statuses[status]}' for status in reasons)})"
                if reasons
                else ""
            )
            emit(f"{record.task}: without a score: {counts} of {record.n} items{why}")
        for name, metric in record.metrics.items():
            if metric.mean_length is not None and metric.baseline_mean_length is not None:
                emit(
                    f"{record.task} {name}: answers of {metric.mean_length:.0f} characters on average, "
                    f"the baseline's of {metric.baseline_mean_length:.0f}"
                )


def _render_exploits(records: "list[RunRecord]") -> None:
    """What answers that know nothing would score, once for every test set of questions."""
    tables = {
        (record.task, record.data["items_sha256"]): record.exploits for record in records if record.exploits
    }
    for (task, _), table in tables.items():
        names = list(next(iter(table.scores.values()), {}))
        emit()
        emit(f"{task}: what answers that know nothing would score ({table.n} of its questions)")
        rows = [
            (strategy, *(round(scores[name], 4) for name in names))
            for strategy, scores in table.scores.items()
        ]
        emit_table(("strategy", *names), rows)


def _rows(record: "RunRecord", gaps: "dict[tuple[str, str], Interval]") -> list[tuple[Any, ...]]:
    from rba_bench.evaluation.records import not_ok

    failed = not_ok(record.statuses)
    rows = []
    for name, metric in record.metrics.items():
        gap = gaps.get((record.run_id, name))
        shown = f"{gap.value:+.4g} [{gap.low:+.4g}, {gap.high:+.4g}]" if gap else "-"
        rows.append(
            (
                record.model["name"],
                record.task,
                record.protocol,
                name,
                round(metric.value, 4),
                f"{metric.low:.4g} .. {metric.high:.4g}",
                *((shown,) if gaps else ()),
                metric.n,
                failed,
                record.protocol_hash[:12],
                record.created[:10],
            )
        )
    return rows

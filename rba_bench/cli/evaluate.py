"""`rba-bench eval` and `rba-bench rescore`: a model and tasks in, run records out.

Options of `rba-bench eval`, with their help texts.

`rba-bench eval`: a model and tasks in, run records out.

`rba-bench rescore`: scores again from the responses that runs have kept.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.progress import stdout_reserved

if TYPE_CHECKING:
    from rba_bench.evaluation.plan import EvalRequest
    from rba_bench.evaluation.records import RunRecord
    from rba_bench.evaluation.rescoring import Rescored
    from rba_bench.metrics.interval import Interval


TrackName = Literal["micro", "full"]

Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        metavar="NAME[,NAME]",
        help="Task, group or benchmark; may be repeated. All of the micro track by default.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Checkpoint folder or Hub id; openai:URL#NAME; cascade:WHISPER+LLM; text:LLM; base|text|cascade|constant "
        "(micro). The newest checkpoint under runs/ by default.",
    ),
]
Track = Annotated[
    TrackName | None,
    typer.Option("--track", help="By default the tasks' own, else the model's."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Local copies of data sets, instead of the Hub.", show_default=False
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Items per task; marks the run partial.")]
Seed = Annotated[int, typer.Option("--seed", help="Of sampled decoding.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Most clips per batch.")]
BatchSeconds = Annotated[
    float | None,
    typer.Option("--batch-seconds", min=1.0, help="Most audio per batch, in seconds; 12 a clip by default."),
]
Device = Annotated[
    str | None, typer.Option("--device", help="Torch device; a GPU if there is one.", show_default=False)
]
Judge = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="MODEL|none",
        help="Judge instead of the task's: openai:URL#NAME, folder, Hub id. Keys: see `doctor`.",
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        "--baseline", metavar="FILE|RUN", help="Answers to beat in win rates, instead of the task's own."
    ),
]
Perturb = Annotated[
    str,
    typer.Option(
        "--perturb",
        metavar="NAME=VALUE,...",
        help="Seeded damage to every clip: noise=10dB,reverb=small,speed=1.2,telephone.",
    ),
]
Gap = Annotated[
    str | None,
    typer.Option(
        "--gap", metavar="MODEL", help="Ceiling on the same items, such as text:LLM; adds the modality gap."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show items, judge calls and their cost.")]
RetryErrors = Annotated[
    bool, typer.Option("--retry-errors", help="Ask again for items that could not be answered or judged.")
]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Take answers that other runs in the folder have kept.")
]
Pad = Annotated[
    bool,
    typer.Option(
        "--pad", help="Pad clips as the model's own processor does, not to the longest of the batch."
    ),
]
EncoderCache = Annotated[
    Path | None,
    typer.Option(
        "--encoder-cache",
        metavar="DIR",
        help="Keep encoder states on disk for other tasks on the same clips.",
    ),
]
Template = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        metavar="KEY=VALUE",
        help="Variable of the model's chat template, such as enable_thinking=false; may be repeated.",
        show_default=False,
    ),
]
Language = Annotated[
    str | None,
    typer.Option(
        "--language", metavar="CODE", help="Of the speech, for Whisper in a cascade; found out by default."
    ),
]


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
    task: Tasks = None,
    model: Model = None,
    track: Track = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    out: options.Out = None,
    judge: Judge = None,
    baseline: Baseline = None,
    gap: Gap = None,
    perturb: Perturb = "",
    dry_run: DryRun = False,
    seed: Seed = 1234,
    batch_size: BatchSize = 32,
    batch_seconds: BatchSeconds = None,
    device: Device = None,
    pad: Pad = False,
    encoder_cache: EncoderCache = None,
    language: Language = None,
    template: Template = None,
    trust: options.Trust = False,
    retry_errors: RetryErrors = False,
    cache: Cache = True,
    as_json: options.Json = False,
) -> None:
    """Score a SpeechLM on spoken tasks.

    Each task leaves a run record; micro tasks run under greedy and under sampled decoding. A rerun resumes.
    """
    from rba_bench.evaluation.plan import OUT, make_request
    from rba_bench.textlm.chat import parse_template_variables

    given: dict[str, Any] = {
        "limit": limit, "out": out or OUT, "judge": judge, "baseline": baseline, "perturb": perturb, "seed": seed,
        "data_dir": data_dir, "batch_size": batch_size, "batch_seconds": batch_seconds, "device": device,
        "retry_errors": retry_errors, "use_cache": cache, "trust": trust, "pad": pad, "encoder_cache": encoder_cache,
        "language": language, "template": parse_template_variables(template or ()),
    }  # fmt: skip
    with stdout_reserved():
        request = make_request(task, model or ("constant" if dry_run else None), track, **given)
        if dry_run:
            from rba_bench.evaluation.runner import estimate_costs

            estimates = estimate_costs(request)
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
    from rba_bench.leaderboard.compare_runs import modality_gaps

    ceiling = evaluate(replace(request, model=gap))
    return [*records, *ceiling], modality_gaps(records, ceiling, request.out)


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
        emit(f"{task}: score of uninformed answers ({table.n} of the questions)")
        rows = [
            (strategy, *(round(scores[name], 4) for name in names))
            for strategy, scores in table.scores.items()
        ]
        emit_table(("strategy", *names), rows)


def _rows(record: "RunRecord", gaps: "dict[tuple[str, str], Interval]") -> list[tuple[Any, ...]]:
    from rba_bench.evaluation.records import describe_failures

    failed = describe_failures(record.statuses)
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


def rescore_command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, run.json files, or folders of runs."),
    ],
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="MODEL|none",
            help="Judge anew, or leave judged metrics out; by default the verdicts stay.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(
            "--task", metavar="FILE", help="YAML of a task that is not shipped.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the new records; by default in place.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    device: Device = None,
    as_json: options.Json = False,
) -> None:
    """Score finished runs again, without the model.

    Takes the kept responses through today's task, metrics and normalisers. Each record says what it was before.
    """
    with stdout_reserved():
        from rba_bench.evaluation.rescoring import RescoreOptions, rescore_runs

        chosen = RescoreOptions(judge=judge, task=task, data_dir=data_dir, device=device)
        remaining = iter(rescore_runs(runs, chosen, out))
    found = []
    for one in iter(lambda: _next(remaining), None):
        found.append(one)
        if not as_json:
            emit(one.line())
    if as_json:
        emit_json([one.to_dict() for one in found])


def _next(remaining: "Iterator[Rescored]") -> "Rescored | None":
    """The next run; each is told when it is done, as a later one may fail."""
    with stdout_reserved():
        return next(remaining, None)

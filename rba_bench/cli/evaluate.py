"""`rba-bench eval`: a model and tasks in, run records out; and `rba-bench rescore`: new scores of stored responses."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.errors import UserError
from rba_bench.progress import stdout_reserved

if TYPE_CHECKING:
    from rba_bench.evaluation.plan import EvalRequest
    from rba_bench.evaluation.records import RunRecord
    from rba_bench.metrics.interval import Interval


TrackName = Literal["micro", "small", "full"]

Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        metavar="NAME[,NAME]",
        help="Task, group of tasks, or benchmark. May be repeated. Default: all tasks of the micro or the small track.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Checkpoint folder, Hub id or asset:NAME; openai:URL#NAME; cascade:WHISPER+LLM; text:LLM (an LLM may be "
        "a GGUF file); or, in the micro track, base|text|cascade|constant. Default: the newest checkpoint under runs/.",
    ),
]
Track = Annotated[
    TrackName | None,
    typer.Option(
        "--track", help="Track of the tasks. Default: that of the named tasks, else that of the model."
    ),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Number of items per task. Marks the run as partial.")
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed for sampled decoding.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Maximum number of clips per batch.")]
BatchSeconds = Annotated[
    float | None,
    typer.Option(
        "--batch-seconds",
        min=1.0,
        help="Maximum seconds of audio per batch. Default: 12 for each clip of --batch-size.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="Torch device. Default: a GPU if there is one.", show_default=False),
]
Judge = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="MODEL|none",
        help="Judge model instead of the task's: openai:URL#NAME, folder, GGUF file, Hub id, or asset:NAME. "
        "`doctor` shows where API keys go.",
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        metavar="FILE|RUN",
        help="Answers that win rates compare with, instead of the task's own.",
    ),
]
Perturb = Annotated[
    str,
    typer.Option(
        "--perturb",
        metavar="NAME=VALUE,...",
        help="Change every clip with a fixed seed, for example noise=10dB,reverb=small,speed=1.2,telephone.",
    ),
]
Audio = Annotated[
    str,
    typer.Option(
        "--audio",
        metavar="CONTROL",
        help="Control run without the speech: silence, shuffle (another item's clip), or first=1s (only the first "
        "second). Leaderboards show how much of the full score remains.",
    ),
]
Gap = Annotated[
    str | None,
    typer.Option(
        "--gap",
        metavar="MODEL",
        help="Also evaluate this text ceiling, such as text:LLM, on the same items and show the modality gap.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only show the number of items and the cost of judging; run nothing."),
]
RetryErrors = Annotated[
    bool, typer.Option("--retry-errors", help="Repeat items that could not be answered or judged.")
]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Reuse responses of other runs in the output folder.")
]
Pad = Annotated[
    bool,
    typer.Option(
        "--pad",
        help="Pad clips as the model's own processor does, instead of to the longest clip of the batch.",
    ),
]
EncoderCache = Annotated[
    Path | None,
    typer.Option(
        "--encoder-cache",
        metavar="DIR",
        help="Keep the states of the audio encoder on disk, for other tasks with the same clips.",
    ),
]
Template = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        metavar="KEY=VALUE",
        help="Variable of the model's chat template, such as enable_thinking=false. May be repeated.",
        show_default=False,
    ),
]
Language = Annotated[
    str | None,
    typer.Option(
        "--language",
        metavar="CODE",
        help="Language of the speech, for Whisper in a cascade. Default: detected by Whisper.",
    ),
]


COLUMNS = (
    "model", "task", "protocol", "metric", "value", "95 % interval", "n", "not ok", "protocol hash", "date",
)  # fmt: skip
ESTIMATE_COLUMNS = ("task", "items", "judge", "calls", "prompt tokens", "answer tokens", "dollars")


def eval_command(
    task: Tasks = None,
    model: Model = None,
    track: Track = None,
    data_dir: options.DataDir = None,
    limit: Limit = None,
    out: options.Out = None,
    judge: Judge = None,
    baseline: Baseline = None,
    gap: Gap = None,
    perturb: Perturb = "",
    audio: Audio = "",
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
    """Evaluate a SpeechLM on spoken tasks.

    Writes a run record for each task. Micro tasks are evaluated with greedy and with sampled decoding. The same command
    resumes an interrupted run.
    """
    from rba_bench.evaluation.plan import OUT, make_request
    from rba_bench.textlm.chat import parse_template_variables

    settings: dict[str, Any] = {
        "limit": limit, "out": out or OUT, "judge": judge, "baseline": baseline, "perturb": perturb, "audio": audio,
        "seed": seed, "data_dir": data_dir, "batch_size": batch_size, "batch_seconds": batch_seconds, "device": device,
        "retry_errors": retry_errors, "use_cache": cache, "trust": trust, "pad": pad, "encoder_cache": encoder_cache,
        "language": language, "template": parse_template_variables(template or ()),
    }  # fmt: skip
    with stdout_reserved():
        request = make_request(task, model or ("constant" if dry_run else None), track, **settings)
        if dry_run:
            from rba_bench.evaluation.runner import estimate_costs

            estimates = estimate_costs(request)
        else:
            records, gaps = _evaluate(request, gap)
            shares = _retained(records, request.out)
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes, only the first one prints
    if dry_run:
        _print_estimates(estimates, as_json)
    else:
        _print_records(records, gaps, as_json, shares)


def _evaluate(
    request: "EvalRequest", gap: str | None
) -> "tuple[list[RunRecord], dict[tuple[str, str], Interval]]":
    """Records, and the paired difference to the ceiling by run id and metric, where a ceiling is asked for."""
    from dataclasses import replace

    from rba_bench.evaluation.runner import evaluate

    if gap is not None and request.audio:
        raise UserError(
            "--gap compares with a model that reads the transcript, and --audio takes it away: leave one out"
        )
    records = evaluate(request)
    if gap is None:
        return records, {}
    from rba_bench.leaderboard.compare_runs import modality_gaps

    ceiling = evaluate(replace(request, model=gap))
    return [*records, *ceiling], modality_gaps(records, ceiling, request.out)


def _retained(records: "list[RunRecord]", out: Path) -> "dict[str, dict[str, Interval]]":
    """What the controls among the records retain of the full runs in the same folder."""
    controls = [record for record in records if record.audio_control]
    if not controls:
        return {}
    from rba_bench.leaderboard.retained import retained_shares

    return retained_shares(controls, out)


def _print_estimates(estimates: "list[Any]", as_json: bool) -> None:
    if as_json:
        emit_json(estimates)
        return
    emit_table(ESTIMATE_COLUMNS, [estimate.row() for estimate in estimates])
    emit("This is an upper bound: it assumes the longest answers that the task allows, and no stored votes.")


def _print_records(
    records: "list[RunRecord]",
    gaps: "dict[tuple[str, str], Interval]",
    as_json: bool,
    shares: "dict[str, dict[str, Interval]] | None" = None,
) -> None:
    if as_json:
        emit_json(records)
        return
    columns = (*COLUMNS[:6], "gap (ceiling - model)", *COLUMNS[6:]) if gaps else COLUMNS
    emit_table(columns, [row for record in records for row in _metric_rows(record, gaps)])
    exploits = {(r.task, r.data["items_sha256"]): r.exploits for r in records if r.exploits}
    for (task, _), table in exploits.items():
        names = list(next(iter(table.scores.values()), {}))
        emit()
        emit(f"{task}: score of uninformed answers ({table.n} of the questions)")
        rows = [
            (answer, *(round(scores[each], 4) for each in names)) for answer, scores in table.scores.items()
        ]
        emit_table(("strategy", *names), rows)
    if any(record.partial for record in records):
        emit("partial: --limit shortened the test set, so leaderboards refuse these records")
    for record in records:
        for note in (*_control_notes(record, shares or {}), *_record_notes(record)):
            emit(note)


def _metric_rows(record: "RunRecord", gaps: "dict[tuple[str, str], Interval]") -> "Iterator[tuple[Any, ...]]":
    from rba_bench.evaluation.records import describe_failures

    for name, metric in record.metrics.items():
        gap = gaps.get((record.run_id, name))
        gap_text = f"{gap.value:+.4g} [{gap.low:+.4g}, {gap.high:+.4g}]" if gap else "-"
        yield (
            record.model["name"],
            record.task,
            record.protocol,
            name,
            round(metric.value, 4),
            f"{metric.low:.4g} .. {metric.high:.4g}",
            *((gap_text,) if gaps else ()),
            metric.n,
            describe_failures(record.statuses),
            record.protocol_hash[:12],
            record.created[:10],
        )


def _control_notes(record: "RunRecord", shares: "dict[str, dict[str, Interval]]") -> "Iterator[str]":
    """What a control is, and what it retains of the full run."""
    if not record.audio_control:
        return
    found = shares.get(record.run_id)
    compared = "no full run in this folder"
    if found is not None:
        retained = ", ".join(
            f"{name} {100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
            for name, share in found.items()
        )
        nothing = "nothing, as the score of the full run is, or may be, 0"
        compared = f"retained, % of the full run: {retained or nothing}"
    yield f"{record.task}: control without the speech ({record.audio_control}), not ranked on leaderboards; {compared}"


def _record_notes(record: "RunRecord") -> "Iterator[str]":
    """Items without a score and why, and the lengths behind win rates."""
    from rba_bench.evaluation.records import UNSCORED

    missing = [f"{name} {m.n_missing}" for name, m in record.metrics.items() if m.n_missing]
    if missing:
        statuses = [status for status in (*UNSCORED, "judge_failed") if record.statuses.get(status)]
        reasons = ", ".join(f"{status} {record.statuses[status]}" for status in statuses)
        note = f"{record.task}: without a score: {', '.join(missing)} of {record.n} items"
        yield f"{note} ({reasons})" if reasons else note
    for name, metric in record.metrics.items():
        if metric.mean_length is not None and metric.baseline_mean_length is not None:
            yield (
                f"{record.task} {name}: answers of {metric.mean_length:.0f} characters on average, "
                f"the baseline's of {metric.baseline_mean_length:.0f}"
            )


def rescore_command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, run.json files, or folders that contain runs."),
    ],
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="MODEL|none",
            help="New judge model, or `none` to leave judged metrics out. Default: the stored verdicts are used.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(
            "--task",
            metavar="FILE",
            help="YAML file of a task that does not come with rba-bench.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the new records. Default: they replace the old ones.",
            show_default=False,
        ),
    ] = None,
    data_dir: options.DataDir = None,
    device: Device = None,
    as_json: options.Json = False,
) -> None:
    """Score finished runs again without running the model.

    Applies the current task, metrics and normalisers to the stored responses. Each new record notes its old scores.
    """
    with stdout_reserved():
        from rba_bench.evaluation.rescoring import RescoreOptions, rescore_runs

        settings = RescoreOptions(judge=judge, task=task, data_dir=data_dir, device=device)
        remaining = iter(rescore_runs(runs, settings, out))
    rescored = []
    while True:
        with stdout_reserved():
            result = next(remaining, None)
        if result is None:
            break
        rescored.append(result)
        if not as_json:  # each at once, as a later one may fail
            emit(result.line())
    if as_json:
        emit_json([result.to_dict() for result in rescored])

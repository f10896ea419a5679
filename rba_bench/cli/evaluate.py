"""`rba-bench eval`: a model and tasks in, run records out."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rba_bench.cli import defaults, options
from rba_bench.cli.output import emit, emit_json, emit_table, stdout_reserved
from rba_bench.progress import say

if TYPE_CHECKING:
    from rba_bench.evaluation.records import RunRecord

Track = Literal["micro", "full"]
DEFAULT_TRACK = "micro"
OUT = defaults.RUNS / "eval"
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


def command(
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", metavar="NAME[,NAME]", help="Task; may be repeated. All of the track by default."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="PATH|base|text|cascade|constant",
            help="Checkpoint folder or reference; the newest checkpoint under runs/ by default.",
        ),
    ] = None,
    track: Annotated[
        Track | None, typer.Option("--track", help="The one recorded in the checkpoint by default.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Items per task; marks the run partial.")
    ] = None,
    out: options.Out = None,
    seed: Annotated[int, typer.Option("--seed", help="Of sampled decoding.")] = 1234,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips per batch.")] = 32,
    as_json: options.Json = False,
) -> None:
    """Score a SpeechLM on spoken tasks.

    Every task is run under greedy and under sampled decoding and leaves a run record. A rerun resumes.
    """
    with stdout_reserved():
        chosen = model or _newest_checkpoint()
        on = track or _recorded_track(chosen)
        from rba_bench.evaluation.registry import BENCHMARKS
        from rba_bench.evaluation.runner import EvalRequest, evaluate

        request = EvalRequest(
            tasks=tuple(task or BENCHMARKS),
            model=chosen,
            track=on,
            out=out or OUT,
            limit=limit,
            seed=seed,
            batch_size=batch_size,
        )
        records = evaluate(request)
    _render(records, as_json)


def _newest_checkpoint() -> str:
    from rba_bench.evaluation.checkpoints import latest_checkpoint

    newest = str(latest_checkpoint(defaults.RUNS))
    say(f"model: {newest} (the newest checkpoint under {defaults.RUNS}/)")
    return newest


def _recorded_track(model: str) -> str:
    from rba_bench.evaluation.checkpoints import training_note

    track = (training_note(model) or {}).get("track")
    reason = f"recorded in {model}" if track else "the default; choose with --track"
    say(f"track: {track or DEFAULT_TRACK} ({reason})")
    return str(track or DEFAULT_TRACK)


def _render(records: "list[RunRecord]", as_json: bool) -> None:
    if as_json:
        emit_json(records)
        return
    rows = [row for record in records for row in _rows(record)]
    emit_table(COLUMNS, rows)
    if any(record.partial for record in records):
        emit("partial: --limit cut the test set, so no leaderboard takes these records")


def _rows(record: "RunRecord") -> list[tuple[Any, ...]]:
    failed = sum(count for status, count in record.statuses.items() if status != "ok")
    return [
        (
            record.model["name"],
            record.task,
            record.protocol,
            name,
            round(metric.value, 4),
            f"{metric.low:.4g} .. {metric.high:.4g}",
            metric.n,
            failed,
            record.protocol_hash[:12],
            record.created[:10],
        )
        for name, metric in record.metrics.items()
    ]

"""`rba-bench judge`: what changes when one judge takes the place of another."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.outputs import RUNS
from rba_bench.progress import say, stdout_reserved

if TYPE_CHECKING:
    from rba_bench.leaderboard.judge_transfer.transfer import TransferCost, TransferResult

app = typer.Typer(help="Compare judges, and judge records anew.", rich_markup_mode=None)
COST_COLUMNS = (
    "table",
    "judge",
    "answers",
    "calls",
    "stored votes",
    "prompt tokens",
    "answer tokens",
    "dollars",
)


@app.callback()
def _judge() -> None:
    """Compare judges, and judge records anew."""


@app.command("transfer")
def transfer_command(
    old: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="JUDGE",
            help="Judge A, to be replaced: its name or hash in the records, `rules`, or a model as in `eval --judge`.",
            show_default=False,
        ),
    ],
    new: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="MODEL",
            help="Judge B: openai:URL#NAME, folder, GGUF file, Hub id, or asset:NAME.",
            show_default=False,
        ),
    ],
    records: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RECORDS]...", help="Run folders, or folders that contain them. Default: runs/eval."
        ),
    ] = None,
    pairs: Annotated[
        int,
        typer.Option(
            "--pairs", metavar="N", min=1, help="Maximum number of answers of each table to compare."
        ),
    ] = 400,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the choice of items.")] = 0,
    ask_a: Annotated[
        bool, typer.Option("--ask-a", help="Ask judge A where the records hold no verdict of it.")
    ] = False,
    reanchor: Annotated[
        bool,
        typer.Option(
            "--reanchor", help="Also let B judge all other answers, and write records and a board under B."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only show what the judges would be asked and its cost; run nothing."),
    ] = False,
    task: Annotated[
        Path | None,
        typer.Option(
            "--task",
            metavar="FILE",
            help="YAML file of a task that does not come with rba-bench, for --reanchor.",
            show_default=False,
        ),
    ] = None,
    out: options.Out = None,
    data_dir: options.DataDir = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="DEVICE", help="Torch device of local judges.", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Compare two judges on the same answers, before one replaces the other.

    Win rates, ratings and judged accuracies: uses the stored verdicts of judge A and asks judge B as the task does.
    Reports agreement, biases, scores and the order of the models under both. The same command resumes an interrupted
    run. Default folder: below runs/judge.
    """
    with stdout_reserved():
        from rba_bench.leaderboard.judge_transfer import transfer
        from rba_bench.leaderboard.judge_transfer.preparing import TransferRequest

        request = TransferRequest(
            records or [RUNS / "eval"], old, new, pairs, seed, ask_a, reanchor, out, task, data_dir, device
        )
        if dry_run:
            costs = transfer.estimate_transfer(request)
        else:
            result = transfer.transfer_judge(request)
    if dry_run:
        _print_costs(costs, as_json)
    else:
        _print_result(result, as_json)


def _print_costs(costs: "list[TransferCost]", as_json: bool) -> None:
    if as_json:
        emit_json(costs)
        return
    emit_table(COST_COLUMNS, [cost.row() for cost in costs])


def _print_result(result: "TransferResult", as_json: bool) -> None:
    if as_json:
        emit_json({"out": result.out, "transfer": result.data})
        return
    for name, sentences in result.verdicts.items():
        emit(name)
        for sentence in sentences:
            emit(f"- {sentence}")
    for reason in result.data["left_out"]:
        say(f"left out: {reason}")
    emit(str(result.out / "report.md"))

"""Options of `rba-bench eval`, with their help texts."""

from pathlib import Path
from typing import Annotated, Literal

import typer

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

"""`rba-bench speak`: a text benchmark in, a spoken one out."""

from pathlib import Path
from typing import Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.progress import say, stdout_reserved


def speak_command(
    source: Annotated[
        Path,
        typer.Option("--from", metavar="FILE", help="File of the benchmark: a JSON list, or JSON lines."),
    ],
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            metavar="NAME",
            help="Layout of the file: webquestions, nq_open, alpacaeval, or jsonl (question or instruction; references "
            "or answers; id).",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Output folder. The same command resumes an unfinished run."
        ),
    ],
    voices: Annotated[
        list[str],
        typer.Option(
            "--voices",
            metavar="VOICE[,VOICE]",
            help="Bank of voices, one voice of a bank (BANK/VOICE), or .onnx file of a Piper voice. May be repeated.",
        ),
    ] = ["natural"],  # noqa: B006 - typer copies it
    name: Annotated[
        str,
        typer.Option(
            "--name",
            metavar="NAME",
            help="Name of the benchmark. Default: that of the file.",
            show_default=False,
        ),
    ] = "",
    per_text: Annotated[
        int,
        typer.Option(
            "--per-text", min=1, help="Voices that speak each text. With 1, the voices come in turn."
        ),
    ] = 1,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first N texts.")] = None,
    language: Annotated[
        str, typer.Option("--language", metavar="CODE", help="Language of the texts.")
    ] = "en",
    recognizer: Annotated[
        str,
        typer.Option(
            "--recognizer",
            metavar="ID",
            help="Recogniser that transcribes every clip, as in cascade:ID+LLM, or none.",
        ),
    ] = "asset:whisper-tiny.en",
    max_wer: Annotated[
        float,
        typer.Option(
            "--max-wer", min=0.0, help="Drop clips with a higher word error rate of the recogniser."
        ),
    ] = 0.5,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", min=1.0, help="Drop longer clips; a Whisper encoder takes 30 s.")
    ] = 30.0,
    seed: Annotated[int, typer.Option("--seed", help="Random seed that gives the texts their voices.")] = 0,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Clips that the recogniser transcribes at once.")
    ] = 16,
    device: Annotated[str, typer.Option("--device", help="Torch device of the recogniser, or auto.")] = "cpu",
    as_json: options.Json = False,
) -> None:
    """Turn a text benchmark into a spoken one.

    Voices speak every text, and a recogniser transcribes every clip. What cannot be said, is too long, or was not
    recognised is left out and counted. `rba-bench eval --task spoken_questions` (or `spoken_instructions`)
    `--data-dir DIR` evaluates the folder.
    """
    with stdout_reserved():
        from rba_bench.audio.spoken_benchmark import TASKS
        from rba_bench.synthesis.speak import SpeakOptions, speak_benchmark

        chosen = SpeakOptions(
            layout,
            tuple(voices),
            name,
            per_text,
            limit,
            language,
            recognizer,
            max_wer,
            max_seconds,
            seed,
            batch_size,
            device,
        )
        made = speak_benchmark(source, out, chosen)
    counts = made.manifest["counts"]
    if as_json:
        emit_json({"benchmark": made.path, "counts": counts, "sha256": made.sha256})
        return
    reasons = [(reason, of["n"]) for reason, of in counts["dropped"]["reasons"].items() if of["n"]]
    emit_table(("", "clips"), [("kept", counts["clips"]), *reasons])
    emit(str(made.path))
    say(f"evaluate it: rba-bench eval --task {TASKS[made.kind]} --data-dir {made.path} --model MODEL")

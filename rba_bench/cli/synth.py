"""`rba-bench synth`: a teacher and voices in, an alignment set out, which other trainers' formats go to and come from.

`rba-bench compose`: an untrained SpeechLM out.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from rba_bench.cli import options, push
from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.cli.synth_plan import print_synthesis_plan
from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.progress import say, stdout_reserved
from rba_bench.stages import make_set, ray_options

if TYPE_CHECKING:
    pass


class _SynthGroup(TyperGroup):
    """`synth` has options of its own beside its commands."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            raise UserError(
                f"`synth` has no command {args[0]!r} (it has {', '.join(self.commands)}); a recipe is named by an "
                f"option: rba-bench synth --recipe {args[0]}"
            )
        if any(value not in (None, False, (), []) for value in ctx.params.values()):
            raise UserError(
                f"`synth {args[0]}` takes none of the options of a synthesis: write them behind {args[0]}"
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_SynthGroup, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def synth_command(
    context: typer.Context,
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    out: options.Out = None,
    seal: Annotated[
        Path | None,
        typer.Option(
            "--seal",
            metavar="DIR",
            help="Check DIR, the parquet files of another tool, and write their manifest; synthesise nothing.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            metavar="N",
            help="With --seal: decode N random clips instead of all. The manifest states how many faults this can "
            "miss.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            min=0,
            help="Processes that speak; the set is the same. Default: one a core, for large sets.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="FILE[:COLUMN]",
            help="Leave out instructions that repeat a text of FILE (.txt, .jsonl, .csv, .tsv or .parquet), such as a "
            "test set. May be repeated.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Make no set: measure a few candidates, and print what the whole would take: time, disk, tokens, "
            "dollars.",
        ),
    ] = False,
    probe_items: Annotated[
        int | None,
        typer.Option(
            "--probe-items",
            metavar="N",
            min=1,
            help="With --dry-run: candidates that are measured. Default: 20.",
            show_default=False,
        ),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            "--price-per-million-tokens",
            metavar="IN,OUT",
            help="With --dry-run: dollars for the teacher's prompts and answers.",
            show_default=False,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="What runs the work: processes (of this machine, the default) or ray (a Ray cluster). The set is the "
            "same.",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        list[str] | None,
        typer.Option(
            "--ray",
            metavar="KEY=VALUE",
            help="With --engine ray: the cluster (address), and what each process may use (teachers, teacher_cpus, "
            "teacher_gpus, speaker_cpus, speaker_gpus). May be repeated.",
            show_default=False,
        ),
    ] = None,
    push_to_hub: options.PushToHub = None,
    public: options.Public = False,
    as_json: options.Json = False,
) -> None:
    """Synthesise an alignment set.

    The teacher LLM writes instructions and answers them; text-to-speech voices speak the instructions. The same command
    resumes an interrupted run.
    """
    if context.invoked_subcommand is not None:
        return
    if seal is not None and (recipe or set_ or out or against):
        raise UserError("--seal checks a folder as it is: leave out --recipe, --set, --against and --out")
    if seal is None and sample is not None:
        raise UserError("--sample belongs to --seal DIR: clips that are synthesised here need no check")
    if not dry_run and (probe_items is not None or price is not None):
        raise UserError("--probe-items and --price-per-million-tokens belong to --dry-run: add it")
    if dry_run and (seal or push_to_hub):
        raise UserError("--dry-run makes no set: leave out --seal and --push-to-hub")
    cluster = ray_options(engine, ray or ())
    if dry_run and cluster is not None:
        raise UserError("--dry-run measures on this machine: leave out --engine ray")
    if dry_run:
        print_synthesis_plan(recipe, set_ or [], against or [], workers, probe_items or 20, price, as_json)
        return
    repository = push.reserve_repository(push_to_hub, "dataset", public)
    with stdout_reserved():
        from rba_bench.audio import alignment_set, sealing

        made = (
            sealing.seal_alignment_set(seal, sample).path
            if seal
            else make_set(recipe, set_ or (), out, workers, against or (), cluster)
        )
    manifest = read_json(made / alignment_set.MANIFEST)
    if as_json:
        emit_json({"alignment_set": made, "counts": manifest["counts"], "checksums": manifest["checksums"]})
    else:
        emit(str(made))
    push.publish_folder(made, repository)


@app.command("export")
def export_command(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Alignment set, or asset:NAME.")],
    to: Annotated[
        str,
        typer.Option("--to", metavar="FORMAT", help="Trainer that shall read it: ms-swift or llama-factory."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Output folder. The same command resumes an unfinished export."
        ),
    ],
    as_json: options.Json = False,
) -> None:
    """Export an alignment set to the data format of another trainer.

    Clips become FLAC or WAV files beside one JSON-lines file for each split; paths are relative to the folder.
    """
    with stdout_reserved():
        from rba_bench.synthesis.export import TARGETS, export_set

        made = export_set(source, to, out)
    left_out = {reason: found["n"] for reason, found in made.summary["left_out"].items() if found["n"]}
    if as_json:
        emit_json({"export": made.path, **made.summary})
        return
    rows = [*made.summary["rows"].items(), *((f"left out: {reason}", n) for reason, n in left_out.items())]
    emit_table(("", "rows"), rows)
    emit(str(made.path))
    say(TARGETS[to].hint.replace("{out}", str(made.path)))


@app.command("import")
def import_command(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE_OR_DIR", help="Data file of the published set, or the folder of all."),
    ],
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            metavar="NAME",
            help="Layout of the set: desta-aqa5m, voiceassistant-400k or instructs2s-200k.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Output folder. The same command resumes an unfinished import."
        ),
    ],
    audio: Annotated[
        Path | None,
        typer.Option(
            "--audio",
            metavar="DIR",
            help="Folder in which the audio paths of the set begin. Default: that of the source.",
            show_default=False,
        ),
    ] = None,
    language: Annotated[str, typer.Option("--language", metavar="CODE", help="Language of the set.")] = "en",
    max_seconds: Annotated[
        float,
        typer.Option("--max-seconds", min=1.0, help="Leave out longer clips; a Whisper encoder takes 30 s."),
    ] = 30.0,
    validation: Annotated[
        float,
        typer.Option("--validation", min=0.0, max=0.99, help="Share of the instructions that is held out."),
    ] = 0.02,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Only the first N exchanges of the set.", show_default=False),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Make an alignment set of a published set of spoken instructions.

    Entries whose clip is missing or broken are left out and listed in dropped.jsonl.
    """
    with stdout_reserved():
        from rba_bench.synthesis.importing import DROPPED, ImportOptions, import_set

        made = import_set(source, out, ImportOptions(layout, audio, language, max_seconds, validation, limit))
    counts, dropped = made.manifest["counts"], made.manifest["imported"]["dropped"]
    if as_json:
        emit_json({"alignment_set": made.path, "counts": counts, "dropped": dropped})
        return
    left_out = [(f"left out: {reason}", found["n"]) for reason, found in dropped.items() if found["n"]]
    emit_table(("", "clips"), [("kept", counts["clips"]), *left_out])
    emit(str(made.path))
    if left_out:
        say(f"what was left out, and why: {made.path / DROPPED}")


@app.command("inspect")
def inspect_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Alignment set, also one that is still being made, or asset:NAME."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the page. Default: runs/inspect/NAME.", show_default=False
        ),
    ] = None,
    clips: Annotated[
        int,
        typer.Option(
            "--clips",
            metavar="N",
            min=0,
            help="Number of clips on the page: those with the highest word error rates, and a draw over voices and "
            "topics.",
        ),
    ] = 300,
    as_json: options.Json = False,
) -> None:
    """Count an alignment set, draw its distributions, and write a page on which its clips play.

    The page is a file of its own: it opens from a disk and reaches no network.
    """
    with stdout_reserved():
        from rba_bench.synthesis.inspection.page import inspect_set
        from rba_bench.synthesis.inspection.tables import count_tables

        made = inspect_set(source, out, clips)
    for line in (made.progress, *made.notes):
        if line:
            say(line)
    if as_json:
        facts = {"alignment_set": made.alignment_set, "page": made.page, "unfinished": bool(made.progress)}
        emit_json({**facts, "clips_shown": made.clips, **made.statistics.summary()})
        return
    for columns, rows in count_tables(made.statistics):
        emit_table(columns, rows)
        emit()
    emit(str(made.page))


def compose_command(
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            metavar="ID",
            help="Whisper-type audio encoder: folder, Hub id or asset:NAME, such as openai/whisper-small; "
            "folder of faster-whisper; name or .pt file of openai-whisper.",
        ),
    ],
    llm: Annotated[
        str,
        typer.Option(
            "--llm",
            metavar="ID",
            help="Causal language model with a chat template: folder, GGUF file, Hub id, or asset:NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder of the checkpoint.")],
    connector: Annotated[
        str,
        typer.Option(
            "--connector",
            metavar="KIND",
            help="What joins them: stack (a projector of stacked encoder states), ctc (a CTC compressor with about one "
            "audio token for each word piece; random weights), decoder (Whisper's own decoder, with one audio token "
            "for each word piece that it writes), or a trained connector (folder or asset:NAME).",
        ),
    ] = "stack",
    stack: Annotated[
        int,
        typer.Option(
            "--stack", min=1, help="With stack: number of encoder states (20 ms each) in one audio token."
        ),
    ] = 4,
    projector_size: Annotated[
        int,
        typer.Option(
            "--projector-size",
            min=0,
            help="Hidden width of the projector; 0 for that of the language model, or 256 behind ctc and decoder.",
        ),
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the projector's weights.")] = 0,
    audio_token: Annotated[
        str,
        typer.Option("--audio-token", metavar="TOKEN", help="Placeholder of an audio token in the prompt."),
    ] = "<|audio|>",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="Data type of the weights: auto (that of the language model), float32, bfloat16 or float16.",
        ),
    ] = "auto",
    language: Annotated[
        str,
        typer.Option(
            "--language", metavar="CODE", help="With decoder: what is spoken, for a multilingual Whisper."
        ),
    ] = "en",
    push_to_hub: options.PushToHub = None,
    public: options.Public = False,
    as_json: options.Json = False,
) -> None:
    """Join an audio encoder and a language model into a SpeechLM.

    What is new between them has to be trained: a stacked projector with `rba-bench train --set base=DIR`, a CTC
    compressor with `rba-bench train connector --base DIR`. Behind Whisper's decoder the language model understands
    speech at once, and training improves on that.
    """
    repository = push.reserve_repository(push_to_hub, "model", public)
    with stdout_reserved():
        from rba_bench.speechlm.compose import ComposeOptions, compose

        chosen = ComposeOptions(connector, stack, projector_size, seed, audio_token, dtype, language)
        result = compose(encoder, llm, out, chosen)
    if connector == "ctc":
        say(f"train its compressor: rba-bench train connector --base {out} --data SET --out RUN")
    else:
        say(f"train its projector: rba-bench train --set base={out}")
    if as_json:
        emit_json(result)
    else:
        emit(str(result.path))
    push.publish_folder(result.path, repository)

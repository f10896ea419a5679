"""`rba-bench synth`: a teacher and voices in, an alignment set out; `rba-bench compose`: an untrained SpeechLM out."""

from pathlib import Path
from typing import Annotated

import typer

from rba_bench.cli import options, push
from rba_bench.cli.output import emit, emit_json
from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.progress import say, stdout_reserved
from rba_bench.stages import make_set


def synth_command(
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
    push_to_hub: options.PushToHub = None,
    public: options.Public = False,
    as_json: options.Json = False,
) -> None:
    """Synthesise an alignment set.

    The teacher LLM writes instructions and answers them; text-to-speech voices speak the instructions. The same command
    resumes an interrupted run.
    """
    if seal is not None and (recipe or set_ or out):
        raise UserError("--seal checks a folder as it is: leave out --recipe, --set and --out")
    if seal is None and sample is not None:
        raise UserError("--sample belongs to --seal DIR: clips that are synthesised here need no check")
    repository = push.reserve_repository(push_to_hub, "dataset", public)
    with stdout_reserved():
        from rba_bench.audio import alignment_set, sealing

        made = sealing.seal_alignment_set(seal, sample).path if seal else make_set(recipe, set_ or (), out)
    manifest = read_json(made / alignment_set.MANIFEST)
    if as_json:
        emit_json({"alignment_set": made, "counts": manifest["counts"], "checksums": manifest["checksums"]})
    else:
        emit(str(made))
    push.publish_folder(made, repository)


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

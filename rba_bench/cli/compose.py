"""`rba-bench compose`: an encoder and a language model in, a SpeechLM to train out."""

from pathlib import Path
from typing import Annotated

import typer

from rba_bench.cli import options
from rba_bench.cli.output import emit, emit_json
from rba_bench.progress import say, stdout_reserved


def command(
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder", metavar="ID", help="Whisper-type encoder: folder or Hub id (openai/whisper-small)."
        ),
    ],
    llm: Annotated[
        str,
        typer.Option("--llm", metavar="ID", help="Causal LM with a chat template: folder or Hub id."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the checkpoint.")],
    stack: Annotated[
        int, typer.Option("--stack", min=1, help="Encoder states (20 ms each) in one audio token.")
    ] = 4,
    projector_size: Annotated[
        int, typer.Option("--projector-size", min=0, help="Hidden width of the projector; 0 = the LM's.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the projector's weights.")] = 0,
    audio_token: Annotated[
        str, typer.Option("--audio-token", metavar="TOKEN", help="Placeholder of an audio token.")
    ] = "<|audio|>",
    dtype: Annotated[
        str,
        typer.Option("--dtype", metavar="TYPE", help="auto (the LM's), float32, bfloat16 or float16."),
    ] = "auto",
    as_json: options.Json = False,
) -> None:
    """Join a speech encoder and a language model.

    The projector between them is new: train it with `rba-bench train --set base=DIR`.
    """
    with stdout_reserved():
        from rba_bench.speechlm.compose import ComposeOptions, compose

        chosen = ComposeOptions(stack, projector_size, seed, audio_token, dtype)
        result = compose(encoder, llm, out, chosen)
    say(f"teach it to hear: rba-bench train --set base={out}")
    if as_json:
        emit_json(result)
    else:
        emit(str(result.path))

"""`rba-bench synth` and `rba-bench compose`: alignment sets, and base models to train.

`rba-bench synth`: a teacher model and voices in, an alignment set out.

`rba-bench compose`: an encoder and a language model in, a SpeechLM to train out.
"""

from pathlib import Path
from typing import Annotated

import typer

from rba_bench.cli import options, push
from rba_bench.cli.output import emit, emit_json
from rba_bench.errors import UserError
from rba_bench.progress import say, stdout_reserved
from rba_bench.stages import make_set


def command(
    recipe: options.RecipeFile = None,
    set_: options.Overrides = None,
    out: options.Out = None,
    seal: Annotated[
        Path | None,
        typer.Option(
            "--seal",
            metavar="DIR",
            help="Make nothing: check DIR, parquet files of another tool, and write its manifest.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            metavar="N",
            help="With --seal: hear N clips, drawn at random, not all; the manifest says what that can miss.",
            show_default=False,
        ),
    ] = None,
    push_to_hub: options.PushToHub = None,
    public: options.Public = False,
    as_json: options.Json = False,
) -> None:
    """Make an alignment set.

    The teacher writes instructions and answers them, voices speak the instructions. A rerun resumes.
    """
    if seal is not None:
        _refuse_beside_seal(recipe, set_, out)
    elif sample is not None:
        raise UserError("--sample goes with --seal DIR: a set that is made here needs no hearing")
    repository = push.reserve(push_to_hub, "dataset", public)
    with stdout_reserved():
        if seal is not None:
            from rba_bench.audio.sealing import seal_alignment_set as check

            made = check(seal, sample).path
        else:
            made = make_set(recipe, set_ or (), out)
    _render(made, as_json)
    push.publish(made, repository)


def _refuse_beside_seal(*given: object) -> None:
    if any(given):
        raise UserError("--seal takes a folder as it is: drop --recipe, --set and --out")


def _render(made: Path, as_json: bool) -> None:
    from rba_bench.audio.alignment_set import MANIFEST
    from rba_bench.files import read_json

    manifest = read_json(made / MANIFEST)
    if as_json:
        emit_json({"alignment_set": made, "counts": manifest["counts"], "checksums": manifest["checksums"]})
    else:
        emit(str(made))


def compose_command(
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
    push_to_hub: options.PushToHub = None,
    public: options.Public = False,
    as_json: options.Json = False,
) -> None:
    """Join a speech encoder and a language model.

    The projector between them is new: train it with `rba-bench train --set base=DIR`.
    """
    repository = push.reserve(push_to_hub, "model", public)
    with stdout_reserved():
        from rba_bench.speechlm.compose import ComposeOptions, compose

        chosen = ComposeOptions(stack, projector_size, seed, audio_token, dtype)
        result = compose(encoder, llm, out, chosen)
    say(f"teach it to hear: rba-bench train --set base={out}")
    if as_json:
        emit_json(result)
    else:
        emit(str(result.path))
    push.publish(result.path, repository)

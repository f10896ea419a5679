"""Checkpoints of openai-whisper: `.pt` files that hold `dims` and `model_state_dict`, and their published names."""

import pickle
from base64 import b85decode
from gzip import decompress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rba_bench.errors import MissingPrerequisite, UserError, first_line
from rba_bench.files import sha256_file
from rba_bench.textlm.formats.whisper import WhisperWeights, save_whisper

# Parts of names: openai-whisper's, and those of transformers. The longer ones first.
RENAMED = (
    ("positional_embedding", "embed_positions.weight"),
    ("token_embedding", "embed_tokens"),
    ("blocks.", "layers."),
    (".cross_attn_ln.", ".encoder_attn_layer_norm."),
    (".cross_attn.", ".encoder_attn."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".attn.", ".self_attn."),
    (".mlp_ln.", ".final_layer_norm."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".out.", ".out_proj."),
    ("encoder.ln_post.", "encoder.layer_norm."),
    ("decoder.ln.", "decoder.layer_norm."),
)


def is_openai_name(spec: str) -> bool:
    """Whether openai-whisper publishes weights of this name (`tiny.en`, `large-v3`, `turbo`)."""
    if "/" in spec or "\\" in spec:
        return False
    import whisper

    return spec in whisper.available_models()


def download_openai_whisper(name: str) -> Path:
    """The `.pt` file of a published name, from openai-whisper's own cache or by its own download.

    Raises:
        MissingPrerequisite: it cannot be downloaded.
    """
    import os

    import whisper

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"
    try:
        return Path(whisper._download(whisper._MODELS[name], str(cache), False))
    except (OSError, RuntimeError) as error:  # URLError; RuntimeError: checksum
        raise MissingPrerequisite(
            f"weights of openai-whisper {name} cannot be downloaded ({first_line(error)}): "
            f"put {name}.pt into {cache}, or give a transformers folder"
        ) from error


def convert_openai_whisper(file: Path, out: Path) -> None:
    """Write a `.pt` file of openai-whisper as a checkpoint of transformers; it is read as tensors, never as code.

    Args:
        file: as `whisper.load_model` takes it.
        out: a folder that exists.

    Raises:
        UserError: it is damaged or holds something else.
    """
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        dims, state = checkpoint["dims"], checkpoint["model_state_dict"]
        heads = int(dims["n_audio_head"]), int(dims["n_text_head"])
        renamed = {_rename(name): tensor for name, tensor in state.items()}
    except (
        OSError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise UserError(
            f"{file} is no openai-whisper checkpoint (dims and model_state_dict): {first_line(error)}"
        ) from error
    renamed.pop("model.alignment_heads", None)  # a buffer of models that were saved again
    save_whisper(WhisperWeights(renamed, *heads, alignment_heads=_published_heads(file, dims)), out, file)


def _rename(name: str) -> str:
    for theirs, ours in RENAMED:
        name = name.replace(theirs, ours)
    return f"model.{name}"


def _published_heads(file: Path, dims: dict[str, Any]) -> list[list[int]] | None:
    """The heads that word times come from, where the file is a published one: its hash is part of its address."""
    import whisper

    digest = sha256_file(file)
    name = next((name for name, url in whisper._MODELS.items() if f"/{digest}/" in url), None)
    if name is None:
        return None
    return alignment_heads(name, dims["n_text_layer"], dims["n_text_head"])


def alignment_heads(name: str, layers: int, heads: int) -> list[list[int]]:
    """`[layer, head]` of a published model's decoder that word times come from."""
    import whisper

    mask = np.frombuffer(decompress(b85decode(whisper._ALIGNMENT_HEADS[name])), dtype=bool)
    heads_of_layers: list[list[int]] = np.argwhere(mask.reshape(layers, heads)).tolist()
    return heads_of_layers

"""Whisper folders of CTranslate2, as faster-whisper uses them: `model.bin`, `config.json`, `vocabulary.{json,txt}`.

The binary is little-endian: version, name and revision of the specification, variables (name, rank, sizes, number type,
bytes), aliases (name, name of a variable). A string is its length with the final zero in two bytes, then its bytes.
Versions 4 to 6 are alike. Source: `python/ctranslate2/specs/model_spec.py` and `src/models/model.cc` of CTranslate2.
"""

import math
import struct
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rba_bench.errors import UserError
from rba_bench.textlm.formats.whisper import WhisperWeights, check_vocabulary, save_whisper
from rba_bench.untrusted import parse_untrusted_json, read_untrusted_file

VERSIONS = (4, 5, 6)
SPECIFICATION, REVISION = "WhisperSpec", 3
TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
INT16_SCALE = 1000.0  # of old files, which name none
NORM = {"weight": "gamma", "bias": "beta"}
# Names in a layer: in transformers, and in CTranslate2 with the part of the rows where several matrices are stacked
_NORMS = {"self_attn_layer_norm": "self_attention", "final_layer_norm": "ffn"}
_LINEARS: dict[str, tuple[str, int | None]] = {
    "self_attn.q_proj": ("self_attention/linear_0", 0),
    "self_attn.k_proj": ("self_attention/linear_0", 1),
    "self_attn.v_proj": ("self_attention/linear_0", 2),
    "self_attn.out_proj": ("self_attention/linear_1", None),
    "fc1": ("ffn/linear_0", None),
    "fc2": ("ffn/linear_1", None),
}
_CROSS: dict[str, tuple[str, int | None]] = {
    "encoder_attn.q_proj": ("attention/linear_0", None),
    "encoder_attn.k_proj": ("attention/linear_1", 0),
    "encoder_attn.v_proj": ("attention/linear_1", 1),
    "encoder_attn.out_proj": ("attention/linear_2", None),
}
LAYERS = {
    "encoder": (_NORMS, _LINEARS),
    "decoder": (_NORMS | {"encoder_attn_layer_norm": "attention"}, _LINEARS | _CROSS),
}


class _Reader:
    """Values one after the other from the bytes of a file."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.place = 0

    def take(self, count: int) -> Any:
        """The next bytes. Raises ValueError where the file ends before."""
        end = self.place + count
        if end > len(self.data):
            raise ValueError("it ends too early")
        piece = self.data[self.place : end]
        self.place = end
        return piece

    def number(self, code: str) -> int:
        """An integer by its code in `struct`."""
        return int(struct.unpack(f"<{code}", bytes(self.take(struct.calcsize(f"<{code}"))))[0])

    def text(self) -> str:
        """A string without its final zero."""
        return bytes(self.take(self.number("H"))).decode().removesuffix("\0")


def read_binary(file: Path) -> dict[str, torch.Tensor]:
    """The variables of a `model.bin` by name, aliases among them, dequantised: numbers as stored, else float32.

    Raises:
        UserError: damaged, of another version, or not Whisper.
    """
    reader = _Reader(np.memmap(file, np.uint8, "r") if file.stat().st_size else b"")
    try:
        version = reader.number("I")
        if version not in VERSIONS:
            raise ValueError(
                f"version {version} of the format; versions {VERSIONS[0]} to {VERSIONS[-1]} are read"
            )
        name, revision = reader.text(), reader.number("I")
        if name != SPECIFICATION or revision > REVISION:
            raise ValueError(
                f"it holds {name} (revision {revision}); only {SPECIFICATION} up to {REVISION} is read"
            )
        variables = dict(_read_variable(reader) for _ in range(reader.number("I")))
        for _ in range(reader.number("I")):
            alias, target = reader.text(), reader.text()
            for end in ("", "_scale"):
                if target + end in variables:
                    variables[alias + end] = variables[target + end]
    except (ValueError, OverflowError) as error:
        raise UserError(f"{file} cannot be read as a model of CTranslate2: {error}") from error
    return _dequantised(variables)


def _read_variable(reader: _Reader) -> tuple[str, torch.Tensor]:
    name, rank = reader.text(), reader.number("B")
    shape = [reader.number("I") for _ in range(rank)]
    code, size = reader.number("B"), reader.number("I")
    if code >= len(TYPES) or math.prod(shape) * TYPES[code].itemsize != size:
        raise ValueError(f"{name[:80]!r} has {size} bytes for {shape} values of type {code}")
    data = torch.from_numpy(np.array(reader.take(size)))
    return name, data.view(TYPES[code]).reshape(shape) if size else torch.empty(shape, dtype=TYPES[code])


def _dequantised(variables: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Integers of weights divided by their scale: one a row (int8), or one for all (int16)."""
    done = dict(variables)
    for name, tensor in variables.items():
        if name.endswith("weight") and tensor.dtype in (torch.int8, torch.int16):
            scale = variables.get(f"{name}_scale", torch.tensor(INT16_SCALE)).float()
            done[name] = tensor.float() / (
                scale.reshape(-1, *[1] * (tensor.dim() - 1)) if scale.dim() else scale
            )
    return done


def convert_ctranslate2(file: Path, out: Path) -> None:
    """Write a Whisper of CTranslate2 as a checkpoint of transformers.

    Args:
        file: `model.bin`; its configuration and vocabulary lie beside it.
        out: a folder that exists.

    Raises:
        UserError: damaged, another kind of model, or a vocabulary that is not Whisper's.
    """
    variables = read_binary(file)
    try:
        state = {name: variables[source][rows] for name, source, rows in _names(variables)}
    except (KeyError, IndexError) as error:
        raise UserError(
            f"{file} lacks {str(error)[:80]}: it is damaged, or no Whisper of CTranslate2"
        ) from error
    settings = _json(file.parent / "config.json") or {}
    if not isinstance(settings, dict):
        raise UserError(f"{file.parent / 'config.json'} is no configuration of CTranslate2")
    heads = {side: _heads(variables, side) for side in ("encoder", "decoder")}
    vocabulary = _vocabulary(file.parent)
    check_vocabulary(vocabulary, len(variables["decoder/embeddings/weight"]), file.parent)
    weights = WhisperWeights(
        state,
        heads["encoder"],
        heads["decoder"],
        alignment_heads=settings.get("alignment_heads"),
        suppress_tokens=settings.get("suppress_ids"),
        begin_suppress_tokens=settings.get("suppress_ids_begin"),
    )
    save_whisper(weights, out, file.parent)


def _heads(variables: dict[str, torch.Tensor], side: str) -> int:
    number = variables.get(f"{side}/num_heads")
    return int(number) if number is not None else variables["decoder/embeddings/weight"].shape[1] // 64


def _json(file: Path) -> Any:
    """Content of a JSON file, None where there is none. Raises UserError where it is damaged."""
    if not file.is_file():
        return None
    try:
        return parse_untrusted_json(read_untrusted_file(file.resolve()))  # the Hub's cache is made of links
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); copy it again") from error


def _vocabulary(folder: Path) -> list[str] | None:
    """The tokens by number, None where the folder names none."""
    tokens = _json(folder / "vocabulary.json")
    if tokens is None and (text := folder / "vocabulary.txt").is_file():
        tokens = read_untrusted_file(text.resolve()).decode(errors="replace").removesuffix("\n").split("\n")
    return None if tokens is None else [str(token) for token in tokens]


def _names(variables: dict[str, torch.Tensor]) -> Iterator[tuple[str, str, slice]]:
    """`(name in transformers, variable, rows)` of every tensor."""
    width = variables["decoder/embeddings/weight"].shape[1]
    everything = slice(None)
    yield "model.decoder.embed_tokens.weight", "decoder/embeddings/weight", everything
    for i, part in product((1, 2), NORM):
        yield f"model.encoder.conv{i}.{part}", f"encoder/conv{i}/{part}", everything
    for side, (norms, linears) in LAYERS.items():
        ours = f"model.{side}."
        yield f"{ours}embed_positions.weight", f"{side}/position_encodings/encodings", everything
        layers = {name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_")} - {
            "layer_norm"
        }
        for a, b in NORM.items():
            yield f"{ours}layer_norm.{a}", f"{side}/layer_norm/{b}", everything
            for (here, there), layer in product(norms.items(), layers):
                number = layer.removeprefix("layer_")
                yield (
                    f"{ours}layers.{number}.{here}.{a}",
                    f"{side}/{layer}/{there}/layer_norm/{b}",
                    everything,
                )
        for (here, (there, place)), layer, part in product(linears.items(), layers, NORM):
            rows = everything if place is None else slice(place * width, (place + 1) * width)
            if not (part == "bias" and here.endswith("k_proj")):  # Whisper's keys have none
                number = layer.removeprefix("layer_")
                yield f"{ours}layers.{number}.{here}.{part}", f"{side}/{layer}/{there}/{part}", rows

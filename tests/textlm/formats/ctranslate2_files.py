"""Small Whisper folders in the format of CTranslate2, written from models of transformers."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
NORM = {"weight": "gamma", "bias": "beta"}


def tiny_whisper(size: int = 51864, mels: int = 80) -> Any:
    """A random Whisper of two layers on each side, width 16, two heads, with one of Whisper's own vocabularies."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=size,
        num_mel_bins=mels,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_source_positions=1500,
        max_target_positions=40,
        init_std=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return WhisperForConditionalGeneration(config).eval()


def variables_of(model: Any) -> dict[str, np.ndarray]:
    """The variables that CTranslate2's converter makes, float32: queries, keys and values stacked by rows."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    made: dict[str, np.ndarray] = {
        "encoder/num_heads": np.int16(model.config.encoder_attention_heads),
        "decoder/num_heads": np.int16(model.config.decoder_attention_heads),
        "decoder/embeddings/weight": state["model.decoder.embed_tokens.weight"],
    }
    for i in (1, 2):
        for part in NORM:
            made[f"encoder/conv{i}/{part}"] = state[f"model.encoder.conv{i}.{part}"]
    for side in ("encoder", "decoder"):
        made[f"{side}/position_encodings/encodings"] = state[f"model.{side}.embed_positions.weight"]
        made |= {f"{side}/layer_norm/{b}": state[f"model.{side}.layer_norm.{a}"] for a, b in NORM.items()}
        for i in range(2):
            theirs, ours = f"{side}/layer_{i}/", f"model.{side}.layers.{i}."
            _add_block(made, state, f"{theirs}self_attention/", f"{ours}self_attn", ("qkv", "out"))
            if side == "decoder":
                _add_block(made, state, f"{theirs}attention/", f"{ours}encoder_attn", ("q", "kv", "out"))
            for a, b in NORM.items():
                made[f"{theirs}ffn/layer_norm/{b}"] = state[f"{ours}final_layer_norm.{a}"]
                for j in (1, 2):
                    made[f"{theirs}ffn/linear_{j - 1}/{a}"] = state[f"{ours}fc{j}.{a}"]
    return made


def _add_block(
    made: dict[str, np.ndarray], state: dict[str, np.ndarray], theirs: str, ours: str, groups: tuple[str, ...]
) -> None:
    for a, b in NORM.items():
        made[f"{theirs}layer_norm/{b}"] = state[f"{ours}_layer_norm.{a}"]
    for j, group in enumerate(groups):
        names = ["out_proj"] if group == "out" else [f"{letter}_proj" for letter in group]
        width = len(state[f"{ours}.out_proj.bias"])
        for part in ("weight", "bias"):
            tensors = [state.get(f"{ours}.{name}.{part}", np.zeros(width, np.float32)) for name in names]
            made[f"{theirs}linear_{j}/{part}"] = np.concatenate(tensors)


def quantised(variables: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """Weights as CTranslate2 quantises them: int8 with a scale a row, or int16 with one scale."""
    made = {}
    for name, values in variables.items():
        made[name] = values
        if not name.endswith("weight"):
            continue
        if kind == "int8":
            largest = np.abs(values.reshape(len(values), -1)).max(axis=1)
            scale = 127 / np.where(largest == 0, 127, largest)
            made[name] = np.rint(values * scale.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int8)
        else:
            scale = 2**10 / np.abs(values).max()
            made[name] = np.rint(values * scale).astype(np.int16)
        made[f"{name}_scale"] = np.asarray(scale, dtype=np.float32)
    return made


def write_ctranslate2(
    folder: Path,
    variables: dict[str, np.ndarray],
    version: int = 6,
    spec: tuple[str, int] = ("WhisperSpec", 3),
    config: dict[str, Any] | None = None,
) -> Path:
    """Write `model.bin` and `config.json`; the output layer is an alias of the embeddings, as real files have it."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    folder.mkdir(parents=True, exist_ok=True)
    pieces = [struct.pack("<I", version), text(spec[0]), struct.pack("<II", spec[1], len(variables))]
    for name, value in sorted(variables.items()):
        values = np.asarray(value)
        pieces += [text(name), struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)]
        pieces += [struct.pack("<BI", TYPES[values.dtype.name], values.nbytes), values.tobytes()]
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    pieces += [struct.pack("<I", len(aliases)), *(text(a) + text(b) for a, b in aliases.items())]
    (folder / "model.bin").write_bytes(b"".join(pieces))
    (folder / "config.json").write_text(json.dumps(config or {}))
    return folder

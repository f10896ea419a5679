"""Encoders of Whisper's kind, out of whatever checkpoint they lie in, as `TrueLengthWhisperEncoder`.

Whisper itself, and the audio towers of Qwen2-Audio, Voxtral and AudioFlamingo3, which have its layers under its names.
Only the encoder's weights are read. Qwen2-Audio's and AudioFlamingo3's towers average pairs of states before their last
norm; here the states are those of the same layers at 50 a second, normalised one by one, for a projector to stack.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.files import read_json

MEL_BINS = (80, 128)
PREFIXES = ("model.encoder.", "encoder.", "model.audio_tower.", "audio_tower.")
TOWERS = ("qwen2_audio", "voxtral", "audioflamingo3")  # beside whisper and composites
# Names of the same sizes in Whisper's configuration and in those of towers written later
SIZES = {
    "d_model": "hidden_size",
    "encoder_layers": "num_hidden_layers",
    "encoder_attention_heads": "num_attention_heads",
    "encoder_ffn_dim": "intermediate_size",
}
SAME = ("num_mel_bins", "max_source_positions", "activation_function")
INDEX = "model.safetensors.index.json"


def load_encoder(folder: Path) -> Any:
    """The encoder in a checkpoint folder, in eval mode, as stored.

    Raises:
        UserError: there is none of Whisper's kind, its weights are incomplete, or its mel bins are not 80 or 128.
    """
    import torch

    from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder

    config = _config(folder)
    if config.num_mel_bins not in MEL_BINS:
        raise UserError(
            f"the encoder in {folder} hears {config.num_mel_bins} mel bins; composites hear 80 or 128"
        )
    weights = dict(_weights(folder))
    with torch.device("meta"):
        encoder = TrueLengthWhisperEncoder(config)
    wanted = {name: tensor.shape for name, tensor in encoder.state_dict().items()}
    absent = sorted(n for n, shape in wanted.items() if n not in weights or weights[n].shape != shape)
    if absent:
        raise UserError(
            f"{folder} lacks {len(absent)} weights of the encoder (first: {absent[0]}); copy it again"
        )
    encoder.load_state_dict({name: weights[name] for name in wanted}, assign=True)
    encoder.embed_positions.requires_grad_(False)
    return encoder.eval()


def _config(folder: Path) -> Any:
    """The encoder's sizes as a `WhisperConfig`."""
    from transformers import AutoConfig, WhisperConfig

    from rba_bench.speechlm.composite import register

    register()
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder} has no usable config.json: {reason}") from error
    if config.model_type == "whisper":
        return config
    if config.model_type == "rba_composite":
        return config.audio_config
    if config.model_type not in TOWERS:
        raise UserError(
            f"{folder} holds a {config.model_type}, not an encoder of Whisper's kind (whisper, {', '.join(TOWERS)})"
        )
    tower = config.audio_config.to_dict()
    sizes = {name: tower[name] if name in tower else tower[other] for name, other in SIZES.items()}
    return WhisperConfig(**sizes, **{name: tower[name] for name in SAME if name in tower})


def _weights(folder: Path) -> Iterator[tuple[str, Any]]:
    """The encoder's tensors by their names within it."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if (
        folder / "model.safetensors"
    ).is_file():  # some repositories keep a second copy in another number type
        files = [folder / "model.safetensors"]
    elif (folder / INDEX).is_file():
        files = [folder / name for name in sorted(set(read_json(folder / INDEX)["weight_map"].values()))]
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - no mapping
                    for prefix in PREFIXES:
                        if name.startswith(prefix):
                            yield name.removeprefix(prefix), tensors.get_tensor(name)
                            break
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} is damaged ({error}); copy it again") from error

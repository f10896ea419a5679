"""A speech model's numbers from its configuration alone: parameters by part, widths, audio tokens a second."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.assets import is_asset, resolve_model
from rba_bench.errors import MissingPrerequisite
from rba_bench.files import read_json
from rba_bench.textlm.weights import HUB_ID, local_folder
from rba_bench.training.training_recipe import LoraOptions

_WHISPER_LARGE = {
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "num_mel_bins": 128,
    "max_source_positions": 1500,
}
_QWEN2_AUDIO: dict[str, Any] = {
    "model_type": "qwen2_audio",
    "audio_config": {"model_type": "qwen2_audio_encoder", **_WHISPER_LARGE},
    "text_config": {
        "model_type": "qwen2",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 156032,
        "tie_word_embeddings": False,
    },
}
_VOXTRAL_MINI: dict[str, Any] = {
    "model_type": "voxtral",
    "audio_config": {
        "model_type": "voxtral_encoder",
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "num_mel_bins": 128,
        "vocab_size": 51866,
    },
    "text_config": {
        "model_type": "llama",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 30,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 131072,
        "tie_word_embeddings": False,
    },
}
# The fields on which sizes depend, from the config.json of these repositories
PUBLISHED_CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2-Audio-7B": _QWEN2_AUDIO,
    "Qwen/Qwen2-Audio-7B-Instruct": _QWEN2_AUDIO,
    "mistralai/Voxtral-Mini-3B-2507": _VOXTRAL_MINI,
}
# Parameters of text models that judge or teach. ArmoRM: Llama-3-8B without its head, and small heads of its own
TEXT_MODEL_PARAMETERS: dict[str, int] = {
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": 7_511_000_000,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
}
# Audio tokens a second of models whose configuration has no field for it
AUDIO_TOKENS_PER_SECOND = {
    "qwen2_audio": 25.0,
    "qwen2_5_omni_thinker": 25.0,
    "audioflamingo3": 25.0,
    "voxtral": 12.5,
    "glmasr": 12.5,
}
WORD_PIECES_PER_SECOND = 4.0  # behind a compressor: about three words
PADDED = ("voxtral", "glmasr")  # every clip is padded to 30 s


@dataclass(frozen=True)
class ModelShape:
    """One speech model.

    Attributes:
        name: of the model in the recipe.
        encoder, projector, llm: parameters; the LLM's with embeddings and head.
        embedding: parameters of the LLM that no token is multiplied with: the input embeddings, unless tied.
        vocabulary, hidden, layers, ffn: of the LLM.
        attention: heads x width of a head.
        kv: the same of keys, and of values.
        encoder_hidden, encoder_layers, encoder_ffn: of the encoder.
        audio_rate: audio tokens a second.
        padded: whether every clip is padded to 30 s.
        adapters: parameters of the recipe's low-rank adapters in (LLM, encoder).
        fixed: parameters of the encoder that never train: its sinusoids.
    """

    name: str
    encoder: int
    projector: int
    llm: int
    embedding: int
    vocabulary: int
    hidden: int
    layers: int
    ffn: int
    attention: int
    kv: int
    encoder_hidden: int
    encoder_layers: int
    encoder_ffn: int
    audio_rate: float
    padded: bool
    adapters: tuple[int, int] = (0, 0)
    fixed: int = 0

    @property
    def parameters(self) -> int:
        """Parameters of all parts."""
        return self.encoder + self.projector + self.llm


def _resolve(name: str, role: str) -> str:
    return str(local_folder(name)) if is_asset(name) else resolve_model(name, role)


def find_config(name: str) -> dict[str, Any]:
    """Configuration of a model: from a folder, the table above, or the local Hub cache; only an asset is downloaded.

    Raises:
        MissingPrerequisite: it is in none of these.
    """
    name = _resolve(name, "base")
    if (Path(name) / "config.json").is_file():
        return read_json(Path(name) / "config.json")
    if (hub_id := HUB_ID.fullmatch(name)) is not None:
        if hub_id["repo"] in PUBLISHED_CONFIGS:
            return PUBLISHED_CONFIGS[hub_id["repo"]]
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(hub_id["repo"], "config.json", revision=hub_id["revision"])
        if isinstance(path, str):
            return read_json(Path(path))
    raise MissingPrerequisite(
        f"--plan has no configuration of {name}: give the folder of its config.json (--set base=FOLDER), or one of "
        f"{', '.join(sorted(PUBLISHED_CONFIGS))}"
    )


def model_shape(name: str, config: dict[str, Any], lora: LoraOptions | None = None) -> ModelShape:
    """Count a model's parameters, on the device `meta`.

    Raises:
        MissingPrerequisite: transformers has no such model, or the configuration lacks something.
    """
    settings, model = _model_without_weights(name, config)
    text, audio = settings.get_text_config(), settings.audio_config
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads

    def _audio_field(*names: str) -> int:
        return next(int(value) for name in names if (value := getattr(audio, name, None)))

    parts = {"encoder": 0, "projector": 0, "llm": 0}
    fixed = 0
    for key, parameter in model.named_parameters():
        parts[_part(key)] += parameter.numel()
        fixed += parameter.numel() if _part(key) == "encoder" and "embed_positions" in key else 0
    embeddings = model.get_input_embeddings().weight
    tied = embeddings is model.get_output_embeddings().weight
    audio_rate = AUDIO_TOKENS_PER_SECOND.get(settings.model_type, 25.0)
    compressor = getattr(settings, "compressor", None) or {}
    if (stack := getattr(settings, "stack_factor", None)) is not None:
        # the composite: Whisper's 50 states a second, fewer with a wider first convolution
        audio_rate = 50.0 / (stack * getattr(audio, "conv1_stride", 1))
        if compressor:
            audio_rate = WORD_PIECES_PER_SECOND
    return ModelShape(
        name,
        **parts,
        embedding=0 if tied else embeddings.numel(),
        vocabulary=embeddings.shape[0],
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        ffn=text.intermediate_size,
        attention=text.num_attention_heads * width,
        kv=heads * width,
        encoder_hidden=_audio_field("d_model", "hidden_size"),
        encoder_layers=_audio_field("encoder_layers", "num_hidden_layers"),
        encoder_ffn=_audio_field("encoder_ffn_dim", "intermediate_size"),
        audio_rate=audio_rate,
        padded=settings.model_type in PADDED or compressor.get("kind") == "decoder",
        adapters=_adapter_counts(model, lora),
        fixed=fixed,
    )


def _adapter_counts(model: Any, lora: LoraOptions | None) -> tuple[int, int]:
    """Parameters of low-rank adapters in the decoder, and in the encoder: r (inputs + outputs) for each layer named."""
    if lora is None:
        return 0, 0
    targets, counts = {"llm": lora.targets, "encoder": lora.encoder_targets}, {"llm": 0, "encoder": 0}
    for key, module in model.named_modules():
        names = targets.get(_part(key), ())
        adapted = "lm_head" not in key if names == ("all-linear",) else key.rpartition(".")[2] in names
        if hasattr(module, "in_features") and adapted:
            counts[_part(key)] += lora.r * (module.in_features + module.out_features)
    return counts["llm"], counts["encoder"]


def _model_without_weights(name: str, config: dict[str, Any]) -> tuple[Any, Any]:
    """The configuration as an object of transformers, and its model on the device `meta`."""
    import torch
    import transformers

    from rba_bench.speechlm.audiolm.loading import auto_class
    from rba_bench.speechlm.composite import register

    register()
    fields = dict(config)
    kind = fields.pop("model_type", "")
    try:
        settings = transformers.AutoConfig.for_model(kind, **fields)
        if kind == "qwen2_5_omni":  # trains its Thinker
            settings = settings.thinker_config
        model_class = (
            transformers.Qwen2_5OmniThinkerForConditionalGeneration
            if settings.model_type == "qwen2_5_omni_thinker"
            else auto_class(settings)
        )
        with torch.device("meta"):
            from_config = getattr(model_class, "from_config", None) or model_class._from_config
            return settings, from_config(settings)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise MissingPrerequisite(
            f"--plan cannot count the parameters of {name} (model_type {kind or 'missing'}): give a model that "
            f"`rba-bench doctor` lists ({str(error).splitlines()[0]})"
        ) from error


def _part(key: str) -> str:
    """The part (encoder, projector, llm) to which a parameter or module belongs, by its name."""
    if re.search(r"(^|\.)(multi_modal_projector|projector|audio_projector)(\.|$)", key):
        return "projector"
    return "encoder" if re.search(r"(^|\.)(audio_tower|compressor|encoder|audio_embed)(\.|$)", key) else "llm"


def text_parameters(name: str, key: str) -> int:
    """Parameters of a text model that judges or teaches.

    Args:
        name: folder, Hub id, or `micro`.
        key: the key of `Assumptions` that the error message names.

    Raises:
        MissingPrerequisite: its size is unknown.
    """
    import torch
    import transformers

    if name in TEXT_MODEL_PARAMETERS:
        return TEXT_MODEL_PARAMETERS[name]
    folder = Path(_resolve(name, "reward" if key.startswith("reward") else "teacher"))
    if not (folder / "config.json").is_file():
        raise MissingPrerequisite(
            f"--plan does not know the size of {name}: give its number of parameters (--assume {key}=8e9)"
        )
    fields = read_json(folder / "config.json")
    settings = transformers.AutoConfig.for_model(fields.pop("model_type", ""), **fields)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(settings)
    return sum(parameter.numel() for parameter in model.parameters())

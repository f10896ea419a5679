"""A speech model's numbers from its configuration alone: parameters by part, widths, audio tokens a second."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.assets import resolve_model
from rba_bench.errors import MissingPrerequisite
from rba_bench.files import read_json
from rba_bench.textlm.weights import HUB_ID
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
# Configurations as far as sizes depend on them, as published in the config.json of these repositories
KNOWN: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2-Audio-7B": _QWEN2_AUDIO,
    "Qwen/Qwen2-Audio-7B-Instruct": _QWEN2_AUDIO,
    "mistralai/Voxtral-Mini-3B-2507": _VOXTRAL_MINI,
}
# Text models that judge or teach: parameters. ArmoRM: Llama-3-8B without its head, and small heads of its own
KNOWN_TEXT: dict[str, int] = {
    "RLHFlow/ArmoRM-Llama3-8B-v0.1": 7_511_000_000,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
}
# Audio tokens a second, where the configuration has no field that says so
RATES = {
    "qwen2_audio": 25.0,
    "qwen2_5_omni_thinker": 25.0,
    "audioflamingo3": 25.0,
    "voxtral": 12.5,
    "glmasr": 12.5,
}
PADDED = ("voxtral", "glmasr")  # encode 30 s, whatever the length of a clip


@dataclass(frozen=True)
class ModelShape:
    """One speech model.

    Attributes:
        name: as the recipe names it.
        encoder, projector, llm: parameters; the LLM's with embeddings and head.
        embedding: parameters of the LLM that no token is multiplied with: the input embeddings, unless tied.
        vocabulary, hidden, layers, ffn: of the LLM.
        attention: heads x width of a head.
        kv: the same of keys, and of values.
        encoder_hidden, encoder_layers, encoder_ffn: of the encoder.
        audio_rate: audio tokens a second.
        padded: whether every clip is as long as 30 s.
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
        """All of them."""
        return self.encoder + self.projector + self.llm


def find_config(name: str) -> dict[str, Any]:
    """Configuration of a model: of a folder, of the table above, or of the local Hub cache; nothing is downloaded.

    Raises:
        MissingPrerequisite: it is in none of these.
    """
    name = resolve_model(name, "base")
    if (Path(name) / "config.json").is_file():
        config: dict[str, Any] = read_json(Path(name) / "config.json")
        return config
    hub_id = HUB_ID.fullmatch(name)
    if hub_id is not None and hub_id["repo"] in KNOWN:
        return KNOWN[hub_id["repo"]]
    if hub_id is not None and (cached := _cached(hub_id["repo"], hub_id["revision"])) is not None:
        return cached
    raise MissingPrerequisite(
        f"--plan knows nothing about {name}: give the folder of its config.json (--set base=FOLDER), or one of "
        f"{', '.join(sorted(KNOWN))}"
    )


def _cached(repo: str, revision: str | None) -> dict[str, Any] | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, "config.json", revision=revision)
    return read_json(Path(path)) if isinstance(path, str) else None


def model_shape(name: str, config: dict[str, Any], lora: LoraOptions | None = None) -> ModelShape:
    """Count a model's parameters on a copy without storage.

    Raises:
        MissingPrerequisite: transformers has no such model, or the configuration lacks something.
    """
    settings, model = _empty(name, config)
    text, audio = settings.get_text_config(), settings.audio_config
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    parts = {"encoder": 0, "projector": 0, "llm": 0}
    fixed = 0
    for key, parameter in model.named_parameters():
        parts[_part(key)] += parameter.numel()
        fixed += parameter.numel() if _part(key) == "encoder" and "embed_positions" in key else 0
    words = model.get_input_embeddings().weight
    tied = words is model.get_output_embeddings().weight
    adapters = _adapters(model, lora)
    kind = settings.model_type
    return ModelShape(
        name,
        **parts,
        embedding=0 if tied else words.numel(),
        vocabulary=words.shape[0],
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        ffn=text.intermediate_size,
        attention=text.num_attention_heads * width,
        kv=heads * width,
        encoder_hidden=_first(audio, "d_model", "hidden_size"),
        encoder_layers=_first(audio, "encoder_layers", "num_hidden_layers"),
        encoder_ffn=_first(audio, "encoder_ffn_dim", "intermediate_size"),
        audio_rate=_rate(settings),
        padded=kind in PADDED,
        adapters=adapters,
        fixed=fixed,
    )


def _adapters(model: Any, lora: LoraOptions | None) -> tuple[int, int]:
    """Parameters of low-rank adapters in the decoder, and in the encoder: r (inputs + outputs) for each layer named."""
    if lora is None:
        return 0, 0
    targets, counts = {"llm": lora.targets, "encoder": lora.encoder_targets}, {"llm": 0, "encoder": 0}
    for key, module in model.named_modules():
        part = _part(key)
        if hasattr(module, "in_features") and part in targets and _adapted(key, targets[part]):
            counts[part] += lora.r * (module.in_features + module.out_features)
    return counts["llm"], counts["encoder"]


def _empty(name: str, config: dict[str, Any]) -> tuple[Any, Any]:
    """The configuration as transformers has it, and its model on the device `meta`."""
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
        maker = (
            transformers.Qwen2_5OmniThinkerForConditionalGeneration
            if settings.model_type == "qwen2_5_omni_thinker"
            else auto_class(settings)
        )
        with torch.device("meta"):
            make = getattr(maker, "from_config", None) or maker._from_config
            return settings, make(settings)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise MissingPrerequisite(
            f"--plan cannot take the config.json of {name} (model_type {kind or 'missing'}) apart: give a model that "
            f"`rba-bench doctor` lists ({str(error).splitlines()[0]})"
        ) from error


def _part(key: str) -> str:
    """Which part a parameter or module belongs to, by its name."""
    if re.search(r"(^|\.)(multi_modal_projector|projector|audio_projector)(\.|$)", key):
        return "projector"
    return "encoder" if re.search(r"(^|\.)(audio_tower|encoder|audio_embed)(\.|$)", key) else "llm"


def _adapted(key: str, targets: tuple[str, ...]) -> bool:
    if targets == ("all-linear",):
        return "lm_head" not in key
    return key.rpartition(".")[2] in targets


def _first(settings: Any, *names: str) -> int:
    return next(int(value) for value in _values(settings, names) if value)


def _values(settings: Any, names: tuple[str, ...]) -> Iterator[Any]:
    for name in names:
        yield getattr(settings, name, None)


def _rate(settings: Any) -> float:
    stack = getattr(settings, "stack_factor", None)
    if stack is not None:  # the composite: Whisper's 50 states a second, fewer with a wider first convolution
        return 50.0 / (stack * getattr(settings.audio_config, "conv1_stride", 1))
    return RATES.get(settings.model_type, 25.0)


def text_parameters(name: str, key: str) -> int:
    """Parameters of a text model that judges or teaches.

    Args:
        name: folder, Hub id, or `micro`.
        key: of `Assumptions`, for the message.

    Raises:
        MissingPrerequisite: nothing is known about it.
    """
    import torch
    import transformers

    if name in KNOWN_TEXT:
        return KNOWN_TEXT[name]
    folder = Path(resolve_model(name, "reward" if key.startswith("reward") else "teacher"))
    if not (folder / "config.json").is_file():
        raise MissingPrerequisite(
            f"--plan knows nothing about {name}: say how many parameters it has (--assume {key}=8e9)"
        )
    fields = read_json(folder / "config.json")
    settings = transformers.AutoConfig.for_model(fields.pop("model_type", ""), **fields)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(settings)
    return sum(parameter.numel() for parameter in model.parameters())

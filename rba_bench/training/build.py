"""From a recipe to the objects of a run: base model with its trainable parts, processor, reference, adapters."""

import copy
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import sha256_file, sha256_json
from rba_bench.training.policy import SpeechPolicy
from rba_bench.training.recipe import LoraOptions, TrainingRecipe


def base_folder(recipe: TrainingRecipe) -> Path:
    """Where the base model is.

    Raises:
        MissingPrerequisite: it is not there.
    """
    if recipe.base == "micro":
        from rba_bench.micro.paths import part

        return part("base")
    folder = Path(recipe.base)
    if not (folder / "config.json").is_file():
        raise MissingPrerequisite(
            f"no base model in {folder}: `base` must name a checkpoint folder of a composite model"
        )
    return folder


def checkpoint_sha256(folder: Path) -> str:
    """Identity of a base model: hash over weights, configuration, tokenizer and chat template.

    Raises:
        MissingPrerequisite: it has no safetensors weights.
    """
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.suffix in (".safetensors", ".json", ".jinja", ".model")
    ]
    if not any(file.suffix == ".safetensors" for file in files):
        raise MissingPrerequisite(f"no safetensors weights in {folder}")
    # how a checkpoint came about is not what it is
    return sha256_json({file.name: sha256_file(file) for file in files if not file.name.startswith("rba_")})


def load_base(folder: Path) -> tuple[Any, Any]:
    """The composite in float32 and its processor.

    Raises:
        UserError: the folder holds another kind of model.
    """
    from transformers import AutoConfig
    from transformers.utils.logging import disable_progress_bar

    from rba_bench.speechlm.composite import register
    from rba_bench.speechlm.composite.configuration import CompositeConfig
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
    from rba_bench.speechlm.composite.processing import CompositeProcessor

    register()
    disable_progress_bar()  # our own bars are enough
    config = AutoConfig.from_pretrained(folder)
    if not isinstance(config, CompositeConfig):
        raise UserError(f"{folder} holds a {config.model_type}; only composite models can be trained")
    model = CompositeForConditionalGeneration.from_pretrained(folder, dtype="float32", use_safetensors=True)
    return model, CompositeProcessor.from_pretrained(folder)


def end_token_ids(model: Any, processor: Any) -> list[int]:
    """Tokens that end an answer: the generation config's, and the tokenizer's end token.

    Raises:
        UserError: there is none.
    """
    configured = model.generation_config.eos_token_id
    ids = set(configured if isinstance(configured, list) else [configured]) | {
        processor.tokenizer.eos_token_id
    }
    ids.discard(None)
    if not ids:
        raise UserError("the base model has no end token (generation_config.eos_token_id)")
    return sorted(ids)


def make_policy(model: Any, recipe: TrainingRecipe) -> SpeechPolicy:
    """Freeze what the recipe leaves alone, add adapters, wrap."""
    model.requires_grad_(False)
    parts = {
        "projector": [model.model.multi_modal_projector],
        "llm": [model.model.language_model, model.lm_head],
        "encoder": [model.model.audio_tower],
    }
    for name in recipe.train_parts:
        if name == "llm" and recipe.lora is not None:
            add_lora(model, recipe.lora)
            continue
        for module in parts[name]:
            module.requires_grad_(True)
    if not recipe.encoder_frozen:
        model.model.audio_tower.embed_positions.requires_grad_(False)  # sinusoids, as in Whisper
    if recipe.gradient_checkpointing:
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
    return SpeechPolicy(model, recipe.encoder_frozen, recipe.share_prefix)


def make_reference(policy: SpeechPolicy) -> SpeechPolicy:
    """A frozen copy of the policy as it is now; a frozen encoder is shared, not copied."""
    composite = policy.composite
    memo = {}
    if policy.frozen_encoder:
        tower = composite.model.audio_tower
        memo[id(tower)] = tower
    copied = copy.deepcopy(composite, memo).requires_grad_(False).eval()
    return SpeechPolicy(copied, policy.frozen_encoder, policy.share_prefix)


def add_lora(model: Any, options: LoraOptions) -> None:
    """Put low-rank adapters into the decoder, in place.

    Raises:
        MissingPrerequisite: peft is not installed.
        UserError: no module of the decoder has one of the target names.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingPrerequisite("lora needs peft: pip install 'rba-bench[train]'") from error
    config = LoraConfig(r=options.r, lora_alpha=options.alpha, target_modules=list(options.targets))
    try:
        inject_adapter_in_model(config, model.model.language_model)
    except ValueError as error:
        raise UserError(
            f"lora.targets {', '.join(options.targets)}: {' '.join(str(error).split())}"
        ) from error


def merge_lora(model: Any) -> None:
    """Fold adapters into the weights they adapt and remove them, in place."""
    from peft.tuners.lora import LoraLayer

    decoder = model.model.language_model
    for name, module in list(decoder.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent = decoder.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())

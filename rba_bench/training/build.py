"""From a recipe to the objects of a run: base model with its trainable parts, processor, reference, adapters."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import sha256_file, sha256_json
from rba_bench.speechlm.audiolm.families.base import AudioFamily
from rba_bench.training.data import TrainingData
from rba_bench.training.policy import SpeechPolicy
from rba_bench.training.recipe import LoraOptions, TrainingRecipe


def base_folder(recipe: TrainingRecipe) -> Path:
    """Where the base model is; a Hub id is downloaded.

    Raises:
        MissingPrerequisite: it is not there.
    """
    if recipe.base == "micro":
        from rba_bench.micro.paths import part

        return part("base")
    from rba_bench.textlm.weights import local_folder

    return local_folder(recipe.base, "base model")


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


def load_base(folder: Path, recipe: TrainingRecipe) -> AudioFamily:
    """The model with its adapter, on the CPU; trained weights in float32.

    Raises:
        UserError: the folder holds another kind of model, or one that cannot be taken apart.
    """
    from transformers.utils.logging import disable_progress_bar

    from rba_bench.speechlm.audiolm.loading import load_family

    disable_progress_bar()  # our own bars are enough
    family = load_family(folder, "cpu", recipe.true_length, recipe.trust_remote_code)
    if not family.splits:
        raise UserError(
            f"{folder} holds a {family.model.config.model_type}, which cannot be taken apart for training; "
            "`rba-bench doctor` lists the types that can"
        )
    return family


def make_policy(family: AudioFamily, recipe: TrainingRecipe) -> SpeechPolicy:
    """Freeze what the recipe leaves alone, add adapters, wrap."""
    model = family.model
    model.requires_grad_(False)
    parts = family.parts()
    for name in recipe.train_parts:
        if name == "llm" and recipe.lora is not None:
            add_lora(family, recipe.lora)
            continue
        for module in parts[name]:
            module.requires_grad_(True)
    tower = parts["encoder"][0]
    if not recipe.encoder_frozen and hasattr(tower, "embed_positions"):
        tower.embed_positions.requires_grad_(False)  # sinusoids, as in Whisper
    if recipe.gradient_checkpointing:
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})
    return SpeechPolicy(family, recipe.encoder_frozen, recipe.layout)


def make_reference(policy: SpeechPolicy) -> SpeechPolicy:
    """A frozen copy of the policy as it is now; what does not train is shared, not copied.

    With LoRA the copy holds adapters alone, and a frozen encoder is never there twice.
    """
    frozen = {id(p): p for p in policy.model.parameters() if not p.requires_grad}
    frozen |= {id(b): b for b in policy.model.buffers()}
    family = copy.copy(policy.family)
    family.model = copy.deepcopy(policy.model, dict(frozen)).requires_grad_(False).eval()
    return SpeechPolicy(family, policy.frozen_encoder, policy.layout)


def answered(
    recipe: TrainingRecipe, family: AudioFamily, data: TrainingData, folder: Path
) -> Mapping[str, list[AlignmentRow]]:
    """The training groups; for blsp and audiochatllama with the answers that the model's own LLM has written."""
    if recipe.method not in ("blsp", "audiochatllama"):
        return data.all
    raise UserError("not wired")


def make_reward(
    recipe: TrainingRecipe, kinds: Sequence[str], family: AudioFamily, device: str, folder: Path
) -> Any:
    """What judges samples, None where nothing is judged."""
    if not recipe.uses_reward and not (recipe.eval_every and recipe.validation.metric == "reward"):
        return None
    from rba_bench.training.rewards import build_reward

    return build_reward(recipe.reward, kinds, device)


def make_teacher(recipe: TrainingRecipe, family: AudioFamily, policy: SpeechPolicy, device: str) -> Any:
    """The text teacher, None where there is none."""
    if recipe.kind != "distillation":
        return None
    raise UserError("not wired")


def parameter_groups(family: AudioFamily, recipe: TrainingRecipe) -> list[dict[str, Any]]:
    """Trained parameters by part, with the part's learning rate and weight decay."""
    groups = []
    for part, modules in family.parts().items():
        rate = getattr(recipe.learning_rates, part) or recipe.learning_rate
        chosen = list({id(p): p for m in modules for p in m.parameters() if p.requires_grad}.values())
        if chosen:
            groups.append({"params": chosen, "lr": rate, "weight_decay": recipe.weight_decay})
    return groups


def add_lora(family: AudioFamily, options: LoraOptions) -> None:
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
        inject_adapter_in_model(config, family.decoder)
    except ValueError as error:
        raise UserError(
            f"lora.targets {', '.join(options.targets)}: {' '.join(str(error).split())}"
        ) from error


def merge_lora(family: AudioFamily) -> None:
    """Fold adapters into the weights they adapt and remove them, in place."""
    from peft.tuners.lora import LoraLayer

    decoder = family.decoder
    for name, module in list(decoder.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent = decoder.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], module.get_base_layer())

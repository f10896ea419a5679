"""What of a model trains: parts, low-rank adapters, learning rates by part and step, activation checkpointing.

freeze(family, ("projector", "llm"), lora)      what has a gradient
parameter_groups(family, rates, decay)          for the optimiser
checkpoint_activations(family, parts)           less memory, the same gradients
merge_lora(family), save_adapter(family, path)  what is kept
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.files import write_atomic
from rba_bench.installing import extra
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from rba_bench.training.training_recipe import LoraOptions, TrainingRecipe

ADAPTER = "default"  # peft's own name: files then look as if peft had made the model
ALL_LINEAR = "all-linear"
# Whose weights are not decayed, as in `transformers.Trainer.get_decay_parameter_names` (5.23)
NOT_DECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
DROPOUTS = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "hidden_dropout",
    "layerdrop",
    "dropout_prob",
)


def freeze(family: AudioFamily, train_parts: Collection[str], lora: LoraOptions | None = None) -> None:
    """Make exactly what is asked for trainable, in place.

    A model that came with a LoRA adapter for speech trains that adapter of its decoder. Batch normalisation keeps the
    statistics it came with, as it must: a clip's states may not depend on its batch mates.

    Args:
        family: adapter around the model.
        train_parts: of `encoder`, `projector`, `llm`.
        lora: adapters instead of the decoder's weights (and the encoder's, where `encoder_targets` says so).

    Raises:
        MissingPrerequisite: peft is not installed.
        UserError: the model cannot be trained, a part is unknown or not asked for, or no layer has a target's name.
    """
    if not family.splits:
        kind = family.model.config.model_type
        raise UserError(f"a model of type {kind!r} cannot be trained: how it is taken apart is not known")
    parts = family.parts()
    unknown = sorted(set(train_parts) - parts.keys())
    if unknown or not train_parts:
        raise UserError(f"train_parts {', '.join(unknown) or 'is empty'}: name some of {', '.join(parts)}")
    if family.compresses and "encoder" in train_parts:
        raise UserError(
            "the encoder of a model with a compressor cannot train here, as numbers of audio tokens would change "
            "from step to step: set train_parts to projector, llm or both"
        )
    family.model.requires_grad_(False)
    targets = {} if lora is None else {"llm": lora.targets, "encoder": lora.encoder_targets}
    adapted = {name: layers for name, layers in targets.items() if layers}
    for name in adapted:
        if name not in train_parts:
            raise UserError(f"lora adapts the {name}: add `{name}` to train_parts, or drop its targets")
    if lora is not None and adapted:
        add_lora(family, lora, adapted)
    for name in train_parts:
        for module in parts[name]:
            whole = name not in adapted and not (name == "llm" and family.has_adapter)
            for key, parameter in module.named_parameters():
                parameter.requires_grad_(whole or "lora_" in key)
    for parameter in family.frozen_parameters():
        parameter.requires_grad_(False)
    for module in family.model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(_keep_statistics)


def _keep_statistics(module: nn.Module, _: Any) -> None:
    module.eval()


def add_lora(family: AudioFamily, lora: LoraOptions, targets: Mapping[str, Sequence[str]]) -> None:
    """Put low-rank adapters into the parts named, never anywhere else, in place.

    Args:
        family: adapter around the model.
        lora: rank and scale.
        targets: names of layers by part.

    Raises:
        MissingPrerequisite: peft is not installed.
        UserError: no layer has a target's name, or the model has an adapter of its own.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingPrerequisite(f"lora needs peft: {extra('train')}") from error
    if family.has_adapter:
        raise UserError(
            "the model has a LoRA adapter for speech, which trains instead of another: drop `lora`"
        )
    pattern = "|".join(_pattern(family, part, names) for part, names in targets.items())
    config = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=pattern)
    inject_adapter_in_model(config, family.model, ADAPTER)


def _pattern(family: AudioFamily, part: str, targets: Sequence[str]) -> str:
    """Regular expression of the full names of a part's linear layers with the names given."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    head = family.model.get_output_embeddings()
    inside = {id(module) for root in family.parts()[part] for module in root.modules()}
    layers = [
        name
        for name, module in family.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module) in inside and module is not head
    ]
    leaves = {name.rpartition(".")[2] for name in layers}
    names = sorted(leaves) if ALL_LINEAR in targets else list(targets)
    missing = [name for name in names if name not in leaves]
    if missing:
        key = "lora.targets" if part == "llm" else "lora.encoder_targets"
        raise UserError(
            f"{key} {', '.join(missing)}: no linear layer of the {part} has that name; there are "
            f"{', '.join(sorted(leaves))}, and {ALL_LINEAR} for all"
        )
    # names with the layers' numbers left open: `model.language_model.layers.\d+.self_attn.q_proj`
    chosen = {
        re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(n)) for n in layers if n.rpartition(".")[2] in names
    }
    return "|".join(sorted(chosen))


def merge_lora(family: AudioFamily) -> None:
    """Fold adapters that training added into the weights they adapt and remove them, in place.

    An adapter that came with the model stays one.
    """
    if family.has_adapter or not hasattr(family.model, "peft_config"):
        return
    from peft.tuners.lora import LoraLayer

    for name, module in list(family.model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            family.model.set_submodule(name, module.get_base_layer())
    del family.model.peft_config


def save_adapter(family: AudioFamily, folder: Path) -> None:
    """Write the adapter that training added, alone, as peft does: `PeftModel.from_pretrained(model, folder)` reads it.

    Raises:
        UserError: there is none.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    configs = getattr(family.model, "peft_config", {})
    if family.has_adapter or ADAPTER not in configs:
        raise UserError("there is no adapter of this run to save: set `lora`")
    state = get_peft_model_state_dict(family.model, adapter_name=ADAPTER)
    tensors = {f"base_model.model.{name}": value.detach().cpu().contiguous() for name, value in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "adapter_model.safetensors", save(tensors, metadata={"format": "pt"}))
    configs[ADAPTER].save_pretrained(str(folder))


def parameter_groups(
    family: AudioFamily, learning_rates: Mapping[str, float], weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for the optimiser: one for each part that trains, split by whether its weights are decayed.

    Args:
        family: adapter around the model, frozen by `freeze`.
        learning_rates: peak rate by part.
        weight_decay: for weights that are neither biases nor those of norms, as in `transformers.Trainer`.

    Returns:
        Dicts with `params`, `lr`, `weight_decay` and `part`; a tied head is in one of them once.

    Raises:
        UserError: a part that trains has no rate.
    """
    from transformers.trainer_pt_utils import get_parameter_names

    decayed = set(get_parameter_names(family.model, [nn.LayerNorm], NOT_DECAYED))
    part_of = family.part_of()
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in family.model.named_parameters():  # shared ones come once
        if parameter.requires_grad:
            groups.setdefault((part_of[id(parameter)], name in decayed), []).append(parameter)
    missing = sorted({part for part, _ in groups} - learning_rates.keys())
    if missing:
        raise UserError(f"learning_rates names none for {', '.join(missing)}, which trains")
    return [
        {
            "params": parameters,
            "lr": learning_rates[part],
            "weight_decay": weight_decay if decays else 0.0,
            "part": part,
        }
        for (part, decays), parameters in groups.items()
    ]


def set_precision(family: AudioFamily) -> None:
    """Weights that train in float32, all others in bfloat16, in place; buffers stay as they are."""
    for parameter in family.model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else torch.bfloat16)


def checkpoint_activations(family: AudioFamily, train_parts: Collection[str]) -> None:
    """Keep layers' inputs only and compute the rest again in backward: of the decoder, and of an encoder that trains.

    Raises:
        UserError: the model's class does not support it.
    """
    for module in (family.decoder, family.encoder) if "encoder" in train_parts else (family.decoder,):
        name = "activation_checkpointing_enable"  # transformers 5.23 renamed it
        enable = getattr(module, name, None) or module.gradient_checkpointing_enable
        try:
            if not module.supports_gradient_checkpointing:
                raise ValueError
            enable({"use_reentrant": False})
        except ValueError as error:
            raise UserError(
                f"{type(module).__name__} cannot recompute activations: set gradient_checkpointing to false"
            ) from error


def disable_dropout(family: AudioFamily) -> None:
    """No dropout and no skipped layers in training, in place: what was sampled is then what is scored.

    The configuration keeps what it says, and so does the checkpoint.
    """
    for module in family.model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name in DROPOUTS:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def schedule_factor(step: int, recipe: TrainingRecipe, fresh_from: int = 0) -> float:
    """Learning rate of optimiser step `step` (0, 1, ...) over the recipe's; the first step is not wasted on zero.

    Args:
        step: counted from the run's beginning.
        recipe: `steps`, `warmup_steps`, `schedule`.
        fresh_from: step at which a continued run started with an optimiser that remembers nothing. It is warmed up
            once more, as its estimates of the moments rest on a few gradients only, and meets the schedule then.
    """
    since = step - fresh_from
    warm = min(1.0, (since + 1) / (recipe.warmup_steps + 1))
    if step < recipe.warmup_steps:
        return warm
    done = min(1.0, (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps))
    if recipe.schedule == "linear":
        return warm * (1.0 - done)
    return warm * (0.5 * (1.0 + math.cos(math.pi * done)) if recipe.schedule == "cosine" else 1.0)


def part_rates(recipe: TrainingRecipe) -> dict[str, float]:
    """Peak learning rates of the parts that train."""
    rates = recipe.learning_rates.model_dump()
    return {part: rates[part] or recipe.learning_rate for part in recipe.train_parts}


def rates_at(step: int, recipe: TrainingRecipe, fresh_from: int = 0) -> dict[str, float]:
    """What the log says of step `step` (0, 1, ...): `learning_rate`, the highest, and each part's where they differ."""
    factor = schedule_factor(step, recipe, fresh_from)
    rates = {part: rate * factor for part, rate in part_rates(recipe).items()}
    own = {f"learning_rate_{part}": rate for part, rate in rates.items()}
    return {"learning_rate": max(rates.values())} | (own if len(set(rates.values())) > 1 else {})


def set_rates(optimizer: Any, scheduler: Any, rates: Sequence[float], step: int) -> None:
    """Give optimiser and LambdaLR the place in the schedule, whatever the file they were read from says.

    Args:
        optimizer: its groups get their rates for the next step.
        scheduler: over the same groups.
        rates: peak rate of each group.
        step: steps taken.
    """
    scheduler.base_lrs, scheduler.last_epoch = list(rates), step
    now = [rate * form(step) for rate, form in zip(rates, scheduler.lr_lambdas, strict=True)]
    for group, peak, rate in zip(optimizer.param_groups, rates, now, strict=True):
        group["initial_lr"], group["lr"] = peak, rate
    scheduler._last_lr = now

"""What `checkpoint_writer` saves, by name: trained weights, the optimiser's state, a renewed reference."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rba_bench.errors import RbaError
from rba_bench.training.model import checkpoint_writer as saver
from rba_bench.training.model.sharding import settle

STEP = "step"  # of AdamW, a scalar; kept as one number in a row, which safetensors can cut


def tensors_of(model: nn.Module, optimizer: Any, reference: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors themselves, not copies.

    Args:
        model: the policy.
        optimizer: of its trained parameters.
        reference: parameters of a reference that has changed, else empty.
    """
    settle(model)
    found: dict[str, Tensor] = {f"reference.{name}": value for name, value in reference.items()}
    for name, parameter in trained(model).items():
        found[f"model.{name}"] = parameter.detach()
        for key, value in _state(optimizer)[parameter].items():
            found[f"optimizer.{name}.{key}"] = value.reshape(1) if key == STEP else value
    return found


def restore(folder: Path, model: nn.Module, optimizer: Any, reference: dict[str, Tensor]) -> bool:
    """Read them back in place, by any number of processes.

    Returns:
        Whether there is a changed reference, which has then been read into `reference`.

    Raises:
        RbaError: the checkpoint is of a model with other trained parameters.
    """
    settle(model)
    parameters, names = trained(model), saver.saved_names(folder)
    if {f"model.{name}" for name in parameters} != {name for name in names if name.startswith("model.")}:
        raise RbaError(
            f"{folder} was saved from a model with other trained parameters; remove it and start again"
        )
    changed = any(name.startswith("reference.") for name in names)
    wanted: dict[str, Tensor] = {
        f"model.{name}": parameter.detach() for name, parameter in parameters.items()
    }
    if changed:
        wanted |= {f"reference.{name}": value for name, value in reference.items()}
    for full in names:
        if full.startswith("optimizer."):
            name, _, key = full.removeprefix("optimizer.").rpartition(".")
            wanted[full] = torch.zeros(1) if key == STEP else torch.zeros_like(parameters[name]).detach()
    saver.load(folder, wanted)
    _hand_over(optimizer, parameters, wanted)
    return changed


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that train, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _hand_over(optimizer: Any, parameters: dict[str, nn.Parameter], read: dict[str, Tensor]) -> None:
    # fused AdamW counts on the device
    on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for full, value in read.items():
        if not full.startswith("optimizer."):
            continue
        name, _, key = full.removeprefix("optimizer.").rpartition(".")
        parameter = parameters[name]
        if key == STEP:
            value = value.reshape(()).to(parameter.device if on_device else "cpu")
        _state(optimizer)[parameter][key] = value


def _state(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer).state  # accelerate wraps it

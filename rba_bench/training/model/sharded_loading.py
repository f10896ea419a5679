"""Weights that the first process alone reads: the others start without any and get their shares from it.

    first process       others                  afterwards, in each of them
    whole, on the CPU   names and shapes        what it shares (FSDP2 or ZeRO-3) on its own device

A parameter travels piece by piece, straight to where its pieces stay, so no device ever holds the whole model; only the
first process does, in main memory, while it hands the weights out. What is not shared out (a frozen encoder, buffers)
goes to all. A frozen copy of the model, such as a reference, takes its shares from those of the model, on the spot.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, str_to_bool
from torch import Tensor, distributed, nn

from rba_bench.training.model.policy import SpeechPolicy
from rba_bench.training.model.sharding import Kind, hide_modules, share_fsdp, share_zero3

ZERO3_BYTES = 2**28  # parameters that are whole on a device at once while ZeRO-3 takes them apart


def planned_sharding() -> Kind:
    """How the launcher wants weights shared out, before there is an `Accelerator` to ask (`sharding.sharding_of`)."""
    if PartialState().num_processes == 1:
        return "none"
    if str_to_bool(os.environ.get("ACCELERATE_USE_DEEPSPEED", "false")):
        from accelerate import DeepSpeedPlugin

        return "zero3" if DeepSpeedPlugin().zero_stage == 3 else "none"
    return "fsdp" if str_to_bool(os.environ.get("ACCELERATE_USE_FSDP", "false")) else "none"


def holds_base_weights() -> bool:
    """Whether this process reads the base model's weights; who does not makes the model on the device `meta`."""
    return planned_sharding() == "none" or PartialState().is_main_process


class Slot(NamedTuple):
    """A place in a model that holds a tensor: in which module, among what, under which name."""

    module: str
    table: str  # `_parameters`, `_buffers`, or `__dict__` for tensors that are plain attributes
    name: str


class Outline(NamedTuple):
    """One tensor of a model without its values."""

    slots: tuple[Slot, ...]  # several where parameters are tied
    shape: torch.Size
    dtype: torch.dtype
    trains: bool


def match_first_process(policy: SpeechPolicy) -> None:
    """Give a policy without weights number types, ties and gradients as the first process has them.

    All processes call, where weights will be shared out.

    Raises:
        RuntimeError: the models are not made of the same parameters.
    """
    (outlines,) = broadcast_object_list([_outlines(policy, ("_parameters",))])
    if PartialState().is_main_process:
        return
    names = {slot for outline in outlines for slot in outline.slots}
    if names != set(_tensors(policy, ("_parameters",))):
        raise RuntimeError("the model without weights has other parameters than the one with weights")
    _empty(policy, outlines)


def shard_policy(
    policy: SpeechPolicy, copies: Sequence[SpeechPolicy], accelerator: Any, kind: Kind, device: torch.device
) -> None:
    """Give every process its shares of a policy and of frozen copies of it (`without_weights`), in place.

    All processes call. The first one's policy holds the weights, on the CPU; nobody else's does.

    Args:
        policy: what trains; in the other processes without weights, from `match_first_process`.
        copies: frozen policies with the same weights.
        accelerator: of the Trainer.
        kind: how weights are shared out.
        device: of this process.
    """
    unused = policy.family.unused()
    whole = [module for module in policy.unsharded_modules() if module not in unused]
    hide_modules(policy, policy.unsharded_modules())
    for module in whole:
        _to_all(module, ("_parameters", "_buffers", "__dict__"), device)
    weights = {name: p.detach() for name, p in policy.named_parameters()}
    if PartialState().is_main_process:
        _empty(policy, _outlines(policy, ("_parameters",)))  # `weights` still holds them
    for model in (policy, *copies):
        if model is not policy:
            hide_modules(model, model.unsharded_modules())
        _to_all(model, ("_buffers", "__dict__"), device)
        if kind == "zero3":
            _fill_zero3(model, weights, accelerator, device)
            continue
        share_fsdp(model, accelerator)
        if model is policy:
            _fill_fsdp(policy, weights, accelerator, device)
            weights.clear()
        else:
            # a copy gets its pieces: of what trains copies, of what does not the very same ones
            shards: dict[str, Any] = dict(policy.named_parameters())
            for name, parameter in model.named_parameters():
                local = shards[name].to_local().detach()
                _materialise(parameter, local.clone() if shards[name].requires_grad else local)


def without_weights(parameter: nn.Parameter) -> nn.Parameter:
    """A frozen parameter of the same shape and type that takes no memory."""
    return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)


def _tensors(model: nn.Module, tables: Sequence[str]) -> dict[Slot, Tensor]:
    tensors = {}
    for path, module in model.named_modules():
        for table in tables:
            entries = module.__dict__ if table == "__dict__" else getattr(module, table)
            tensors.update(
                {Slot(path, table, key): value for key, value in entries.items() if isinstance(value, Tensor)}
            )
    return tensors


def _outlines(model: nn.Module, tables: Sequence[str]) -> list[Outline]:
    slots: dict[int, list[Slot]] = {}
    tensors = _tensors(model, tables)
    for slot, tensor in tensors.items():
        slots.setdefault(id(tensor), []).append(slot)
    return [
        Outline(tuple(same), tensors[same[0]].shape, tensors[same[0]].dtype, tensors[same[0]].requires_grad)
        for same in slots.values()
    ]


def _put(model: nn.Module, slots: Sequence[Slot], tensor: Tensor) -> None:
    for slot in slots:
        module = model.get_submodule(slot.module)
        table = module.__dict__ if slot.table == "__dict__" else getattr(module, slot.table)
        table[slot.name] = tensor


def _to_all(module: nn.Module, tables: Sequence[str], device: torch.device) -> None:
    """Copy the first process's tensors to everybody's device, ties kept."""
    tensors = _tensors(module, tables)
    (outlines,) = broadcast_object_list([_outlines(module, tables)])
    for outline in outlines:
        tensor = tensors.get(outline.slots[0])
        if PartialState().is_main_process and tensor is not None:
            value = tensor.detach().to(device).contiguous()
        else:
            value = torch.empty(outline.shape, dtype=outline.dtype, device=device)
        distributed.broadcast(value, 0)
        if outline.slots[0].table == "_parameters":
            value = nn.Parameter(value, requires_grad=outline.trains)
        _put(module, outline.slots, value)


def _empty(model: nn.Module, outlines: Sequence[Outline]) -> None:
    """Put parameters without values, as outlined, in place of a model's own."""
    for outline in outlines:
        empty = torch.empty(outline.shape, dtype=outline.dtype, device="meta")
        _put(model, outline.slots, nn.Parameter(empty, requires_grad=outline.trains))


def _fill_fsdp(
    policy: SpeechPolicy, weights: Mapping[str, Tensor], accelerator: Any, device: torch.device
) -> None:
    """Send each process the pieces of parameters that are its own; `weights` counts in the first process only."""
    kept = torch.device("cpu") if accelerator.state.fsdp_plugin.cpu_offload else device
    parameters: dict[str, Any] = dict(policy.named_parameters())
    own_pieces = {}  # where this process's piece of each parameter begins, and its size
    for name, parameter in parameters.items():
        (chunk,) = parameter.__create_chunk_list__()
        own_pieces[name] = tuple(chunk.offsets), tuple(parameter.to_local().shape)
    everybodys = gather_object([own_pieces])
    for name, parameter in parameters.items():
        _, sizes = own_pieces[name]
        local = torch.empty(sizes, dtype=parameter.dtype, device=device)
        if PartialState().is_main_process:
            for rank, pieces in enumerate(everybodys):
                piece = _cut(weights[name], *pieces[name]).to(device, parameter.dtype).contiguous()
                if rank == 0:
                    local.copy_(piece)
                elif piece.numel():
                    distributed.send(piece, rank)
        elif local.numel():
            distributed.recv(local, 0)
        _materialise(parameter, local.to(kept))


def _cut(whole: Tensor, offsets: Sequence[int], sizes: Sequence[int]) -> Tensor:
    if 0 in sizes:  # more processes than rows
        return whole.new_empty(tuple(sizes))
    for dim, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        whole = whole.narrow(dim, offset, size)
    return whole


def _materialise(parameter: Any, local: Tensor) -> None:
    """Put a piece into a shared-out parameter that had none, in place: FSDP2 knows it by identity."""
    from torch.distributed.tensor import DTensor

    held = DTensor.from_local(
        local,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
    torch.utils.swap_tensors(parameter, nn.Parameter(held, requires_grad=parameter.requires_grad))


def _fill_zero3(
    model: nn.Module, weights: Mapping[str, Tensor], accelerator: Any, device: torch.device
) -> None:
    """Let ZeRO-3 take the parameters apart, a few at a time, each sent by the first process."""
    for names in _batches(model):
        for name in names:
            parameter = model.get_parameter(name)
            real = torch.empty_like(parameter, device=device)
            if PartialState().is_main_process:
                real.copy_(weights[name])
            torch.utils.swap_tensors(parameter, nn.Parameter(real, requires_grad=parameter.requires_grad))
        share_zero3([model.get_parameter(name) for name in names], accelerator)


def _batches(model: nn.Module) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for name, parameter in model.named_parameters():
        if batch and size + parameter.nbytes > ZERO3_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += parameter.nbytes
    if batch:
        yield batch

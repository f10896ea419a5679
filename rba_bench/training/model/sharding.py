"""Weights that processes share out among themselves: FSDP2 and DeepSpeed ZeRO-3.

Every call of a shared-out model is a collective: all processes must make equally many, in the same order. A batch
gives each process one forward pass, but how often it samples, or asks reference and teacher, depends on its clips.
`CollectiveSync` evens that out: before a call a process says so, and a process without work runs a dummy forward pass.

What never trains does not take part: a frozen encoder, whose states come from a cache in another order in each
process, and modules that nothing passes through. They are hidden from whoever wraps the model, and stay whole on every
device.
"""

import copy
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn

Kind = Literal["none", "fsdp", "zero3"]


def sharding_of(accelerator: Any) -> Kind:
    """How an `Accelerator` shares weights out; ZeRO-2 and below leave them whole."""
    deepspeed = getattr(accelerator.state, "deepspeed_plugin", None)
    if deepspeed is not None:
        return "zero3" if deepspeed.zero_stage == 3 else "none"
    return "fsdp" if getattr(accelerator.state, "fsdp_plugin", None) is not None else "none"


def any_process(vote: bool) -> bool:
    """Whether any process votes yes. All processes call, and get the same answer."""
    state = PartialState()
    if state.num_processes == 1:
        return vote
    return bool(reduce(torch.tensor([float(vote)], device=state.device), "sum").item() > 0)


class CollectiveSync:
    """Makes processes that share weights call them equally often.

    Args:
        any_wants: whether any process still has calls to make, asked by all of them at once (`any_process`). None where
            no weights are shared: then nothing here does anything.
    """

    def __init__(self, any_wants: Callable[[bool], bool] | None = None) -> None:
        self._any_wants = any_wants
        self._in_dummy_call = False

    def enter(self) -> None:
        """To be called right before every call of a model."""
        if self._any_wants is not None and not self._in_dummy_call:
            self._any_wants(True)

    def leave(self, dummy_call: Callable[[], object]) -> None:
        """To be called when this process needs no more calls; returns when no process does.

        Args:
            dummy_call: makes one call like those of the other processes; its result is not used.
        """
        while self._any_wants is not None and self._any_wants(False):
            self._in_dummy_call = True
            try:
                dummy_call()
            finally:
                self._in_dummy_call = False

    def all_done(self, done: bool) -> bool:
        """Whether all processes are done with a loop of calls that all of them are in."""
        return done if self._any_wants is None else not self._any_wants(not done)


def hide_modules(model: nn.Module, parts: Collection[nn.Module]) -> None:
    """Make modules plain attributes of where they are, in place: callable as before, but no part of the model.

    Whoever wraps the model, looks for its parameters or walks through it does not see them any more.
    """
    ids = {id(part) for part in parts}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in ids:
                del parent._modules[name]
                parent.__dict__[name] = child


def layer_names(modules: Collection[nn.Module]) -> list[str]:
    """Class names of the layers of some stacks: what each longest list of modules inside holds."""
    names: dict[str, None] = {}
    for module in modules:
        stacks = [child for child in module.modules() if isinstance(child, nn.ModuleList) and len(child)]
        if stacks:
            longest = max(stacks, key=lambda stack: sum(p.numel() for p in stack.parameters()))
            names.update(dict.fromkeys(type(layer).__name__ for layer in longest))
    return list(names)


def use_bfloat16(plugin: Any) -> None:
    """FSDP2 computes with weights in bfloat16, keeps and reduces in float32, and leaves inputs and outputs alone.

    By default accelerate would round log-probabilities to bfloat16 too.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy

    plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=None, cast_forward_inputs=False
    )


def share_fsdp(model: nn.Module, accelerator: Any) -> None:
    """Share out a model without weights by FSDP2, in place; its parameters then are shards, still without weights."""
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    accelerator.state.fsdp_plugin.cpu_ram_efficient_loading = False  # see `sharded_loading`
    fsdp2_prepare_model(accelerator, model)


def share_zero3(parameters: Sequence[nn.Parameter], accelerator: Any) -> None:
    """Share out parameters by ZeRO-3, in place; the first process's values count."""
    import deepspeed

    shell = nn.Module()
    for number, parameter in enumerate(parameters):
        shell.register_parameter(f"p{number}", parameter)
    deepspeed.zero.Init(module=shell, config_dict_or_path=_zero3_config(accelerator))


def drive_zero3(model: nn.Module, accelerator: Any) -> None:
    """Let ZeRO-3 gather the parameters of a frozen model whenever it is called."""
    import deepspeed

    config = _zero3_config(accelerator)
    config.pop("optimizer", None)
    config.pop("scheduler", None)
    deepspeed.initialize(model=model, config=config)[0].eval()


def _zero3_config(accelerator: Any) -> dict[str, Any]:
    return copy.deepcopy(accelerator.state.deepspeed_plugin.deepspeed_config)


def reshard(model: nn.Module) -> None:
    """Bring FSDP2 parameters back to their shared-out form; a forward pass leaves those of the root whole."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_tensor(parameter: Tensor) -> Tensor:
    """The whole of a parameter, a copy on the CPU. All processes must ask."""
    from torch.distributed.tensor import DTensor

    if isinstance(parameter, DTensor):
        return parameter.detach().full_tensor().cpu().contiguous()
    if hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            return parameter.detach().to("cpu", copy=True).contiguous()
    return parameter.detach().to("cpu", copy=True).contiguous()


@torch.no_grad()
def assign_full(parameter: Tensor, value: Tensor) -> None:
    """Give a parameter a new value, of which every process holds the whole. All processes must do so."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(parameter, DTensor):
        full = value.to(parameter.device, parameter.dtype)
        part = distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.to_local().copy_(part.to_local())
    elif hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.data.copy_(value)
    else:
        parameter.data.copy_(value)

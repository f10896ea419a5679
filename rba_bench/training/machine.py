"""What a run record says of the machine: versions, hardware, memory."""

import platform
from typing import TYPE_CHECKING, Any

from rba_bench import __version__

if TYPE_CHECKING:
    from transformers import TrainingArguments


def peak_memory(device: str) -> int:
    """Most bytes this process has held: on the GPU where it computes there, else resident memory."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def versions() -> dict[str, str]:
    """Of what decides results."""
    import torch
    import transformers

    return {
        "rba_bench": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def hardware(args: "TrainingArguments") -> dict[str, Any]:
    """What a run computes on."""
    import torch

    device = args.device
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "device": device.type,
        "name": name,
        "processes": args.world_size,
        "threads": torch.get_num_threads(),
    }


def join_processes() -> None:
    """Get to know the other processes of the run, if there are any.

    On CPUs it must be said that there is no GPU: accelerate (1.15) else takes each process for the only one.
    """
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.accelerator.is_available())

"""What a run record says of the machine: versions, hardware, memory."""

import ctypes
import platform
from typing import TYPE_CHECKING, Any

from rba_bench import __version__
from rba_bench.machine import device_name, package_versions

if TYPE_CHECKING:
    from transformers import TrainingArguments


def peak_memory(device: str) -> int:
    """Most bytes this process has held: on the GPU where it computes there, else resident memory."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    import sys

    try:
        import resource
    except ImportError:  # Windows
        import psutil

        held = psutil.Process().memory_info()
        return int(getattr(held, "peak_wset", held.rss))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def version_record() -> dict[str, str]:
    """Of what decides results."""
    own = {"rba_bench": __version__, "python": platform.python_version()}
    return own | package_versions(("torch", "transformers"))


def hardware_record(args: "TrainingArguments") -> dict[str, Any]:
    """What a run computes on."""
    import torch

    return {
        "device": args.device.type,
        "name": device_name(str(args.device)),
        "processes": args.world_size,
        "threads": torch.get_num_threads(),
    }


MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # mallopt(3)
REUSED = 2**25  # bytes; larger blocks, logits mostly, go back to the system at once
KEPT = 2**31 - 1


def reuse_memory() -> None:
    """Keep freed memory for the next tensor, where the C library can be told so (glibc).

    By default it gives every large block back to the system, and each new tensor then costs a page fault for every
    4 KB: a connector's step takes 14 s on two cores if all blocks go back, 10 s by default, 8.5 s so. The price is
    what lies between blocks that are still in use: peaks are up to a fifth higher than what is needed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(MMAP_THRESHOLD, REUSED)
    mallopt(TRIM_THRESHOLD, KEPT)


def join_processes() -> None:
    """Get to know the other processes of the run, if there are any.

    On CPUs it must be said that there is no GPU: accelerate (1.15) else takes each process for the only one.
    """
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.accelerator.is_available())

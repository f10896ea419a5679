"""Devices that a run could have, and a short probe of the machine that it is planned on."""

import time
from collections.abc import Callable
from dataclasses import dataclass

NODE = 8  # devices that share fast links


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Attributes:
        name: as its maker calls it.
        memory_gb: in 10^9 bytes.
        tflops: dense peak in bfloat16 with float32 accumulation (float32 for a processor), 10^12 operations a second.
        bandwidth: of its memory, 10^9 bytes a second.
        link: to the others of its node, each way, 10^9 bytes a second; between nodes `BETWEEN`.
    """

    name: str
    memory_gb: float
    tflops: float
    bandwidth: float
    link: float


BETWEEN = 40.0  # 10^9 bytes a second between nodes, a device

# From the data sheets of the makers
DEVICES = (
    Device("RTX 4090", 24, 165, 1008, 25),
    Device("A40", 48, 150, 696, 50),
    Device("A100 80GB", 80, 312, 2039, 300),
    Device("H100 80GB", 80, 989, 3350, 450),
    Device("H200", 141, 989, 4800, 450),
)
# What is looked at, smallest first: devices and how many. The paper had 128 A100 and 64 A40.
CLUSTERS = (
    ("RTX 4090", 1), ("A40", 1), ("A100 80GB", 1), ("H100 80GB", 1), ("H200", 1),
    ("RTX 4090", 8), ("A40", 8), ("A100 80GB", 8), ("H100 80GB", 8), ("H200", 8),
    ("H100 80GB", 32), ("A40", 64), ("A100 80GB", 128),
)  # fmt: skip


def device(name: str) -> Device:
    """One of `DEVICES` by its name."""
    return next(one for one in DEVICES if one.name == name)


def probe(hidden: int, ffn: int, seconds: float = 1.0) -> Device:
    """This machine: matrix products of the model's widths, and copying, a second each.

    Args:
        hidden: width of the model.
        ffn: width inside its layers.
        seconds: of each measurement.
    """
    import torch

    cuda = torch.cuda.is_available()
    where, dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)
    rows = 4096 if cuda else 512
    one = torch.randn(rows, hidden, device=where, dtype=dtype)
    other = torch.randn(hidden, ffn, device=where, dtype=dtype)
    rate = _rate(lambda: one @ other, seconds, cuda) * 2 * rows * hidden * ffn
    block = torch.zeros(2**28 if cuda else 2**25, device=where)
    copied = _rate(lambda: block.clone(), seconds, cuda) * 2 * block.numel() * 4
    if cuda:
        name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    else:
        name, memory = f"this machine ({torch.get_num_threads()} threads)", _memory()
    return Device(name, memory / 1e9, rate / 1e12, copied / 1e9, 10.0)


def _rate(work: Callable[[], object], seconds: float, cuda: bool) -> float:
    """How often a second some work is done."""
    import torch

    work()
    if cuda:
        torch.cuda.synchronize()
    times, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work()
        times += 1
        if cuda:
            torch.cuda.synchronize()
    return times / (time.perf_counter() - started)


def _memory() -> float:
    import os

    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):  # not on this system
        return 0.0

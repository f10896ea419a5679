"""The machine that a run is made on: versions of packages, processor, GPUs.

Every record and `rba-bench doctor` take these facts from here; no names of people or hosts are among them.
"""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def package_version(distribution: str) -> str | None:
    """Version of an installed distribution (`openai-whisper`), None where it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def package_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Versions of those distributions that are installed, in the given order."""
    versions = {name: package_version(name) for name in distributions}
    return {name: text for name, text in versions.items() if text is not None}


def cpu_name() -> str:
    """Model of the processor, "unknown" where the system does not tell it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            names = [line.split(":", 1)[1].strip() for line in handle if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def device_name(device: str) -> str:
    """Model of what a torch device (`cpu`, `cuda:0`) computes on."""
    if not device.startswith("cuda"):
        return cpu_name()
    import torch

    return str(torch.cuda.get_device_name(device))


def usable_cpus() -> int | None:
    """CPU cores that this process may use, None where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

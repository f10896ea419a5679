"""On what a run was made: hardware and versions, without names of people or machines."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import rba_bench
from rba_bench.textlm.text_model import SAMPLER

PACKAGES = (
    "torch",
    "transformers",
    "lm-eval",
    "datasets",
    "sacrebleu",
    "openai-whisper",
    "numpy",
    "soundfile",
    "soxr",
    "av",
)


def hardware(device: str) -> dict[str, Any]:
    """Device, processor and thread count."""
    import torch

    found: dict[str, Any] = {
        "device": device,
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def versions() -> dict[str, str]:
    """Versions of Python, this package, its sampler and what it computes with."""
    found = {"python": platform.python_version(), "rba-bench": rba_bench.__version__, "sampler": SAMPLER}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            names = [line.split(":", 1)[1].strip() for line in handle if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"

"""Hardware and package versions of a run, without names of people or machines."""

import os
import platform
from typing import Any

import rba_bench
from rba_bench.machine import cpu_name, device_name, package_versions
from rba_bench.textlm.text_model import SAMPLER

PACKAGES = (
    "torch", "transformers", "lm-eval", "datasets", "sacrebleu", "openai-whisper", "numpy", "soundfile", "soxr", "av",
)  # fmt: skip


def hardware(device: str) -> dict[str, Any]:
    """Device, processor and thread count."""
    import torch

    facts: dict[str, Any] = {
        "device": device,
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        facts["gpu"] = device_name(device)
    return facts


def versions() -> dict[str, str]:
    """Versions of Python, this package, its sampler and what it computes with."""
    base = {"python": platform.python_version(), "rba-bench": rba_bench.__version__, "sampler": SAMPLER}
    return base | package_versions(PACKAGES)

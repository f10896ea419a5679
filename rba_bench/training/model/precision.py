"""`precision: auto`: the number type by measurement, not by the name of the device.

Under a frozen language model bfloat16 costs the losses of a connector 4e-5 of their size (`benchmarks/RESULTS.md`).
Whether it is faster depends on the processor: where matrix instructions for it are missing, it is slower.
"""

import statistics
import time
from pathlib import Path
from typing import Literal

from rba_bench.outputs import read_signature
from rba_bench.progress import say
from rba_bench.training.continuing import Origin
from rba_bench.training.training_recipe import TrainingRecipe

WORTH = 1.5  # times float32's rate of matrix products; with less, all else that is done eats it up
SIZE = {"cpu": 1024, "cuda": 8192}  # rows and columns of the products; a device must be busy with them
TRIES = 7


def resolve_precision(recipe: TrainingRecipe, out: Path, origin: Origin | None) -> TrainingRecipe:
    """The recipe with a number type: that of the run it goes on with, else of the measurement.

    Processes decide together. `out` and `origin`: see `run.train`.
    """
    if recipe.precision != "auto":
        return recipe
    signature = read_signature(out) if out.is_dir() else None
    begun = (signature or {}).get("config", {}) or (origin.config if origin is not None else {})
    chosen = begun.get("precision")
    if not chosen:
        from accelerate import PartialState
        from accelerate.utils import broadcast_object_list

        state = PartialState()
        gain = gain_of_bfloat16(state.device.type) if state.is_main_process else 0.0
        (gain,) = broadcast_object_list([gain])
        chosen = choose_precision(gain)
        if state.is_main_process:
            kind = state.device.type
            say(f"precision {chosen}: this {kind} multiplies matrices {gain:.1f} times as fast in bfloat16")
    return recipe.model_copy(update={"precision": chosen})


def choose_precision(gain: float) -> Literal["float32", "bfloat16"]:
    """The type for a device that multiplies `gain` times as fast in bfloat16 as in float32."""
    return "bfloat16" if gain >= WORTH else "float32"


def gain_of_bfloat16(device: str) -> float:
    """How many times as fast matrix products are in bfloat16 as in float32, medians of a few; under a second."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        size = SIZE.get(device, 2048)
        left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
        taken = []
        for _ in range(TRIES + 2):
            started = time.perf_counter()
            float((left @ right)[0, 0])  # waits for the device
            taken.append(time.perf_counter() - started)
        return statistics.median(taken[2:])

    return seconds(torch.float32) / seconds(torch.bfloat16)

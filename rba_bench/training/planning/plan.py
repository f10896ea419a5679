"""The plan of a training run: its memory and time, and the hardware that it fits on."""

import math
from dataclasses import dataclass

from rba_bench.training.data.order import steps_for
from rba_bench.training.planning.assumptions import (
    CLUSTERS,
    DEVICES,
    DEVICES_PER_NODE,
    INTER_NODE_BANDWIDTH,
    Assumptions,
    DataEstimate,
    Device,
    data_estimate,
)
from rba_bench.training.planning.cost import (
    MemoryCost,
    StepCost,
    decoder_flops,
    memory_cost,
    step_cost,
    trained_counts,
)
from rba_bench.training.planning.shapes import ModelShape, find_config, model_shape
from rba_bench.training.training_recipe import TrainingRecipe


@dataclass(frozen=True)
class HardwareFit:
    """A run on some devices.

    Attributes:
        device: name of the devices.
        devices: number of devices.
        launch: `one`, `ddp` or `fsdp2`; empty where the run does not fit.
        memory: on each device, as launched, or as it would be with FSDP2.
        step_s: seconds of an optimiser step: training, sampling, and computation of the frozen models.
        sampling_s: of these, seconds of sampling.
        hours: of the whole run.
        why: why it does not fit; empty where it does.
    """

    device: str
    devices: int
    launch: str
    memory: MemoryCost
    step_s: float
    sampling_s: float
    hours: float
    why: str = ""


@dataclass(frozen=True)
class TrainingPlan:
    """What a run will take.

    Attributes:
        shape: of the model.
        trained: parameters that train, by part.
        data: lengths and numbers.
        steps: optimiser steps.
        step: one of them.
        fits: memory and time on each hardware of `CLUSTERS`.
        assumed: the assumptions of the estimate.
    """

    shape: ModelShape
    trained: dict[str, float]
    data: DataEstimate
    steps: int
    step: StepCost
    fits: tuple[HardwareFit, ...]
    assumed: Assumptions

    @property
    def totals(self) -> dict[str, float]:
        """Sums over the whole run."""
        step, steps = self.step, self.steps
        return {
            "clips": step.clips * steps,
            "passes": steps * step.clips / max(self.data.groups * self.data.voices, 1),
            "samples": step.samples * steps,
            "sampled_tokens": step.samples * step.sample_tokens * steps,
            "trained_tokens": step.positions * steps,
            "petaflop": (step.train + step.other + step.prefill) * steps / 1e15,
        }


def plan_training(recipe: TrainingRecipe, assumed: Assumptions, here: Device | None = None) -> TrainingPlan:
    """Estimate a run; nothing is downloaded, loaded or written.

    Args:
        recipe: the run.
        assumed: values that neither recipe nor model give.
        here: this machine, if it has been measured.

    Raises:
        MissingPrerequisite: model, reward or teacher is not known; the message says what to give.
    """
    if recipe.precision == "auto":  # as `auto` means on each GPU of `DEVICES`
        recipe = recipe.model_copy(update={"precision": "bfloat16"})
    shape = model_shape(recipe.base, find_config(recipe.base), recipe.lora)
    data = data_estimate(recipe, assumed)
    steps = recipe.steps
    if recipe.epochs is not None:
        steps = steps_for(recipe.epochs, data.groups, recipe.groups_per_step)
    step = step_cost(recipe, shape, data, assumed)
    by_name = {device.name: device for device in DEVICES}
    clusters = [(by_name[name], count) for name, count in CLUSTERS] + ([(here, 1)] if here else [])
    fits = tuple(_fit_hardware(recipe, shape, step, steps, assumed, *cluster) for cluster in clusters)
    return TrainingPlan(shape, trained_counts(recipe, shape), data, steps, step, fits, assumed)


def _fit_hardware(
    recipe: TrainingRecipe,
    shape: ModelShape,
    step: StepCost,
    steps: int,
    assumed: Assumptions,
    device: Device,
    count: int,
) -> HardwareFit:
    capacity = device.memory_gb * 1e9
    launch, why = ("one" if count == 1 else "ddp"), ""
    memory = memory_cost(recipe, shape, step, assumed, count, sharded=False)
    if memory.peak > capacity and count > 1:
        launch, memory = "fsdp2", memory_cost(recipe, shape, step, assumed, count, sharded=True)
    if memory.peak > capacity:
        launch, why = "", f"needs {memory.peak / 1e9:.0f} GB on each device"
    elif recipe.groups_per_step % (count * recipe.accumulate):
        launch, (share, rest) = "", divmod(recipe.groups_per_step, count)
        if rest or not share:
            why = f"groups_per_step {recipe.groups_per_step} is no multiple of {count}"
        else:
            divisor = max(n for n in range(1, share + 1) if share % n == 0 and n <= recipe.accumulate)
            why = f"set accumulate to {divisor}: {share} groups a device cannot come in {recipe.accumulate} batches"
    training, sampling = _step_seconds(recipe, shape, step, assumed, device, count, launch == "fsdp2")
    seconds = training + sampling
    return HardwareFit(device.name, count, launch, memory, seconds, sampling, seconds * steps / 3600, why)


def _step_seconds(
    recipe: TrainingRecipe,
    shape: ModelShape,
    step: StepCost,
    assumed: Assumptions,
    device: Device,
    count: int,
    sharded: bool,
) -> tuple[float, float]:
    """Seconds of an optimiser step: (operations at the assumed share of the peak, sampling token by token).

    A token of a batch takes as long as the slowest of these: reading all weights, computing, and, where they are
    sharded, gathering them.
    """
    rate = device.tflops * 1e12 * assumed.mfu
    trained = (step.train + step.other + step.prefill) / count / rate
    link = (device.link if count <= DEVICES_PER_NODE else INTER_NODE_BANDWIDTH) * 1e9
    weight_bytes = 2 * shape.parameters if recipe.precision == "bfloat16" else 4 * shape.parameters
    if sharded:  # gathered in forward and backward, gradients scattered; half of it behind the computation
        trained += 0.5 * recipe.accumulate * (2 * weight_bytes + 4 * shape.parameters) / link
    if not step.samples:
        return trained, 0.0
    samples = step.samples / count * recipe.refresh_every
    batches = max(1, math.ceil(samples / recipe.rollout_batch))
    rows = samples / batches
    size = 2 if recipe.precision == "bfloat16" else 4
    cache_bytes = rows * (step.prompt + step.sample_tokens / 2) * 2 * shape.layers * shape.kv * size
    read = (weight_bytes + cache_bytes) / (device.bandwidth * 1e9 * assumed.decode_share)
    head = 2.0 * shape.vocabulary * shape.hidden
    computed = rows * (decoder_flops(shape, step.prompt + step.sample_tokens) + head) / rate
    token = max(read, computed, weight_bytes / link if sharded else 0.0)
    return trained, batches * recipe.max_new_tokens * token / recipe.refresh_every

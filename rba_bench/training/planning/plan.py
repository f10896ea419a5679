"""The plan of a run: what it will cost, and the devices that it fits on."""

import math
from dataclasses import dataclass

from rba_bench.training.data.order import steps_for
from rba_bench.training.planning.assumptions import (
    BETWEEN,
    CLUSTERS,
    NODE,
    Assumptions,
    DataEstimate,
    Device,
    data_estimate,
    find_device,
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
class Fit:
    """A run on some devices.

    Attributes:
        device: their name.
        devices: how many.
        launch: `one`, `ddp` or `fsdp2`; empty where it does not fit.
        memory: on each device, as launched, else as it would be with FSDP2.
        step_s: seconds of an optimiser step: training, sampling, and what other models compute.
        sampling_s: of these, of drawing samples token by token.
        hours: of the whole run.
        why: what is in the way, where something is.
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
        fits: on the hardware looked at.
        assumed: what all this rests on.
    """

    shape: ModelShape
    trained: dict[str, float]
    data: DataEstimate
    steps: int
    step: StepCost
    fits: tuple[Fit, ...]
    assumed: Assumptions

    @property
    def totals(self) -> dict[str, float]:
        """Of the whole run."""
        step, steps = self.step, self.steps
        return {
            "clips": step.clips * steps,
            "passes": steps * self.step.clips / max(self.data.groups * self.data.voices, 1),
            "samples": step.samples * steps,
            "sampled_tokens": step.samples * step.sample_tokens * steps,
            "trained_tokens": step.positions * steps,
            "petaflop": (step.train + step.other + step.prefill) * steps / 1e15,
        }


def plan_training(recipe: TrainingRecipe, assumed: Assumptions, here: Device | None = None) -> TrainingPlan:
    """Estimate a run; nothing is downloaded, loaded or written.

    Args:
        recipe: the run.
        assumed: see there.
        here: this machine, where it has been measured.

    Raises:
        MissingPrerequisite: model, reward or teacher is not known; the line says what to give.
    """
    if recipe.precision == "auto":  # as every GPU here chooses
        recipe = recipe.model_copy(update={"precision": "bfloat16"})
    shape = model_shape(recipe.base, find_config(recipe.base), recipe.lora)
    data = data_estimate(recipe, assumed)
    steps = recipe.steps
    if recipe.epochs is not None:
        steps = steps_for(recipe.epochs, data.groups, recipe.groups_per_step)
    step = step_cost(recipe, shape, data, assumed)
    clusters = [(find_device(name), count) for name, count in CLUSTERS] + ([(here, 1)] if here else [])
    fits = tuple(_fit(recipe, shape, data, step, steps, assumed, device, count) for device, count in clusters)
    return TrainingPlan(shape, trained_counts(recipe, shape), data, steps, step, fits, assumed)


def _fit(
    recipe: TrainingRecipe,
    shape: ModelShape,
    data: DataEstimate,
    step: StepCost,
    steps: int,
    assumed: Assumptions,
    device: Device,
    count: int,
) -> Fit:
    whole = memory_cost(recipe, shape, step, data, assumed, count, False)
    shared = memory_cost(recipe, shape, step, data, assumed, count, True)
    room = device.memory_gb * 1e9
    launch, memory, why = ("one" if count == 1 else "ddp"), whole, ""
    if whole.peak > room:
        launch, memory = ("fsdp2" if count > 1 else ""), (shared if count > 1 else whole)
    if memory.peak > room:
        launch, why = "", f"needs {memory.peak / 1e9:.0f} GB on each device"
    elif recipe.groups_per_step % (count * recipe.accumulate):
        launch = ""
        why = _uneven(recipe, count)
    training, sampling = _seconds(recipe, shape, step, assumed, device, count, launch == "fsdp2")
    seconds = training + sampling
    return Fit(device.name, count, launch, memory, seconds, sampling, seconds * steps / 3600, why)


def _uneven(recipe: TrainingRecipe, count: int) -> str:
    """What to change where a step cannot be shared out evenly."""
    share, rest = divmod(recipe.groups_per_step, count)
    if rest or not share:
        return f"groups_per_step {recipe.groups_per_step} is no multiple of {count}"
    fewer = max(n for n in range(1, share + 1) if share % n == 0 and n <= recipe.accumulate)
    return f"set accumulate to {fewer}: {share} groups a device cannot come in {recipe.accumulate} batches"


def _seconds(
    recipe: TrainingRecipe,
    shape: ModelShape,
    step: StepCost,
    assumed: Assumptions,
    device: Device,
    count: int,
    shared: bool,
) -> tuple[float, float]:
    """Of an optimiser step: operations at the assumed share of the peak, and sampling, token by token.

    A token of a batch costs reading all weights, or computing, or, where they are shared out, gathering them: whichever
    takes longest.
    """
    rate = device.tflops * 1e12 * assumed.mfu
    trained = (step.train + step.other + step.prefill) / count / rate
    link = (device.link if count <= NODE else BETWEEN) * 1e9
    moved = 2 * shape.parameters if recipe.precision == "bfloat16" else 4 * shape.parameters
    if shared:  # gathered in forward and backward, gradients scattered; half of it behind the computation
        trained += 0.5 * recipe.accumulate * (2 * moved + 4 * shape.parameters) / link
    if not step.samples:
        return trained, 0.0
    samples = step.samples / count * recipe.refresh_every
    batches = max(1, math.ceil(samples / recipe.rollout_batch))
    rows = samples / batches
    size = 2 if recipe.precision == "bfloat16" else 4
    kept = rows * (step.prompt + step.sample_tokens / 2) * 2 * shape.layers * shape.kv * size
    read = (moved + kept) / (device.bandwidth * 1e9 * assumed.decode_share)
    head = 2.0 * shape.vocabulary * shape.hidden
    computed = rows * (decoder_flops(shape, step.prompt + step.sample_tokens) + head) / rate
    token = max(read, computed, moved / link if shared else 0.0)
    return trained, batches * recipe.max_new_tokens * token / recipe.refresh_every

"""`rba-bench train --plan`: what a run will take, as tables or as one JSON value."""

from typing import TYPE_CHECKING

from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.progress import stdout_reserved

if TYPE_CHECKING:
    from rba_bench.training.planning.plan import Fit, TrainingPlan
    from rba_bench.training.training_recipe import TrainingRecipe


def show(recipe: "TrainingRecipe", assume: list[str], probe: bool, as_json: bool) -> None:
    """Print the plan of a run; nothing is downloaded, loaded or written."""
    with stdout_reserved():
        from rba_bench.training.planning import assumptions, shapes
        from rba_bench.training.planning.plan import plan_training

        assumed = assumptions.parse_assumptions(assume)
        here = None
        if probe:
            shape = shapes.model_shape(recipe.base, shapes.find_config(recipe.base))
            here = assumptions.probe_device(shape.hidden, shape.ffn)
        made = plan_training(recipe, assumed, here)
    if as_json:
        emit_json({"plan": made, "totals": made.totals, "machine": here})
        return
    _print(made, recipe)
    if here is not None:
        emit(
            f"this machine: {here.tflops * 1000:.0f} GFLOP/s in matrix products, {here.bandwidth:.1f} GB/s copied"
        )


def _print(made: "TrainingPlan", recipe: "TrainingRecipe") -> None:
    shape, data, step, totals = made.shape, made.data, made.step, made.totals
    parts = ", ".join(f"{name} {_count(getattr(shape, name))}" for name in ("encoder", "projector", "llm"))
    moving = " + ".join(f"{name} {_count(number)}" for name, number in made.trained.items())
    emit(f"model    {shape.name}: {shape.parameters:,} parameters ({parts})")
    emit(f"trains   {moving}" + (" (low-rank adapters)" if recipe.lora else ""))
    emit(
        f"data     {data.groups:,} groups of {data.voices} clips, {data.seconds:.1f} s each, answers of "
        f"{data.answer_tokens:.0f} tokens ({data.source})"
    )
    emit(
        f"run      {made.steps:,} steps of {recipe.groups_per_step} groups: {totals['clips']:,.0f} clips "
        f"({totals['passes']:.2f} passes), {totals['samples']:,.0f} samples, "
        f"{totals['trained_tokens']:,.0f} tokens trained on, {totals['sampled_tokens']:,.0f} sampled"
    )
    emit(
        f"step     {step.scored:.0f} answers to {step.clips} clips, {step.positions:,.0f} positions, "
        f"{(step.train + step.other + step.prefill) / 1e12:,.1f} TFLOP"
    )
    emit()
    columns = [
        "hardware",
        "fits",
        "GB",
        "weights",
        "gradients",
        "AdamW",
        "reference",
        "judges",
        "activations",
    ]
    columns += ["logits", "KV", "s/step", "sampling", "hours"]
    emit_table(columns, [_row(fit) for fit in made.fits])
    emit()
    assumed = made.assumed
    emit(
        f"assumed: {assumed.mfu:.0%} of the peak in training, {assumed.decode_share:.0%} of the memory's bandwidth "
        "in sampling, samples as long as a"
    )
    emit("teacher's answer, at most max_new_tokens; validation, loading and saving are not counted")
    emit("change with --assume KEY=VALUE: groups, voices, seconds, answer_tokens, mfu, decode_share, ...")


def _row(fit: "Fit") -> list[object]:
    memory = fit.memory
    names = ("weights", "gradients", "optimizer", "reference", "judges", "activations", "logits", "sampling")
    hours = f"{fit.hours:,.1f}" if fit.launch else fit.why
    return [
        f"{fit.devices} x {fit.device}",
        fit.launch or "no",
        f"{memory.peak / 1e9:.1f}",
        *(f"{getattr(memory, name) / 1e9:.1f}" for name in names),
        f"{fit.step_s:.2f}",
        f"{fit.sampling_s:.2f}",
        hours,
    ]


def _count(number: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"

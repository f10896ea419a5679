"""`rba-bench train --plan`: the estimated cost of a training run, as tables or as one JSON value."""

from typing import TYPE_CHECKING

from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.progress import stdout_reserved

if TYPE_CHECKING:
    from rba_bench.training.planning.plan import TrainingPlan
    from rba_bench.training.training_recipe import TrainingRecipe

COLUMNS = (
    "hardware", "fits", "GB", "weights", "gradients", "AdamW", "reference", "judges", "activations", "logits", "KV",
    "s/step", "sampling", "hours",
)  # fmt: skip


def print_plan(recipe: "TrainingRecipe", assume: list[str], probe: bool, as_json: bool) -> None:
    """Print the plan of a run; nothing is downloaded, loaded or written."""
    with stdout_reserved():
        from rba_bench.training.planning import assumptions, shapes
        from rba_bench.training.planning.plan import plan_training

        machine = None
        if probe:
            shape = shapes.model_shape(recipe.base, shapes.find_config(recipe.base))
            machine = assumptions.probe_device(shape.hidden, shape.ffn)
        plan = plan_training(recipe, assumptions.parse_assumptions(assume), machine)
    if as_json:
        emit_json({"plan": plan, "totals": plan.totals, "machine": machine})
        return
    _print_tables(plan, recipe)
    if machine is not None:
        emit(
            f"this machine: {machine.tflops * 1000:.0f} GFLOP/s in matrix products, {machine.bandwidth:.1f} GB/s copied"
        )


def _print_tables(plan: "TrainingPlan", recipe: "TrainingRecipe") -> None:
    shape, data, step, totals = plan.shape, plan.data, plan.step, plan.totals
    parts = ", ".join(f"{name} {_count(getattr(shape, name))}" for name in ("encoder", "projector", "llm"))
    trained = " + ".join(f"{name} {_count(number)}" for name, number in plan.trained.items())
    emit(f"model    {shape.name}: {shape.parameters:,} parameters ({parts})")
    emit(f"trains   {trained}" + (" (low-rank adapters)" if recipe.lora else ""))
    emit(
        f"data     {data.groups:,} groups of {data.voices} clips, {data.seconds:.1f} s each, answers of "
        f"{data.answer_tokens:.0f} tokens ({data.source})"
    )
    emit(
        f"run      {plan.steps:,} steps of {recipe.groups_per_step} groups: {totals['clips']:,.0f} clips "
        f"({totals['passes']:.2f} passes), {totals['samples']:,.0f} samples, "
        f"{totals['trained_tokens']:,.0f} tokens trained on, {totals['sampled_tokens']:,.0f} sampled"
    )
    emit(
        f"step     {step.scored:.0f} answers to {step.clips} clips, {step.positions:,.0f} positions, "
        f"{(step.train + step.other + step.prefill) / 1e12:,.1f} TFLOP"
    )
    emit()
    names = ("weights", "gradients", "optimizer", "reference", "judges", "activations", "logits", "sampling")
    rows = []
    for fit in plan.fits:
        gigabytes = [f"{getattr(fit.memory, name) / 1e9:.1f}" for name in ("peak", *names)]
        hours = f"{fit.hours:,.1f}" if fit.launch else fit.why
        seconds = f"{fit.step_s:.2f}", f"{fit.sampling_s:.2f}"
        rows.append([f"{fit.devices} x {fit.device}", fit.launch or "no", *gigabytes, *seconds, hours])
    emit_table(COLUMNS, rows)
    emit()
    emit(
        f"Assumed: {plan.assumed.mfu:.0%} of the peak speed in training, {plan.assumed.decode_share:.0%} of the memory "
        "bandwidth in sampling;"
    )
    emit(
        "samples are as long as a teacher's answer, at most max_new_tokens. Not counted: validation, loading, saving."
    )
    emit("Change with --assume KEY=VALUE: groups, voices, seconds, answer_tokens, mfu, decode_share, ...")


def _count(number: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"

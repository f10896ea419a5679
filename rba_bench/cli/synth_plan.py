"""`rba-bench synth --dry-run`: what a synthesis will take, as tables or as one JSON value."""

from pathlib import Path
from typing import TYPE_CHECKING

from rba_bench.cli.output import emit, emit_json, emit_table
from rba_bench.errors import UserError
from rba_bench.progress import stdout_reserved

if TYPE_CHECKING:
    from rba_bench.synthesis.plan import Estimate, SynthesisPlan

COLUMNS = ("step", "stage", "for each", "ms", "CPU ms", "CPU hours", "from", "to")


def parse_price(text: str | None) -> tuple[float, float] | None:
    """Dollars for a million tokens of prompts and of answers, from `IN,OUT`.

    Raises:
        UserError: that is not two numbers of 0 or more.
    """
    if text is None:
        return None
    try:
        prompt, completion = (float(part) for part in text.split(","))
    except ValueError:
        prompt = completion = -1.0
    if not (0 <= prompt < float("inf") and 0 <= completion < float("inf")):
        raise UserError(f"--price-per-million-tokens {text}: write two numbers, as in 0.88,0.88")
    return prompt, completion


def print_synthesis_plan(
    recipe: Path | None,
    overrides: list[str],
    against: list[str],
    workers: int | None,
    items: int,
    price: str | None,
    as_json: bool,
) -> None:
    """Probe a recipe and print its plan; no set is written."""
    dollars = parse_price(price)
    with stdout_reserved():
        from rba_bench.stages import plan_set

        plan = plan_set(recipe, overrides, workers, items, dollars, against)
    if as_json:
        emit_json(plan)
    else:
        _print(plan)


def _print(plan: "SynthesisPlan") -> None:
    probe, share = plan.probe, plan.usable_share
    name = "utterances" if probe.utterances else "candidates"
    emit(
        f"probe    {probe.candidates} {name}, {probe.usable} usable: {share.value:.0%} "
        f"(95 % interval {share.low:.0%} to {share.high:.0%})"
    )
    for part, reasons in (("instructions", probe.instructions), ("answers", probe.answers)):
        if reasons:
            emit(f"         {part}: {', '.join(f'{name} {n}' for name, n in reasons.most_common())}")
    left_out = "".join(f", {reason} {n}" for reason, n in probe.dropped_clips.most_common())
    emit(
        f"         clips: {probe.clips}, of which kept {probe.clips - probe.dropped_clips.total()}{left_out}"
    )
    emit(
        f"needs    {_range(plan.candidates, ',.0f')} {name} for {_range(plan.instructions, ',.0f')} instructions: "
        f"{_range(plan.clips, ',.0f')} clips, {_range(plan.speech_h, '.2f')} hours of speech"
    )
    emit()
    rows = [
        (step.step, step.stage, step.each, f"{step.seconds * 1e3:.1f}", f"{step.cpu_s * 1e3:.1f}",
         *(f"{getattr(step.cpu_h, end):.3f}" for end in ("value", "low", "high")))
        for step in plan.steps
    ]  # fmt: skip
    emit_table(COLUMNS, rows)
    emit()
    stages = ", ".join(f"{name} {_hours(hours.value)}" for name, hours in plan.stage_h.items())
    emit(
        f"time     about {_hours(plan.hours.value)} ({_hours(plan.hours.low)} to {_hours(plan.hours.high)}) with "
        f"{plan.workers} workers on {plan.cores} cores; the stages overlap, {plan.slowest} decides"
    )
    emit(f"         alone: {stages}")
    emit(f"disk     set {_range(plan.set_bytes.times(1e-6), ',.1f')} MB; "
         f"files of the stages {_range(plan.stage_bytes.times(1e-6), ',.1f')} MB")  # fmt: skip
    _print_tokens(plan)
    for remark in plan.remarks:
        emit(f"note     {remark}")


def _print_tokens(plan: "SynthesisPlan") -> None:
    counts = (("prompt", plan.prompt_tokens), ("answer", plan.completion_tokens))
    texts = [f"{name} {'unknown' if n is None else _range(n, ',.0f')}" for name, n in counts]
    known = [(name, n.value / plan.instructions.value) for name, n in counts if n is not None]
    each = ", ".join(f"{name} {n:,.0f}" for name, n in known)
    emit(f"tokens   {', '.join(texts)}" + (f"; a usable instruction: {each}" if known else ""))
    if plan.dollars is None:
        emit("dollars  unknown: give --price-per-million-tokens IN,OUT")
    else:
        emit(f"dollars  {_range(plan.dollars, ',.2f')}")


def _range(estimate: "Estimate", form: str) -> str:
    value, low, high = (format(getattr(estimate, end), form) for end in ("value", "low", "high"))
    return value if low == high else f"{value} ({low} to {high})"


def _hours(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.1f} s"
    return f"{hours * 60:.1f} min" if hours < 2 else f"{hours:,.1f} h"

"""What a whole synthesis will take, from a probe: candidates, time, disk, tokens, dollars.

The number of candidates follows from the share of usable ones, with its binomial interval; the length of the speech
from the mean of the spoken instructions, with its t interval. Everything else is taken as the probe's mean. Ranges
hold both. What the probe cannot show: texts that repeat each other, which grow with the set, and a server that answers
more requests at once than the probe sent.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, inf
from statistics import fmean, stdev

from rba_bench.errors import RbaError
from rba_bench.metrics.interval import share_ends, t_quantile
from rba_bench.synthesis.probe import STEPS, Probe, missing_kinds
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.teacher import is_server

MILLION = 1e6
HOUR = 3600.0
START, PROCESSOR = "start", "processor"


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95 % interval, as far as the probe tells."""

    value: float
    low: float
    high: float

    def times(self, factor: "float | Estimate") -> "Estimate":
        """The product; of two estimates with the ends of both, which is wider than it need be."""
        by = factor if isinstance(factor, Estimate) else Estimate(factor, factor, factor)
        return Estimate(self.value * by.value, self.low * by.low, self.high * by.high)


def combine(of: Callable[..., float], *estimates: Estimate) -> Estimate:
    """A function that grows with each of its arguments, of estimates."""
    ends = (of(*(getattr(one, end) for one in estimates)) for end in ("value", "low", "high"))
    return Estimate(*ends)


@dataclass(frozen=True)
class PlannedStep:
    """One step of a stage.

    Attributes:
        stage: `ask`, `filter` or `speak`.
        each: What it is done for: `candidate` or `clip`.
        seconds: Of one, on the wall.
        cpu_s: Of one, of the processor.
        cpu_h: Hours of one core for the whole set.
    """

    step: str
    stage: str
    each: str
    seconds: float
    cpu_s: float
    cpu_h: Estimate


@dataclass(frozen=True)
class SynthesisPlan:
    """What is to come.

    Attributes:
        probe: What was measured.
        workers: Processes that speak.
        cores: Of this machine.
        usable_share: Of the candidates.
        candidates: That must be asked for.
        instructions: That are spoken.
        clips: That are kept.
        speech_h: Hours of speech in them.
        steps: In their order.
        stage_h: Hours of each stage if it were alone, of all cores busy together (`processor`), and of the start.
        slowest: The key of `stage_h` that decides, since the stages overlap.
        hours: From start to end, on this machine.
        set_bytes: The set on disk.
        stage_bytes: The files of the other stages and the markers, which are not needed once the set is complete.
        prompt_tokens, completion_tokens: Of the teacher; None where nobody counts them.
        dollars: Of the teacher's tokens; None where the price is not known.
        remarks: What a reader should know.
    """

    probe: Probe
    workers: int
    cores: int
    usable_share: Estimate
    candidates: Estimate
    instructions: Estimate
    clips: Estimate
    speech_h: Estimate
    steps: tuple[PlannedStep, ...]
    stage_h: Mapping[str, Estimate]
    slowest: str
    hours: Estimate
    set_bytes: Estimate
    stage_bytes: Estimate
    prompt_tokens: Estimate | None
    completion_tokens: Estimate | None
    dollars: Estimate | None
    remarks: tuple[str, ...] = ()


def plan_synthesis(
    recipe: SynthesisRecipe, probe: Probe, workers: int, price: tuple[float, float] | None = None
) -> SynthesisPlan:
    """The plan of a recipe from what a probe measured.

    Args:
        recipe: What is to be made.
        probe: Of this recipe, on this machine.
        workers: Processes that speak; 0 for the one that filters too.
        price: Dollars for a million tokens of the prompt, and of the answer; None for no price, which is 0 for a
            model that runs here.

    Raises:
        RbaError: a kind that the recipe asks for did not occur.
    """
    candidates, instructions = _needed(recipe, probe)
    voices = 1 if recipe.source is not None else recipe.voices_per_instruction
    made = instructions.times(voices)
    kept = 1 - probe.dropped_clips.total() / max(1, probe.clips)
    speech_s, spread = _speech(probe)
    steps = tuple(_steps(probe, candidates, made.times(spread)))
    stages = _stage_hours(steps, candidates, made.times(spread), workers)
    slowest = max((name for name in stages if name != START), key=lambda name: stages[name].value)
    stages[START] = Estimate(*[probe.start_s / HOUR] * 3)
    longest = combine(max, *(stages[name] for name in stages if name != START))
    per_clip = probe.set_bytes / max(1, probe.clips - probe.dropped_clips.total())
    per_candidate = probe.stage_bytes / probe.candidates
    prompt = None if not probe.prompt_tokens else candidates.times(probe.prompt_tokens / probe.candidates)
    written = candidates.times(probe.completion_tokens / probe.candidates)
    completion = written if probe.completion_tokens else None
    return SynthesisPlan(
        probe=probe, workers=workers, cores=os.cpu_count() or 1,
        usable_share=_share(probe.usable, probe.candidates),
        candidates=candidates, instructions=instructions, clips=made.times(kept),
        speech_h=made.times(kept * speech_s / HOUR).times(spread),
        steps=steps, stage_h=stages, slowest=slowest,
        hours=combine(lambda start, work: start + work, stages[START], longest),
        set_bytes=made.times(kept * per_clip).times(spread), stage_bytes=candidates.times(per_candidate),
        prompt_tokens=prompt, completion_tokens=completion,
        dollars=_dollars(recipe, prompt, completion, price),
        remarks=tuple(_remarks(recipe, probe, candidates)),
    )  # fmt: skip


def _share(right: int, n: int) -> Estimate:
    return Estimate(right / n, *share_ends(right, n))


def _needed(recipe: SynthesisRecipe, probe: Probe) -> tuple[Estimate, Estimate]:
    """Candidates and usable instructions of the whole set."""
    share = _share(probe.usable, probe.candidates)
    if recipe.source is not None:  # all are translated, whatever becomes of them
        total = float(probe.utterances)
        return Estimate(total, total, total), share.times(total)
    if missing := missing_kinds(recipe, probe.kinds):
        raise RbaError(
            f"none of {probe.candidates} candidates is of kind {', '.join(missing)}, which the recipe asks for: probe "
            "more with --probe-items"
        )
    wanted = float(recipe.n_instructions)
    shares = [(share, recipe.n_instructions)]
    if recipe.kinds is not None:
        seen = {kind: n for kind, n in recipe.kinds.items() if probe.kinds[kind]}
        shares = [(_share(probe.kinds[kind], probe.candidates), n) for kind, n in seen.items()]
    ends = (
        _candidates_for(wanted, [(getattr(one, end), n) for one, n in shares])
        for end in ("value", "high", "low")
    )
    return Estimate(*ends), Estimate(wanted, wanted, wanted)


def _candidates_for(wanted: float, shares: list[tuple[float, int]]) -> float:
    """Candidates after which kinds of these shares, none beyond its limit, are `wanted` instructions together."""
    full = sorted((limit / share, share, limit) for share, limit in shares if share > 0 and limit)
    filled = 0.0
    for position, (enough, _, limit) in enumerate(full):
        rate = sum(share for _, share, _ in full[position:])
        needed = (wanted - filled) / rate
        if needed <= enough:
            return ceil(needed)
        filled += limit
    return inf


def _speech(probe: Probe) -> tuple[float, Estimate]:
    """Mean seconds of a clip, and how far the mean of the whole set may be from it, as a factor."""
    if not probe.speech:
        return 0.0, Estimate(1.0, 1.0, 1.0)
    mean, n = fmean(probe.speech), len(probe.speech)
    reach = t_quantile(n - 1) * stdev(probe.speech) / n**0.5 / mean if n > 1 else 0.0
    return mean, Estimate(1.0, max(0.0, 1.0 - reach), 1.0 + reach)


def _steps(probe: Probe, candidates: Estimate, clips: Estimate) -> list[PlannedStep]:
    steps = []
    for name, stage in STEPS.items():
        if name in probe.seconds:
            many, n = (clips, probe.clips) if stage == "speak" else (candidates, probe.candidates)
            wall, cpu = probe.seconds[name] / max(1, n), probe.cpu_s[name] / max(1, n)
            each = "clip" if stage == "speak" else "candidate"
            steps.append(PlannedStep(name, stage, each, wall, cpu, many.times(cpu / HOUR)))
    return steps


def _stage_hours(
    steps: tuple[PlannedStep, ...], candidates: Estimate, clips: Estimate, workers: int
) -> dict[str, Estimate]:
    """Hours of each stage if it were alone; a worker has one core, so it is at least as slow as its processor time."""
    seconds = dict.fromkeys(("ask", "filter", "speak"), 0.0)
    for step in steps:
        speaks = step.stage == "speak" and workers
        seconds[step.stage] += max(step.seconds, step.cpu_s) / workers if speaks else step.seconds
    hours = {stage: candidates.times(seconds[stage] / HOUR) for stage in ("ask", "filter")}
    spoken = clips.times(seconds["speak"] / HOUR)
    if workers:
        hours["speak"] = spoken
    else:
        hours = {
            "ask": hours["ask"],
            "filter and speak": combine(lambda a, b: a + b, hours["filter"], spoken),
        }
    total = combine(lambda *parts: sum(parts), *(step.cpu_h for step in steps))
    return {**hours, PROCESSOR: total.times(1 / (os.cpu_count() or 1))}


def _dollars(
    recipe: SynthesisRecipe,
    prompt: Estimate | None,
    completion: Estimate | None,
    price: tuple[float, float] | None,
) -> Estimate | None:
    if price is None:
        return None if is_server(recipe) else Estimate(0.0, 0.0, 0.0)
    if prompt is None or completion is None:
        return None
    per_prompt, per_completion = price[0] / MILLION, price[1] / MILLION
    return combine(lambda a, b: a * per_prompt + b * per_completion, prompt, completion)


def _remarks(recipe: SynthesisRecipe, probe: Probe, candidates: Estimate) -> list[str]:
    remarks = []
    if recipe.source is None and candidates.high > recipe.most_candidates:
        remarks.append(
            f"up to {candidates.high:,.0f} candidates may be needed, and the run gives up after "
            f"{recipe.most_candidates:,} (max_candidates)"
        )
    if is_server(recipe):
        remarks.append(
            f"the server was asked for {probe.candidates} candidates at once: with more requests under way it does "
            "more, so the time of `ask` is an upper bound; --probe-items 1000 measures it better"
        )
        if not probe.prompt_tokens or not probe.completion_tokens:
            remarks.append("the server counts no tokens")
    if recipe.source is None:
        remarks.append(
            "instructions that repeat each other grow with the set; the probe is too small to see them"
        )
    if not probe.speech:
        remarks.append(f"none of the probe's {probe.clips} clips was kept: the size of the set is not known")
    elif len(probe.speech) == 1:
        remarks.append("one instruction was spoken: the ranges do not hold the spread of the speech's length")
    return remarks

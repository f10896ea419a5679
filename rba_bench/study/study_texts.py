"""Sentences of a study's report that are no results: its conditions, what failed, and how numbers were computed."""

from collections.abc import Iterator
from typing import Any

from rba_bench.leaderboard.pages import first_and_last_day
from rba_bench.leaderboard.tables import SHORT
from rba_bench.metrics.bootstrap import RESAMPLES, SEED
from rba_bench.study.analysis import StudyData
from rba_bench.study.study_answer import BUDGET_NAMES
from rba_bench.study.study_recipe import dotted_changes
from rba_bench.untrusted import plain

LEGEND = """A number is the mean over the training seeds with its 95 % interval; `±` is the standard deviation over
the seeds. A difference is taken seed by seed on the same items; `*` marks an interval that excludes zero, each for
its own difference alone. Intervals cover the choice of items and, where there are several seeds, the choice of
seeds: Student's t for the sum of the variance between items ({resamples} resamples, items with equal text together,
the same for all systems) and the variance of the mean over seeds, with Satterthwaite's degrees of freedom. Corpus
scores are computed per seed from summed statistics. Where {seeds} seeds differ much, intervals are wide: read the
spread beside them. Differences of untrained systems are from the baseline at the first budget. A share is a mean
score divided by that of the system that reads the transcript, with the items of both drawn together. Random seed of
the resampling: {seed}.
"""


def without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe without folders of this machine, for publishing."""
    from rba_bench.evaluation.plan import relative_spec

    paths: dict[str, Any] = {
        key: relative_spec(value)
        for key, value in recipe.items()
        if key in ("base", "alignment_set") and value
    }
    if isinstance(references := recipe.get("references"), dict):
        paths["references"] = {name: relative_spec(spec) for name, spec in references.items()}
    return {**recipe, **paths}


def failures(data: StudyData) -> Iterator[str]:
    """A sentence per run that failed."""
    for each in data.failures:
        yield (
            f"Failed: {plain(each['method'])}, seed {plain(each['seed'])}, {BUDGET_NAMES[each['budget']]}: "
            f"{plain(each['error'])}"
        )


def legend(data: StudyData) -> str:
    """How the numbers of the tables were computed."""
    seeds = max(len(runs) for budget in data.budgets for runs in data.runs(budget).values())
    return LEGEND.format(resamples=f"{RESAMPLES:,}", seeds=seeds, seed=SEED)


def conditions(data: StudyData) -> Iterator[str]:
    """Base, data, steps, seeds and machine in sentences."""
    study = data.study
    runs = [run for budget in data.budgets for found in data.runs(budget).values() for run in found]
    cost = runs[0].cost
    paths = without_paths({"base": study.base, "alignment_set": study.alignment_set})
    base, alignment_set = (plain(paths[key]) if paths[key] else "" for key in ("base", "alignment_set"))
    base = f"made by the study's warm-up from {base}" if study.warmup else base
    alignment_set = alignment_set or study.synthesis.recipe + _changes_text(study.synthesis.set)
    bases = dict.fromkeys(f"`{plain(run.cost.get('base_sha256', ''))[:SHORT]}`" for run in runs)
    yield f"Base: {base} ({', '.join(bases)}). Alignment set: {alignment_set}."
    if len(bases) > 1:
        yield "The base was made more than once, on different machines: the runs start from bases that are not equal."
    if study.warmup:
        yield f"Warm-up: {plain(study.warmup.recipe)}{_changes_text(study.warmup.set)}."
    time, seconds = "", data.time.get("seconds")
    if "time" in data.budgets and seconds is not None:
        like = f" (the mean of `{data.time['like']}` at equal steps)" if data.time.get("like") else ""
        time = f", and as many as its measured speed allows in {seconds:.0f} s{like} at equal time"
    yield f"Every method: {study.steps} steps at equal steps{time}; seeds {', '.join(map(str, study.seeds))}."
    if study.common:
        yield f"Settings of all methods{_changes_text(study.common).replace(';', ':', 1)}."
    for sentence in study.left_out:
        yield f"Left out: {plain(sentence)}"
    for name, choice in study.methods.items():
        if choice.set:
            yield f"`{plain(name)}`: {plain(choice.recipe)}{_changes_text(choice.set)}"
    hardware, versions = cost.get("hardware") or {}, cost.get("versions") or {}
    shown = [name for name in versions if name in ("rba_bench", "torch", "transformers")]
    packages = ", ".join(f"{name} {versions[name]}" for name in shown)
    device = (
        f"{hardware.get('device', '')} {hardware.get('name', '')}, {hardware.get('threads', '?')} threads"
    )
    days = first_and_last_day(plain(run.cost.get("created", "")) for run in runs)
    yield f"{len(runs)} runs, {days}, {plain(f'{device.strip()}; {packages}')}."


def _changes_text(changes: dict[str, Any]) -> str:
    return "; " + ", ".join(f"`{plain(change)}`" for change in dotted_changes(changes)) if changes else ""

"""What a study still needs: the hours of every run, what is cut, whether it fits, and what it can resolve.

Training is estimated by the method's own seconds per step (wall time and encoding) over the runs that are finished,
else by those that `probe` measured, else by the mean of the other methods; evaluation by the systems that are
evaluated, else by the probe. Only what this machine has done is used: without runs and without a probe, nothing is
estimated.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

from rba_bench.study import scores
from rba_bench.study.folder import REFERENCE, Cell
from rba_bench.study.power import ResolvedTask, resolved_tasks
from rba_bench.study.probe import read_probe
from rba_bench.study.scores import SystemScores
from rba_bench.study.stages import Study
from rba_bench.study.study_recipe import BUDGETS

HOUR = 3600.0  # seconds
DONE, TRAINED, STARTED, TO_DO, FAILED = "done", "trained", "started", "to do", "failed"


@dataclass(frozen=True)
class PlannedRun:
    """One run of the plan.

    Attributes:
        steps: Optimiser steps, None where equal time is not measured yet.
        train_s: Seconds of training still to come, None without an estimate.
        eval_s: Seconds of evaluation still to come, None without an estimate.
    """

    budget: str
    method: str
    seed: int
    state: str
    steps: int | None
    train_s: float | None
    eval_s: float | None


@dataclass(frozen=True)
class StudyPlan:
    """What is to come.

    Attributes:
        lines: One per run.
        seconds: Estimate of all that is left, of the runs that can be estimated.
        unknown: Runs without an estimate.
        training_s: The part of `seconds` that is training.
        evaluation_s: The part that is evaluation, of the references too.
        allowed_s: What the recipe allows for the whole study, None for no limit.
        done_s: What the runs so far have taken.
        seeds_that_fit: How many of the seeds can be finished within `allowed_s`, all methods and budgets each; None
            where that cannot be told.
        left_out: What was cut: the recipe's sentences, and methods that have some of the seeds or budgets alone.
        power: What each task can resolve.
    """

    lines: tuple[PlannedRun, ...]
    seconds: float
    unknown: int
    training_s: float = 0.0
    evaluation_s: float = 0.0
    allowed_s: float | None = None
    done_s: float = 0.0
    seeds_that_fit: int | None = None
    left_out: tuple[str, ...] = ()
    power: tuple[ResolvedTask, ...] = ()


def plan_study(study: Study) -> StudyPlan:
    """The plan of a study from what its folder holds; nothing is run or written."""
    probe, systems = read_probe(study.folder), scores.load_all_scores(study.folder.scores)
    rates = {**probe.seconds_per_step, **_measured_rates(study)}
    mean_rate = fmean(rates.values()) if rates else None
    mean_eval_s = fmean(system.eval_s for system in systems) if systems else None

    def eval_s(seed: int) -> float | None:
        """Seconds of one evaluation; the probe knows the tasks apart, the runs so far do not."""
        measured = probe.evaluation_s(study.study.tasks_of(seed))
        return mean_eval_s if measured is None else measured

    lines = tuple(_planned_runs(study, rates, mean_rate, eval_s, systems))
    known = [line for line in lines if line.train_s is not None and line.eval_s is not None]
    missing = [name for name in study.study.reference_models if not _is_scored(systems, REFERENCE, name, 0)]
    training_s = sum((line.train_s or 0.0 for line in known), 0.0)
    evaluation_s = sum((line.eval_s or 0.0 for line in known), 0.0) + len(missing) * (eval_s(0) or 0.0)
    allowed_s = None if study.study.hours is None else study.study.hours * HOUR
    done_s = sum(system.eval_s + _trained_s(system) for system in systems)
    unknown = len(lines) - len(known)
    return StudyPlan(
        lines,
        training_s + evaluation_s,
        unknown,
        training_s,
        evaluation_s,
        allowed_s,
        done_s,
        None if allowed_s is None or unknown else seeds_that_fit(lines, allowed_s - done_s),
        (*study.study.left_out, *_cut(study)),
        tuple(resolved_tasks(study.study, systems, probe.texts)),
    )


def seeds_that_fit(lines: tuple[PlannedRun, ...], seconds: float) -> int:
    """How many seeds, in the order of the runs, are finished after some more seconds."""
    count = 0
    for seed in dict.fromkeys(line.seed for line in lines):
        seconds -= sum((line.train_s or 0.0) + (line.eval_s or 0.0) for line in lines if line.seed == seed)
        if seconds < 0:
            break
        count += 1
    return count


def _cut(study: Study) -> Iterator[str]:
    """Which methods do not run under every seed and budget, and which tasks are not for all runs."""
    if tasks := study.study.first_seed_tasks:
        yield f"the first seed alone answers {', '.join(tasks)}"
    for name, choice in study.study.methods.items():
        parts = []
        if choice.seeds is not None and len(choice.seeds) < len(study.study.seeds):
            parts.append(f"{len(choice.seeds)} of {len(study.study.seeds)} seeds")
        if choice.budgets is not None and len(choice.budgets) < len(BUDGETS):
            parts.append(f"equal {choice.budgets[0]} alone")
        if choice.kinds is not None:
            parts.append(f"items of {', '.join(choice.kinds)} alone")
        if parts:
            yield f"{name} has {' and '.join(parts)}"


def _measured_rates(study: Study) -> dict[str, float]:
    """Seconds per step of the methods that have finished runs."""
    rates = {}
    for method in study.study.methods:
        cells = [Cell(budget, method, seed) for budget in BUDGETS for seed in study.selection.seeds]
        records = [scores.training_facts(study.folder, cell) for cell in cells]
        finished = [record for record in records if record is not None and record["steps"]]
        if finished:
            seconds = sum(record["wall_time_s"] + record["encoding_s"] for record in finished)
            rates[method] = float(seconds / sum(record["steps"] for record in finished))
    return rates


def _planned_runs(
    study: Study,
    rates: Mapping[str, float],
    mean_rate: float | None,
    evaluation_s: Callable[[int], float | None],
    systems: list[SystemScores],
) -> list[PlannedRun]:
    lines = []
    for budget in study.selection.budgets:
        for cell in study.selection.cells(budget):
            is_trained = study.folder.run_record(cell) is not None
            if _is_scored(systems, cell.budget, cell.method, cell.seed):
                is_trained, state = True, DONE  # at equal time perhaps as a run at equal steps
            elif is_trained:
                state = TRAINED
            elif study.folder.failure(cell):
                state = FAILED
            else:
                state = STARTED if study.folder.is_started(cell) else TO_DO
            steps = study.study.steps if budget == "steps" else study.time.steps(cell.method)
            rate = rates.get(cell.method) or mean_rate
            train_s = None if steps is None or rate is None else steps * rate
            if budget == "time" and steps is None:
                train_s = study.time.seconds or study.study.time.seconds or _like(study, rates)
            train_s = 0.0 if is_trained else train_s
            eval_s = 0.0 if state == DONE else evaluation_s(cell.seed)
            if state == TO_DO and None not in (train_s, eval_s) and _is_taken_over(study, cell):
                train_s = eval_s = 0.0
            lines.append(PlannedRun(budget, cell.method, cell.seed, state, steps, train_s, eval_s))
    return lines


def _is_taken_over(study: Study, cell: Cell) -> bool:
    """Whether a run at equal time will be the run at equal steps: that of the method whose time all get."""
    steps = study.time.steps(cell.method)
    same = cell.method == study.study.time.like if steps is None else steps == study.study.steps
    return (
        cell.budget == "time"
        and same
        and Cell("steps", cell.method, cell.seed) in study.selection.cells("steps")
    )


def _like(study: Study, rates: Mapping[str, float]) -> float | None:
    """Seconds of equal time before they are measured: the steps of the method that they are to be like."""
    rate = rates.get(study.study.time.like or "")
    return None if rate is None else study.study.steps * rate


def _is_scored(systems: list[SystemScores], part: str, method: str, seed: int) -> bool:
    return any((system.part, system.method, system.seed) == (part, method, seed) for system in systems)


def _trained_s(system: SystemScores) -> float:
    return float(system.cost.get("wall_time_s") or 0.0) + float(system.cost.get("encoding_s") or 0.0)

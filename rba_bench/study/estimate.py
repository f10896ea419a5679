"""`rba-bench study micro --plan`: what is done, what would be done, and how long it takes by what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from rba_bench.study import scores
from rba_bench.study.folder import Cell
from rba_bench.study.recipe import BUDGETS, Budget
from rba_bench.study.run import Study

DONE, TRAINED, STARTED, TO_DO, FAILED = "done", "trained", "started", "to do", "failed"


@dataclass(frozen=True)
class Line:
    """One run of the plan.

    Attributes:
        steps: Optimiser steps, None where equal time is not measured yet.
        train_s: Seconds of training still to come, None where nothing tells.
        eval_s: Seconds of evaluation still to come, None where nothing tells.
    """

    budget: str
    method: str
    seed: int
    state: str
    steps: int | None
    train_s: float | None
    eval_s: float | None


@dataclass(frozen=True)
class Plan:
    """What is to come.

    Attributes:
        lines: One per run.
        seconds: Estimate of all that is left, of the runs that can be estimated.
        unknown: Runs without an estimate.
    """

    lines: tuple[Line, ...]
    seconds: float
    unknown: int


def make_plan(study: Study) -> Plan:
    """The plan of a study from what its folder holds; nothing is run or written.

    Training is estimated by the method's own seconds a step (wall time and encoding), else by the mean of the methods
    that have run; evaluation by the mean of the systems evaluated.
    """
    rates = {method: _rate(study, method) for method in study.study.methods}
    known = [rate for rate in rates.values() if rate is not None]
    usual = fmean(known) if known else None
    kept = {(one.part, one.method, one.seed): one for one in scores.read_all(study.folder.report / "scores")}
    evaluated = [one.eval_s for one in kept.values()]
    eval_s = fmean(evaluated) if evaluated else None
    lines = [
        _line(study, cell, rates[cell.method] or usual, eval_s, (cell.budget, cell.method, cell.seed) in kept)
        for budget in study.selection.budgets
        for cell in study.selection.cells(budget)
    ]
    open_ = [line for line in lines if line.state != DONE]
    told = [line for line in open_ if line.train_s is not None and line.eval_s is not None]
    seconds = sum((line.train_s or 0.0) + (line.eval_s or 0.0) for line in told)
    return Plan(tuple(lines), seconds, len(open_) - len(told))


def _line(study: Study, cell: Cell, rate: float | None, eval_s: float | None, scored: bool) -> Line:
    trained = study.folder.run(cell) is not None
    steps = study.study.steps if cell.budget == "steps" else study.time.steps(cell.method)
    if trained:
        state = DONE if scored else TRAINED
    else:
        state = FAILED if study.folder.failure(cell) else STARTED if study.folder.started(cell) else TO_DO
    train_s = 0.0 if trained else _expected(study, cell, steps, rate)
    return Line(cell.budget, cell.method, cell.seed, state, steps, train_s, 0.0 if state == DONE else eval_s)


def _expected(study: Study, cell: Cell, steps: int | None, rate: float | None) -> float | None:
    if cell.budget == "time" and steps is None:
        return study.time.seconds or study.study.time.seconds
    return None if steps is None or rate is None else steps * rate


def _rate(study: Study, method: str) -> float | None:
    """Measured seconds a step of a method, encoding included."""
    runs = [study.folder.run(Cell(budget, method, seed)) for budget, seed in _places(study)]
    done = [run for run in runs if run is not None and run["steps"]]
    if not done:
        return None
    return float(
        sum(run["wall_time_s"] + run["encoding_s"] for run in done) / sum(run["steps"] for run in done)
    )


def _places(study: Study) -> Sequence[tuple[Budget, int]]:
    return [(budget, seed) for budget in BUDGETS for seed in study.selection.seeds]

"""Doing a study: every stage through the same calls as the commands, every one of them resumable.

Runs of one seed follow each other, method after method, so that a study stopped half-way is balanced and a slow hour of
the machine is shared. A training that fails for good (a loss that is not finite) is noted and shown; the others go on.

`rba-bench study micro --plan`: what is done, what would be done, and how long it takes by what was measured.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import sha256_json, write_json
from rba_bench.outputs import claim, release
from rba_bench.progress import say
from rba_bench.recipes import load_recipe, recipe_file, suggest
from rba_bench.study import scores
from rba_bench.study.folder import REFERENCE, Cell, StudyFolder
from rba_bench.study.study_recipe import (
    BASE,
    BUDGETS,
    Budget,
    Choice,
    StudyRecipe,
    overrides,
    training_recipe,
    warmup_recipe,
)
from rba_bench.study.time_budget import TimePlan

if TYPE_CHECKING:
    from rba_bench.evaluation.task_registry import TaskSpec


STAGE = "study"
COST = (
    "steps", "wall_time_s", "encoding_s", "preparation_s", "samples_per_s", "answers_sampled", "answers_judged",
    "peak_memory_bytes", "base_sha256", "data_sha256", "alignment_set_sha256", "versions", "hardware", "created",
)  # fmt: skip
PEAK_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Selection:
    """What of a study is wanted now.

    Attributes:
        methods: In the order of the recipe.
        seeds: In the order of the recipe.
        budgets: In the order of `BUDGETS`.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    budgets: tuple[Budget, ...]

    @classmethod
    def of(
        cls,
        study: StudyRecipe,
        methods: Sequence[str] = (),
        seeds: Sequence[int] = (),
        budgets: Sequence[Budget] = (),
    ) -> "Selection":
        """Everything, or the named part.

        Raises:
            UserError: a method that the study does not have.
        """
        for name in methods:
            if name not in study.methods:
                raise UserError(f"the study has no method {name!r}{suggest(name, study.methods)}")
        return cls(
            tuple(name for name in study.methods if not methods or name in methods),
            tuple(seeds) or study.seeds,
            tuple(budget for budget in BUDGETS if not budgets or budget in budgets),
        )

    def cells(self, budget: Budget) -> list[Cell]:
        """The runs of one budget in the order in which they are made."""
        return [Cell(budget, method, seed) for seed in self.seeds for method in self.methods]


class Study:
    """One study in one folder.

    Args:
        study: The recipe.
        out: Its folder.
        selection: What is wanted now.
    """

    def __init__(self, study: StudyRecipe, out: Path, selection: Selection) -> None:
        self.study, self.selection = study, selection
        self.folder = StudyFolder(out)
        self.time = TimePlan(study, self.folder)

    def check(self) -> None:
        """Refuse at once what cannot be trained or evaluated.

        Raises:
            UserError: a recipe, a task or a metric that does not exist.
        """
        for method in self.study.methods:
            training_recipe(self.study, method, 1, self.study.steps, self.base, self.alignment_set)
        if self.study.warmup is not None:
            warmup_recipe(self.study, self.alignment_set)
        for task, metrics in self.study.tasks.items():
            known = _spec(task, self.study.track).metrics
            if strangers := [name for name in metrics if name not in known]:
                raise UserError(f"tasks: {task} has no metric {strangers[0]!r}{suggest(strangers[0], known)}")

    @property
    def alignment_set(self) -> Path:
        """What all methods learn from."""
        given = self.study.alignment_set
        return Path(given) if given else self.folder.alignment_set

    @property
    def base(self) -> Path | str:
        """What all methods start from."""
        return self.folder.warmup if self.study.warmup is not None else self.study.base

    def run(self) -> None:
        """Do whatever is not done yet.

        Raises:
            UserError: the folder, or one in it, belongs to another recipe.
            MissingPrerequisite: weights or voices are missing.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the same call resumes.
        """
        self.check()
        claim(self.folder.out, STAGE, self.study.identity())
        try:
            self._provide()
            for name in self.study.references:
                self._evaluate_reference(name)
            for budget in self.selection.budgets:
                for cell in self._cells(budget):
                    self._train(cell)
                    self._evaluate(cell)
        finally:
            release(self.folder.out)

    def _cells(self, budget: Budget) -> Iterator[Cell]:
        if budget == "time":
            for cell in self._measured():
                self._train(cell)
            self._settle()
        yield from self.selection.cells(budget)

    def _measured(self) -> list[Cell]:
        """Runs at equal steps that the budget `time` needs and that no file speaks for yet."""
        like = self.study.time.like
        wanted = [method for method in self.selection.methods if self.time.steps(method) is None]
        if like and self.time.seconds is None and like not in wanted:
            wanted.append(like)
        return [Cell("steps", method, seed) for seed in self.selection.seeds for method in wanted]

    def _settle(self) -> None:
        for method in self.selection.methods:
            if any(self.folder.run(cell) for cell in self.selection.cells("steps") if cell.method == method):
                steps = self.time.settle(method, self.selection.seeds)
                say(f"equal time, {self.time.seconds:.0f} s: {method} takes {steps} steps")

    def _provide(self) -> None:
        """The alignment set and the base."""
        if not self.study.alignment_set:
            _synthesize(self.study.synthesis, self.folder.alignment_set)
        warmup = self.study.warmup
        if warmup is None:
            return
        source = self.alignment_set
        if warmup.synthesis is not None:
            source = self.folder.warmup_set
            _synthesize(warmup.synthesis, source)
        from rba_bench.training.run import train

        say("the study's base")
        train(warmup_recipe(self.study, source), self.folder.warmup)

    def _train(self, cell: Cell) -> None:
        from rba_bench.training.run import train

        if self.folder.run(cell) is not None:
            return
        steps = self.study.steps if cell.budget == "steps" else self.time.steps(cell.method)
        if steps is None:  # its runs at equal steps failed
            return
        say(f"train {cell}")
        recipe = training_recipe(self.study, cell.method, cell.seed, steps, self.base, self.alignment_set)
        _forget_peak_memory()
        try:
            train(recipe, self.folder.checkpoint(cell))
        except (UserError, MissingPrerequisite):
            raise
        except RbaError as error:
            say(f"{cell} failed: {error}")
            write_json(self.folder.failure_file(cell), {"error": str(error), "steps": steps})
        else:
            self.folder.failure_file(cell).unlink(missing_ok=True)

    def _evaluate(self, cell: Cell) -> None:
        run = self.folder.run(cell)
        if run is None:
            return
        weights = sha256_json(run)
        frozen = "encoder" not in run["recipe"]["train_parts"]
        cost = {key: run[key] for key in COST if key in run}
        self._score(
            cell.budget, cell.method, cell.seed, str(self.folder.checkpoint(cell)), weights, cost, frozen
        )

    def _evaluate_reference(self, name: str) -> None:
        model = str(self.base) if name == BASE and self.base != "micro" else name
        self._score(REFERENCE, name, 0, model, sha256_json([str(self.study.base), name]), {}, True)

    def _score(
        self, part: str, method: str, seed: int, model: str, weights: str, cost: dict, frozen: bool
    ) -> None:
        """Evaluate a system on the tasks that its kept scores do not hold yet."""
        kept = scores.read(self.folder.report / "scores" / scores.place(part, method, seed))
        tasks = dict(kept.tasks) if kept is not None and kept.weights == weights else {}
        todo = {
            name: metrics
            for name, metrics in self.study.tasks.items()
            if _stale(tasks.get(name), name, metrics, self.study.track)
        }
        if not todo:
            return
        say(f"evaluate {method}" + (f", seed {seed}, equal {part}" if cost else ""))
        started = time.monotonic()
        folders = self._run_tasks(part, model, seed, tuple(todo), frozen)
        for name, metrics in todo.items():
            tasks[name] = scores.condense(folders[name], metrics)
        spent = round(time.monotonic() - started, 1) * len(self.study.tasks) / len(todo)
        scores.SystemScores(
            part=part, method=method, seed=seed, cost=cost, eval_s=spent, weights=weights, tasks=tasks
        ).save(self.folder.report / "scores")

    def _run_tasks(
        self, part: str, model: str, seed: int, tasks: tuple[str, ...], frozen: bool
    ) -> dict[str, Path]:
        """Run folders by task."""
        from rba_bench.evaluation.model_input import DEFAULT_SEED
        from rba_bench.evaluation.runner import EvalRequest, evaluate
        from rba_bench.files import folder_name

        out = self.folder.records(part)
        # A frozen encoder says the same of a clip whatever was trained behind it
        options = {"encoder_cache": self.folder.out / "encoder-cache"} if frozen else {}
        request = EvalRequest(
            tasks=tasks,
            model=model,
            track=self.study.track,
            out=out,
            seed=DEFAULT_SEED + seed,
            model_options=options,
        )
        keys = {_spec(task, self.study.track).name: task for task in tasks}
        return {
            keys[record.task]: out / folder_name(str(record.model["name"])) / record.run_id
            for record in evaluate(request)
        }


def _stale(kept: scores.TaskScores | None, task: str, metrics: Sequence[str], track: str) -> bool:
    if kept is None or set(metrics) - kept.metrics.keys():
        return True
    return kept.version != _spec(task, track).version


@lru_cache(maxsize=256)  # every look-up reads all task files
def _spec(task: str, track: str) -> "TaskSpec":
    """The one task that a name or path stands for."""
    from rba_bench.evaluation.task_registry import resolve_tasks

    found = resolve_tasks([task], track)
    if len(found) != 1:
        raise UserError(f"tasks: {task} stands for {len(found)} tasks: name each, such as {found[0].name}")
    return found[0]


def _synthesize(choice: Choice, out: Path) -> None:
    from rba_bench.synthesis.pipeline import synthesize
    from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

    synthesize(load_recipe(SynthesisRecipe, recipe_file(choice.recipe), overrides(choice.set)), out)


def _forget_peak_memory() -> None:
    """Begin a new maximum of resident memory, as one process trains many methods; Linux only, and not everywhere."""
    try:
        PEAK_RESET.write_text("5", encoding="ascii")
    except OSError:
        return


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

"""Running a study: every stage makes the same calls as the commands and can be resumed; `--plan` estimates the rest.

Runs of one seed follow each other, method after method, so that a study stopped half-way is balanced and a slow hour of
the machine affects all methods. A training that fails for good (a loss that is not finite) is noted and shown; the
others go on.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import sha256_json, write_json
from rba_bench.leaderboard.compare_runs import record_folder
from rba_bench.outputs import claim, release
from rba_bench.progress import say
from rba_bench.recipes import load_recipe, recipe_file, suggest
from rba_bench.study import scores
from rba_bench.study.folder import REFERENCE, Cell, StudyFolder
from rba_bench.study.study_recipe import (
    BASE,
    BUDGETS,
    Budget,
    RecipeChoice,
    StudyRecipe,
    cell_recipe,
    dotted_changes,
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
DONE, TRAINED, STARTED, TO_DO, FAILED = "done", "trained", "started", "to do", "failed"


@dataclass(frozen=True)
class Selection:
    """The part of a study to run now.

    Attributes:
        methods: In the order of the recipe.
        seeds: In the order of the recipe.
        budgets: In the order of `BUDGETS`.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    budgets: tuple[Budget, ...]

    def cells(self, budget: Budget) -> list[Cell]:
        """The runs of one budget in the order in which they are made."""
        return [Cell(budget, method, seed) for seed in self.seeds for method in self.methods]


def select_runs(
    study: StudyRecipe, methods: Sequence[str] = (), seeds: Sequence[int] = (), budgets: Sequence[Budget] = ()
) -> Selection:
    """Everything, or the named part.

    Raises:
        UserError: a method that the study does not have.
    """
    for name in methods:
        if name not in study.methods:
            raise UserError(f"the study has no method {name!r}{suggest(name, study.methods)}")
    return Selection(
        tuple(name for name in study.methods if not methods or name in methods),
        tuple(seeds) or study.seeds,
        tuple(budget for budget in BUDGETS if not budgets or budget in budgets),
    )


class Study:
    """One study in one folder.

    Args:
        study: The recipe.
        out: Its folder.
        selection: The part to run now.

    Attributes:
        alignment_set: Training data of all methods.
        base: The model that all methods start from.
    """

    def __init__(self, study: StudyRecipe, out: Path, selection: Selection) -> None:
        self.study, self.selection = study, selection
        self.folder = StudyFolder(out)
        self.time = TimePlan(study, self.folder)
        self.alignment_set = Path(study.alignment_set) if study.alignment_set else self.folder.alignment_set
        self.base: Path | str = study.base if study.warmup is None else self.folder.warmup

    def check(self) -> None:
        """Refuse at once what cannot be trained or evaluated.

        Raises:
            UserError: a recipe, a task or a metric that does not exist.
        """
        for method in self.study.methods:
            cell_recipe(self.study, method, 1, self.study.steps, self.base, self.alignment_set)
        if self.study.warmup is not None:
            warmup_recipe(self.study, self.alignment_set)
        for task, metrics in self.study.tasks.items():
            known = _task_spec(task, self.study.track).metrics
            for name in metrics:
                if name not in known:
                    raise UserError(f"tasks: {task} has no metric {name!r}{suggest(name, known)}")

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
            self._prepare()
            for name in self.study.references:
                model = str(self.base) if name == BASE and self.base != "micro" else name
                self._score(REFERENCE, name, 0, model, sha256_json([str(self.study.base), name]))
            for budget in self.selection.budgets:
                if budget == "time":
                    self._measure_speed()
                for cell in self.selection.cells(budget):
                    self._train(cell)
                    self._evaluate(cell)
        finally:
            release(self.folder.out)

    def _prepare(self) -> None:
        """Make the alignment set and the base."""
        if not self.study.alignment_set:
            _synthesize(self.study.synthesis, self.folder.alignment_set)
        warmup, alignment_set = self.study.warmup, self.alignment_set
        if warmup is None:
            return
        if warmup.synthesis is not None:
            alignment_set = self.folder.warmup_set
            _synthesize(warmup.synthesis, alignment_set)
        from rba_bench.training.training_run import train

        say("train the base of the study")
        train(warmup_recipe(self.study, alignment_set), self.folder.warmup)

    def _measure_speed(self) -> None:
        """Determine the steps of each method under the budget `time`; train what this needs at equal steps."""
        like = self.study.time.like
        methods = [method for method in self.selection.methods if self.time.steps(method) is None]
        if like and self.time.seconds is None and like not in methods:
            methods.append(like)
        for seed in self.selection.seeds:
            for method in methods:
                self._train(Cell("steps", method, seed))
        cells = self.selection.cells("steps")
        for method in self.selection.methods:
            if any(self.folder.run_record(cell) for cell in cells if cell.method == method):
                steps = self.time.determine_steps(method, self.selection.seeds)
                say(f"equal time, {self.time.seconds:.0f} s: {method} takes {steps} steps")

    def _train(self, cell: Cell) -> None:
        from rba_bench.training.training_run import train

        if self.folder.run_record(cell) is not None:
            return
        steps = self.study.steps if cell.budget == "steps" else self.time.steps(cell.method)
        if steps is None:  # its runs at equal steps failed
            return
        say(f"train {cell}")
        recipe = cell_recipe(self.study, cell.method, cell.seed, steps, self.base, self.alignment_set)
        with suppress(OSError):  # one process trains many methods: a new maximum of memory, if Linux has it
            PEAK_RESET.write_text("5", encoding="ascii")
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
        run = self.folder.run_record(cell)
        if run is None:
            return
        frozen = "encoder" not in run["recipe"]["train_parts"]
        cost = {key: run[key] for key in COST if key in run}
        model = str(self.folder.checkpoint(cell))
        self._score(cell.budget, cell.method, cell.seed, model, sha256_json(run), cost, frozen)

    def _score(
        self,
        part: str,
        method: str,
        seed: int,
        model: str,
        weights: str,
        cost: dict[str, Any] | None = None,
        frozen_encoder: bool = True,
    ) -> None:
        """Evaluate a system on the tasks that its stored scores do not hold yet."""
        stored = scores.load_scores(self.folder.scores / scores.scores_path(part, method, seed))
        tasks = dict(stored.tasks) if stored is not None and stored.weights == weights else {}
        todo = {}
        for name, metrics in self.study.tasks.items():
            task = tasks.get(name)
            version = _task_spec(name, self.study.track).version
            if task is None or set(metrics) - task.metrics.keys() or task.version != version:
                todo[name] = metrics
        if not todo:
            return
        say(f"evaluate {method}" + (f", seed {seed}, equal {part}" if cost else ""))
        started = time.monotonic()
        folders = self._run_tasks(part, model, seed, tuple(todo), frozen_encoder)
        for name, metrics in todo.items():
            tasks[name] = scores.condense_run(folders[name], metrics)
        eval_s = round(time.monotonic() - started, 1) * len(self.study.tasks) / len(todo)
        scores.SystemScores(
            part=part, method=method, seed=seed, cost=cost or {}, eval_s=eval_s, weights=weights, tasks=tasks
        ).save(self.folder.scores)

    def _run_tasks(
        self, part: str, model: str, seed: int, tasks: tuple[str, ...], frozen_encoder: bool
    ) -> dict[str, Path]:
        """Run folders by task."""
        from rba_bench.evaluation.model_input import DEFAULT_SEED
        from rba_bench.evaluation.runner import EvalRequest, evaluate

        out = self.folder.eval / part
        # A frozen encoder has the same states for a clip in all runs
        options = {"encoder_cache": self.folder.out / "encoder-cache"} if frozen_encoder else {}
        request = EvalRequest(
            tasks=tasks,
            model=model,
            track=self.study.track,
            out=out,
            seed=DEFAULT_SEED + seed,
            model_options=options,
        )
        names = {_task_spec(task, self.study.track).name: task for task in tasks}
        return {names[record.task]: record_folder(out, record) for record in evaluate(request)}


@lru_cache(maxsize=256)  # every look-up reads all task files
def _task_spec(task: str, track: str) -> "TaskSpec":
    """The one task that a name or path stands for."""
    from rba_bench.evaluation.task_registry import resolve_tasks

    specs = resolve_tasks([task], track)
    if len(specs) != 1:
        raise UserError(f"tasks: {task} stands for {len(specs)} tasks: name each, such as {specs[0].name}")
    return specs[0]


def _synthesize(choice: RecipeChoice, out: Path) -> None:
    from rba_bench.synthesis.pipeline import synthesize
    from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

    synthesize(load_recipe(SynthesisRecipe, recipe_file(choice.recipe), dotted_changes(choice.set)), out)


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
    """

    lines: tuple[PlannedRun, ...]
    seconds: float
    unknown: int


def plan_study(study: Study) -> StudyPlan:
    """The plan of a study from what its folder holds; nothing is run or written.

    Training is estimated by the method's own seconds per step (wall time and encoding), else by the mean of the methods
    that have run; evaluation by the mean of the systems evaluated.
    """
    rates = {}
    for method in study.study.methods:
        cells = [Cell(budget, method, seed) for budget in BUDGETS for seed in study.selection.seeds]
        records = [study.folder.run_record(cell) for cell in cells]
        finished = [record for record in records if record is not None and record["steps"]]
        if finished:
            seconds = sum(record["wall_time_s"] + record["encoding_s"] for record in finished)
            rates[method] = float(seconds / sum(record["steps"] for record in finished))
    mean_rate = fmean(rates.values()) if rates else None
    systems = scores.load_all_scores(study.folder.scores)
    scored = {(system.part, system.method, system.seed) for system in systems}
    mean_eval_s = fmean(system.eval_s for system in systems) if systems else None
    lines = []
    for budget in study.selection.budgets:
        for cell in study.selection.cells(budget):
            is_trained = study.folder.run_record(cell) is not None
            if is_trained:
                state = DONE if (cell.budget, cell.method, cell.seed) in scored else TRAINED
            elif study.folder.failure(cell):
                state = FAILED
            else:
                state = STARTED if study.folder.is_started(cell) else TO_DO
            steps = study.study.steps if budget == "steps" else study.time.steps(cell.method)
            rate = rates.get(cell.method) or mean_rate
            train_s = None if steps is None or rate is None else steps * rate
            if budget == "time" and steps is None:
                train_s = study.time.seconds or study.study.time.seconds
            train_s = 0.0 if is_trained else train_s
            eval_s = 0.0 if state == DONE else mean_eval_s
            lines.append(PlannedRun(budget, cell.method, cell.seed, state, steps, train_s, eval_s))
    left = [line for line in lines if line.state != DONE]
    known = [(line.train_s, line.eval_s) for line in left]
    estimates = [train + evaluate for train, evaluate in known if train is not None and evaluate is not None]
    return StudyPlan(tuple(lines), sum(estimates, 0.0), len(left) - len(estimates))

"""Running a study: every stage makes the same calls as the commands and can be resumed; `plan` estimates the rest.

Runs of one seed follow each other, method after method, so that a study stopped half-way is balanced and a slow hour of
the machine affects all methods. A training that fails for good (a loss that is not finite) is noted and shown; the
others go on.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import sha256_json, write_json
from rba_bench.leaderboard.compare_runs import record_folder
from rba_bench.outputs import claim, release
from rba_bench.progress import say
from rba_bench.recipes import load_recipe, recipe_file, suggest
from rba_bench.study import scores
from rba_bench.study.folder import REFERENCE, STAGE, Cell, StudyFolder
from rba_bench.study.study_recipe import (
    BASE,
    BUDGETS,
    Budget,
    MethodChoice,
    RecipeChoice,
    StudyRecipe,
    cell_recipe,
    dotted_changes,
    warmup_recipe,
)
from rba_bench.study.time_budget import TimePlan

if TYPE_CHECKING:
    from rba_bench.evaluation.task_registry import TaskSpec


COST = (
    "steps", "wall_time_s", "encoding_s", "preparation_s", "samples_per_s", "answers_sampled", "answers_judged",
    "peak_memory_bytes", "base_sha256", "data_sha256", "alignment_set_sha256", "versions", "hardware", "created",
)  # fmt: skip
PEAK_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Selection:
    """The part of a study to run now.

    Attributes:
        methods: In the order of the recipe.
        seeds: In the order of the recipe.
        budgets: In the order of `BUDGETS`.
        choices: The methods' own parts of seeds and budgets.
        asked: Whether the seeds were asked for, so that they replace those of the methods.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    budgets: tuple[Budget, ...]
    choices: Mapping[str, MethodChoice]
    asked: bool = False

    def cells(self, budget: Budget) -> list[Cell]:
        """The runs of one budget in the order in which they are made."""
        return [
            Cell(budget, method, seed)
            for seed in self.seeds
            for method in self.methods
            if self._has(method, budget, seed)
        ]

    def _has(self, method: str, budget: Budget, seed: int) -> bool:
        choice = self.choices[method]
        first = choice.seeds[0] if self.asked and choice.seeds else seed
        return choice.runs(budget, first)


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
        study.methods,
        asked=bool(seeds),
    )


class Study:
    """One study in one folder.

    Args:
        study: The recipe.
        out: Its folder.
        selection: The part to run now.
        published: A published report of this study whose runs are not repeated.

    Attributes:
        alignment_set: Training data of all methods.
        base: The model that all methods start from.
    """

    def __init__(
        self, study: StudyRecipe, out: Path, selection: Selection, published: Path | None = None
    ) -> None:
        self.study, self.selection, self.published = study, selection, published
        self.folder = StudyFolder(out)
        self.time = TimePlan(study, self.folder)
        given = study.alignment_set
        self.alignment_set: Path | str = given or self.folder.alignment_set
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
            known = task_spec(task, self.study.track).metrics
            for name in metrics:
                if name not in known:
                    raise UserError(f"tasks: {task} has no metric {name!r}{suggest(name, known)}")

    def run(self) -> None:
        """Do whatever is not done yet.

        Raises:
            UserError: the folder, or one in it, or the published report belongs to another recipe.
            MissingPrerequisite: weights or voices are missing.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the same call resumes.
        """
        from rba_bench.study.report import load_published, take_over

        self.check()
        known = None if self.published is None else load_published(self.study, self.published)
        claim(self.folder.out, STAGE, self.study.identity())
        try:
            if known is not None:
                say(f"{take_over(known, self.folder.out)} finished systems from {self.published}")
                self.time = TimePlan(self.study, self.folder)
            self.prepare()
            for name, spec in self.study.reference_models.items():
                self._score(REFERENCE, name, 0, self.model(spec), sha256_json([str(self.study.base), spec]))
            for budget in self.selection.budgets:
                if budget == "time":
                    self._measure_speed()
                for cell in self.selection.cells(budget):
                    if not self.take_over(cell) and not self._is_scored(cell):
                        self._train(cell)
                        self._evaluate(cell)
        finally:
            release(self.folder.out)

    def model(self, reference: str) -> str:
        """The model behind a reference, as `rba-bench eval --model` takes it."""
        return str(self.base) if reference == BASE and self.base != "micro" else reference

    def prepare(self) -> None:
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
        timed = list(dict.fromkeys((cell.method, cell.seed) for cell in self.selection.cells("time")))
        pairs = [(method, seed) for method, seed in timed if self.time.steps(method) is None]
        if like and self.time.seconds is None:
            pairs += [(like, seed) for seed in self.selection.seeds if (like, seed) not in pairs]
        for method, seed in sorted(pairs, key=lambda pair: self.selection.seeds.index(pair[1])):
            cell = Cell("steps", method, seed)
            if scores.training_facts(self.folder, cell) is None:
                self._train(cell)
        for method in dict.fromkeys(method for method, _ in timed):
            cells = [Cell("steps", method, seed) for seed in self.selection.seeds]
            if any(scores.training_facts(self.folder, cell) for cell in cells):
                steps = self.time.determine_steps(method, self.selection.seeds)
                say(f"equal time, {self.time.seconds:.0f} s: {method} takes {steps} steps")

    def take_over(self, cell: Cell) -> bool:
        """Whether a run at equal time has as many steps as that at equal steps, and so is the same run."""
        if cell.budget != "time" or self.time.steps(cell.method) != self.study.steps:
            return False
        paths = (scores.scores_path(part, cell.method, cell.seed) for part in ("steps", cell.budget))
        stored, known = (scores.load_scores(self.folder.scores / path) for path in paths)
        if stored is not None and (known is None or known.tasks != stored.tasks):
            stored.model_copy(update={"part": cell.budget}).save(self.folder.scores)
        return stored is not None

    def _is_scored(self, cell: Cell) -> bool:
        """Whether a run whose checkpoint is not here has all its scores."""
        if self.folder.run_record(cell) is not None:
            return False
        stored = scores.load_scores(
            self.folder.scores / scores.scores_path(cell.budget, cell.method, cell.seed)
        )
        return stored is not None and not self._missing(cell.seed, stored.tasks)

    def _missing(self, seed: int, tasks: Mapping[str, scores.TaskScores]) -> dict[str, tuple[str, ...]]:
        """Tasks that scores do not hold, in this version and with all metrics."""
        return {
            name: metrics
            for name, metrics in self.study.tasks_of(seed).items()
            if name not in tasks
            or set(metrics) - tasks[name].metrics.keys()
            or tasks[name].version != task_spec(name, self.study.track).version
        }

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
        todo = self._missing(seed, tasks)
        if not todo:
            return
        say(f"evaluate {method}" + (f", seed {seed}, equal {part}" if cost else ""))
        started = time.monotonic()
        folders = self._run_tasks(part, model, seed, tuple(todo), frozen_encoder)
        for name, metrics in todo.items():
            tasks[name] = scores.condense_run(folders[name], metrics)
        eval_s = round(time.monotonic() - started, 1) * len(self.study.tasks_of(seed)) / len(todo)
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
        names = {task_spec(task, self.study.track).name: task for task in tasks}
        return {names[record.task]: record_folder(out, record) for record in evaluate(request)}


@lru_cache(maxsize=256)  # every look-up reads all task files
def task_spec(task: str, track: str) -> "TaskSpec":
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

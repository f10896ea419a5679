"""The recipe of a study, such as `recipes/study-micro.yaml` and `study-small.yaml`, and the training recipes in it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rba_bench.recipes import Recipe, load_recipe, recipe_file, suggest

if TYPE_CHECKING:
    from rba_bench.training.training_recipe import TrainingRecipe


Budget = Literal["steps", "time"]
BUDGETS: tuple[Budget, ...] = ("steps", "time")
Positive = Annotated[int, Field(gt=0)]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Keys of a training recipe that the study sets
STUDY_KEYS = ("base", "alignment_set", "seed", "steps", "epochs", "budget_s")
# A study compares time and memory of many runs: none of them does what only serves for looking at it
UNOBSERVED = {"validate_ends": False, "samples_every": 0, "report": False}
BASE: Literal["base"] = "base"  # as a reference: the study's base, untrained


class RecipeChoice(Recipe):
    """A recipe by name or file, and what is changed in it."""

    recipe: str
    set: dict[str, Any] = {}


class MethodChoice(RecipeChoice):
    """A method of the study: its recipe, and where it runs if not under every seed and budget."""

    seeds: Annotated[tuple[int, ...], Field(min_length=1)] | None = None  # some of the study's; null: all
    budgets: Annotated[tuple[Budget, ...], Field(min_length=1)] | None = None  # null: both
    # items that it trains on, of the common set; null: all. The baseline with the same kinds tells what the choice of
    # items does from what the method does
    kinds: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    def runs(self, budget: Budget, seed: int) -> bool:
        """Whether there is such a run."""
        return (self.budgets is None or budget in self.budgets) and (self.seeds is None or seed in self.seeds)


class WarmUp(RecipeChoice):
    """A training run that first makes the study's base out of `base`, for example SFT to saturation."""

    recipe: str = "sft"
    synthesis: RecipeChoice | None = None  # its own alignment set, or null for the study's
    seed: int = 1


class TimeBudget(Recipe):
    """How much training time every method gets under the budget `time`: seconds, or as much as one method needed."""

    seconds: Annotated[float, Field(gt=0)] | None = None
    like: str | None = None  # the mean wall time of this method's runs under the budget `steps`

    @model_validator(mode="after")
    def _check_one_given(self) -> "TimeBudget":
        if (self.seconds is None) == (self.like is None):
            raise ValueError("give either `seconds` or `like: METHOD`")
        return self


class Claim(Recipe):
    """A sentence to be tested: `method` is better than the baseline on these tasks."""

    text: str
    method: str
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]


class StudyRecipe(Recipe):
    """One study.

    A method is a training recipe (by default the shipped one of its name), over which come `common`, then its own
    `set`, then what the study decides: base, alignment set, seed and number of steps.
    """

    track: Literal["micro", "small"] = "micro"
    base: str = "micro"  # checkpoint folder, asset:NAME, or "micro" for the shipped base
    warmup: WarmUp | None = None
    synthesis: RecipeChoice = RecipeChoice(recipe="synth-micro")
    alignment_set: str | None = None  # folder of a set made elsewhere, or asset:NAME, instead of `synthesis`

    methods: Annotated[dict[str, MethodChoice], Field(min_length=1)]
    baseline: str = "sft"
    common: dict[str, Any] = {}
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3)
    steps: Positive = 200  # optimiser steps of every method under the budget `steps`
    time: TimeBudget = TimeBudget(like="sft")

    # task -> metrics; the first one is in the tables, all of them are in the CSV files
    tasks: Annotated[dict[str, tuple[str, ...]], Field(min_length=1)]
    # those of the tasks that the runs of the first seed alone answer, to save time
    first_seed_tasks: tuple[str, ...] = ()
    # untrained systems in the tables: `base` for the study's own, and models as `rba-bench eval --model` takes them, by
    # the names that the tables show
    references: tuple[Literal["base", "text"], ...] | dict[str, str] = (BASE,)
    # the reference that hears nothing and reads the transcript: the tables show which share of its scores is recovered
    ceiling: str | None = None
    claims: tuple[Claim, ...] = ()
    hours: Annotated[float, Field(gt=0)] | None = (
        None  # what the study may take in all; `--plan` compares with it
    )
    left_out: tuple[str, ...] = ()  # what was cut to fit, in sentences, which plan and report show

    @field_validator("methods", mode="before")
    @classmethod
    def _expand_methods(cls, value: Any) -> Any:
        """`[sft, dpo]` and `{sft: null, mine: my.yaml}` are short for recipes by name."""
        if isinstance(value, list):
            value = dict.fromkeys(value)
        if not isinstance(value, dict):
            return value
        methods: dict[str, Any] = {}
        for name, choice in value.items():
            if choice is None or isinstance(choice, str):
                choice = {"recipe": choice or str(name)}
            methods[str(name)] = {"recipe": str(name), **choice} if isinstance(choice, dict) else choice
        return methods

    @field_validator("tasks", mode="before")
    @classmethod
    def _expand_tasks(cls, value: Any) -> Any:
        """`{task: bleu}` is short for `{task: [bleu]}`."""
        if not isinstance(value, dict):
            return value
        return {name: [metrics] if isinstance(metrics, str) else metrics for name, metrics in value.items()}

    @model_validator(mode="after")
    def _check_consistency(self) -> "StudyRecipe":
        for kind, names in (("method", self.methods), ("reference", self.reference_models)):
            for name in names:
                if not NAME.fullmatch(name):
                    raise ValueError(f"{kind} {name!r}: a name has letters, digits, dots and dashes only")
        if self.ceiling is not None and self.ceiling not in self.reference_models:
            hint = suggest(self.ceiling, self.reference_models)
            raise ValueError(f"ceiling names {self.ceiling!r}, which is no reference here{hint}")
        named = [("baseline", self.baseline), *(("claims", claim.method) for claim in self.claims)]
        named += [("time.like", self.time.like)] if self.time.like else []
        for key, name in named:
            if name not in self.methods:
                hint = suggest(name, self.methods)
                raise ValueError(f"{key} names {name!r}, which is no method here{hint}")
        for task in (task for claim in self.claims for task in claim.tasks):
            if task not in self.tasks:
                raise ValueError(f"claims: {task!r} is not among the tasks{suggest(task, self.tasks)}")
        for task in self.first_seed_tasks:
            if task not in self.tasks:
                raise ValueError(
                    f"first_seed_tasks: {task!r} is not among the tasks{suggest(task, self.tasks)}"
                )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: name each once")
        for name, choice in self.methods.items():
            if unknown := sorted(set(choice.seeds or ()) - set(self.seeds)):
                raise ValueError(f"methods.{name}.seeds: {unknown[0]} is no seed of the study")
        if any(not metrics for metrics in self.tasks.values()):
            raise ValueError("tasks: name at least one metric for each task")
        sets = {"common": self.common} | {f"methods.{name}.set": c.set for name, c in self.methods.items()}
        for place, changes in sets.items():
            for key in STUDY_KEYS:
                if key in changes:
                    raise ValueError(f"{place}: `{key}` is the same for all methods; set it for the study")
        return self

    @property
    def reference_models(self) -> dict[str, str]:
        """Models by the names of the references; `base` is the study's own."""
        given = self.references
        return dict(given) if isinstance(given, dict) else {name: name for name in given}

    def tasks_of(self, seed: int) -> dict[str, tuple[str, ...]]:
        """The tasks with their metrics that the runs of a seed answer; 0 for the references, which answer all."""
        is_later = seed in self.seeds[1:]
        return {
            task: metrics
            for task, metrics in self.tasks.items()
            if not (is_later and task in self.first_seed_tasks)
        }

    def identity(self) -> dict[str, Any]:
        """The keys that all content of the folder depends on; methods, seeds and tasks may be added to a study."""
        free = {"methods", "seeds", "tasks", "references", "claims", "baseline"}
        free |= {"ceiling", "hours", "left_out", "first_seed_tasks"}
        return {key: value for key, value in self.resolved().items() if key not in free}


def cell_recipe(
    study: StudyRecipe, method: str, seed: int, steps: int, base: Path | str, alignment_set: Path | str
) -> "TrainingRecipe":
    """The training recipe of one run.

    Raises:
        UserError: no such recipe, or a key or value that a training recipe does not have.
    """
    choice = study.methods[method]
    data: Any = str(alignment_set)
    if choice.kinds is not None:
        data = [{"path": data, "kinds": list(choice.kinds)}]  # a list of one set: it replaces a path
    fixed = {"base": str(base), "alignment_set": data, "seed": seed, "steps": steps}
    return _load_training_recipe(choice, study.common, {**fixed, "epochs": None, "budget_s": None})


def warmup_recipe(study: StudyRecipe, alignment_set: Path | str) -> "TrainingRecipe":
    """The training recipe that makes the study's base.

    Raises:
        ValueError: the study has none.
        UserError: as `cell_recipe`.
    """
    if study.warmup is None:
        raise ValueError("this study has no warm-up")
    fixed = {"base": study.base, "alignment_set": str(alignment_set), "seed": study.warmup.seed}
    return _load_training_recipe(study.warmup, {}, fixed)


def _load_training_recipe(
    choice: RecipeChoice, common: Mapping[str, Any], fixed: Mapping[str, Any]
) -> "TrainingRecipe":
    from rba_bench.training.training_recipe import TrainingRecipe

    layers = (UNOBSERVED, common, choice.set, fixed)
    changes = [change for layer in layers for change in dotted_changes(layer)]
    return load_recipe(TrainingRecipe, recipe_file(choice.recipe), changes)


def dotted_changes(changes: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A mapping as `--set` takes it: dots for nested keys, values as JSON (which is YAML).

    A mapping under a key that has dots already is set as a whole: `reward.qa: {alias: 1.0}` replaces a name.
    """
    texts = []
    for key, value in changes.items():
        if isinstance(value, Mapping) and value and "." not in key:
            texts += dotted_changes(value, f"{prefix}{key}.")
        else:
            texts.append(f"{prefix}{key}={json.dumps(value, ensure_ascii=False)}")
    return texts

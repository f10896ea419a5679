"""What a study is: `recipes/study-micro.yaml` is an instance of this."""

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
OWN = (
    "base",
    "alignment_set",
    "seed",
    "steps",
    "epochs",
    "budget_s",
)  # keys of a training recipe that the study decides
BASE: Literal["base"] = "base"  # as a reference: the study's base, untrained


class Choice(Recipe):
    """A recipe by name or file, and what is changed in it."""

    recipe: str
    set: dict[str, Any] = {}


class WarmUp(Choice):
    """A training run that first makes the study's base out of `base`: SFT to saturation, with the ear trained, say."""

    recipe: str = "sft"
    synthesis: Choice | None = None  # its own alignment set; null: the study's
    seed: int = 1


class TimeBudget(Recipe):
    """How much training time every method gets under the budget `time`: seconds, or as much as one method needed."""

    seconds: Annotated[float, Field(gt=0)] | None = None
    like: str | None = None  # the mean wall time of this method's runs under the budget `steps`

    @model_validator(mode="after")
    def _one(self) -> "TimeBudget":
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

    track: Literal["micro"] = "micro"
    base: str = "micro"  # checkpoint folder, or "micro" for the shipped base
    warmup: WarmUp | None = None
    synthesis: Choice = Choice(recipe="synth-micro")
    alignment_set: str | None = None  # folder of a set made elsewhere, instead of `synthesis`

    methods: Annotated[dict[str, Choice], Field(min_length=1)]
    baseline: str = "sft"
    common: dict[str, Any] = {}
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3)
    steps: Positive = 200  # optimiser steps of every method under the budget `steps`
    time: TimeBudget = TimeBudget(like="sft")

    # task -> metrics; the first one stands in the tables, all of them in the CSV files
    tasks: Annotated[dict[str, tuple[str, ...]], Field(min_length=1)]
    references: tuple[Literal["base", "text"], ...] = (BASE,)
    claims: tuple[Claim, ...] = ()

    @field_validator("methods", mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        """`[sft, dpo]` and `{sft: null, mine: my.yaml}` are short for recipes by name."""
        if isinstance(value, list):
            value = dict.fromkeys(value)
        if not isinstance(value, dict):
            return value
        return {str(name): _choice(str(name), chosen) for name, chosen in value.items()}

    @field_validator("tasks", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: [metrics] if isinstance(metrics, str) else metrics for name, metrics in value.items()}

    @model_validator(mode="after")
    def _consistent(self) -> "StudyRecipe":
        for name in self.methods:
            if not NAME.fullmatch(name):
                raise ValueError(f"method {name!r}: a name has letters, digits, dots and dashes only")
        wanted = [("baseline", self.baseline), *(("claims", claim.method) for claim in self.claims)]
        wanted += [("time.like", self.time.like)] if self.time.like else []
        for key, name in wanted:
            if name not in self.methods:
                raise ValueError(
                    f"{key} names {name!r}, which is no method here{suggest(name, self.methods)}"
                )
        for claim in self.claims:
            for task in claim.tasks:
                if task not in self.tasks:
                    raise ValueError(f"claims: {task!r} is not among the tasks{suggest(task, self.tasks)}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: name each once")
        if any(not metrics for metrics in self.tasks.values()):
            raise ValueError("tasks: name at least one metric for each task")
        self._check_own(self.common, "common")
        for name, choice in self.methods.items():
            self._check_own(choice.set, f"methods.{name}.set")
        return self

    @staticmethod
    def _check_own(changes: Mapping[str, Any], where: str) -> None:
        for key in OWN:
            if key in changes:
                raise ValueError(f"{where}: `{key}` is the same for all methods; set it for the study")

    def identity(self) -> dict[str, Any]:
        """What decides the content of the folder as a whole; methods, seeds and tasks may be added to a study."""
        free = {"methods", "seeds", "tasks", "references", "claims", "baseline"}
        return {key: value for key, value in self.resolved().items() if key not in free}


def _choice(name: str, chosen: Any) -> Any:
    if chosen is None or isinstance(chosen, str):
        return {"recipe": chosen or name}
    return {"recipe": name, **chosen} if isinstance(chosen, dict) else chosen


# A study compares time and memory of many runs: none of them shall do what only serves to look at it
UNSEEN = {"validate_ends": False, "samples_every": 0, "report": False}


def training_recipe(
    study: StudyRecipe, method: str, seed: int, steps: int, base: Path | str, alignment_set: Path | str
) -> "TrainingRecipe":
    """The training recipe of one run.

    Raises:
        UserError: no such recipe, or a key or value that a training recipe does not have.
    """
    choice = study.methods[method]
    decided = {"base": str(base), "alignment_set": str(alignment_set), "seed": seed, "steps": steps}
    return _load(choice, study.common, {**decided, "epochs": None, "budget_s": None})


def warmup_recipe(study: StudyRecipe, alignment_set: Path | str) -> "TrainingRecipe":
    """The training recipe that makes the study's base.

    Raises:
        ValueError: the study has none.
        UserError: as `training_recipe`.
    """
    if study.warmup is None:
        raise ValueError("this study has no warm-up")
    decided = {"base": study.base, "alignment_set": str(alignment_set), "seed": study.warmup.seed}
    return _load(study.warmup, {}, decided)


def _load(choice: Choice, common: Mapping[str, Any], decided: Mapping[str, Any]) -> "TrainingRecipe":
    from rba_bench.training.training_recipe import TrainingRecipe

    changes = [*overrides(UNSEEN), *overrides(common), *overrides(choice.set), *overrides(decided)]
    return load_recipe(TrainingRecipe, recipe_file(choice.recipe), changes)


def overrides(changes: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A mapping as `--set` would say it: dots for nested keys, values as JSON (which is YAML).

    What stands under a key that has dots already is set as a whole: `reward.qa: {alias: 1.0}` replaces a name.
    """
    found = []
    for key, value in changes.items():
        if isinstance(value, Mapping) and value and "." not in key:
            found += overrides(value, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}={json.dumps(value, ensure_ascii=False)}")
    return found

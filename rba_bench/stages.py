"""Synthesis and training with defaults for everything that the user leaves out; each choice is told on stderr.

The commands and the Python interface both call these functions.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rba_bench.errors import UserError
from rba_bench.outputs import RUNS, run_folder
from rba_bench.progress import say
from rba_bench.recipes import recipe_file

if TYPE_CHECKING:
    from rba_bench.synthesis.plan import SynthesisPlan
    from rba_bench.synthesis.quality import QualityOptions
    from rba_bench.synthesis.ray_cluster import RayOptions
    from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
    from rba_bench.training.rewards import RewardModel
    from rba_bench.training.training_recipe import TrainingRecipe
    from rba_bench.training.training_run import TrainResult

SYNTHESIS = "synth-micro"
STANDARD_SET = RUNS / "quickstart" / "alignment-set"  # what the shipped training recipes read
TRACK = "micro"
ENGINES = ("processes", "ray")


def make_set(
    recipe: Path | str | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    workers: int | None = 0,
    against: Sequence[str] = (),
    ray: "RayOptions | None" = None,
) -> Path:
    """Make the alignment set of a recipe, or finish it.

    Args:
        recipe: A file, the name of a shipped recipe, or keys and values; None for the micro world's.
        overrides: `key=value` texts.
        out: Folder; None for one under `runs/`.
        workers: Processes that speak; 0 for this one, None for as many as the set is worth.
        against: Files of texts that must not be repeated, beside those of the recipe's `text_filters.against`.
        ray: The Ray cluster to use; None for this machine alone.

    Raises:
        UserError: the recipe is wrong, or the folder belongs to another one.
        MissingPrerequisite: no teacher or no voices.
    """
    from rba_bench.evaluation.task_texts import task_texts
    from rba_bench.synthesis.pipeline import synthesize

    parsed = _synthesis_recipe(recipe, overrides, against)
    if parsed.kind == "qa" and parsed.tagger is None and parsed.max_answer_words is None:
        say(
            "kind: qa is for answers of one to five words: set max_answer_words: 5, or answers of any length are kept"
        )
    standard = recipe is None and not overrides and not against
    folder = out or (STANDARD_SET if standard else run_folder("alignment-sets", "set", parsed.resolved()))
    if out is None:
        say(f"alignment set: {folder} (choose with --out)")
    return synthesize(
        parsed,
        folder,
        workers=workers,
        test_sets=lambda: task_texts(download=False),
        load_reward=load_reward_scorer,
        ray=ray,
    )


@dataclass(frozen=True)
class RewardScorer:
    """A reward model that scores the answers of synthesis (an `AnswerScorer`)."""

    model: "RewardModel"
    facts: dict[str, Any]

    def score(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """See `AnswerScorer`."""
        return self.model.score(user_texts, responses)

    def identity(self) -> dict[str, Any]:
        """See `AnswerScorer`."""
        return {"scorer": "reward", **self.facts}


def load_reward_scorer(options: "QualityOptions") -> RewardScorer:
    """The reward model of `text_filters.quality`.

    Raises:
        MissingPrerequisite: it is not there.
        UserError: it cannot be used.
    """
    from rba_bench.assets import resolve_model
    from rba_bench.textlm.weights import local_folder, setup_sha256, weights_sha256
    from rba_bench.training.rewards import RewardModel
    from rba_bench.training.rewards.reward import naming_key

    with naming_key("text_filters.quality.model"):
        folder = local_folder(resolve_model(options.model or "", "reward"), "reward model")
        model = RewardModel.from_pretrained(folder, options.device, options.batch_size, options.output)
    facts = {
        "path": options.model,
        "weights_sha256": weights_sha256(folder),
        "setup_sha256": setup_sha256(folder),
    }
    return RewardScorer(model, facts if options.output is None else {**facts, "output": options.output})


def ray_options(engine: str | None, settings: Sequence[str], prefix: str = "--") -> "RayOptions | None":
    """The Ray cluster of a synthesis; None where it runs in processes of this machine.

    Args:
        engine: `ray`, or `processes`, which None stands for.
        settings: `key=value` texts: the cluster, and what each process may use.
        prefix: How the user writes the names of these options.

    Raises:
        UserError: there is no such engine, or a setting is wrong.
    """
    from rba_bench.recipes import load_recipe, suggest
    from rba_bench.synthesis.ray_cluster import RayOptions

    if engine not in (None, *ENGINES):
        raise UserError(f"{prefix}engine: unknown engine {engine!r}{suggest(str(engine), ENGINES)}")
    if engine != "ray":
        if settings:
            raise UserError(f"{prefix}ray belongs to {prefix}engine ray")
        return None
    return load_recipe(RayOptions, None, settings, option=f"{prefix}ray")


def plan_set(
    recipe: Path | str | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    workers: int | None = None,
    items: int = 20,
    price: tuple[float, float] | None = None,
    against: Sequence[str] = (),
) -> "SynthesisPlan":
    """What making the alignment set of a recipe will take, measured on a few candidates; no set is written.

    Args:
        recipe: A file, the name of a shipped recipe, or keys and values; None for the micro world's.
        overrides: `key=value` texts.
        workers: Processes that speak; 0 for one alone, None for as many as the set is worth.
        items: Candidates that are made.
        price: Dollars for a million tokens of the teacher's prompts, and of its answers.
        against: As of `make_set`.

    Raises:
        RbaError: the recipe is wrong, a part is not installed, or none of the candidates is usable.
    """
    from rba_bench.evaluation.task_texts import task_texts
    from rba_bench.synthesis.pipeline import worthwhile_workers
    from rba_bench.synthesis.plan import plan_synthesis
    from rba_bench.synthesis.probe import probe_synthesis

    parsed = _synthesis_recipe(recipe, overrides, against)
    probe = probe_synthesis(
        parsed,
        items,
        test_sets=lambda: task_texts(download=False),
        load_reward=load_reward_scorer,
    )
    workers = worthwhile_workers(parsed, probe.utterances) if workers is None else workers
    return plan_synthesis(parsed, probe, workers, price)


def _synthesis_recipe(
    recipe: Path | str | Mapping[str, Any] | None, overrides: Sequence[str], against: Sequence[str]
) -> "SynthesisRecipe":
    from rba_bench.recipes import load_recipe
    from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe

    values = recipe if isinstance(recipe, Mapping) else None
    file = recipe_file(recipe or SYNTHESIS) if not isinstance(recipe, Mapping) else None
    parsed = load_recipe(SynthesisRecipe, file, overrides, values=values)
    if not against:
        return parsed
    if parsed.source is not None:
        raise UserError(
            "--against is for instructions that a teacher writes: leave it out with recorded speech (source)"
        )
    files = list(dict.fromkeys([*parsed.text_filters.against, *against]))
    key = f"text_filters.against={json.dumps(files, ensure_ascii=False)}"
    return load_recipe(SynthesisRecipe, file, [*overrides, key], values=values)


def training_recipe(
    method: str | None,
    recipe: Path | str | Mapping[str, Any] | None,
    overrides: Sequence[str],
    continue_from: Path | None,
    trust: bool,
) -> "TrainingRecipe":
    """The recipe of a training run, see `rba_bench.training.options.choice`; says which of its keys nothing reads."""
    from rba_bench.training.options.choice import continued_recipe, resolve_recipe
    from rba_bench.training.options.recipe_checks import unread_keys

    if continue_from is not None and recipe is None and method is None:
        parsed = continued_recipe(continue_from, overrides, trust)
    else:
        parsed = resolve_recipe(method, recipe, overrides, trust)
    for line in unread_keys(parsed) if os.environ.get("RANK", "0") == "0" else ():
        say(line)  # of several processes the first one speaks
    return parsed


def run_training(
    recipe: "TrainingRecipe", out: Path | None = None, continue_from: Path | None = None
) -> "TrainResult":
    """Train, or resume a training; makes the standard alignment set of the micro track where the recipe needs it.

    Args:
        recipe: The run.
        out: Its folder; None for one under `runs/`.
        continue_from: Folder of another run that this one goes on from.

    Raises:
        RbaError: see `rba_bench.training.training_run.train`.
    """
    from rba_bench.audio.alignment_set import MANIFEST
    from rba_bench.training.training_run import train

    origin = {} if continue_from is None else {"continue_from": str(continue_from.resolve())}
    folder = out or run_folder("checkpoints", recipe.method, recipe.resolved() | origin)
    uses_standard_set = STANDARD_SET in [Path(source.path) for source in recipe.alignment_sets]
    if recipe.track == TRACK and uses_standard_set and not (STANDARD_SET / MANIFEST).is_file():
        say(f"no alignment set at {STANDARD_SET} yet: making the standard one first")
        make_set(SYNTHESIS, out=STANDARD_SET)
    if out is None:
        say(f"checkpoint: {folder} (choose with --out)")
    return train(recipe, folder, continue_from)

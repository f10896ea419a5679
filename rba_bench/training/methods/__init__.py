"""The methods by name; see `presets.PRESETS` for what each is."""

from collections.abc import Collection

from rba_bench.training.data.pairs import Outcome
from rba_bench.training.methods.distillation import Diva, Likelihood, OnPolicyDistillation, TokenDistillation
from rba_bench.training.methods.method import Method
from rba_bench.training.methods.policy_gradient import Grpo, MinimumRisk, SelfCritical
from rba_bench.training.methods.preference import Ipo, Odpo, Preference, Simpo, TokenDpo
from rba_bench.training.training_recipe import TrainingRecipe

__all__ = ["CLASSES", "Method", "Outcome", "make"]

METHOD_CLASSES: dict[str, type[Method]] = {
    "sft": Likelihood,
    "blsp": Likelihood,
    "audiochatllama": Likelihood,
    "kd": TokenDistillation,
    "gkd": OnPolicyDistillation,
    "diva": Diva,
    "odpo": Odpo,
    "ipo": Ipo,
    "simpo": Simpo,
    "tdpo": TokenDpo,
    **dict.fromkeys(("rba-single", "rba-group", "dpo", "cpo", "spin"), Preference),
    **dict.fromkeys(("grpo", "dapo", "tars"), Grpo),
    "scst": SelfCritical,
    "mrt": MinimumRisk,
}


def make_method(recipe: TrainingRecipe, end_ids: Collection[int]) -> Method:
    """The method of a recipe; `end_ids` are the tokens that end an answer."""
    return METHOD_CLASSES[recipe.method](recipe, end_ids)

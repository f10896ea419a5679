"""The methods by name; `options.presets.PRESETS` says what each of them is."""

from collections.abc import Collection

from rba_bench.training.data.pairs import Outcome
from rba_bench.training.methods.distillation import Diva, Likelihood, OnPolicyDistillation, TokenDistillation
from rba_bench.training.methods.method import Method
from rba_bench.training.methods.policy_gradient import Grpo, MinimumRisk, SelfCritical
from rba_bench.training.methods.preference import Preference, TokenDpo
from rba_bench.training.training_recipe import TrainingRecipe

__all__ = ["METHOD_CLASSES", "Method", "Outcome", "make_method"]

METHOD_CLASSES: dict[str, type[Method]] = {
    **dict.fromkeys(("sft", "blsp", "audiochatllama"), Likelihood),
    "kd": TokenDistillation,
    "gkd": OnPolicyDistillation,
    "diva": Diva,
    **dict.fromkeys(("rba-single", "rba-group", "dpo", "cpo", "spin", "odpo", "ipo", "simpo"), Preference),
    "tdpo": TokenDpo,
    **dict.fromkeys(("grpo", "dapo", "tars"), Grpo),
    "scst": SelfCritical,
    "mrt": MinimumRisk,
}


def make_method(recipe: TrainingRecipe, end_ids: Collection[int]) -> Method:
    """The method of a recipe; `end_ids` are the tokens that end an answer."""
    return METHOD_CLASSES[recipe.method](recipe, end_ids)

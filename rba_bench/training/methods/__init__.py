"""The methods by name; `options.presets.PRESETS` says what each of them is."""

from collections.abc import Collection

from rba_bench.training.data.pairs import Outcome
from rba_bench.training.methods.distillation import Diva, Likelihood, OnPolicyDistillation, TokenDistillation
from rba_bench.training.methods.method import Method
from rba_bench.training.methods.policy_gradient import Grpo, MinimumRisk, SelfCritical
from rba_bench.training.methods.preference import Preference, TokenDpo
from rba_bench.training.options.presets import PRESETS
from rba_bench.training.training_recipe import TrainingRecipe

__all__ = ["METHOD_CLASSES", "Method", "Outcome", "make_method"]

_CLASS_OF_KIND: dict[str, type[Method]] = {
    "likelihood": Likelihood,
    "distillation": TokenDistillation,
    "preference": Preference,
    "policy-gradient": Grpo,
}
METHOD_CLASSES: dict[str, type[Method]] = {
    **{name: _CLASS_OF_KIND[preset.kind] for name, preset in PRESETS.items()},
    "gkd": OnPolicyDistillation,
    "diva": Diva,
    "tdpo": TokenDpo,
    "scst": SelfCritical,
    "mrt": MinimumRisk,
}


def make_method(recipe: TrainingRecipe, end_ids: Collection[int]) -> Method:
    """The method of a recipe; `end_ids` are the tokens that end an answer."""
    return METHOD_CLASSES[recipe.method](recipe, end_ids)

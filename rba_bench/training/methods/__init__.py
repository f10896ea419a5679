"""The methods by name; `options.presets.PRESETS` says what each of them is."""

from collections.abc import Collection

from rba_bench.training.data.pairs import Outcome
from rba_bench.training.methods import distillation, policy_gradient, preference
from rba_bench.training.methods.method import Method
from rba_bench.training.training_recipe import TrainingRecipe

__all__ = ["METHOD_CLASSES", "Method", "Outcome", "make_method"]

METHOD_CLASSES: dict[str, type[Method]] = {
    **distillation.METHODS,
    **preference.METHODS,
    **policy_gradient.METHODS,
}


def make_method(recipe: TrainingRecipe, end_ids: Collection[int]) -> Method:
    """The method of a recipe; `end_ids` are the tokens that end an answer."""
    return METHOD_CLASSES[recipe.method](recipe, end_ids)

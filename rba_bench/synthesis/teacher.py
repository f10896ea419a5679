"""The teacher of a recipe: where it is, what it is, how to load it."""

from pathlib import Path
from typing import Any

from rba_bench.synthesis.recipe import SynthesisRecipe
from rba_bench.textlm.base import TextLM
from rba_bench.textlm.template import quiet, text_in
from rba_bench.textlm.weights import hub_commit, local_folder, setup_sha256, weights_sha256


def locate(recipe: SynthesisRecipe) -> Path:
    """Folder of the teacher; a Hub id is downloaded once.

    Raises:
        MissingPrerequisite: there is no such teacher.
    """
    if recipe.teacher == "micro":
        from rba_bench.micro import paths

        return local_folder(paths.part("teacher"), "teacher")
    return local_folder(recipe.teacher, "teacher")


def identity(recipe: SynthesisRecipe) -> dict[str, Any]:
    """What the teacher is, without loading it: name, hash of weights, of tokenizer and template; variables."""
    folder = locate(recipe)
    return {
        "name": recipe.teacher,
        "weights_sha256": weights_sha256(folder),
        "setup_sha256": setup_sha256(folder),
        **({"revision": commit} if (commit := hub_commit(folder)) else {}),
        **({"template": variables} if (variables := template(recipe)) else {}),
    }


def template(recipe: SynthesisRecipe) -> dict[str, Any]:
    """Variables of the teacher's chat template: the recipe's, and no thinking where the template can switch it off.

    Thinking is neither spoken nor learnt, and takes the room of the answer.
    """
    return quiet(text_in(locate(recipe)), recipe.template)


def load(recipe: SynthesisRecipe) -> TextLM:
    """Load the teacher on the recipe's device."""
    from rba_bench.textlm.local import LocalTextLM

    return LocalTextLM.from_pretrained(
        locate(recipe), device=recipe.device, batch_size=recipe.batch_size, template=template(recipe)
    )

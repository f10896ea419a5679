"""The teacher of a recipe: where it is, what it is, how to load it."""

import re
from pathlib import Path
from typing import Any

from rba_bench.errors import MissingPrerequisite
from rba_bench.files import sha256_file, sha256_json
from rba_bench.synthesis.recipe import SynthesisRecipe
from rba_bench.textlm.base import TextLM

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def locate(teacher: str) -> Path | None:
    """Folder of a local teacher; None for a Hub id.

    Raises:
        MissingPrerequisite: it is neither a model folder nor the form `owner/name` of a Hub id.
    """
    if teacher == "micro":
        from rba_bench.micro import paths

        folder = paths.weights_dir() / "teacher"
    else:
        folder = Path(teacher).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if teacher == "micro":
        raise MissingPrerequisite(
            f"the micro teacher is not in {folder}: make it with `rba-bench micro build`"
        )
    if folder.exists() or not _HUB_ID.fullmatch(teacher):
        raise MissingPrerequisite(f"teacher {teacher!r} is neither a model folder nor a Hub id (owner/name)")
    return None


def identity(recipe: SynthesisRecipe) -> dict[str, Any]:
    """What the teacher is, without loading it: `{name, weights_sha256}`; the hash is None for a Hub id."""
    folder = locate(recipe.teacher)
    if folder is None:
        return {"name": recipe.teacher, "weights_sha256": None}
    hashes = {path.name: sha256_file(path) for path in sorted(folder.glob("*.safetensors"))}
    weights = next(iter(hashes.values())) if len(hashes) == 1 else sha256_json(hashes)
    return {"name": recipe.teacher, "weights_sha256": weights}


def load(recipe: SynthesisRecipe) -> TextLM:
    """Load the teacher on the recipe's device."""
    from rba_bench.textlm.local import LocalTextLM

    folder = locate(recipe.teacher)
    return LocalTextLM.from_pretrained(
        str(folder) if folder is not None else recipe.teacher,
        device=recipe.device,
        batch_size=recipe.batch_size,
    )

"""Assets: model weights and worlds that ship with rba-bench, found by the word that recipes and commands name them by.

A recipe says `base: micro` or `teacher: micro`. Only this table knows what stands behind such a word: other modules
ask it for folders (`resolve_model`) or for modules (`load_world`), and none imports `rba_bench.micro` itself.
"""

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from rba_bench.errors import MissingPrerequisite

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class ShippedWeights:
    """Models that ship together, each in a folder named after its role.

    Attributes:
        folder: Where they lie in the package.
        variable: Environment variable that names another folder.
        roles: What the models are used as: the names of the folders.
        command: Makes them again.
    """

    folder: Path
    variable: str
    roles: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class World:
    """A world that writes its own data, by the names of its modules, which are imported on first use.

    Attributes:
        grammar: Has `parse(user_text)` (the item that a text asks, or None) and `grade(item, response)`.
        testsets: Has `load_testset(name)` (folder of `test.parquet`) and `testset_texts(name)` (rows without audio).
        builder: Has `build_weights(out)`, which makes the shipped weights again and returns their provenance file.
    """

    grammar: str
    testsets: str
    builder: str


MICRO = "micro"
WEIGHTS = {
    MICRO: ShippedWeights(
        PACKAGE / "micro" / "weights",
        "RBA_MICRO_WEIGHTS",
        ("teacher", "base", "reward", "asr"),
        "rba-bench micro build",
    )
}
WORLDS = {MICRO: World("rba_bench.micro.world", "rba_bench.micro.testsets", "rba_bench.micro.build.stages")}


def weights_folder(name: str = MICRO) -> Path:
    """Folder of shipped weights, with one folder per role and `provenance.json`."""
    weights = WEIGHTS[name]
    return Path(os.environ.get(weights.variable) or weights.folder)


def model_folder(role: str, name: str = MICRO, folder: Path | None = None) -> Path:
    """Folder of one shipped model.

    Args:
        role: What the model is used as, such as `teacher`.
        name: Key of WEIGHTS.
        folder: Weights to use instead of the shipped ones.

    Raises:
        MissingPrerequisite: It has not been built.
    """
    weights = folder or weights_folder(name)
    if not (weights / role).is_dir():
        raise MissingPrerequisite(
            f"no {role!r} among the {name} weights in {weights}: run `{WEIGHTS[name].command}`"
        )
    return weights / role


def resolve_model(name: str, role: str) -> str:
    """The folder of a shipped model where `name` names shipped weights; any other name (folder, Hub id) unchanged.

    Raises:
        MissingPrerequisite: The weights are not there.
    """
    return str(model_folder(role, name)) if name in WEIGHTS else name


def load_world(part: Literal["grammar", "testsets", "builder"], name: str = MICRO) -> Any:
    """The module that plays `part` in a world; see `World` for the functions it has."""
    return import_module(getattr(WORLDS[name], part))

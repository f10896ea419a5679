"""What a command does when an option is left out. Every choice made here is said on stderr by its caller."""

from pathlib import Path
from typing import Any

import rba_bench
from rba_bench.errors import UserError
from rba_bench.files import sha256_json

RUNS = Path("runs")


def recipe_file(given: Path | None, fallback: str) -> Path:
    """Path of a recipe: a file as given, else a shipped recipe of that name (`rba-group` or `rba-group.yaml`).

    Raises:
        UserError: neither a file nor a shipped recipe.
    """
    if given is not None and given.is_file():
        return given
    name = fallback if given is None else str(given)
    shipped = {path.stem: path for path in sorted(shipped_recipes().glob("*.yaml"))}
    found = shipped.get(name.removesuffix(".yaml"))
    if found is None:
        raise UserError(
            f"no recipe {name}: neither a file nor one of {', '.join(shipped) or '(none shipped)'}"
        )
    return found


def shipped_recipes() -> Path:
    """Folder of the recipes that come with rba-bench: inside an installed wheel, or beside the package in a checkout."""
    package = Path(rba_bench.__file__).parent
    inside = package / "_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def run_folder(stage: str, name: str, resolved: dict[str, Any]) -> Path:
    """`runs/<stage>/<name>-<id>`, the id from all settings: the same settings resume, others get a folder of their own."""
    return RUNS / stage / f"{name}-{sha256_json(resolved)[:8]}"

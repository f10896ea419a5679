"""Recipes that come with rba-bench, by name."""

from pathlib import Path

from rba_bench.errors import UserError


def recipes_dir() -> Path:
    """Folder of the shipped recipes: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "_recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def recipe_file(name: Path | str) -> Path:
    """Path of a recipe: a file, else the shipped recipe of that name (`sft`, `full/sft`), with or without `.yaml`.

    Raises:
        UserError: neither a file nor a shipped recipe.
    """
    if Path(name).is_file():
        return Path(name)
    if Path(name).is_dir():
        raise UserError(f"{name} is a folder: name the YAML file in it")
    shipped = {path.stem: path for path in sorted(recipes_dir().glob("*.yaml"))}
    shipped |= {f"full/{path.stem}": path for path in sorted(recipes_dir().glob("full/*.yaml"))}
    found = shipped.get(str(name).removesuffix(".yaml"))
    if found is None and Path(name).name != str(name):
        raise UserError(f"no file {name}: check the path, or name a shipped recipe ({', '.join(shipped)})")
    if found is None:
        raise UserError(
            f"no recipe {name}: neither a file nor one of {', '.join(shipped) or '(none shipped)'}"
        )
    return found

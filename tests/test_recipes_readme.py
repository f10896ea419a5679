"""The table of recipes names each training recipe once."""

import re
from pathlib import Path

from rba_bench.training.options.presets import METHODS

RECIPES = Path(__file__).parents[1] / "recipes"


def test_every_training_recipe_has_a_line() -> None:
    text = (RECIPES / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w-]+)` \|", text.split("## Long")[0], re.M)
    shipped = {path.stem for path in RECIPES.glob("*.yaml")}
    others = {name for name in shipped if name.startswith(("synth-", "study-"))}
    assert sorted(named) == sorted(shipped - others) and set(METHODS) <= set(named)
    assert all(f"`{name}`" in text for name in others)

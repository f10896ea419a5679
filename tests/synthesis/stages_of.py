"""The stages `ask` and `filter` alone, for tests of what they decide."""

from pathlib import Path
from typing import Any

from rba_bench.synthesis.asking import InstructionAsker, ask_shard
from rba_bench.synthesis.filtering import FilteredShard, InstructionFilter, filter_shard, kept_units
from rba_bench.synthesis.shards import read_records
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.units import Unit
from rba_bench.textlm.text_model import TextLM


def collect(recipe: SynthesisRecipe, teacher: TextLM, out: Path) -> list[Unit]:
    """Usable instructions, as many as the recipe wants; what is in `out` is not asked again."""
    settings = recipe.resolved()
    asker, filters = InstructionAsker(recipe, teacher, settings), InstructionFilter(recipe)
    before: FilteredShard | None = None
    units: list[Unit] = []
    while not filters.enough:
        number = 0 if before is None else before.number + 1
        before = filter_shard(
            out, filters, settings, before, number, lambda number: ask_shard(out, asker, number)
        )
        units += kept_units(out, number)
    return units


def candidates(out: Path) -> list[dict[str, Any]]:
    """Records of the stage `ask`; of a server, shards that were asked ahead may be among them."""
    return _all(out / "ask", "ask")


def decisions(out: Path) -> list[dict[str, Any]]:
    """Records of the stage `filter`."""
    return _all(out / "filter", "filter")


def _all(folder: Path, stage: str) -> list[dict[str, Any]]:
    return [record for file in sorted(folder.glob(f"{stage}-*.gz")) for record in read_records(file)]

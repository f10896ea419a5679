"""A small recipe and one finished alignment set for the tests of this folder."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # test files are imported by path, their helper by name

from fake_teacher import FakeTeacher

from rba_bench.synthesis.pipeline import synthesize
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe


@pytest.fixture(scope="session")
def small_recipe() -> SynthesisRecipe:
    return SynthesisRecipe(
        n_instructions=20,
        voices_per_instruction=2,
        round_size=16,
        shard_size=8,
        validation_fraction=0.3,
        seed=3,
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, small_recipe: SynthesisRecipe) -> Path:
    """Alignment set of `small_recipe`, made without interruption; read only."""
    pytest.importorskip("espeakng_loader")
    return synthesize(small_recipe, tmp_path_factory.mktemp("synth") / "set", teacher=FakeTeacher())

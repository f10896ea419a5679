"""The card of a run: what it came from and how it was made, renewed without touching what its owner wrote."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.cards import CARD, front_matter
from rba_bench.training.model_card import write_run_card
from rba_bench.training.training_run import train


@pytest.fixture(scope="module")
def recipe(recipe_for: Callable[..., Any]) -> Any:
    return recipe_for(method="rba-single", steps=1, report=False)


@pytest.fixture(scope="module")
def trained(recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("card") / "out"
    train(recipe, out)
    return out


def test_a_finished_run_has_a_card_of_what_it_came_from(recipe: Any, trained: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained, tmp_path / "out")
    text, front = (out / CARD).read_text(), front_matter(out / CARD)
    run = json.loads((out / "rba_run.json").read_text())
    assert run["data"]["sets"][0]["origin"]["kinds"] == ["instruct", "qa", "s2tt"]
    assert front["library_name"] == "transformers" and front["pipeline_tag"] == "audio-text-to-text"
    assert "rba-single" in front["tags"] and "base_model" not in front  # the base is a folder
    for fact in (run["base_sha256"], run["alignment_set_sha256"], "optimiser steps | 1", "sft_weight: 1.0"):
        assert fact in text
    assert (
        "import rba_bench" in text
        and str(trained.parent) not in text
        and str(Path(recipe.base).parent) not in text
    )

    (out / CARD).unlink()
    assert train(recipe, out).run == run  # finished already; one of before cards gets its card
    assert (out / CARD).read_text() == text
    (out / CARD).write_text(text.replace("\n---\n", "\n---\nMine.\n", 1).replace("rba-single", "x"))
    assert write_run_card(out)
    assert "\n---\nMine.\n" in (out / CARD).read_text() and "Method `rba-single`" in (out / CARD).read_text()


def test_a_base_of_the_hub_is_named_and_its_licence_taken(trained: Path, tmp_path: Path) -> None:
    out, base = shutil.copytree(trained, tmp_path / "out"), tmp_path / "base"
    run = json.loads((out / "rba_run.json").read_text())
    named = {"base": "Qwen/Qwen2-Audio-7B@main", "base_revision": "a" * 40}
    (out / "rba_run.json").write_text(json.dumps(run | named))
    (out / CARD).unlink()
    base.mkdir()
    (base / CARD).write_text("---\nlicense: mit\nlanguage: en\n---\n")
    assert write_run_card(out, base)
    front = front_matter(out / CARD)
    assert (front["base_model"], front["license"]) == ("Qwen/Qwen2-Audio-7B", "mit")
    assert "a" * 40 in (out / CARD).read_text()

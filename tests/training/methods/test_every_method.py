"""Every shipped training recipe, on the tiny model and set: it trains, and it improves what it is there to improve."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rba_bench.files import read_jsonl
from rba_bench.recipes import load_recipe
from rba_bench.training.methods import METHOD_CLASSES
from rba_bench.training.options.presets import METHODS, PRESETS
from rba_bench.training.training_recipe import TrainingRecipe
from rba_bench.training.training_run import train

RECIPES = Path(__file__).parents[3] / "recipes"
SMALL = {
    "steps": "2",
    "epochs": "null",
    "groups_per_step": "2",
    "voices_per_group": "2",
    "max_new_tokens": "6",
    "learning_rate": "3e-3",
    "warmup_steps": "0",
    "schedule": "constant",
    "teacher.model": "self",
    "teacher.answers.max_new_tokens": "150",  # a random LLM seldom ends its turn
    "teacher.answers.temperature": "1.0",
    "reward.instruct": "chrf",
    "reward.qa": "chrf",
}
UNSEEN = {"report": "false", "validate_ends": "false"}  # where only the log is read


@pytest.fixture
def shipped(alignment_dir: Path, tiny_composite_dir: Path) -> Callable[..., TrainingRecipe]:
    """A shipped recipe, made small."""

    def load(name: str, **changes: Any) -> TrainingRecipe:
        values = {**SMALL, "base": str(tiny_composite_dir), "alignment_set": str(alignment_dir), **changes}
        return load_recipe(TrainingRecipe, RECIPES / f"{name}.yaml", [f"{k}={v}" for k, v in values.items()])

    return load


def records(recipe: TrainingRecipe, out: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(train(recipe, out).path / "train_log.jsonl"))


def load_method(name: str) -> str:
    return load_recipe(TrainingRecipe, RECIPES / f"{name}.yaml").method


def test_every_method_has_a_class_a_preset_and_a_recipe_of_its_name() -> None:
    assert set(METHOD_CLASSES) == set(PRESETS) == set(METHODS)
    for name in METHODS:
        assert load_recipe(TrainingRecipe, RECIPES / f"{name}.yaml").method == name


@pytest.mark.parametrize("name", sorted({*METHODS, "opd", "rba-qa", "rba-s2tt"}))
def test_a_shipped_recipe_trains(
    shipped: Callable[..., TrainingRecipe], tiny_composite_dir: Path, tmp_path: Path, name: str
) -> None:
    from safetensors.torch import load_file

    ends = (
        {"voices_per_group": 6, "max_new_tokens": 60} if PRESETS[load_method(name)].fixed.get("pairs") else {}
    )
    recipe = shipped(name, **ends)  # what never ends is never preferred
    before = load_file(tiny_composite_dir / "model.safetensors")
    seen = records(recipe, tmp_path)
    after = load_file(tmp_path / "model.safetensors")
    assert [record["step"] for record in seen] == [1, 2]
    assert all(torch.isfinite(torch.tensor([record["loss"], record["grad_norm"]])).all() for record in seen)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    if recipe.compares_samples and not any(record["pairs"] + record["rated"] for record in seen):
        pytest.fail("no group had a gap: the recipe was not exercised")
    trained = {"projector": "multi_modal_projector", "llm": "language_model", "encoder": "audio_tower"}
    assert {part for part, key in trained.items() if any(key in one for one in changed)} == set(
        recipe.train_parts
    )
    if recipe.uses_reward:
        assert all(record["reward_worst"] <= record["reward"] <= record["reward_best"] for record in seen)


@pytest.mark.parametrize(
    ("name", "changes", "figure", "sign"),
    [
        ("kd", {"top_k": "0"}, "divergence", -1),
        ("kd", {"top_k": "5", "divergence": "jsd"}, "divergence", -1),
        ("gkd", {"divergence": "reverse"}, "divergence", -1),
        ("diva", {}, "divergence", -1),
        ("diva", {"hidden_weight": "0"}, "alignment", -1),
        ("audiochatllama", {}, "sft", -1),
        ("blsp", {}, "sft", -1),
        ("dpo", {}, "margin", 1),
        ("cpo", {}, "margin", 1),
        ("spin", {}, "margin", 1),
        ("tdpo", {}, "margin", 1),
        ("ipo", {}, "preference", -1),
        ("simpo", {}, "margin", 1),
    ],
)
def test_what_a_method_is_for_gets_better(
    shipped: Callable[..., TrainingRecipe],
    tmp_path: Path,
    name: str,
    changes: dict[str, str],
    figure: str,
    sign: int,
) -> None:
    options = {f"teacher.{key}": value for key, value in changes.items()}
    seen = records(shipped(name, steps=10, groups_per_step=6, save_every=100, **UNSEEN, **options), tmp_path)
    assert sign * (seen[-1][figure] - seen[0][figure]) > 0.03 * abs(seen[0][figure])


@pytest.mark.parametrize("name", ["grpo", "dapo", "scst", "mrt"])
def test_policy_gradients_raise_the_reward(
    shipped: Callable[..., TrainingRecipe], tmp_path: Path, name: str
) -> None:
    # one group, asked often: the model has to find out which of its own words are liked
    options = {"steps": 30, "groups_per_step": 1, "samples_per_clip": 6, "learning_rate": "1e-2"}
    if name == "dapo":  # of answers of six tokens that seldom end, length would be all that counts
        options["policy_gradient.overlong_weight"] = "0"
    seen = records(shipped(name, **UNSEEN, **options, save_every=100, sft_weight=0.0), tmp_path)
    means = [sum(record["reward"] for record in part) / len(part) for part in (seen[:6], seen[-6:])]
    assert means[1] > means[0] * 1.1

"""Every recipe key explains itself, from the comments beside the keys."""

import json

import pytest
from pydantic import BaseModel

from rba_bench.cli.main import main
from rba_bench.training.options.explain import (
    explain_keys,
    flatten_keys,
    key_comments,
    method_recipe,
    type_name,
)
from rba_bench.training.options.presets import METHODS, PRESETS
from rba_bench.training.training_recipe import TrainingRecipe


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    return capsys.readouterr().out


def test_every_key_has_a_type_and_a_reason() -> None:
    keys = explain_keys()
    assert [key.name for key in keys if len(key.reason) < 8] == []
    assert all(key.type for key in keys)
    # nothing that a recipe can say is left out
    assert set(flatten_keys(TrainingRecipe(lora={}).resolved())) <= {key.name for key in keys}


def test_a_heading_over_a_block_of_keys_is_no_reason() -> None:
    found = {key.reason for key in explain_keys()}
    assert not found & {"run", "rollout", "objective", "optimisation"}


class Sample(BaseModel):
    """A docstring is no reason."""

    behind: int = 1  # behind the key
    # above it,
    # in two lines
    above: int = 2
    layer_stacks: tuple[int, ...] = (
        1,  # inside brackets
    )
    # both: this one is the other's
    both: int = 4  # the nearer one
    silent: int = 5


def test_a_reason_is_the_comment_behind_a_key_or_else_above_it() -> None:
    assert key_comments(Sample) == {
        "behind": "behind the key",
        "above": "above it, in two lines",
        "layer_stacks": "inside brackets",
        "both": "the nearer one",
        "silent": "",
    }


def test_values_by_method_are_those_of_a_recipe_that_names_only_the_method() -> None:
    keys = {key.name: key for key in explain_keys()}
    for method in METHODS:
        given = flatten_keys(method_recipe(method).resolved())
        for name, key in keys.items():
            if name not in ("method", *(n for n in keys if n not in given)):
                assert key.by_method.get(method, key.default) == given[name], (method, name)
        for name, value in PRESETS[method].fixed.items():
            assert method in keys[name].fixed and given[name] == value


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("learning_rate", "number > 0"),
        ("policy_gradient.clip_low", "number > 0 and < 1"),
        ("report_to", "list of (tensorboard | wandb)"),
        ("epochs", "number > 0 or null"),
        ("steps", "whole number > 0"),
        ("true_length", "true or false"),
    ],
)
def test_a_type_is_said_in_words(key: str, said: str) -> None:
    assert explain_keys(key)[0].type == said


def test_a_list_of_numbers_is_named_as_one() -> None:
    assert type_name(tuple[int, ...]) == "list of whole number"


def test_a_key_with_keys_under_it_brings_them_along() -> None:
    names = [key.name for key in explain_keys("lora")]
    assert names[0] == "lora" and set(names[1:]) >= {"lora.r", "lora.alpha", "lora.targets"}


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    (only,) = json.loads(run(capsys, "train", "--explain", "reference", "--json"))
    assert (only["name"], only["default"], only["by_method"]["dpo"]) == ("reference", "none", "base")
    (mine,) = json.loads(run(capsys, "train", "--json", "--method", "dpo", "--explain", "reference"))
    assert mine["value"] == "base"
    text = run(capsys, "train", "--explain")
    assert len(text.splitlines()) == len(explain_keys()) and "learning_rate = 0.0001" in text
    shipped = run(capsys, "train", "--recipe", "rba-group", "--set", "steps=7", "--explain", "steps")
    assert shipped.startswith("steps = 7 (default 200)")

"""Recipe files, overrides and the errors a user meets."""

import re
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from rba_bench.errors import UserError
from rba_bench.recipes import Recipe, load_recipe


class Inner(Recipe):
    rank: int = 8


class Example(Recipe):
    name: str
    method: Literal["sft", "dpo"] = "sft"
    steps: int = Field(10, gt=0)
    rate: float = 1e-4
    inner: Inner | None = None
    parts: tuple[str, ...] = ("a",)


def recipe_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_file_then_overrides_in_order(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "name: one\nsteps: 3\ninner:\n  rank: 2\n")
    overrides = ["steps=4", "steps=5", "inner.rank=16", "rate=3e-5", "parts=[x, y]"]
    assert load_recipe(Example, path, overrides) == Example(
        name="one", steps=5, rate=3e-5, inner=Inner(rank=16), parts=("x", "y")
    )


def test_override_reaches_into_a_null(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "name: one\ninner: null\n")
    recipe = load_recipe(Example, path, ["inner.rank=4"])
    assert recipe.inner == Inner(rank=4)
    assert load_recipe(Example, path, ["inner=null"]).inner is None


def test_no_file_gives_the_defaults() -> None:
    assert load_recipe(Example, None, ["name=x"]) == Example(name="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nstepps: 3\n", r"recipe\.yaml:2: unknown key 'stepps'; did you mean 'steps'\?"),
        ("name: a\ninner:\n  ran: 3\n", r"recipe\.yaml:3: unknown key 'inner\.ran'; did you mean 'rank'\?"),
        ("name: a\nsteps: many\n", r"recipe\.yaml:2: steps: must be a whole number .given: 'many'"),
        ("name: a\nsteps: 0\n", r"recipe\.yaml:2: steps: .*greater than 0"),
        ("name: a\nrate: .nan\n", r"recipe\.yaml:2: rate: .*finite"),
        ("name: a\nmethod: grpo\n", r"recipe\.yaml:2: method: .*'sft' or 'dpo'"),
        ("steps: 3\n", r"key 'name' is required"),
        ("name: a\nname: b\n", r"recipe\.yaml:2: key 'name' is given twice"),
        ("- a\n- b\n", r"must hold `key: value` lines, not a list"),
        ("name: [a\n", r"not valid YAML.*line"),
        ("name: !!python/object/apply:os.system ['true']\n", r"not valid YAML"),
    ],
)
def test_errors_name_file_line_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(Example, recipe_file(tmp_path, text))


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "name: a\nsteps: x\nrates: 1\n")
    with pytest.raises(UserError) as caught:
        load_recipe(Example, path)
    assert "recipe.yaml:2" in str(caught.value) and "recipe.yaml:3" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "write --set key=value"),
        ("=3", "write --set key=value"),
        ("steps=[1", "not YAML"),
        ("stps=3", "--set stps=3: unknown key 'stps'; did you mean 'steps'"),
        ("name.first=3", "'name' is a single value"),
        ("zzzzzz=3", "valid: inner, method"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(Example, recipe_file(tmp_path, "name: a\n"), [override])
    assert message in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read recipe"):
        load_recipe(Example, tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_recipe(Example, binary)


class Classifier(Recipe):
    trust_remote_code: bool = False


class Trusting(Recipe):
    trust_remote_code: bool = False
    reward: Classifier = Classifier()
    common: dict = {}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("trust_remote_code: true\n", "recipe.yaml:1: trust_remote_code"),
        ("common: {}\nreward:\n  trust_remote_code: true\n", "recipe.yaml:3: reward.trust_remote_code"),
        ("common: {reward: {trust_remote_code: true}}\n", "recipe.yaml:1: common.reward.trust_remote_code"),
        ("common: {reward.trust_remote_code: true}\n", "recipe.yaml:1: common.reward.trust_remote_code"),
    ],
)
def test_a_recipe_cannot_switch_on_remote_code_by_itself(tmp_path, text, where):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(where)) as refused:
        load_recipe(Trusting, path)
    assert "--trust" in str(refused.value)
    assert load_recipe(Trusting, path, trust=True).trust_remote_code


def test_trust_sets_the_key_wherever_a_recipe_has_it():
    recipe = load_recipe(Trusting, None, [], trust=True)
    assert recipe.trust_remote_code and recipe.reward.trust_remote_code
    assert not load_recipe(Trusting).reward.trust_remote_code


class Lists(Recipe):
    names: tuple[str, ...] = ()
    kinds: tuple[Literal["qa", "s2tt"], ...] | None = None
    either: float | tuple[float, ...] = 1.0
    pair: tuple[float, float] = (0.0, 1.0)


def test_one_value_stands_for_a_list_of_one():
    recipe = load_recipe(Lists, None, ["names=wandb", "kinds=qa", "either=2"])
    assert (recipe.names, recipe.kinds, recipe.either) == (("wandb",), ("qa",), 2.0)
    assert load_recipe(Lists, None, ["names=[a, b]", "kinds=null"]).names == ("a", "b")
    with pytest.raises(UserError, match="kinds"):
        load_recipe(Lists, None, ["kinds=chat"])
    with pytest.raises(UserError, match="pair"):
        load_recipe(Lists, None, ["pair=1"])

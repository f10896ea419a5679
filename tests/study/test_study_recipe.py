"""Study recipes: the shipped one, the short forms, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.recipes import load_recipe, recipe_file
from rba_bench.study.stages import Study, select_runs
from rba_bench.study.study_recipe import StudyRecipe, cell_recipe, dotted_changes, warmup_recipe
from rba_bench.training.training_recipe import SetOptions


@pytest.fixture(scope="module")
def shipped() -> StudyRecipe:
    return load_recipe(StudyRecipe, recipe_file("study-micro"))


def test_the_shipped_study_can_be_run(shipped: StudyRecipe, tmp_path: Any) -> None:
    Study(shipped, tmp_path, select_runs(shipped)).check()
    assert {"sft", "rba-single", "rba-group"} <= set(shipped.methods) and len(shipped.seeds) >= 3
    assert {claim.method for claim in shipped.claims} == {"rba-single", "rba-group"}


def test_methods_differ_in_nothing_but_the_method(shipped: StudyRecipe) -> None:
    made = [cell_recipe(shipped, name, 2, 77, "BASE", "SET") for name in ("sft", "rba-single", "rba-group")]
    for key in ("base", "alignment_set", "seed", "steps", "groups_per_step", "voices_per_group", "learning_rate",
                "schedule", "train_parts", "precision", "budget_s", "epochs"):  # fmt: skip
        assert len({str(getattr(recipe, key)) for recipe in made}) == 1, key
    assert (made[0].seed, made[0].steps, made[0].base) == (2, 77, "BASE")


def test_short_forms_and_the_order_of_changes(tiny_study: Callable[..., StudyRecipe]) -> None:
    methods = {
        "sft": None,
        "warm": {"recipe": "rba-single", "set": {"learning_rate": 0.5, "reward": {"qa": "exact"}}},
    }
    study = tiny_study(methods=methods, time={"like": "warm"}, common={"learning_rate": 0.1, "beta": 0.3})
    made = cell_recipe(study, "warm", 1, 5, "b", "s")
    assert (made.method, made.learning_rate, made.beta, made.reward.qa) == ("rba-single", 0.5, 0.3, "exact")
    assert cell_recipe(study, "sft", 1, 5, "b", "s").learning_rate == 0.1
    assert dotted_changes({"a": {"b": [1, "x"]}, "c": None}) == ['a.b=[1, "x"]', "c=null"]


def test_a_method_may_train_on_some_kinds_of_items(tiny_study: Callable[..., StudyRecipe]) -> None:
    methods = {"sft": None, "rba-single": None, "some": {"recipe": "sft", "kinds": ["qa", "ifeval"]}}
    study = tiny_study(methods=methods)
    made = cell_recipe(study, "some", 1, 5, "b", "asset:small-alignment").alignment_set
    assert made == (SetOptions(path="asset:small-alignment", kinds=("qa", "ifeval")),)
    assert cell_recipe(study, "sft", 1, 5, "b", "s").alignment_set == "s"
    wrong = tiny_study(methods={**methods, "some": {"recipe": "sft", "kinds": ["poem"]}})
    with pytest.raises(UserError, match="kinds"):
        cell_recipe(wrong, "some", 1, 5, "b", "s")


def test_a_warm_up_is_a_training_recipe_of_its_own(tiny_study: Callable[..., StudyRecipe]) -> None:
    study = tiny_study(warmup={"set": {"steps": 9, "train_parts": ["projector", "llm", "encoder"]}})
    made = warmup_recipe(study, "SET")
    assert (made.method, made.steps, made.encoder_frozen, made.alignment_set) == ("sft", 9, False, "SET")
    with pytest.raises(ValueError, match="no warm-up"):
        warmup_recipe(tiny_study(), "SET")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "stf"}, "baseline names 'stf'.*did you mean 'sft'"),
        ({"common": {"steps": 5}}, "common: `steps` is the same for all methods"),
        ({"methods": {"sft": {"set": {"seed": 3}}, "rba-single": None}}, "methods.sft.set: `seed`"),
        ({"methods": {"../sft": None, "sft": None}}, "letters, digits"),
        ({"time": {}}, "either `seconds` or `like"),
        ({"time": {"seconds": 5, "like": "sft"}}, "either `seconds` or `like"),
        ({"seeds": [1, 1]}, "name each once"),
        (
            {"claims": [{"text": "x", "method": "sft", "tasks": ["nothing"]}]},
            "'nothing' is not among the tasks",
        ),
    ],
)
def test_contradictions_are_refused(
    tiny_study: Callable[..., StudyRecipe], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_study(**changes)


def test_a_wrong_method_key_task_or_metric_is_refused_before_anything_runs(
    tiny_study: Callable[..., StudyRecipe], tmp_path: Any
) -> None:
    def check(**changes: Any) -> None:
        study = tiny_study(**changes)
        Study(study, tmp_path / "out", select_runs(study)).check()

    with pytest.raises(UserError, match="learning_rat"):
        check(common={"learning_rat": 1})
    with pytest.raises(UserError, match="no recipe mine"):
        check(methods={"sft": None, "rba-single": "mine"})
    with pytest.raises(UserError, match="no metric 'blue'.*bleu"):
        check(tasks={"micro_covost2": "blue"})
    with pytest.raises(UserError, match="covost2 stands for 2 tasks"):
        check(tasks={"covost2": "bleu"})
    with pytest.raises(UserError, match="no method 'dpo'"):
        select_runs(tiny_study(), ["dpo"])
    assert not (tmp_path / "out").exists()

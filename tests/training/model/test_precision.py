"""`precision: auto` is a measurement, made once a run and kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.files import read_json
from rba_bench.outputs import claim, release
from rba_bench.training.continuing import Origin
from rba_bench.training.model import precision
from rba_bench.training.model.precision import choose_precision, gain_of_bfloat16, resolve_precision
from rba_bench.training.rollouts.engines import export
from rba_bench.training.training_recipe import TrainingRecipe
from rba_bench.training.training_run import train


@pytest.fixture
def recipe() -> TrainingRecipe:
    return TrainingRecipe(method="sft", base="base", alignment_set="set", precision="auto")


def faster(monkeypatch: pytest.MonkeyPatch, gain: float) -> None:
    monkeypatch.setattr(precision, "gain_of_bfloat16", lambda _: gain)


@pytest.mark.parametrize(
    "gain, chosen", [(0.3, "float32"), (1.4, "float32"), (1.5, "bfloat16"), (9, "bfloat16")]
)
def test_bfloat16_is_for_where_it_is_clearly_faster(
    recipe: TrainingRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float, chosen: str
) -> None:
    assert choose_precision(gain) == chosen
    faster(monkeypatch, gain)
    assert resolve_precision(recipe, tmp_path / "new", None).precision == chosen


def test_a_type_that_was_asked_for_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "gain_of_bfloat16", lambda _: pytest.fail("measured"))
    given = TrainingRecipe(method="sft", base="base", alignment_set="set")
    assert resolve_precision(given, tmp_path, None) is given


def test_a_run_goes_on_in_its_number_type(
    recipe: TrainingRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faster(monkeypatch, 9.0)
    claim(tmp_path / "run", "train", {"precision": "float32"})
    release(tmp_path / "run")
    assert resolve_precision(recipe, tmp_path / "run", None).precision == "float32"
    origin = Origin(tmp_path / "run", 3, None, {}, {"precision": "float32"}, "x")
    assert resolve_precision(recipe, tmp_path / "other", origin).precision == "float32"


def test_the_record_holds_what_was_chosen_and_a_slower_machine_resumes_it(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe_for(method="sft", steps=1, precision="auto")
    faster(monkeypatch, 9.0)
    train(asked, tmp_path / "run")
    assert read_json(tmp_path / "run" / "rba_run.json")["recipe"]["precision"] == "bfloat16"
    faster(monkeypatch, 0.5)
    assert train(asked, tmp_path / "run").steps == 1


def test_the_gain_is_float32s_median_time_over_bfloat16s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of float32 take 6 s and of bfloat16 2 s by this clock, but for the first two and one hiccup each."""
    calls = precision.TRIES + 2
    taken = [seconds for usual in (6.0, 2.0) for seconds in [99.0, 99.0, 50.0, *[usual] * (calls - 3)]]
    moments = iter([moment for seconds in taken for moment in (0.0, seconds)])
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(moments))
    assert gain_of_bfloat16("cpu") == 3.0
    assert next(moments, None) is None


def test_a_server_and_its_run_have_one_number_type(recipe: TrainingRecipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one number type: set precision"):
        TrainingRecipe.model_validate(recipe.model_dump() | {"rollout": {"engine": "vllm"}})
    with pytest.raises(UserError, match="one number type: set precision"):
        export(recipe, tmp_path)

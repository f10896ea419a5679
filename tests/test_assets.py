"""Weights and worlds that ship with the package are found by name, and nothing else is taken for one."""

from pathlib import Path

import pytest

from rba_bench.assets import PACKAGE, load_world, model_folder, resolve_model, weights_folder
from rba_bench.errors import MissingPrerequisite


def test_weights_lie_beside_the_code_or_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RBA_MICRO_WEIGHTS", raising=False)
    assert weights_folder() == PACKAGE / "micro" / "weights"
    monkeypatch.setenv("RBA_MICRO_WEIGHTS", str(tmp_path))
    (tmp_path / "teacher").mkdir()
    assert resolve_model("micro", "teacher") == str(tmp_path / "teacher")
    assert model_folder("teacher", folder=tmp_path) == tmp_path / "teacher"


def test_a_model_that_was_not_built_is_one_line_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="no 'reward' among .*run `rba-bench micro build`"):
        model_folder("reward", folder=tmp_path)


@pytest.mark.parametrize("name", ["./micro", "Qwen/Qwen2.5-7B-Instruct", "openai:http://localhost#m"])
def test_other_names_stay_as_they_are(name: str) -> None:
    assert resolve_model(name, "teacher") == name


def test_the_micro_world_has_what_its_entry_promises() -> None:
    item = load_world("grammar").parse("tell me about the fox")
    assert load_world("grammar").grade(item, "").score == 0.0
    assert len(load_world("testsets").testset_texts("micro_covost2")) == 120

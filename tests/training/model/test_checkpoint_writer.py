"""Checkpoints that are written while training goes on."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from transformers import Trainer

from rba_bench.files import read_json
from rba_bench.training.callbacks.training_callback import TrainingCallback
from rba_bench.training.model import trainer_state as checkpointing
from rba_bench.training.model.checkpoints import (
    Saver,
    complete_checkpoints,
    load,
    newest_checkpoint,
    remove_incomplete,
    saved_names,
    seal_checkpoint,
)
from rba_bench.training.training_run import train
from tests.training.test_training_run import same


def tensors() -> dict[str, torch.Tensor]:
    return {
        "a": torch.arange(6.0).reshape(2, 3),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "one": torch.full((1,), 7.0),
    }


def test_what_is_saved_is_what_was_there_when_saving_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    plain = HuggingFaceStorageWriter.write_data

    def slow(self: Any, *args: Any) -> Any:
        may_write.wait(30)
        return plain(self, *args)

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", slow)
    saver, given = Saver(tmp_path), tensors()
    saver.save(tmp_path / "checkpoint-1", given, {"step": 1})
    for tensor in given.values():  # training goes on
        tensor.mul_(-1)
    assert newest_checkpoint(tmp_path) is None
    may_write.set()
    saver.wait()
    found = newest_checkpoint(tmp_path)
    assert found is not None and found[1]["step"] == 1
    read = {name: torch.zeros_like(tensor) for name, tensor in given.items()}
    load(tmp_path / "checkpoint-1", read)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors().items())
    assert saved_names(tmp_path / "checkpoint-1") == {name: t.shape for name, t in given.items()}
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".distcp", ".pt", ".metadata")]


def test_until_a_checkpoint_is_written_the_one_before_counts_and_two_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = Saver(tmp_path)
    for step in (1, 2, 3):
        saver.save(tmp_path / f"checkpoint-{step}", tensors(), {"step": step})
    saver.wait()
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]

    def dies(self: Any, *args: Any) -> Any:  # as a process killed in mid-write leaves it
        (Path(self.path) / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", dies)
    saver.save(tmp_path / "checkpoint-4", tensors(), {"step": 4})
    with pytest.raises(OSError, match="No space left"):
        saver.wait()
    saver.wait()  # told once
    assert (tmp_path / "checkpoint-4").is_dir()
    found = newest_checkpoint(tmp_path)
    assert found is not None and found[0].name == "checkpoint-3"
    remove_incomplete(tmp_path)
    assert not (tmp_path / "checkpoint-4").exists()


def test_a_run_that_ends_by_an_error_leaves_no_thread_that_writes(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next call in this process would take what it removes there for a complete checkpoint."""

    def slow(self: Any, *args: Any) -> Any:
        time.sleep(0.5)
        return plain(self, *args)

    def fails(self: Any, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            raise RuntimeError("out of memory")

    plain = HuggingFaceStorageWriter.write_data
    monkeypatch.setattr(HuggingFaceStorageWriter, "write_data", slow)
    monkeypatch.setattr(TrainingCallback, "on_save", fails, raising=False)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(recipe_for(method="sft", steps=4, save_every=2), tmp_path)
    found = newest_checkpoint(tmp_path / "trainer")
    assert found is not None and found[1]["step"] == 2
    assert (found[0] / "trainer_state.json").is_file()


def test_only_one_process_seals(tmp_path: Path) -> None:
    saver = Saver(tmp_path, main=False)
    saver.save(tmp_path / "checkpoint-1", tensors(), {"step": 1})
    saver.wait()
    assert saved_names(tmp_path / "checkpoint-1") and newest_checkpoint(tmp_path) is None


def test_a_run_that_an_earlier_version_began_goes_on(
    recipe_for: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints hold one file of weights and what transformers writes for the optimiser."""

    def former(self: Any, model: Any, trial: Any) -> None:
        Trainer._save_checkpoint(self, model, trial)
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        noted = {"elapsed_s": 1.0, "encoding_s": 0.0, "drawn": 0, "judged": 0, "waiting": {}}
        seal_checkpoint(folder, {"step": self.state.global_step, **noted})

    def stop(self: Any, *args: Any, **kwargs: Any) -> None:
        self.interrupt.requested = True
        plain(self, *args, **kwargs)

    recipe = recipe_for(method="sft", steps=3)
    train(recipe, tmp_path / "whole")
    plain = TrainingCallback.on_step_end
    with monkeypatch.context() as patch:
        patch.setattr(checkpointing.CheckpointingTrainer, "_save_checkpoint", former)
        patch.setattr(TrainingCallback, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "parts")
    begun = tmp_path / "parts" / "trainer" / "checkpoint-1"
    assert (begun / "trained.safetensors").is_file() and read_json(begun / "rba_state.json")["step"] == 1
    train(recipe, tmp_path / "parts")
    same(tmp_path / "whole", tmp_path / "parts")

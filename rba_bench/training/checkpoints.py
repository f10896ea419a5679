"""Trainer checkpoints that survive a kill at any moment.

A folder counts as a checkpoint once `rba_state.json` is in it, written last and atomically, and every file has the
size noted there. Anything else is what a killed writer left behind and is removed. Weights are safetensors; the
optimiser and random states that transformers writes with `torch.save` are read back with `weights_only=True` (by the
Trainer itself).
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rba_bench.errors import RbaError
from rba_bench.faults import is_full
from rba_bench.files import read_json, replacing, write_json
from rba_bench.training.sharding import overwrite, settle, whole

STATE = "rba_state.json"
WEIGHTS = "trained.safetensors"


def seal(folder: Path, state: dict[str, Any]) -> None:
    """Declare a checkpoint complete; `state` is what the run needs besides the Trainer's own files."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / STATE]
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    write_json(folder / STATE, {"sizes": sizes, **state})


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The latest complete checkpoint under `folder` and its state."""
    states = ((candidate, _state(candidate)) for candidate in folder.glob("checkpoint-*"))
    complete = [(path, state) for path, state in states if state is not None]
    return max(complete, key=lambda found: found[1]["step"], default=None)


def remove_incomplete(folder: Path) -> None:
    """Remove the checkpoints that a killed process has left half written; only for whoever holds the run's lock."""
    for candidate in folder.glob("checkpoint-*"):
        if _state(candidate) is None:
            shutil.rmtree(candidate, ignore_errors=True)


@contextmanager
def told_if_full(out: Path) -> Iterator[None]:
    """Write in a run's folder; a full disk becomes one line, and what was being written makes room again.

    Raises:
        RbaError: there is no room left.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not is_full(error):
            raise
        if os.environ.get("RANK", "0") == "0":
            remove_incomplete(out / "trainer")  # which makes room again
        kept = newest(out / "trainer")
        where = f"from {kept[0].name}" if kept else "from the start"
        raise RbaError(
            f"no room left to write in {out}: free some, or move the folder to another disk; the same command then "
            f"goes on {where}"
        ) from error


def _state(folder: Path) -> dict[str, Any] | None:
    if not (folder / STATE).is_file():
        return None
    try:
        state: dict[str, Any] = read_json(folder / STATE)
        whole = all((folder / name).stat().st_size == size for name, size in state["sizes"].items())
    except (ValueError, KeyError, OSError):
        return None
    return state if whole else None


def save_weights(model: nn.Module, folder: Path, write: bool = True) -> None:
    """Write the parameters that train; the others are those of the base and do not change.

    Args:
        model: the policy.
        folder: made if absent.
        write: whether this process writes; where processes share weights out all of them must call.
    """
    settle(model)
    trained = {name: whole(p) for name, p in model.named_parameters() if p.requires_grad}
    if write:
        write_tensors(folder / WEIGHTS, trained)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, whole or not at all; folders on the way are made."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file(dict(tensors), temporary)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Read them back in place.

    Raises:
        RbaError: the checkpoint is of a model with other trained parameters.
    """
    from safetensors.torch import load_file

    settle(model)
    saved: dict[str, Tensor] = load_file(folder / WEIGHTS)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if saved.keys() != trained.keys():
        raise RbaError(
            f"{folder} was saved from a model with other trained parameters; remove it and start again"
        )
    for name, parameter in trained.items():
        overwrite(parameter, saved[name])

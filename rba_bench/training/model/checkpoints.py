"""Checkpoints that survive a kill at any moment, and the weights that a run trains.

    FOLDER/checkpoint-N/shard-0000R-*.safetensors   what trains, its optimiser state, a renewed reference
    FOLDER/checkpoint-N/rba_state.json              last: the checkpoint is complete (`seal_checkpoint`)

A folder counts as a checkpoint once `rba_state.json` is in it, written last and atomically, and every file has the size
noted there. Everything else was left by a killed writer and is removed.

`Saver` writes while training goes on: it copies the tensors to main memory, a thread writes the copies (each process
its own pieces, by torch.distributed.checkpoint), and when those of all processes are on disk, the first process seals
the folder. Any number of processes can load it: each reads the pieces that it needs. The files are safetensors, because
torch's own format is pickle; random states, which transformers writes with `torch.save`, are read with
`weights_only=True`.

`trained.safetensors` is one file with the weights that train: the best ones of a run, its last ones where they must be
put into the base, and those of checkpoints by earlier versions and by DeepSpeed.
"""

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from rba_bench.errors import RbaError
from rba_bench.faults import is_full
from rba_bench.files import read_json, replacing, sha256_file, sha256_json, write_json
from rba_bench.training.model.sharding import assign_full, full_tensor, reshard

STATE = "rba_state.json"
WEIGHTS = "trained.safetensors"


def seal_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Declare a checkpoint complete; `state` is what the run needs besides the Trainer's own files."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file != folder / STATE]
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
    write_json(folder / STATE, {"sizes": sizes, **state})


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The latest complete checkpoint under `folder` and its state."""
    states = ((candidate, _state(candidate)) for candidate in folder.glob("checkpoint-*"))
    checkpoints = [(path, state) for path, state in states if state is not None]
    return max(checkpoints, key=lambda checkpoint: checkpoint[1]["step"], default=None)


def complete_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints under `folder`, oldest first."""
    states = ((path, _state(path)) for path in folder.glob("checkpoint-*"))
    steps = {path: state["step"] for path, state in states if state is not None}
    return sorted(steps, key=steps.__getitem__)


def checkpoint_identity(folder: Path) -> str:
    """SHA-256 that tells a complete checkpoint's tensors from those of another one."""
    single = folder / WEIGHTS
    if single.is_file():
        return sha256_file(single)
    return sha256_json({file.name: sha256_file(file) for file in sorted(folder.glob("*.safetensors"))})


def remove_incomplete(folder: Path) -> None:
    """Remove the checkpoints that a killed process has left half written; only for whoever holds the run's lock."""
    for candidate in folder.glob("checkpoint-*"):
        if _state(candidate) is None:
            shutil.rmtree(candidate, ignore_errors=True)


@contextmanager
def disk_full_message(out: Path) -> Iterator[None]:
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
        kept = newest_checkpoint(out / "trainer")
        where = f"from {kept[0].name}" if kept else "from the start"
        raise RbaError(
            f"no room left to write in {out}: free some, or move the folder to another disk; the same command then "
            f"goes on {where}"
        ) from error


def _state(folder: Path) -> dict[str, Any] | None:
    """The state in a checkpoint's folder; None where it is not complete."""
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
        write: whether this process writes; where processes share weights out all of them must call, and only who
            writes holds more than one parameter whole, in main memory.
    """
    reshard(model)
    trained = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            value = full_tensor(parameter)
            if write:
                trained[name] = value
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
    from safetensors import safe_open

    reshard(model)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with safe_open(folder / WEIGHTS, framework="pt") as saved:
        if set(saved.keys()) != trained.keys():
            raise RbaError(
                f"{folder} was saved from a model with other trained parameters; remove it and start again"
            )
        for name, parameter in trained.items():  # one at a time in memory
            assign_full(parameter, saved.get_tensor(name))


# what a single process is told, in whichever thread
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
KEPT = 2  # complete checkpoints: the one before stays until the next but one is complete


class Saver:
    """Writes the checkpoints of a run, one at a time.

    Args:
        folder: where the checkpoints are.
        main: whether this process seals and removes; exactly one does.
    """

    def __init__(self, folder: Path, main: bool = True) -> None:
        self.folder = folder
        self.main = main
        self._group: Any = None
        self._written: Future[None] | None = None

    def save(self, path: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Begin to write a checkpoint; all processes call, each with its own pieces.

        Args:
            path: its folder, in which other files may lie already.
            tensors: by name, whole ones (equal in all processes) or shards.
            state: for `seal_checkpoint`.

        Raises:
            OSError: the checkpoint before this one could not be written.
        """
        self.wait()
        path.mkdir(parents=True, exist_ok=True)
        writer = HuggingFaceStorageWriter(str(path), save_distributed=True)
        if self._group is None and not self._alone:
            # a group of its own: the thread's messages must not mix with those of training
            self._group = distributed.new_group(backend="gloo")
        written: Any = dcp.async_save(
            dict(tensors), storage_writer=writer, process_group=self._group, no_dist=self._alone
        )
        result: Future[None] = Future()
        written.add_done_callback(lambda done: self._finish(done, result, path, state))
        self._written = result

    def wait(self) -> None:
        """Return when what was begun is complete.

        Raises:
            OSError: it could not be written.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def abandon(self) -> None:
        """Return when nothing is written any more, whether or not it could be: for a run that ends by an error.

        The next call in this process removes what is half written; a thread that still wrote would then declare the
        rest complete. Processes that share a run wait for nobody: the one that failed may be gone.
        """
        if self._alone:
            with suppress(Exception):
                self.wait()

    def check(self) -> None:
        """Raise what `wait` would, if it is known by now."""
        if self._written is not None and self._written.done():
            self.wait()

    def _finish(self, done: "Future[Any]", result: "Future[None]", path: Path, state: dict[str, Any]) -> None:
        """In the thread that has written."""
        error = done.exception()
        try:
            if error is None and self.main:
                seal_checkpoint(path, state)
                for old in complete_checkpoints(self.folder)[:-KEPT]:
                    shutil.rmtree(old, ignore_errors=True)
        except OSError as failed:
            error = failed
        if error is None:
            result.set_result(None)
        else:
            # what went wrong in the first process where something did
            failures = getattr(error, "failures", {})
            result.set_exception(next((failure[0] for _, failure in sorted(failures.items())), error))

    @property
    def _alone(self) -> bool:
        return not distributed.is_initialized() or distributed.get_world_size() == 1


def saved_names(path: Path) -> dict[str, torch.Size]:
    """Names and whole sizes of the tensors in a checkpoint."""
    metadata: Any = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return {name: entry.size for name, entry in metadata.items()}


def load(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read a checkpoint into tensors, in place; shards read their pieces. Each process by itself.

    Args:
        path: the checkpoint's folder.
        tensors: by name; those of the checkpoint that are not named are not read.
    """
    dcp.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)

"""Checkpoints that are written while training goes on, each process its own pieces (torch.distributed.checkpoint).

    FOLDER/checkpoint-N/shard-0000R-*.safetensors   what trains, its optimiser state, a renewed reference
    FOLDER/checkpoint-N/rba_state.json              last: the checkpoint is complete (`checkpoints.seal`)

`save` copies the tensors to main memory; a thread writes the copies and, when those of all processes are on disk, the
first process seals the folder. Another number of processes can load them: each reads the pieces it needs. The files
are safetensors, for torch's own format is pickle.
"""

import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from rba_bench.training.model.checkpoints import complete, seal

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
            state: for `seal`.

        Raises:
            OSError: the checkpoint before this one could not be written.
        """
        self.wait()
        path.mkdir(parents=True, exist_ok=True)
        writer = HuggingFaceStorageWriter(str(path), save_distributed=True)
        written: Any = dcp.async_save(
            dict(tensors), storage_writer=writer, process_group=self._cpu_group(), no_dist=self._alone
        )
        told: Future[None] = Future()
        written.add_done_callback(lambda done: self._finish(done, told, path, state))
        self._written = told

    def wait(self) -> None:
        """Return when what was begun is complete.

        Raises:
            OSError: it could not be written.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def check(self) -> None:
        """Raise what `wait` would, if it is known by now."""
        if self._written is not None and self._written.done():
            self.wait()

    def _finish(self, done: "Future[Any]", told: "Future[None]", path: Path, state: dict[str, Any]) -> None:
        """In the thread that has written."""
        error = done.exception()
        try:
            if error is None and self.main:
                seal(path, state)
                for old in complete(self.folder)[:-KEPT]:
                    shutil.rmtree(old, ignore_errors=True)
        except OSError as failed:
            error = failed
        if error is None:
            told.set_result(None)
        else:
            told.set_exception(_cause(error))

    @property
    def _alone(self) -> bool:
        return not distributed.is_initialized() or distributed.get_world_size() == 1

    def _cpu_group(self) -> Any:
        """A group of its own: the thread's messages must not mix with those of training."""
        if self._group is None and not self._alone:
            self._group = distributed.new_group(backend="gloo")
        return self._group


def saved_names(path: Path) -> dict[str, torch.Size]:
    """Names and whole sizes of the tensors in a checkpoint."""
    found: Any = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    return {name: entry.size for name, entry in found.items()}


def load(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read a checkpoint into tensors, in place; shards read their pieces. Each process by itself.

    Args:
        path: the checkpoint's folder.
        tensors: by name; those of the checkpoint that are not named are not read.
    """
    dcp.load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)


def _cause(error: BaseException) -> BaseException:
    """What went wrong in the first process where something did."""
    failures = getattr(error, "failures", {})
    return next((failure[0] for _, failure in sorted(failures.items())), error)

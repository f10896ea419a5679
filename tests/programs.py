"""Programs in processes of their own that need not import torch and transformers first.

That import takes five to ten seconds of computing. Here one server does it, once per test process, and every program is
forked from it, with arguments, environment and output of its own. The server does not know `rba_bench`: each program
imports it, and registers models and tasks, as in an interpreter that has just started.
"""

import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

LIBRARIES = ("torch", "transformers", "datasets", "peft", "lm_eval.evaluator", "lm_eval.models.huggingface")
ALWAYS = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # read when a library is imported


class Ended(NamedTuple):
    """Exit code (minus the signal that ended it) and what was printed."""

    code: int
    out: str
    err: str


class Program:
    """A running program.

    Args:
        words: As for `python`: `-m MODULE ...`, `-c CODE ...` or `FILE ...`.
        environment: Changes to the variables of this process.
    """

    def __init__(self, *words: str, **environment: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(LIBRARIES))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ALWAYS.items():
                patch.setenv(name, value)
            forkserver.ensure_running()
        self._folder = TemporaryDirectory()
        given = {**os.environ, **ALWAYS, **environment}
        self._process = context.Process(target=_run, args=(words, given, Path(self._folder.name), Path.cwd()))
        self._process.start()

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it has ended."""
        self._process.kill()
        self._process.join()

    def ended(self, within_s: float = 900) -> Ended:
        """Wait until it has ended.

        Raises:
            TimeoutError: it has not; it is killed.
        """
        self._process.join(within_s)
        if self.runs():
            self.kill()
            raise TimeoutError(self._said("err")[-2000:])
        assert self._process.exitcode is not None
        return Ended(self._process.exitcode, self._said("out"), self._said("err"))

    def output(self) -> str:
        """Wait until it has ended well; what it printed on stdout."""
        code, out, err = self.ended()
        assert code == 0, err[-12_000:]
        return out

    def wait_for(self, condition: Callable[[], object], within_s: float = 900) -> None:
        """Wait for something that it does, such as a file that it writes."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert self.runs() and time.monotonic() < deadline, self._said("err")[-2000:]
            time.sleep(0.01)

    def _said(self, name: str) -> str:
        file = Path(self._folder.name) / name
        return file.read_text(encoding="utf-8") if file.exists() else ""


def _run(words: tuple[str, ...], environment: Mapping[str, str], folder: Path, cwd: Path) -> None:
    """In the forked process: what an interpreter does with these words."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    first, *rest = words
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        if first == "-c":
            file = folder / "program.py"
            file.write_text(rest.pop(0), encoding="utf-8")
            first = str(file)
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")

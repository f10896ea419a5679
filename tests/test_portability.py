"""What POSIX alone has is never needed: the package runs where those modules, functions and signals are absent."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rba_bench
from rba_bench.cli.main import main
from rba_bench.cli.output import emit_json
from rba_bench.files import link_or_copy

ROOT = Path(rba_bench.__file__).parent

# What other packages need is loaded before it is taken away: the question is what *this* package needs.
WITHOUT_POSIX = """
import contextlib, importlib, io, json, os, pkgutil, signal, sys
import _ctypes, accelerate, datasets, lm_eval.api.task, peft, plotly.graph_objects, psutil, safetensors.torch
import scipy.stats, sklearn.linear_model, torch.distributed.checkpoint, transformers, typer.testing, whisper
import torch.distributed.fsdp, transformers.models.whisper.modeling_whisper
for name in ("resource", "fcntl", "termios", "pwd", "grp", "tty", "pty", "posix", "syslog"):
    sys.modules[name] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL", "SIGALRM"):
    delattr(signal, name)
for name in (
    "fork", "sched_getaffinity", "getuid", "statvfs", "killpg", "sysconf", "getloadavg", "sync", "nice", "O_NOFOLLOW",
    "O_NONBLOCK", "geteuid", "fchmod", "setsid", "wait3", "wait4", "uname",
):
    delattr(os, name)
del _ctypes.dlclose
_ctypes.FreeLibrary = lambda handle: None
import rba_bench
modules = [found.name for found in pkgutil.walk_packages(rba_bench.__path__, "rba_bench.")]
modules = [name for name in modules if not name.endswith("__main__")]
for name in modules:
    importlib.import_module(name)
from pathlib import Path
from rba_bench.cli.main import main
from rba_bench.cli.output import emit_json
from rba_bench.training import machine
from rba_bench.training.planning import assumptions
from rba_bench.untrusted import read_untrusted_json
out = io.StringIO()
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(out):
    main(["tasks", "list", "--json"])
link = Path(sys.argv[1]) / "link.json"
link.symlink_to(__import__("tempfile").mkstemp()[1])
try:
    refused = str(read_untrusted_json(link))
except rba_bench.errors.UserError as error:
    refused = str(error)
doctor = importlib.import_module("rba_bench.doctor")
print(json.dumps({
    "modules": len(modules), "tasks": len(json.loads(out.getvalue())), "peak": machine.peak_memory("cpu"),
    "memory": assumptions._physical_memory(), "refused": refused,
    "hardware": doctor._hardware().found, "speech": doctor._speech().ok,
}))
"""


def test_every_module_runs_without_what_only_posix_has(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX, str(tmp_path)], capture_output=True, text=True, cwd=ROOT.parent
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["modules"] >= len(list(ROOT.rglob("*.py"))) - len(list(ROOT.rglob("__init__.py"))) - 1
    assert found["tasks"] > 10
    assert 50e6 < found["peak"] < 20e9  # resident bytes of a process that has loaded torch
    assert found["memory"] == 0.0  # unknown
    assert "is a link" in found["refused"]
    assert f"{os.cpu_count()} CPU cores" in found["hardware"]
    assert found["speech"] is True


def test_a_folder_of_links_is_one_of_copies_where_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"1\r\n2")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").write_bytes(b"3")
    link_or_copy(tmp_path / "file", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "link").read_bytes() == b"1\r\n2"

    def refused(*_: object) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refused)
    link_or_copy(tmp_path / "file", tmp_path / "copy")
    link_or_copy(tmp_path / "folder", tmp_path / "copies")
    assert not (tmp_path / "copy").is_symlink() and (tmp_path / "copy").read_bytes() == b"1\r\n2"
    assert (tmp_path / "copies" / "inner").read_bytes() == b"3"


def test_results_leave_as_utf8_whatever_the_encoding_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_out, encoding="cp1252", newline="\r\n"))
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    emit_json({"name": "日本語 → de"})
    sys.stdout.flush()
    assert end.value.code == 0
    version, text = bytes_out.getvalue().decode("utf-8").split("\n", 1)
    assert version == f"rba-bench {rba_bench.__version__}" and json.loads(text) == {"name": "日本語 → de"}
    assert "\r" not in text

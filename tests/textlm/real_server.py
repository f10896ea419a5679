"""llama.cpp as a server with real weights: SmolLM2, 135 million parameters, fetched by `make assets`.

It runs in a process of its own, so that a test can kill it, and starts in seconds.
"""

import importlib.util
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from rba_bench.assets import find_asset

NAME = "smollm2"
ASSET = find_asset("smollm2-135m-instruct")
SLOTS = 16
START_S = 90.0  # on a machine that does much else
# One thread: several wait for each other by spinning, which takes minutes where others want the cores too.
PROGRAM = """
import sys, time
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.port = int(sys.argv[2])
params.hostnames = ["127.0.0.1"]
params.model_alias = {sys.argv[3]}
params.n_parallel = int(sys.argv[4])
params.n_ctx = 1024 * params.n_parallel
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.ui = False
server = xllamacpp.Server(params)
parent = int(sys.argv[5])
import os
while os.getppid() == parent:  # nothing outlives a test run that is killed
    time.sleep(0.2)
"""


def gguf() -> Path:
    """The weights, there or not."""
    return Path(os.environ.get("RBA_TEST_GGUF") or ASSET.path())


def missing() -> str:
    """Why no real server can be started, "" if it can."""
    if importlib.util.find_spec("xllamacpp") is None:
        return "xllamacpp is not installed"
    return "" if gguf().is_file() else f"{gguf()} is not there: run `make assets`, or set RBA_TEST_GGUF"


class RealServer:
    """The server.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def spec(self) -> str:
        """The server's model as users write it."""
        return f"openai:http://127.0.0.1:{self.port}/v1#{NAME}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        told = [str(gguf()), str(self.port), NAME, str(SLOTS), str(os.getpid())]
        with TemporaryFile() as log:
            self._process = subprocess.Popen([sys.executable, "-c", PROGRAM, *told], stdout=log, stderr=log)
            until = time.monotonic() + START_S
            while not self._healthy():
                if self._process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise AssertionError(
                        f"the server did not start: {log.read()[-2000:].decode(errors='replace')}"
                    )
                time.sleep(0.1)

    def kill(self) -> None:
        """As a crash or the kernel would end it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def real_serving(port: int) -> Iterator[RealServer]:
    """A server that is there for the time of a `with` block."""
    server = RealServer(port)
    try:
        server.start()
        yield server
    finally:
        server.kill()

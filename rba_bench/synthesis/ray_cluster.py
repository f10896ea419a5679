"""The Ray cluster that a synthesis runs on: joined, or started on this machine; and what its nodes must have in common.

What is made on a node is written into the set's folder by that node, so all nodes must share it (NFS, or one machine);
and equal bytes need equal versions of the packages that make them. Both are checked on every node before it makes
anything, also on those that join later.

Ray is an optional package (extra `ray`) and takes seconds to load: it is imported in functions.
"""

import logging
import os
import platform
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from rba_bench.errors import MissingPrerequisite, RbaError, UserError, first_line
from rba_bench.files import write_atomic
from rba_bench.installing import extra
from rba_bench.machine import package_versions
from rba_bench.progress import say
from rba_bench.recipes import Recipe
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.teacher import is_server

TRIES = 4  # how often a shard is begun before its workers' deaths are taken to be its fault
OBJECT_STORE_BYTES = 200_000_000  # of a cluster that is started here: only numbers and texts pass through it
_PACKAGES = (
    "rba-bench", "espeakng-loader", "numpy", "onnxruntime", "piper-tts", "pyarrow", "soundfile", "soxr", "torch",
    "transformers",
)  # fmt: skip


class RayOptions(Recipe):
    """Where and with what a set is made on Ray; nothing of it changes a byte of the set."""

    address: str | None = Field(
        None,
        description="`auto`, or HOST:PORT of a cluster's head; null: RAY_ADDRESS, or else a cluster on this machine",
    )
    teachers: int | None = Field(
        None,
        ge=1,
        description="processes that ask: each loads a local teacher, or sends `requests` to a server; null: one, or "
        "one for each GPU that is left",
    )
    teacher_cpus: float | None = Field(
        None, ge=0, description="CPUs of each of them; null: 1, none for a server"
    )
    teacher_gpus: float | None = Field(
        None, ge=0, description="GPUs of each of them; null: 1 where `device` of the recipe is a GPU"
    )
    speaker_cpus: float = Field(1.0, gt=0, description="CPUs of each process that speaks")
    speaker_gpus: float | None = Field(
        None, ge=0, description="GPUs of each of them; null: 1 where a voice or the recogniser is on a GPU"
    )

    @field_validator("address")
    @classmethod
    def _no_client(cls, address: str | None) -> str | None:
        if address is not None and address.startswith("ray://"):
            raise ValueError(
                "the command must run on a machine of the cluster, because all write into one folder: start it there, "
                "with address=auto"
            )
        return address


@dataclass(frozen=True)
class Home:
    """What every process of a run must see, sent to each.

    Attributes:
        out: Folder of the set.
        marker: A file in it.
        token: What the marker holds.
        folder: Current folder of the command; paths of a recipe may begin there.
        versions: Of Python and of the packages that make the bytes.
    """

    out: Path
    marker: str
    token: str
    folder: Path
    versions: Mapping[str, str]

    def enter(self) -> None:
        """Make this process one of the run.

        Raises:
            UserError: its node does not share the folder, or has other versions.
        """
        node = platform.node()
        try:
            seen = (self.out / self.marker).read_text(encoding="utf-8")
        except OSError:
            seen = ""
        if seen != self.token:
            raise UserError(
                f"node {node} does not see what the command wrote into {self.out}: choose --out in a folder that all "
                "nodes share (NFS, Lustre)"
            )
        here = _versions()
        for name in sorted(self.versions.keys() | here.keys()):
            wanted, found = self.versions.get(name, "absent"), here.get(name, "absent")
            if wanted != found:
                raise UserError(
                    f"node {node} has {name} {found} instead of {wanted}: clips would differ; install the same "
                    "versions on all nodes"
                )
        with suppress(OSError):  # a folder of the command's machine alone
            os.chdir(self.folder)


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version(), **package_versions(_PACKAGES)}


@dataclass(frozen=True)
class Shares:
    """Processes of a run, and what each may use.

    Attributes:
        teachers, teacher_cpus, teacher_gpus: Those that ask.
        speakers, speaker_cpus, speaker_gpus: Those that speak.
    """

    teachers: int
    teacher_cpus: float
    teacher_gpus: float
    speakers: int
    speaker_cpus: float
    speaker_gpus: float

    @property
    def cpus(self) -> float:
        """CPUs of all."""
        return self.teachers * self.teacher_cpus + self.speakers * self.speaker_cpus

    @property
    def gpus(self) -> float:
        """GPUs of all."""
        return self.teachers * self.teacher_gpus + self.speakers * self.speaker_gpus


def divide(
    recipe: SynthesisRecipe, options: RayOptions, workers: int | None, cpus: float, gpus: float
) -> Shares:
    """How a run uses a cluster of so many CPUs and GPUs: what the user left open takes what is left.

    Args:
        recipe: Says what needs a GPU.
        options: What the user wants.
        workers: Processes that speak; None for as many as there is room for.
        cpus: Of the cluster.
        gpus: Of the cluster.
    """
    teacher_cpus, teacher_gpus = options.teacher_cpus, options.teacher_gpus
    if teacher_cpus is None:
        teacher_cpus = 0.0 if is_server(recipe) else 1.0
    if teacher_gpus is None:
        teacher_gpus = float(recipe.device.startswith("cuda") and not is_server(recipe))
    speaker_gpus = options.speaker_gpus
    if speaker_gpus is None:
        recogniser = recipe.round_trip is not None and recipe.round_trip.device.startswith("cuda")
        speaker_gpus = float(recogniser or any("device=cuda" in voice for voice in recipe.voices))
    teachers = options.teachers
    if teachers is None:
        spoken = (workers or 1) * speaker_gpus
        teachers = max(1, int((gpus - spoken) / teacher_gpus)) if teacher_gpus else 1
    if not workers:
        room = (cpus - teachers * teacher_cpus) / options.speaker_cpus
        if speaker_gpus:
            room = min(room, (gpus - teachers * teacher_gpus) / speaker_gpus)
        workers = max(1, int(room))
    return Shares(teachers, teacher_cpus, teacher_gpus, workers, options.speaker_cpus, speaker_gpus)


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        shares: How it is used.
        home: What its processes must see.
    """

    shares: Shares
    home: Home


@contextmanager
def ray_cluster(
    recipe: SynthesisRecipe, options: RayOptions, workers: int | None, out: Path
) -> Iterator[Cluster]:
    """Connect to a cluster, or start one here, for the time of a run.

    At the end a cluster that was started here is stopped, and one that was joined is left, which ends what this run has
    in it. A connection that the caller had made stays.

    Raises:
        MissingPrerequisite: Ray is not installed.
        UserError: there is no cluster at the address, or it has another version of Ray.
        RbaError: none can be started here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
    os.environ.setdefault(
        "RAY_BACKEND_LOG_LEVEL", "fatal"
    )  # its logs are files; the rest is for its developers
    address = options.address or os.environ.get("RAY_ADDRESS") or "local"
    if address != "local" and _has_token():
        # `ray start` asks for the token by default, and Ray sends it to HOST:PORT only if told to
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingPrerequisite(f"--engine ray needs Ray: install it with `{extra('ray')}`") from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    given = bool(ray.is_initialized())
    try:
        if not given:
            _connect(recipe, options, workers, address)
        resources = ray.cluster_resources()
        cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        shares = divide(recipe, options, workers, cpus, gpus)
        if shares.cpus > cpus or shares.gpus > gpus:
            say(
                f"this run can use {shares.cpus:g} CPUs and {shares.gpus:g} GPUs, and the cluster has {cpus:g} and "
                f"{gpus:g}: the rest waits for further nodes"
            )
        with _marked(out) as home, watched_head(ray.get_runtime_context().gcs_address):
            yield Cluster(shares, home)
    finally:
        if not given:
            ray.shutdown()


def _answers(address: str, timeout_s: float = 5.0) -> bool:
    """Whether anything takes connections at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def watched_head(address: str, every_s: float = 5.0) -> Iterator[None]:
    """Say so in a line when the head of a cluster at HOST:PORT cannot be reached twice in a row.

    Ray waits for it (a minute by default), then ends this process, exit code 1, without a word.
    """
    ended = threading.Event()

    def watch() -> None:
        missed = 0
        while missed < 2 and not ended.wait(every_s):
            missed = 0 if _answers(address) else missed + 1
        if not ended.is_set():
            say(
                f"the head of the Ray cluster at {address} cannot be reached: unless it comes back, the run stops "
                "soon; finished shards are kept, and the same command goes on"
            )

    watcher = threading.Thread(target=watch, name="head", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextmanager
def _marked(out: Path) -> Iterator[Home]:
    # named like a half-written file: a later run sweeps away what a killed one has left
    token, marker = uuid.uuid4().hex, f".ray.{os.getpid()}.tmp"
    write_atomic(out / marker, token)
    try:
        yield Home(out.resolve(), marker, token, Path.cwd(), _versions())
    finally:
        (out / marker).unlink(missing_ok=True)


def _has_token() -> bool:
    """Whether this user has a token of a Ray cluster (https://docs.ray.io/en/latest/ray-security/token-auth.html)."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path.home() / ".ray" / "auth_token").is_file()


def _connect(recipe: SynthesisRecipe, options: RayOptions, workers: int | None, address: str) -> None:
    import ray

    more: dict[str, Any] = {"address": address}
    if address == "local":
        os.environ.setdefault("RAY_worker_niceness", "0")  # as other worker processes; Ray's would be 15
        cores = os.cpu_count() or 1
        shares = divide(recipe, options, workers or cores, cores, 0.0)
        more |= {
            "num_cpus": max(cores, int(-(-shares.cpus // 1))),
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    stops = signal.getsignal(signal.SIGTERM)
    try:
        if ":" in address and not _answers(address):  # Ray would try for minutes
            raise ConnectionError("no connection")
        ray.init(logging_level=logging.ERROR, **more)
    except Exception as error:  # plain ones too, where its processes do not start in time
        if address == "local":
            raise RbaError(f"cannot start Ray on this machine ({first_line(error)})") from error
        raise UserError(
            f"cannot join a Ray cluster at {address} ({first_line(error)}): start one with `ray start --head`, copy "
            "its token (~/.ray/auth_token) to this machine, or leave out the address for one on this machine alone"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, stops)  # Ray puts a handler of its own there


def ray_error(error: Exception | None) -> RbaError:
    """One line for what Ray says when a process of the run cannot be started or went away; None says nothing."""
    if error is None:
        error = RuntimeError("a process of the run was killed")
    text = str(error)
    missing = text.partition("No module named ")[2].split("\n", 1)[0].strip(" '\"")
    if missing:
        return MissingPrerequisite(
            f"a node of the cluster has no Python package {missing!r}: install the same packages on all nodes, for "
            f"{sys.executable} or what stands for it there"
        )
    return RbaError(
        f"the Ray cluster failed ({first_line(error)}): finished shards are kept, and the same command goes on"
    )

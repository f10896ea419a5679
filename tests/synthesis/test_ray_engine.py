"""A Ray cluster of two nodes on this machine: the bytes of a local run, whatever is killed meanwhile."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from row_makers import FaultyMaker

from rba_bench.cli.main import main
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import read_json, sha256_file
from rba_bench.synthesis.pipeline import synthesize
from rba_bench.synthesis.ray_cluster import (
    Home,
    RayOptions,
    _versions,
    divide,
    ray_cluster,
    ray_error,
    watched_head,
)
from rba_bench.synthesis.ray_speaking import RaySpeaker, _Board, _wait_until_seen
from rba_bench.synthesis.ray_teacher import RayTeacher
from rba_bench.synthesis.speaking import SpeakJob
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.teacher import find_query, sample_candidates

HERE = Path(__file__)
ROOT = HERE.parents[2]
RECIPE = SynthesisRecipe(n_instructions=12, voices_per_instruction=1, round_size=16, shard_size=2, seed=5)
COMMAND = [
    *(sys.executable, "-m", "rba_bench", "synth", "--engine", "ray", "--workers", "1"),
    *("--set", "n_instructions=12", "--set", "voices_per_instruction=1", "--set", "round_size=16"),
    *("--set", "shard_size=2", "--set", "seed=5", "--set", "kinds=null", "--out"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of the head of a cluster of two nodes with one CPU each, which this process has joined."""
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    from ray.cluster_utils import Cluster as Nodes

    before = dict(os.environ)
    paths = f"{ROOT}{os.pathsep}{HERE.parent}"
    # Ray's workers give way to everything else (niceness 15): on a busy machine they would hardly begin
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PYTHONPATH": paths}
    store = 80 * 2**20
    node = {"num_cpus": 1, "object_store_memory": store, "include_log_monitor": False}
    head = {**node, "include_dashboard": False, "no_monitor": True}
    nodes = Nodes()
    try:
        nodes.add_node(**head)
        nodes.add_node(**node)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of RECIPE, made in this process."""
    pytest.importorskip("espeakng_loader")
    return synthesize(RECIPE, tmp_path_factory.mktemp("local") / "set")


def contents(out: Path) -> dict[str, str]:
    """Hash by name of what stands for the set's content, and of the markers."""
    files = [*out.glob("ask/*"), *out.glob("filter/*"), *out.glob("shards/*"), *out.glob("done/*")]
    return {str(path.relative_to(out)): sha256_file(path) for path in files if "ask-" not in path.name}


def make(fault: str, folder: Path, address: str, harm: Any = None, shards: int = 5) -> dict[str, int]:
    """Rows of the finished shards by name; `harm(speaker)` happens when all shards are handed in."""
    finished: dict[str, int] = {}
    folder.mkdir()
    with ray_cluster(RECIPE, RayOptions(address=address), 2, folder) as cluster:
        maker = FaultyMaker(fault, folder)
        with RaySpeaker(
            cluster, maker, lambda name, marker: finished.update({name: marker["rows"]})
        ) as speaker:
            for number in range(shards):
                units = ("a", "kill") if number == 2 else ("a", "b", "c")
                speaker.hand_in(SpeakJob(folder, f"shards/part-{number}.parquet", "plan", units, number * 3))
            if harm is not None:
                harm(speaker)
            speaker.finish()
    return finished


def ids(folder: Path, finished: dict[str, int]) -> list[str]:
    return [row for name in sorted(finished) for row in pq.read_table(folder / name)["id"].to_pylist()]


ALL_IDS = ["0", "1", "2", "3", "4", "5", "6", "7", "9", "10", "11", "12", "13", "14"]


def test_two_nodes_make_the_bytes_of_one_process(tmp_path: Path, local: Path, address: str) -> None:
    out = synthesize(RECIPE, tmp_path / "set", workers=1, ray=RayOptions(address=address))
    assert contents(out) == contents(local)
    assert read_json(out / "manifest.json")["checksums"] == read_json(local / "manifest.json")["checksums"]
    assert not list(out.glob(".ray.*"))


def test_a_killed_worker_loses_nothing_and_makes_nothing_twice(tmp_path: Path, address: str) -> None:
    out = tmp_path / "out"
    assert ids(out, make("killed", out, address)) == ALL_IDS
    assert (out / "6.note").is_file()  # a worker was killed indeed


@pytest.mark.slow
def test_the_run_goes_on_where_its_list_of_jobs_is_killed(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    out = tmp_path / "out"
    finished = make("", out, address, harm=lambda speaker: ray.kill(speaker._pass._board))
    assert ids(out, finished) == ALL_IDS
    assert "a part of the cluster was lost" in capsys.readouterr().err


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_ends_the_run_in_one_line(tmp_path: Path, address: str) -> None:
    with pytest.raises(
        RbaError, match=r"part-2.parquet were killed 4 times.*--workers.*the same command goes on"
    ):
        make("always", tmp_path / "out", address)


def test_an_error_in_a_worker_is_the_runs(tmp_path: Path, address: str) -> None:
    with pytest.raises(UserError, match=r"^no voice of that name$"):
        make("refuses", tmp_path / "out", address)


@pytest.mark.slow
def test_a_teacher_that_is_killed_is_asked_again(tmp_path: Path, address: str) -> None:
    import ray

    query = find_query(RECIPE)
    with (
        ray_cluster(RECIPE, RayOptions(address=address), 1, tmp_path) as cluster,
        RayTeacher(cluster, RECIPE, query) as teacher,
    ):
        before = sample_candidates(teacher, RECIPE, 0, query)
        (process,) = teacher._processes
        killer = threading.Timer(0.2, lambda: ray.kill(process, no_restart=False))
        killer.start()
        assert sample_candidates(teacher, RECIPE, 0, query) == before
        killer.join()


def test_a_missing_teacher_is_told_in_its_own_line(tmp_path: Path, address: str) -> None:
    lost = RECIPE.model_copy(update={"teacher": str(tmp_path / "nowhere")})
    with (
        ray_cluster(lost, RayOptions(address=address), 1, tmp_path) as cluster,
        RayTeacher(cluster, lost, None) as teacher,
        pytest.raises(MissingPrerequisite, match="nowhere") as caught,
    ):
        sample_candidates(teacher, RECIPE, 0, find_query(RECIPE))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_killed_command_goes_on_and_keeps_what_it_had(tmp_path: Path, local: Path, address: str) -> None:
    out = tmp_path / "set"
    environment = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([*COMMAND, str(out)], env=environment, stderr=subprocess.DEVNULL)
    first, until = out / "done" / "part-00000.json", time.monotonic() + 900
    while not first.exists() and time.monotonic() < until and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = {path: path.stat().st_mtime_ns for path in out.glob("shards/*.parquet")}
    assert first.exists() and not (out / "manifest.json").exists()
    subprocess.run([*COMMAND, str(out)], env=environment, check=True)
    marked = {path: path.stat().st_mtime_ns for path in done if (out / "done" / f"{path.stem}.json").exists()}
    assert marked and {path: done[path] for path in marked} == marked
    assert contents(out) == contents(local)


def test_a_head_that_goes_away_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with watched_head(address, every_s=0.05):
            time.sleep(0.5)
            assert capsys.readouterr().err == ""
            server.close()
            time.sleep(0.5)
        told = capsys.readouterr().err
    assert told.count("cannot be reached") == 1 and address in told and told.count("\n") == 1


def test_a_token_of_a_cluster_is_sent_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray start` of Ray 2.60 asks for it, and a driver that names HOST:PORT sends it only in this mode."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)

    def mode(address: str | None) -> str | None:
        with (
            pytest.raises(MissingPrerequisite),
            ray_cluster(RECIPE, RayOptions(address=address), 1, tmp_path),
        ):
            pass
        return os.environ.pop("RAY_AUTH_MODE", None)

    assert mode("head:6379") is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t")
    assert mode(None) is None  # a cluster of its own: Ray's own ways
    assert mode("head:6379") == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert mode("head:6379") == "disabled"


@pytest.mark.slow
def test_a_killed_head_ends_the_run_and_the_same_command_goes_on(tmp_path: Path, local: Path) -> None:
    psutil = pytest.importorskip("psutil")
    ray = Path(sys.executable).with_name("ray")
    if not ray.is_file():
        pytest.skip("Ray is not installed")
    out = tmp_path / "set"
    environment = {
        **os.environ,
        **{"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PYTHONPATH": str(ROOT)},
        "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
    }
    start = [
        *(str(ray), "start", "--head", "--port=0", "--num-cpus=2", "--include-dashboard=false"),
        *("--object-store-memory=80000000", f"--temp-dir={tempfile.mkdtemp(prefix='ray')}"),
    ]

    def head() -> tuple[str, int]:
        before = {process.pid for process in psutil.process_iter()}
        with open(tmp_path / "start.log", "w") as log:  # no pipe: the head would hold its other end
            subprocess.run(start, env=environment, check=True, stdout=log, stderr=log)
        found = re.search(r"--address='([^']+)'", (tmp_path / "start.log").read_text())
        (server,) = (
            each for each in psutil.process_iter() if each.pid not in before and each.name() == "gcs_server"
        )
        assert found is not None
        return found[1], server.pid

    try:
        address, server = head()
        command = [*COMMAND, str(out), "--ray", f"address={address}"]
        child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        first, until = out / "done" / "part-00000.json", time.monotonic() + 900
        while not first.exists() and time.monotonic() < until and child.poll() is None:
            time.sleep(0.002)
        os.kill(server, signal.SIGKILL)
        _, told = child.communicate(timeout=300)
        if child.returncode:  # it may have had all it needed
            assert child.returncode == 1 and "cannot be reached" in told
        address, _ = head()
        command = [*COMMAND, str(out), "--ray", f"address={address}"]
        subprocess.run(command, env=environment, check=True)
        assert contents(out) == contents(local)
    finally:
        subprocess.run([str(ray), "stop", "--force"], env=environment, capture_output=True)


def test_a_node_that_does_not_share_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / ".ray.1.tmp").write_text("token")
    Home(tmp_path, ".ray.1.tmp", "token", Path.cwd(), _versions()).enter()
    with pytest.raises(
        UserError, match=r"^node .* does not see .*choose --out in a folder that all nodes share"
    ):
        Home(tmp_path, ".ray.1.tmp", "another", Path.cwd(), _versions()).enter()
    with pytest.raises(UserError, match="does not see"):
        Home(tmp_path / "elsewhere", ".ray.1.tmp", "token", Path.cwd(), _versions()).enter()


def test_a_node_with_other_versions_is_named(tmp_path: Path) -> None:
    (tmp_path / ".ray.1.tmp").write_text("token")
    older = {**_versions(), "soxr": "0.4.0"}
    with pytest.raises(UserError, match=r"node .* has soxr .* instead of 0\.4\.0"):
        Home(tmp_path, ".ray.1.tmp", "token", Path.cwd(), older).enter()


def test_what_the_user_leaves_open_takes_what_is_left() -> None:
    shares = divide(RECIPE, RayOptions(), None, 16, 0)
    assert (shares.teachers, shares.teacher_cpus, shares.speakers) == (1, 1.0, 15)
    server = RECIPE.model_copy(update={"teacher": "openai:http://localhost:1/v1#m"})
    assert divide(server, RayOptions(teachers=4), None, 16, 0).speakers == 16
    assert divide(RECIPE, RayOptions(speaker_cpus=2), None, 16, 0).speakers == 7
    assert divide(RECIPE, RayOptions(), 3, 16, 0).speakers == 3
    assert divide(RECIPE, RayOptions(), None, 1, 0).speakers == 1  # never none
    gpu = RECIPE.model_copy(update={"device": "cuda:0"})
    shares = divide(gpu, RayOptions(), None, 64, 8)
    assert (shares.teachers, shares.teacher_gpus, shares.speaker_gpus) == (8, 1.0, 0.0)
    cloned = RECIPE.model_copy(update={"voices": ("hf:facebook/mms-tts-eng?device=cuda",)})
    shares = divide(cloned, RayOptions(speaker_gpus=0.25), None, 64, 2)
    assert (shares.teachers, shares.speakers) == (1, 8)


def test_the_board_tells_each_job_until_it_is_finished() -> None:
    job = SpeakJob(Path(), "shards/part-0.parquet", "plan", ("a",), 0)

    async def use() -> None:
        board = _Board()
        waiting = asyncio.create_task(
            board.has(1)
        )  # as the source of the data set does, before there is a job
        await board.add(0, job)
        await asyncio.sleep(0)
        assert await board.has(0) and not waiting.done()
        assert await board.begin(0) == (job, 1) and await board.begin(0) == (job, 2)
        await board.finished(0)
        assert await board.begin(0) == (None, 0)
        assert await board.has(0)  # a source that is read again counts the same jobs
        await board.add(1, job)
        assert await waiting
        await board.end()
        assert await board.begin(1) == (None, 0) and await board.has(1) and not await board.has(2)

    asyncio.run(use())


def test_a_file_that_never_appears_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rba_bench.synthesis.ray_speaking.SEEN_S", 0.0)
    here, lost = tmp_path / "part-0.parquet", tmp_path / "part-1.parquet"
    here.write_bytes(b"x")
    _wait_until_seen([here])
    with pytest.raises(RbaError, match="part-1.parquet was written by another node and does not appear"):
        _wait_until_seen([here, lost])


def test_a_package_that_a_node_lacks_is_named() -> None:
    raised = RuntimeError("The actor died.\nModuleNotFoundError: No module named 'rba_bench'\n")
    told = ray_error(raised)
    assert isinstance(told, MissingPrerequisite) and "no Python package 'rba_bench'" in str(told)
    assert str(ray_error(RuntimeError("lost\nmore"))).startswith(
        "the Ray cluster failed (lost): finished shards"
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--engine", "rays"], "unknown engine 'rays'; did you mean 'ray'?"),
        (["--engine", "nonsense"], "unknown engine 'nonsense'; valid: processes, ray"),
        (["--ray", "address=auto"], "--ray belongs to --engine ray"),
        (["--engine", "ray", "--ray", "adress=auto"], "did you mean 'address'?"),
        (["--engine", "ray", "--ray", "address=ray://head:10001"], "must run on a machine of the cluster"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["synth", *options, "--out", str(tmp_path / "set")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and told in error and error.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_ray_is_named_where_it_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(
            MissingPrerequisite, match=r"--engine ray needs Ray: install it with `pip install .*\[ray\]"
        ),
        ray_cluster(RECIPE, RayOptions(), 1, tmp_path),
    ):
        pass


def test_an_address_without_a_cluster_is_one_line(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        pytest.skip("this process has joined a cluster already")
    with (
        pytest.raises(UserError, match=r"^cannot join a Ray cluster at 127\.0\.0\.1:1 .*ray start --head"),
        ray_cluster(RECIPE, RayOptions(address="127.0.0.1:1"), 1, tmp_path),
    ):
        pass

"""Worker processes: killed, failing, and left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from row_makers import FaultyMaker

from rba_bench.errors import RbaError, UserError
from rba_bench.synthesis.speaking import ShardSpeaker, SpeakJob

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from row_makers import FaultyMaker
from rba_bench.synthesis.speaking import ShardSpeaker, SpeakJob
if __name__ == "__main__":
    with ShardSpeaker(FaultyMaker("sleeps", Path({folder!r})), 1, print) as speaker:
        speaker.hand_in(SpeakJob(Path({folder!r}), "shards/part-00000.parquet", "p", ("a",), 0))
        speaker.finish()
"""


def make(fault: str, folder: Path, shards: int = 5) -> dict[str, int]:
    """Rows of the finished shards by name."""
    finished: dict[str, int] = {}
    folder.mkdir(exist_ok=True)
    maker = FaultyMaker(fault, folder)
    with ShardSpeaker(maker, 2, lambda name, marker: finished.update({name: marker["rows"]})) as speaker:
        for number in range(shards):
            units = ("a", "kill") if number == 2 else ("a", "b", "c")
            name = f"shards/part-{number:05d}.parquet"
            speaker.hand_in(SpeakJob(folder, name, "plan", units, number * 3))
        speaker.finish()
    return finished


def test_a_killed_worker_is_replaced_and_nothing_is_lost_or_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished = make("killed", tmp_path / "out")
    assert finished == {f"shards/part-{number:05d}.parquet": 2 if number == 2 else 3 for number in range(5)}
    ids = [
        row for name in sorted(finished) for row in pq.read_table(tmp_path / "out" / name)["id"].to_pylist()
    ]
    assert ids == ["0", "1", "2", "3", "4", "5", "6", "7", "9", "10", "11", "12", "13", "14"]
    assert capsys.readouterr().err.count("a worker was killed") == 1


def test_workers_that_are_killed_again_and_again_end_the_run_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RbaError, match=r"killed 4 times.*--workers.*the same command goes on"):
        make("always", tmp_path / "out")


def test_an_error_in_a_worker_is_the_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no voice of that name"):
        make("refuses", tmp_path / "out")


def test_a_worker_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(CHILD.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
    note, until = tmp_path / "0.note", time.monotonic() + 60
    while not (note.is_file() and note.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    worker = int(note.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 20
    while _runs(worker) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _runs(worker)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

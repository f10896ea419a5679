"""What a board of many models costs: `rba-bench leaderboard build` on invented records, timed and measured.

    python benchmarks/board_scale.py                           # 25 to 200 models, 2 to 40 tasks: hours on one core
    python benchmarks/board_scale.py --models 25 50 --tasks 2 --items 500

For each size the records are written by `board_generator` (`rba-bench leaderboard verify` accepts them), and the board
is built twice: first with all records new, each of which is verified (every answer scored again), then again, when
the records are known and only read, compared and published. `verify ms` is the processor time of the first build
beyond the second, per record. `--known` leaves out the first build, which takes long where records are thousands: the
writer of the records notes them as verified. Memory is the most that all processes of a build hold together (sum of
their proportional set sizes), looked at ten times a second. The records of a task repeat five answers to each item, and
a score that was computed is found again for the next model with the same answer: `verify ms` is a lower bound for long
answers, which are all different. Records of a smaller board are part of the larger one, so `--out FOLDER`
keeps and reuses them.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from board_generator import make_task, write_record

from rba_bench.evaluation.records import PACKED_FILE
from rba_bench.files import sha256_file
from rba_bench.leaderboard.item_facts import items_sha256
from rba_bench.leaderboard.loaded_runs import open_run
from rba_bench.leaderboard.verified_records import Verified, VerifiedRecords, key_of
from rba_bench.progress import silenced

LOOKED_S = 1.0  # between two looks at the memory; a look walks through all pages and costs the processes time
MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """Of one command.

    Attributes:
        wall: Seconds.
        cpu: Seconds of processor time of all its processes.
        memory: The most bytes of all its processes together.
    """

    wall: float
    cpu: float
    memory: int


def write_task(number: int, models: int, items: int, root: Path) -> int:
    """Records of one task that are not there yet; how many were written."""
    note = root / f"task-{number:02d}.json"
    written: dict[str, Any] = (
        json.loads(note.read_text()) if note.is_file() else {"models": 0, "verified": {}}
    )
    first, verified = written["models"], written["verified"]
    if first < models:
        with tempfile.TemporaryDirectory() as votes, silenced():
            task = make_task(number, items, Path(votes))
        runs = [open_run(write_record(root / "records", task, model)) for model in range(first, models)]
        of_items = items_sha256(runs[0].item_facts)  # of all models the same
        verified |= {key_of(run): (of_items, sha256_file(run.folder / PACKED_FILE)) for run in runs}
        note.write_text(json.dumps({"models": models, "verified": verified}))
    return max(models - first, 0)


def note_as_verified(root: Path, tasks: int) -> None:
    """What a first build would remember of the records below `root`, in the cache folder."""
    known = VerifiedRecords.of_this_code()
    for number in range(tasks):
        for key, facts in json.loads((root / f"task-{number:02d}.json").read_text())["verified"].items():
            known.add(key, Verified(*facts))
    known.save()


def measured(command: list[str]) -> Cost:
    """Run a command and say what it cost.

    Raises:
        SystemExit: it failed.
    """
    before, started, most = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), [0]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(LOOKED_S):
                most[0] = max(most[0], sum(map(_memory, _family(process.pid))))

        watcher = threading.Thread(target=look)
        watcher.start()
        code = process.wait()
        ended.set()
        watcher.join()
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if code:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {code}:\n{said.read().decode()[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, most[0])


def _family(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with suppress(OSError):
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def _memory(pid: int) -> int:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss:")))
    return 0


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description="Cost of boards of invented records by their size.")
    parser.add_argument("--models", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 40])
    parser.add_argument("--items", type=int, default=500, help="of each test set")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes, of writer and build")
    parser.add_argument("--known", action="store_true", help="leave out the build that verifies the records")
    parser.add_argument("--out", type=Path, help="folder that keeps the records; by default they are removed")
    chosen = parser.parse_args()
    root = chosen.out or Path(tempfile.mkdtemp(prefix="board-scale-"))
    print(
        "| models | tasks | records | new: wall s | CPU s | MiB | verify ms | known: wall s | CPU s | MiB | "
        "CPU ms a record |"
    )
    print("|" + " ---: |" * 11)
    try:
        for tasks in sorted(chosen.tasks):
            for models in sorted(chosen.models):
                folder = root / f"{tasks}-tasks"
                print(_line(folder, models, tasks, chosen.items, chosen.workers, chosen.known), flush=True)
    finally:
        if chosen.out is None:
            shutil.rmtree(root)


def _line(root: Path, models: int, tasks: int, items: int, workers: int, known_only: bool) -> str:
    root.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(write_task, number, models, items, root) for number in range(tasks)]
        written = sum(job.result() for job in jobs)
    print(f"{written} records written in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    board, cache, records = root / "board", root / "cache", models * tasks
    for folder in (board, cache):
        shutil.rmtree(folder, ignore_errors=True)
    os.environ["RBA_CACHE"], os.environ["OMP_NUM_THREADS"] = str(cache), "1"
    command = [sys.executable, "-m", "rba_bench", "leaderboard", "build", str(root / "records")]
    command += ["--out", str(board), "--workers", str(workers)]
    first = ["-"] * 4
    if known_only:
        note_as_verified(root, tasks)
    else:
        new = measured(command)
        shutil.rmtree(board)
    known = measured(command)
    if not known_only:
        beyond = f"{1000 * (new.cpu - known.cpu) / records:.0f}"
        first = [f"{new.wall:.1f}", f"{new.cpu:.1f}", f"{new.memory / MIB:.0f}", beyond]
    second = [f"{known.wall:.1f}", f"{known.cpu:.1f}", f"{known.memory / MIB:.0f}"]
    cells = [models, tasks, records, *first, *second, f"{1000 * known.cpu / records:.1f}"]
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()

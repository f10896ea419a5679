"""The simulation programme prints its tables, and does not stand in the way of the standard library's `statistics`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*arguments: str, folder: Path = ROOT) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=300
    ).stdout


def test_the_quick_tables_are_whole() -> None:
    printed = run("benchmarks/statistics.py", "--quick")
    tables = [block.splitlines() for block in printed.split("### ")[1:]]
    assert [lines[0].split(":")[0] for lines in tables] == [
        "Two systems, 0/1 items",
        "One system, independent items",
        "One system, clusters",
        "Two equal systems, clusters",
        "What a score retains, 0/1 items",
        "Boards of 10 equal systems that order some pair, %",
        "The same by own intervals, %",
        "Power",
        "Studies of 3 seeds, equal methods",
    ]
    for _title, _, head, _rule, *lines in tables:
        rows = [line for line in lines if line.startswith("|")]
        assert rows and all(row.count("|") == head.count("|") for row in rows)


def test_scripts_beside_it_get_the_standard_library() -> None:
    assert (
        run("-c", "import statistics; print(statistics.median([1, 5, 2]))", folder=ROOT / "benchmarks")
        == "2\n"
    )

"""The simulation of large sets runs, and says what RESULTS.md tells of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_small_simulation_is_measured_from_start_to_end() -> None:
    pytest.importorskip("datasketch")
    script = ROOT / "benchmarks" / "synthesis_scale.py"
    options = ["--rows", "200", "--stage-rows", "100", "--round-size", "32", "--shard-size", "10"]
    done = subprocess.run(
        [sys.executable, script, *options], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    stages, *whole = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert set(stages["CPU ms a row"]) == {"ask", "filter", "speak"} and stages["CPU ms a row, all"] > 0
    assert [each["what"] for each in whole] == [
        "the whole",
        "again, without the last shard",
        "again, finished",
    ]
    assert whole[0]["rows/s"] > 0 and whole[0]["driver MB"] > 0

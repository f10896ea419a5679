"""The measurements for a GPU, tried on a tiny model on the CPU."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    return gpu


STEP = {
    "step_s": 0.5,
    "rollout_s": 0.2,
    "encoding_s": 0.1,
    "clips_per_s": 64.0,
    "tflops": 250.0,
    "peak_gib": 70.0,
}


def test_what_is_measured_is_on_disk_after_each_part(gpu: Any, tmp_path: Path) -> None:
    facts = {"device": "a GPU", "torch": "2", "shape": "small", "dtype": "bfloat16", "command": "gpu.py"}
    report = gpu.Report(tmp_path, facts)
    report.add("matmul", {"tflops": 500.0, "size": 8192})
    report.add("sft", STEP)
    assert "| sft | 0.500 | 0.200 | 0.100 | 64.0 | 250.00 | 50% | 70.0 |" in (tmp_path / "gpu.md").read_text()
    report.add("dpo", {"failed": "OutOfMemoryError: 80 GiB"})
    table = (tmp_path / "gpu.md").read_text()
    assert "| dpo | OutOfMemoryError: 80 GiB |" in table and "| rba-group | not run |" in table
    assert json.loads((tmp_path / "gpu.json").read_text())["sft"] == STEP


def test_too_little_memory_costs_one_part_alone(gpu: Any) -> None:
    import torch

    def too_big() -> dict[str, Any]:
        raise torch.OutOfMemoryError("out of memory\nand more")

    assert gpu.attempt(too_big, "cpu") == {"failed": "OutOfMemoryError: out of memory"}


@pytest.mark.slow
def test_every_part_runs_on_a_tiny_model(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--shape", "tiny", "--device", "cpu", "--budget", "60"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [name for name, part in found.items() if "failed" in part] == []
    for method in ("sft", "dpo", "rba-single", "rba-group"):
        assert found[method]["tflop_a_step"] > 0 and found[method]["steps"] >= 1
    assert found["rba-single"]["rollout_s"] > 0 == found["sft"]["rollout_s"]
    assert found["generation"]["engine"]["rows_per_s"] > 0 < found["generation"]["generate"]["rows_per_s"]
    assert len(found["profile"]["top"]) == 20 and "aten::mm" in (tmp_path / "profile.txt").read_text()
    assert done.stdout == (tmp_path / "gpu.md").read_text() + "\n"

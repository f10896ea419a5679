"""Contestants of the trainer's benchmarks: processes that take turns step by step, and what they are measured by.

No import of either side's library here: the file is read in two environments.
"""

import json
import os
import subprocess
from dataclasses import dataclass, field
from typing import Any

from trainer_shapes import median


@dataclass
class Contestant:
    """A process that trains step by step.

    Attributes:
        name: row of the table.
        command: what to start.
        paths: PYTHONPATH of the process, in front of ours.
        facts: what it reported beside steps, with its peak memory.
        times: seconds of each step; after a race without the first.
        cpu: processor seconds of each step, all threads together; likewise.
    """

    name: str
    command: list[str]
    paths: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    process: Any = None

    def start(self, threads: int) -> None:
        """Start and wait until it is ready to train."""
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
        env |= {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
        env["OMP_WAIT_POLICY"] = "passive"  # who waits for its turn leaves the processor to the others
        if self.paths:
            env["PYTHONPATH"] = self.paths
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, bufsize=1
        )

    def hear(self) -> dict[str, Any]:
        """The next report."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early: {' '.join(self.command)}")
        report: dict[str, Any] = json.loads(line)
        return report

    def step(self) -> None:
        """One step; its report is kept."""
        self.process.stdin.write("\n")
        report = self.hear()
        self.times.append(report["seconds"])
        self.cpu.append(report["cpu"])
        self.facts["peak_mb"] = report["peak_mb"]
        if report.get("tflop"):
            self.facts["tflop"] = report["tflop"]

    def finish(self) -> None:
        """Take the last report and let it end."""
        self.facts |= self.hear()
        self.process.wait()

    @property
    def seconds(self) -> float:
        """Of a step, median."""
        return median(self.times)

    def share(self, rate: float) -> str:
        """Of the machine's rate of matrix products, in words: what the step computed (TFLOP) over its time."""
        return f"{self.facts['tflop'] * 1000 / self.seconds / rate:.0%}" if self.facts.get("tflop") else ""


def race(contestants: list[Contestant], steps: int, threads: int) -> None:
    """Let them take turns: one step that warms up and is counted, then the measured ones."""
    for one in contestants:
        one.start(threads)
        one.facts |= one.hear()
    for _ in range(steps + 1):
        for one in contestants:
            one.step()
    for one in contestants:
        one.finish()
        one.times, one.cpu = one.times[1:], one.cpu[1:]


def matmul_rate(python: str, threads: int) -> float:
    """GFLOP/s of float32 matrix products on this machine: the best of several sizes, each the best of several tries."""
    code = """
import time, torch
best = 0.0
for rows, inner, columns in ((2048, 2048, 2048), (4096, 4096, 2048), (2048, 576, 1536), (2048, 1536, 576)):
    a, b = torch.randn(rows, inner), torch.randn(inner, columns)
    for _ in range(8):
        started = time.perf_counter()
        for _ in range(4):
            a @ b
        best = max(best, 8 * rows * inner * columns / (time.perf_counter() - started) / 1e9)
print(best)
"""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return float(subprocess.check_output([python, "-c", code], env=env, text=True))

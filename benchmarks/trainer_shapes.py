"""What both sides of `trainer_speed.py` share: the model, the pairs, and how a contestant waits for its turn.

No import of either side's library here: the file is read in two environments.
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

RATE = 16_000
BATCH = 8  # pairs a step
BETA = 0.1
LEARNING_RATE = 1e-5
NOISE = 0.02  # policy minus reference, in standard deviations of each weight, where losses are compared


@dataclass(frozen=True)
class Shape:
    """A model and the length of its sequences.

    Attributes:
        encoder: settings of the audio tower (Whisper's architecture, stride 4: 25 tokens a second).
        decoder: settings of the language model (Qwen2's).
        seconds: mean length of a clip; lengths are spread by a fifth around it.
        text: mean text tokens of a sequence, template included.
    """

    encoder: dict[str, int]
    decoder: dict[str, int]
    seconds: float
    text: int


SHAPES = {
    "encoder": Shape(
        encoder={"encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "d_model": 384},
        decoder={
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "vocab_size": 8_192,
        },
        seconds=4.0,
        text=40,
    ),
    "decoder": Shape(
        encoder={"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 512, "d_model": 128},
        decoder={
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 8,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "vocab_size": 8_192,
        },
        seconds=4.0,
        text=150,
    ),
}


@dataclass(frozen=True)
class PairRow:
    """One preference pair: clip number `clip`, the text beside it, and two answers."""

    clip: int
    prompt: str
    chosen: str
    rejected: str


def write_pairs(folder: Path, rows: Sequence[PairRow]) -> None:
    """`pairs.json`; the clips lie beside it, as `NUMBER.flac` and, decoded, as `NUMBER.npy`."""
    (folder / "pairs.json").write_text(json.dumps([asdict(row) for row in rows]))


def read_pairs(folder: Path) -> tuple[list[PairRow], list[np.ndarray]]:
    """The pairs, and the clips' waves."""
    rows = [PairRow(**row) for row in json.loads((folder / "pairs.json").read_text())]
    return rows, [np.load(folder / f"{number}.npy") for number in range(len({row.clip for row in rows}))]


class Turns:
    """A contestant's end of the line: says when it is ready, waits to be called, reports each step.

    Steps of all contestants are interleaved by the parent, so that a slow minute of the machine hits them all alike.
    Reports go to the stdout the process was started with; what libraries print goes to stderr.
    """

    def __init__(self) -> None:
        self.counter: Any = None
        self.line: TextIO = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self.baseline_mb = resident_mb()
        self.started = self.cpu = 0.0

    def say(self, **facts: Any) -> None:
        """One JSON line to the parent."""
        self.line.write(json.dumps(facts) + "\n")

    def wait(self) -> None:
        """Until the parent calls."""
        if not sys.stdin.readline():
            raise SystemExit("the parent is gone")
        self.counter = operations() if self.counter is None else False
        if self.counter:  # the first step, which is not timed
            self.counter.__enter__()
        self.started, self.cpu = time.perf_counter(), time.process_time()

    def done(self, **facts: Any) -> None:
        """Report the step that `wait` began."""
        cpu = time.process_time() - self.cpu
        if self.counter:
            self.counter.__exit__(None, None, None)
            facts["tflop"] = self.counter.get_total_flops() / 1e12
        self.say(seconds=time.perf_counter() - self.started, cpu=cpu, peak_mb=peak_mb(), **facts)


def operations() -> Any:
    """Counts multiplications and additions of matrix products, convolutions and attention, forward and backward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(grad, query, key, value))

    kernels = torch.ops.aten  # torch 2.13 counts the kernels of GPUs only
    on_cpu = {
        kernels._scaled_dot_product_flash_attention_for_cpu: forward,
        kernels._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    return FlopCounterMode(display=False, custom_mapping=on_cpu)


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mb() -> float:
    """Most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def median(values: Sequence[float]) -> float:
    """Median; NaN of nothing."""
    return statistics.median(values) if values else float("nan")

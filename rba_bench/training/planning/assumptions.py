"""What an estimate of a training run rests on: assumptions, the alignment set, and hardware.

`Assumptions` are values that neither recipe nor model give; each can be set with `--assume KEY=VALUE`. `DataEstimate`
holds the numbers of groups and voices and the mean lengths of clips and answers, read from the alignment set or
assumed. `Device` is an accelerator that a run could use: a row of `DEVICES`, or this machine as `probe_device` measures
it.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rba_bench.errors import UserError
from rba_bench.recipes import Recipe, load_recipe
from rba_bench.training.training_recipe import TrainingRecipe

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class Assumptions(Recipe):
    """Values that the estimate assumes; null means: from the alignment set if it exists, else the value in brackets."""

    # instructions to train on (250,000: the paper's million clips in four voices)
    groups: Positive | None = None
    voices: Positive | None = None  # clips of an instruction (voices_per_group)
    seconds: Rate | None = None  # length of a clip (5)
    answer_tokens: Positive | None = None  # of a teacher's answer (250)
    text_tokens: Positive = 30  # of a prompt beside the audio: template and system line
    # share of the peak rate that training reaches; from 0.3 to 0.5 is usual for 7B on 8 devices
    mfu: Share = 0.35
    decode_share: Share = 0.5  # share of the memory's bandwidth that sampling reaches
    redraws: Annotated[float, Field(ge=0)] = 0.5  # further groups sampled for each group, with DAPO
    overhead_gb: Annotated[float, Field(ge=0)] = 2.0  # memory of framework and libraries on a device
    fragmentation: Annotated[float, Field(ge=0)] = 0.1  # share of memory that the allocator wastes
    reward_parameters: Rate | None = None  # of the model that judges samples, where it is not known
    teacher_parameters: Rate | None = None  # of the text teacher, where it is not known


def parse_assumptions(overrides: Sequence[str]) -> Assumptions:
    """Assumptions from `--assume` strings.

    Raises:
        UserError: an unknown key or an invalid value.
    """
    try:
        return load_recipe(Assumptions, None, overrides)
    except UserError as error:
        raise UserError(str(error).replace("--set", "--assume")) from error


SHARDS_READ = 4  # of each set: enough for means
TOKENS_PER_WORD = 1.4  # of answers in the languages of the paper, by the tokenizers of their models


@dataclass(frozen=True)
class DataEstimate:
    """What is trained on.

    Attributes:
        groups: instructions.
        voices: clips of each, as many as are used.
        seconds: mean length of a clip.
        answer_tokens: mean length of a teacher's answer.
        source: where this comes from.
    """

    groups: int
    voices: int
    seconds: float
    answer_tokens: float
    source: str


def data_estimate(recipe: TrainingRecipe, assumed: Assumptions) -> DataEstimate:
    """Estimate from the recipe's alignment sets if all of them exist; values of `assumed` take precedence."""
    folders = [Path(choice.path) for choice in recipe.alignment_sets]
    if all((folder / "manifest.json").is_file() for folder in folders):
        estimate = _read_sets(folders)
    else:
        estimate = DataEstimate(250_000, recipe.voices_per_group, 5.0, 250.0, "assumed")
    return DataEstimate(
        assumed.groups or estimate.groups,
        min(assumed.voices or estimate.voices, recipe.voices_per_group),
        assumed.seconds or estimate.seconds,
        float(assumed.answer_tokens or estimate.answer_tokens),
        estimate.source,
    )


def _read_sets(folders: list[Path]) -> DataEstimate:
    """Means over the first shards of each set; numbers of rows from all of them."""
    import pyarrow.parquet as pq

    rows, sampled, seconds, words = 0, 0, 0.0, 0
    groups: set[tuple[str, str]] = set()
    for folder in folders:
        shards = sorted((folder / "shards").glob("*.parquet"))
        rows += sum(pq.ParquetFile(shard).metadata.num_rows for shard in shards)
        for shard in shards[:SHARDS_READ]:
            table = pq.read_table(shard, columns=["group_id", "duration", "response"]).to_pydict()
            sampled += len(table["duration"])
            seconds += sum(table["duration"])
            words += sum(len(response.split()) for response in table["response"])
            groups |= {(str(folder), name) for name in table["group_id"]}
    voices = sampled / max(len(groups), 1)
    return DataEstimate(
        max(1, round(rows / max(voices, 1))),
        max(1, round(voices)),
        seconds / max(sampled, 1),
        max(1.0, TOKENS_PER_WORD * words / max(sampled, 1)),
        ", ".join(map(str, folders)),
    )


DEVICES_PER_NODE = 8  # devices that share fast links
INTER_NODE_BANDWIDTH = 40.0  # 10^9 bytes a second and device


@dataclass(frozen=True)
class Device:
    """One accelerator.

    Attributes:
        name: as its maker calls it.
        memory_gb: in 10^9 bytes.
        tflops: dense peak in bfloat16 with float32 accumulation (float32 for a processor), 10^12 operations a second.
        bandwidth: of its memory, 10^9 bytes a second.
        link: to the others of its node, each way, 10^9 bytes a second; between nodes `INTER_NODE_BANDWIDTH`.
    """

    name: str
    memory_gb: float
    tflops: float
    bandwidth: float
    link: float


# From the data sheets of the makers
DEVICES = (
    Device("RTX 4090", 24, 165, 1008, 25),
    Device("A40", 48, 150, 696, 50),
    Device("A100 80GB", 80, 312, 2039, 300),
    Device("H100 80GB", 80, 989, 3350, 450),
    Device("H200", 141, 989, 4800, 450),
)
# Hardware that a plan lists, smallest first: devices and how many. The paper had 128 A100 and 64 A40.
CLUSTERS = (
    ("RTX 4090", 1), ("A40", 1), ("A100 80GB", 1), ("H100 80GB", 1), ("H200", 1),
    ("RTX 4090", 8), ("A40", 8), ("A100 80GB", 8), ("H100 80GB", 8), ("H200", 8),
    ("H100 80GB", 32), ("A40", 64), ("A100 80GB", 128),
)  # fmt: skip


def probe_device(hidden: int, ffn: int, seconds: float = 1.0) -> Device:
    """Measure this machine: matrix products of the model's widths, and copying.

    Args:
        hidden: width of the model.
        ffn: width inside its layers.
        seconds: of each measurement.
    """
    import torch

    cuda = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)
    rows = 4096 if cuda else 512
    states = torch.randn(rows, hidden, device=device, dtype=dtype)
    weights = torch.randn(hidden, ffn, device=device, dtype=dtype)
    flops = _calls_per_second(lambda: states @ weights, seconds, cuda) * 2 * rows * hidden * ffn
    block = torch.zeros(2**28 if cuda else 2**25, device=device)
    bandwidth = _calls_per_second(lambda: block.clone(), seconds, cuda) * 2 * block.numel() * 4
    if cuda:
        name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    else:
        name, memory = f"this machine ({torch.get_num_threads()} threads)", _physical_memory()
    return Device(name, memory / 1e9, flops / 1e12, bandwidth / 1e9, 10.0)


def _calls_per_second(work: Callable[[], object], seconds: float, cuda: bool) -> float:
    import torch

    work()
    if cuda:
        torch.cuda.synchronize()
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work()
        calls += 1
        if cuda:
            torch.cuda.synchronize()
    return calls / (time.perf_counter() - started)


def _physical_memory() -> float:
    """Bytes; 0 where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):  # not on this system
        return 0.0

"""What the user asks to be evaluated."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rba_bench.evaluation.decoding import DEFAULT_SEED
from rba_bench.evaluation.registry import DECODINGS

BATCH_SIZE = 32


@dataclass(frozen=True)
class EvalRequest:
    """What to evaluate.

    Attributes:
        tasks: Task names, group names, benchmark names or YAML paths; see `registry.resolve`.
        model: See `rba_bench.speechlm.load.load`.
        track: `micro` or `full`.
        out: Folder of the run records, and of the cache of answers.
        limit: Only the first items of each task; marks the records as partial.
        decodings: Protocols to run for benchmarks given by short name.
        seed: Base seed of sampled decoding.
        batch_size: Most clips per batch.
        batch_seconds: Most audio per batch in seconds, None for a default by batch size.
        device: Torch device; by default a GPU if there is one.
        data_dir: Folder with local copies of data sets, None to ask the Hub.
        judge: Model that judges instead of the tasks' own; `none` leaves judged metrics out.
        baseline: File or run folder with answers to beat, instead of the tasks' own.
        perturb: What is done to every clip, such as `noise=10dB,telephone`.
        use_cache: Whether answers kept by other runs in `out` are taken.
        retry_errors: Ask again for items that an earlier attempt could not answer, or a judge could not judge.
        trust: Run Python code that task files of others name; `model_options` has `trust_remote_code` for models.
        model_options: Passed on to the model's loader.
    """

    tasks: tuple[str, ...]
    model: str
    track: str = "micro"
    out: Path = Path("runs/eval")
    limit: int | None = None
    decodings: tuple[str, ...] = DECODINGS
    seed: int = DEFAULT_SEED
    batch_size: int = BATCH_SIZE
    batch_seconds: float | None = None
    device: str | None = None
    data_dir: Path | None = None
    judge: str | None = None
    baseline: str | None = None
    perturb: str = ""
    use_cache: bool = True
    retry_errors: bool = False
    trust: bool = False
    model_options: dict[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """What the tasks' data loading must know, as `lm_eval --metadata` would say it."""
        told = {"data_dir": self.data_dir, "baseline": self.baseline}
        return {name: str(value) for name, value in told.items() if value is not None}

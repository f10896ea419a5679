"""What a finisher is: scores added after all answers exist."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rba_bench.evaluation.metric import Metric
from rba_bench.evaluation.records import Sample


@dataclass(frozen=True)
class Addition:
    """What a finisher adds to one sample.

    Attributes:
        scores: Per metric a number; a metric that could not be computed for this item is absent, never 0.
        judge: Votes with reasons, merged into `Sample.judge`.
        failed: Why there is no score; the sample becomes `judge_failed`.
    """

    scores: dict[str, float] = field(default_factory=dict)
    judge: dict[str, Any] | None = None
    failed: str = ""


@dataclass(frozen=True)
class Cost:
    """What finishing would take, before any call is made.

    Attributes:
        calls: Requests to the judge.
        cached: Votes that are already kept.
        prompt_tokens: Estimate over all calls.
        completion_tokens: Estimate over all calls, an upper bound.
        dollars: By the price list, None if the model is not on it; 0.0 for local models.
    """

    calls: int
    cached: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float | None = None


@dataclass(frozen=True)
class FinishOptions:
    """What the user says about finishing; a task's own settings stand behind it.

    Attributes:
        judge: Model that judges (`openai:<base_url>#<model>`, folder, Hub id), None for the task's own, `none` to
            leave judged metrics out.
        baseline: File with answers to beat, or a run folder, None for the task's own.
        cache: Folder of the vote cache.
        data_dir: Folder with local copies of data sets.
        device: Torch device of local models.
        batch_size: Rows per batch of local models.
    """

    cache: Path
    judge: str | None = None
    baseline: str | None = None
    data_dir: Path | None = None
    device: str = "cpu"
    batch_size: int = 32


class Finisher(Protocol):
    """Adds scores that need other models or several answers.

    Attributes:
        metrics: What it adds, in order.
    """

    metrics: tuple[Metric, ...]

    def describe(self) -> dict[str, Any]:
        """JSON facts that change the scores (judge, prompts, decoding): part of the protocol hash."""
        ...

    def cost(self, samples: Sequence[Sample]) -> Cost:
        """What `finish` would take; nothing is called."""
        ...

    def finish(self, samples: Sequence[Sample]) -> list[Addition]:
        """One addition per sample, in order."""
        ...

    def report(self) -> dict[str, Any]:
        """JSON facts about the last `finish` (agreement, order bias, calls); not part of the protocol."""
        ...

"""What a scorer is: it adds scores after all answers exist, where they need other models or several answers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rba_bench.evaluation.metric import ItemScore, Metric, metrics_of
from rba_bench.evaluation.records import Sample


@dataclass(frozen=True)
class Cost:
    """What a scorer would take, before any call is made.

    Attributes:
        calls: Requests to the judge.
        cached: Votes that are already in the vote cache.
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
class ScorerOptions:
    """What the user says about scorers; a task's own settings hold where the user says nothing.

    Attributes:
        judge: Model that judges (`openai:<base_url>#<model>`, folder, Hub id), None for the task's own, `none` to
            leave judged metrics out.
        cache: Folder of the vote cache.
        data_dir: Folder with local copies of data sets.
        device: Torch device of local models.
        batch_size: Rows per batch of local models.
    """

    cache: Path
    judge: str | None = None
    data_dir: Path | None = None
    device: str = "cpu"
    batch_size: int = 32


class Scorer(ABC):
    """Adds scores that need other models or several answers.

    Attributes:
        name: In `metadata.finish` of tasks, in records and in reports.
        metrics: What it adds, in order.
    """

    name: str
    metrics: tuple[Metric, ...]

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any], options: ScorerOptions) -> Self:
        """The scorer of an entry of `metadata.finish`, given without its name."""

    @classmethod
    def resolve_config(cls, config: Mapping[str, Any], options: ScorerOptions) -> dict[str, Any]:
        """The entry with everything decided that depends on local files, so that all who read it decide alike."""
        return dict(config)

    @classmethod
    def metric_names(cls, config: Mapping[str, Any], options: ScorerOptions) -> tuple[str, ...]:
        """What the scorer of an entry adds; known without making it, which may need a key or a model."""
        return tuple(metric.name for metric in metrics_of(cls.name))

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON facts that change the scores (judge, prompts, decoding): part of the protocol hash."""

    def cost(self, samples: Sequence[Sample]) -> Cost:
        """What `score` would take; nothing is called."""
        return Cost(calls=0, cached=0, dollars=0.0)

    @abstractmethod
    def score(self, samples: Sequence[Sample]) -> list[ItemScore]:
        """The scores of each sample, in order."""

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """JSON facts about the last `score` (agreement, order bias, calls); not part of the protocol."""

"""What a metric is called, how its per-item scores are put together, and how it reads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One metric of a task.

    Attributes:
        name: Key in `Sample.scores`, in records and in `metric_list` of the task YAML.
        aggregation: Name in `rba_bench.metrics.aggregate`.
        scale: 100 if the number is already in percent or points, 1 if it is a share in [0, 1].
        higher_is_better: False for error rates.
        macro: True if the score is the unweighted mean over the items' `group`s.
        signature: What exactly is computed, with versions: part of the protocol.
    """

    name: str
    aggregation: str = "mean"
    scale: float = 1.0
    higher_is_better: bool = True
    macro: bool = False
    signature: str = ""

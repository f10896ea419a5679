"""How long the answers behind a win rate are: judges like long ones, so a win rate is read beside this."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rba_bench.errors import UserError
from rba_bench.evaluation.metric import metrics_of
from rba_bench.evaluation.records import Sample

VERSUS = "_vs_"


@dataclass(frozen=True)
class MeanLengths:
    """Mean lengths over the items that have a win rate, in characters (Unicode code points).

    Attributes:
        answer: Of the scored answers; an unanswered item has length 0.
        baseline: Of the answers to beat.
        n: Number of items.
    """

    answer: float
    baseline: float
    n: int

    def __str__(self) -> str:
        """Such as `412 (baseline 2049)`."""
        return f"{self.answer:.0f} (baseline {self.baseline:.0f})"


def baseline_of(sample: Sample, against: str = "") -> str:
    """The answer to beat: the stored one, or the one of a name in the `baselines` of `extra`.

    Raises:
        UserError: the item has none of this name.
    """
    if not against:
        return sample.baseline
    baselines: Mapping[str, object] = json.loads(sample.extra or "{}").get("baselines", {})
    if against not in baselines:
        raise UserError(f"item {sample.id} has no answer of {against!r} to beat; it has {sorted(baselines)}")
    return str(baselines[against])


def is_win_rate(metric: str) -> bool:
    """Whether a metric compares answers with a baseline's: `win_rate`, `lc_win_rate_vs_sft`."""
    return metric.partition(VERSUS)[0] in {rate.name for rate in metrics_of("pairwise")}


def mean_lengths(samples: Sequence[Sample], metric: str) -> MeanLengths | None:
    """Mean lengths of the answers that a win rate compares; None for another metric, or where no item has it."""
    if not is_win_rate(metric):
        return None
    scored = [sample for sample in samples if metric in sample.scores]
    if not scored:
        return None
    against = metric.partition(VERSUS)[2]
    answers = sum(len(sample.extracted) for sample in scored)
    baselines = sum(len(baseline_of(sample, against)) for sample in scored)
    return MeanLengths(answers / len(scored), baselines / len(scored), len(scored))

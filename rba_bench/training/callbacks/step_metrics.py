"""A step's figures for the log, the same however the step is split into batches and processes."""

import math
from collections import defaultdict
from collections.abc import Sequence

from accelerate.utils import gather_object

from rba_bench.training.data.batch import StepBatch
from rba_bench.training.methods.outcome import Outcome


class StepMetrics:
    """Collects figures while a step's batches pass by.

    Shares (of the loss, of numbers of pairs) add up to the step's figure. Values (of a group's samples: reward, length)
    are averaged over the groups that have one.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._times: dict[str, int] = defaultdict(int)  # of values; a share has none

    def share(self, name: str, value: float) -> None:
        """Add a batch's share of a figure."""
        self._sums[name] += value

    def value(self, name: str, value: float) -> None:
        """Add one value of a figure that is averaged."""
        self._sums[name] += value
        self._times[name] += 1

    def rollouts(self, batch: StepBatch, outcomes: Sequence[Outcome], step: int) -> None:
        """Add what the rollouts of a batch gave, which is used when the policy has taken `step` steps."""
        if outcomes:
            self.share("items", batch.items)
            self.share("pairs", len(batch.pairs))
            self.share("rated", len(batch.rated))
        for outcome in outcomes:
            for name, value in outcome.stats.items():
                self.value(name, value)
            if outcome.step is not None:
                self.value("staleness", step - outcome.step)
            if outcome.redrawn is not None:
                self.share("redrawn", outcome.redrawn)
                self.share("without_gradient", not outcome.rated)

    def take(self, processes: int = 1) -> dict[str, float]:
        """The figures since the last call, by name; what nobody noted is left out. All processes must call."""
        table = {name: (total, self._times.get(name, 0)) for name, total in sorted(self._sums.items())}
        self._sums.clear()
        self._times.clear()
        tables = gather_object([table]) if processes > 1 else [table]
        found = {}
        for name in sorted({name for one in tables for name in one}):
            totals, times = zip(*(one[name] for one in tables if name in one), strict=True)
            found[name] = math.fsum(totals) / max(sum(times), 1)
        return found

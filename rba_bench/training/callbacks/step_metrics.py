"""A step's figures for the log, the same however the step is split, and warnings about figures that go wrong."""

import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

from accelerate.utils import gather_object

from rba_bench.training.data.batch import StepBatch
from rba_bench.training.data.pairs import Outcome
from rba_bench.training.options.presets import PRESETS
from rba_bench.training.training_recipe import TrainingRecipe


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
        figures = {}
        for name in sorted({name for part in tables for name in part}):
            totals, times = zip(*(part[name] for part in tables if name in part), strict=True)
            figures[name] = math.fsum(totals) / max(sum(times), 1)
        return figures


WINDOW = 10  # steps that are looked at together
MOST = 0.5  # share that counts as most
REST = 1000  # steps until a line may be said again


class Alarms:
    """Watches the shares of saturated pairs and of samples that were cut off.

    Args:
        recipe: the run.
    """

    def __init__(self, recipe: TrainingRecipe) -> None:
        self.recipe = recipe
        self._seen: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._told: dict[str, int] = {}

    def __call__(self, step: int, figures: Mapping[str, float]) -> list[str]:
        """Lines to say after optimiser step `step` with these figures; mostly none."""
        lines = []
        for name, line in (("saturated", self._saturated), ("truncated", self._truncated)):
            if name not in figures:
                continue
            window = self._seen[name]
            window.append(figures[name])
            share = sum(window) / len(window)
            rested = name not in self._told or step >= self._told[name] + REST
            if len(window) >= min(WINDOW, self.recipe.steps) and share > MOST and rested:
                self._told[name] = step
                lines.append(line(share))
        return lines

    def _saturated(self, share: float) -> str:
        recipe = self.recipe
        free = "preference_reduction" not in PRESETS[recipe.method].fixed
        means = free and recipe.preference_reduction == "sequence"
        advice = f"set preference_reduction to token, or lower beta ({recipe.beta:g})"
        return (
            f"{share:.0%} of the pairs are saturated, won or lost by so much that it no longer matters by how much: "
            f"{advice if means else f'lower beta ({recipe.beta:g})'}"
        )

    def _truncated(self, share: float) -> str:
        recipe = self.recipe
        if recipe.kind == "distillation":
            learned = "learned from as they are"
        elif recipe.truncated == "keep":
            learned = "learned from as if they were whole"
        else:
            dropped = recipe.truncated == "drop" or recipe.compares_samples
            learned = "left out" if dropped else "compared as far as they go"
        return (
            f"{share:.0%} of the samples were cut off and are {learned}: raise max_new_tokens "
            f"({recipe.max_new_tokens}), or train on shorter answers (see truncated)"
        )

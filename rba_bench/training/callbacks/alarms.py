"""What a run's figures say is going wrong: one line each, seldom repeated."""

from collections import defaultdict, deque
from collections.abc import Mapping

from rba_bench.training.options.presets import PRESETS
from rba_bench.training.recipe import TrainingRecipe

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
            seen = self._seen[name]
            seen.append(figures[name])
            share = sum(seen) / len(seen)
            rested = name not in self._told or step >= self._told[name] + REST
            if len(seen) >= min(WINDOW, self.recipe.steps) and share > MOST and rested:
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
        learned = {
            "keep": "learned from as if they were whole",
            "mask": "compared as far as they go",
            "drop": "left out",
        }[recipe.truncated]
        if recipe.truncated == "mask" and recipe.compares_samples:
            learned = "left out"
        learned = "learned from as they are" if recipe.kind == "distillation" else learned
        return (
            f"{share:.0%} of the samples were cut off and are {learned}: raise max_new_tokens "
            f"({recipe.max_new_tokens}), or train on shorter answers (see truncated)"
        )

"""Learning rates: of each part, of each step."""

import math
from collections.abc import Sequence
from typing import Any

from rba_bench.training.recipe import TrainingRecipe


def schedule_factor(step: int, recipe: TrainingRecipe, fresh_from: int = 0) -> float:
    """Learning rate of optimiser step `step` (0, 1, ...) over the recipe's; the first step is not wasted on zero.

    Args:
        step: counted from the run's beginning.
        recipe: `steps`, `warmup_steps`, `schedule`.
        fresh_from: step at which a continued run started with an optimiser that remembers nothing. It is warmed up
            once more, as its estimates of the moments rest on a few gradients only, and meets the schedule then.
    """
    since = step - fresh_from
    warm = min(1.0, (since + 1) / (recipe.warmup_steps + 1))
    if step < recipe.warmup_steps:
        return warm
    done = min(1.0, (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps))
    if recipe.schedule == "linear":
        return warm * (1.0 - done)
    return warm * (0.5 * (1.0 + math.cos(math.pi * done)) if recipe.schedule == "cosine" else 1.0)


def part_rates(recipe: TrainingRecipe) -> dict[str, float]:
    """Peak learning rates of the parts that train."""
    given = recipe.learning_rates.model_dump()
    return {part: given[part] or recipe.learning_rate for part in recipe.train_parts}


def rates_at(step: int, recipe: TrainingRecipe, fresh_from: int = 0) -> dict[str, float]:
    """What the log says of step `step` (0, 1, ...): `learning_rate`, the highest, and each part's where they differ."""
    factor = schedule_factor(step, recipe, fresh_from)
    rates = {part: rate * factor for part, rate in part_rates(recipe).items()}
    own = {f"learning_rate_{part}": rate for part, rate in rates.items()}
    return {"learning_rate": max(rates.values())} | (own if len(set(rates.values())) > 1 else {})


def set_rates(optimizer: Any, scheduler: Any, rates: Sequence[float], step: int) -> None:
    """Give optimiser and LambdaLR the place in the schedule, whatever the file they were read from says.

    Args:
        optimizer: its groups get their rates for the next step.
        scheduler: over the same groups.
        rates: peak rate of each group.
        step: steps taken.
    """
    scheduler.base_lrs, scheduler.last_epoch = list(rates), step
    now = [rate * form(step) for rate, form in zip(rates, scheduler.lr_lambdas, strict=True)]
    for group, peak, rate in zip(optimizer.param_groups, rates, now, strict=True):
        group["initial_lr"], group["lr"] = peak, rate
    scheduler._last_lr = now

"""One optimiser step of a recipe, split in some way: its loss and its gradient. For `test_splits` and its processes."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.training.model import building as build
from rba_bench.training.rewards import RewardByKind
from rba_bench.training.training_recipe import TrainingRecipe

Step = tuple[dict[str, float], dict[str, torch.Tensor]]  # figures of the log, gradient by parameter


def unsure(plain: Any = build.make_reward) -> Any:
    """`build.make_reward`, whose rewards cannot judge every fourth answer, and none to one of the instructions."""

    class Unsure(RewardByKind):
        def __call__(self, rows: Sequence[AlignmentRow], responses: Sequence[str]) -> list[float]:
            sure = [
                row.group_id != "m4" and zlib.crc32(f"{row.instruction} {response}".encode()) % 4 != 0
                for row, response in zip(rows, responses, strict=True)
            ]
            given = super().__call__(rows, responses)
            return [value if known else float("nan") for value, known in zip(given, sure, strict=True)]

    def make(*given: Any) -> Any:
        made = plain(*given)
        return None if made is None else Unsure(made.rewards)

    return make


def opened(recipe: TrainingRecipe, out: Path) -> Any:
    """The objects of a run of a recipe."""
    from rba_bench.training import training_run as run
    from rba_bench.training.data.groups import TrainingData, choices

    data = TrainingData.open(choices([one.model_dump(mode="json") for one in recipe.alignment_sets]))
    base = Path(recipe.base)
    sources = {"alignment_set_sha256": data.sha256, "base_sha256": build.checkpoint_sha256(base)}
    return run._Run(recipe, out, data, base, sources)


def first_step(run: Any, accumulate: int, model: Any = None) -> Step:
    """Loss and gradient of a run's first step in `accumulate` batches; nothing is changed by it."""
    run.recipe = run.recipe.model_copy(update={"accumulate": accumulate})
    trainer = run.trainer()
    trainer.model.zero_grad(set_to_none=True)
    batches, counts = trainer.get_batch_samples(
        iter(trainer.get_train_dataloader()), accumulate, trainer.args.device
    )
    trainer.current_gradient_accumulation_steps = len(batches)
    for batch in batches:
        trainer.training_step(trainer.model, batch, counts)
    return trainer.take_metrics(), gradient(run.policy)


def gradient(policy: Any) -> dict[str, torch.Tensor]:
    """Gradients of all parameters that have one."""
    return {name: p.grad.detach().clone() for name, p in policy.named_parameters() if p.grad is not None}


def apart(one: Step, other: Step) -> float:
    """How far two steps are apart: the worst of figures and gradients, as a share of their size."""
    assert one[0].keys() == other[0].keys() and one[1].keys() == other[1].keys()
    figures = max(abs(one[0][name] - other[0][name]) / max(1.0, abs(one[0][name])) for name in one[0])
    mine, theirs = (
        torch.cat([grad.flatten() for _, grad in sorted(step[1].items())]) for step in (one, other)
    )
    return max(figures, float((mine - theirs).norm() / mine.norm().clamp(min=1e-30)))

"""One contestant of `trainer_connector.py`: `rba-bench train` itself, one step a call.

    python benchmarks/connector_side.py --recipe RECIPE.json --out FOLDER

Which version of rba-bench trains is decided by PYTHONPATH, so that two can be compared in one race. What it reports is
what the run's own log says, with the time of each step as the loop sees it: clips encoded, forward, backward, update.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from trainer_shapes import Turns


def gate(turns: Turns) -> None:
    """Make every trainer wait for its turn before a step."""
    from transformers import TrainerCallback

    from rba_bench.training import trainer

    class Gated(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turns.wait()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.done()

    make = trainer.AlignmentTrainer.__init__

    def made(self: Any, *given: Any, **named: Any) -> None:
        make(self, *given, **named)
        self.callback_handler.callbacks.insert(0, Gated())  # before the step log is written

    trainer.AlignmentTrainer.__init__ = made  # type: ignore[method-assign]


def main() -> None:
    """Train, one step a call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    import rba_bench
    from rba_bench.training.training_recipe import TrainingRecipe
    from rba_bench.training.training_run import train

    turns = Turns()
    gate(turns)
    turns.say(ready=True, baseline_mb=turns.baseline_mb, tree=str(Path(rba_bench.__file__).parent))
    train(TrainingRecipe(**json.loads(given.recipe.read_text())), given.out)
    log = [json.loads(line) for line in (given.out / "train_log.jsonl").read_text().splitlines()]
    turns.say(losses=[record["loss"] for record in log])


if __name__ == "__main__":
    main()

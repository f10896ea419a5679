"""Our end of `trainer_speed.py`: the trainer of `rba-bench train` on given pairs, one step a call.

    python benchmarks/rba_side.py --folder FOLDER --reference live|cached --tower train|frozen --steps 6

The objects are those of `rba_bench.training.training_run`: policy, frozen copy as live reference (or log-probabilities
of the reference, computed before training by the policy itself), clips by content, and `AlignmentTrainer`. What the
options change is named in the tables.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from trainer_shapes import BATCH, BETA, LEARNING_RATE, Turns, read_pairs  # noqa: E402


def read_rows(folder: Path) -> tuple[dict[str, list[Any]], Any]:
    """Clips as groups of one, in order, and their pairs."""
    from rba_bench.audio.alignment_set import AlignmentRow
    from rba_bench.audio.clips import AudioRef
    from rba_bench.training.data.pairs import OfflinePairs, TextPair

    groups: dict[str, list[Any]] = {}
    pairs = {}
    texts = dict.fromkeys(
        ("kind", "instruction", "response", "source_lang", "target_lang", "topic", "difficulty", "voice"), "x"
    )
    for number, pair in enumerate(read_pairs(folder)[0]):
        path = folder / f"{pair.clip}.flac"
        audio = AudioRef.of(path.read_bytes(), path)
        place = {"id": f"r{number}", "group_id": f"g{number}", "split": "train"}
        row = AlignmentRow(**place, prompt=pair.prompt, audio=audio, duration=audio.duration, **texts)
        groups[row.group_id] = [row]
        pairs[row.id] = [TextPair(pair.chosen, pair.rejected)]
    return groups, OfflinePairs(pairs)


def make_recipe(given: argparse.Namespace) -> Any:
    """DPO with a reference, as TRL is set up on the other side."""
    from rba_bench.training.training_recipe import TrainingRecipe

    return TrainingRecipe.model_validate(
        {
            "method": "dpo",
            "base": str(given.folder / given.policy),
            "beta": BETA,
            "steps": max(given.steps, 1),
            "groups_per_step": BATCH,
            "accumulate": given.accumulate,
            "voices_per_group": 1,
            "learning_rate": LEARNING_RATE,
            "warmup_steps": 0,
            "adam_beta2": 0.999,
            "train_parts": ["projector", "llm", *(["encoder"] if given.tower == "train" else [])],
            "save_every": 10**6,
            "layout": given.layout,
            "true_length": not given.pad_clips,
        }
    )


def make_trainer(given: argparse.Namespace, turns: Turns | None) -> Any:
    """The trainer with everything it needs."""
    from transformers import TrainerCallback

    from rba_bench.speechlm.audiolm.encoder_cache import EncoderCache
    from rba_bench.training import methods
    from rba_bench.training.data.clips import ClipStore, ResponseTokens
    from rba_bench.training.data.order import GroupOrder
    from rba_bench.training.machine import reuse_memory
    from rba_bench.training.model import building as build
    from rba_bench.training.model.frozen_models import FrozenModels
    from rba_bench.training.rollouts.buffer import RolloutBuffer
    from rba_bench.training.trainer import AlignmentTrainer, arguments

    class Gated(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if turns is not None:
                turns.wait()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if turns is not None:
                turns.done()

    reuse_memory()  # as `rba-bench train` does
    recipe = make_recipe(given)
    groups, pairs = read_rows(given.folder)
    family = build.load_base(given.folder / given.policy, recipe)
    policy = build.make_policy(family, recipe)
    reference = None
    if given.reference == "live":
        held = build.load_base(given.folder / "model", recipe) if given.policy != "model" else None
        reference = build.make_reference(policy if held is None else build.make_policy(held, recipe))
    frozen = recipe.encoder_frozen
    cache = EncoderCache("benchmark", 2**31, given.encoder_cache) if frozen else None
    store = ClipStore(family, groups, frozen=frozen, cache=cache)
    responder = ResponseTokens(family)
    method = methods.make_method(recipe, responder.end_ids)
    rollout_buffer = RolloutBuffer(recipe, method, policy, store, responder)
    for position, rows in enumerate(groups.values()):
        outcome = pairs(rows, responder)
        rollout_buffer.waiting[position] = apart(outcome) if given.per_answer else outcome
    if given.encoder_cache:  # clips of an earlier run: on disk, not in memory
        store.get([row for rows in groups.values() for row in rows])
        store.cache = EncoderCache("benchmark", 2**31, given.encoder_cache)
    frozen_models = FrozenModels(
        store, reference, None, [name for name, p in policy.named_parameters() if p.requires_grad]
    )
    if given.reference == "cached":
        frozen_models = cached(
            frozen_models, policy, [pair for one in rollout_buffer.waiting.values() for pair in one.pairs]
        )

    class InOrder(GroupOrder):
        """As TRL takes them, not shuffled."""

        def number(self, position: int) -> int:
            return position

    order = InOrder(list(groups), len(groups), seed=0)
    callbacks = [Gated()]
    return AlignmentTrainer(
        policy,
        recipe,
        method,
        rollout_buffer,
        order,
        arguments(recipe, Path(tempfile.mkdtemp())),
        frozen_models,
        callbacks=callbacks,
    )


def apart(outcome: Any) -> Any:
    """The same pairs, with the rejected side's clip pretending to be another: nothing is shared then."""
    pairs = []
    for pair in outcome.pairs:
        row = replace(pair.rejected.row, id=f"{pair.rejected.row.id}-again")
        pairs.append(replace(pair, rejected=replace(pair.rejected, row=row)))
    return replace(outcome, pairs=pairs)


def cached(frozen_models: Any, policy: Any, pairs: Any) -> Any:
    """Frozen models that look the reference's log-probabilities up; the policy, not yet trained, has computed them."""
    from rba_bench.training.model.frozen_models import FrozenModels, ReferenceCache

    kept = ReferenceCache("benchmark")
    policy.eval()
    kept.fill(pairs, FrozenModels(frozen_models.store, policy).score, BATCH)
    policy.train()
    return FrozenModels(frozen_models.store, kept=kept)


def compare(given: argparse.Namespace, turns: Turns) -> None:
    """Write loss and gradients of the first batch for the parent."""
    import torch

    trainer = make_trainer(given, None)
    trainer.model.train()
    batches = iter(trainer.get_train_dataloader())
    (batch,), _ = trainer.get_batch_samples(batches, 1, trainer.args.device)  # which counts, too
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    loss = loss.detach()
    model = trainer.rollout_buffer.policy.family.model
    torch.save(
        {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
        given.folder / "rba_gradients.pt",
    )
    turns.say(loss=float(loss))


def main() -> None:
    """Train, one step a call; or with `--steps 0` compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--policy", default="model", help="folder of the policy inside FOLDER")
    parser.add_argument("--reference", choices=["live", "cached"], default="live")
    parser.add_argument("--tower", choices=["train", "frozen"], default="train")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--accumulate", type=int, default=1, help="batches of a step")
    parser.add_argument("--layout", choices=["pack", "share", "pad"], default="pack")
    parser.add_argument(
        "--pad-clips", action="store_true", help="encode 30 s, as Qwen2-Audio's processor pads"
    )
    parser.add_argument("--per-answer", action="store_true", help="encode the clip for each answer anew")
    parser.add_argument("--encoder-cache", type=Path, default=None, help="folder of encoder states")
    given = parser.parse_args()
    from transformers import Qwen2AudioForConditionalGeneration  # noqa: F401  (before the baseline is read)

    import rba_bench.training.trainer  # noqa: F401

    turns = Turns()
    if not given.steps:
        compare(given, turns)
        return
    trainer = make_trainer(given, turns)
    turns.say(ready=True, baseline_mb=turns.baseline_mb)
    trainer.train()
    turns.say(losses=[])


if __name__ == "__main__":
    main()

"""TRL's end of `trainer_speed.py`; runs in an environment with TRL, not with ours.

    python benchmarks/trl_side.py --folder FOLDER --reference live|precomputed --tower train|frozen --steps 6

TRL 1.16 drops audio without a word (its collators know images only). The one way to make `DPOTrainer` hear is taken
here: a collator of our own that hands over the audio features, twice as its vision collator does (chosen and
rejected), its dataset preparation switched off, `remove_unused_columns=False`. Features are extracted once and kept,
which is kinder to TRL than its vision collator, which would do it for every batch.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from trainer_shapes import BATCH, BETA, LEARNING_RATE, RATE, PairRow, Turns, read_pairs


class HearingCollator:
    """Rows to TRL's layout [chosen; rejected], right-padded, with the features of each clip once for each half."""

    def __init__(
        self, processor: Any, rows: list[PairRow], waves: list[np.ndarray], deaf: bool = False
    ) -> None:
        self.tokenizer = processor.tokenizer
        self.rows = rows
        self.inputs: dict[int, dict[str, torch.Tensor]] = {}
        for number, row in enumerate(rows):
            content = [{"type": "audio", "audio": ""}]
            content += [{"type": "text", "text": row.prompt}] if row.prompt else []
            text = processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            wave = np.zeros_like(waves[row.clip]) if deaf else waves[row.clip]
            found = processor(text=text, audio=wave, sampling_rate=RATE, return_tensors="pt")
            self.inputs[number] = {name: value[0] for name, value in found.items()}

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        numbers = [example["number"] for example in examples]
        ids, completion = [], []
        for side in ("chosen", "rejected"):
            for number in numbers:
                prompt = self.inputs[number]["input_ids"].tolist()
                answer = self.tokenizer(getattr(self.rows[number], side), add_special_tokens=False)[
                    "input_ids"
                ]
                answer = [*answer, self.tokenizer.eos_token_id]
                ids.append(torch.tensor(prompt + answer))
                completion.append(torch.tensor([0] * len(prompt) + [1] * len(answer)))
        pad = torch.nn.utils.rnn.pad_sequence
        present = [torch.ones_like(row) for row in ids]
        batch = {
            "input_ids": pad(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id),
            "attention_mask": pad(present, batch_first=True),
            "completion_mask": pad(completion, batch_first=True),
        }
        for name in ("input_features", "feature_attention_mask"):
            once = torch.stack([self.inputs[number][name] for number in numbers])
            batch[name] = torch.cat([once, once])
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples])
        return batch


def make_trainer(given: argparse.Namespace, turns: Turns | None, deaf: bool = False) -> Any:
    """`DPOTrainer` on the pairs of the folder."""
    from datasets import Dataset
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    if given.compact_head:  # score answer positions only, which TRL does on GPUs alone
        import trl.trainer.utils as utils

        utils._use_triton = lambda device: True

    class Gated(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if turns is not None:
                turns.wait()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if turns is not None:
                turns.done()

    class Hearing(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            value = loss[0] if isinstance(loss, tuple) else loss
            self.losses = [*getattr(self, "losses", []), float(value.detach())]
            return loss

    def load(name: str) -> Any:
        return Qwen2AudioForConditionalGeneration.from_pretrained(given.folder / name, dtype=torch.float32)

    model = load(given.policy)
    if given.tower == "frozen":
        model.model.audio_tower.requires_grad_(False)
    else:
        model.model.audio_tower.embed_positions.requires_grad_(False)
    processor = AutoProcessor.from_pretrained(given.folder / "model")
    rows, waves = read_pairs(given.folder)
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        max_steps=max(given.steps, 1),
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        beta=BETA,
        bf16=False,
        gradient_checkpointing=given.checkpointing,
        precompute_ref_log_probs=given.reference == "precomputed",
        max_length=None,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    return Hearing(
        model=model,
        ref_model=load("model") if given.reference == "live" else None,
        args=config,
        data_collator=HearingCollator(processor, rows, waves, deaf),
        train_dataset=Dataset.from_dict({"number": list(range(len(rows)))}),
        processing_class=processor,
        callbacks=[Gated()],
    )


def first_loss(trainer: Any) -> torch.Tensor:
    """Loss of the first batch, with graph."""
    batch = next(iter(trainer.get_train_dataloader()))
    loss: torch.Tensor = trainer.compute_loss(trainer.model, batch)
    return loss


def compare(given: argparse.Namespace, turns: Turns) -> None:
    """Write loss and gradients of the first batch for the parent, and say whether silence changes the loss."""
    trainer = make_trainer(given, None)
    trainer.model.train()
    loss = first_loss(trainer)
    loss.backward()
    loss = loss.detach()
    found = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    torch.save(found, given.folder / "trl_gradients.pt")
    with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
        silent = first_loss(make_trainer(given, None, deaf=True))
    turns.say(loss=float(loss), silent=float(silent))


def main() -> None:
    """Train, one step a call; or with `--steps 0` compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--policy", default="model", help="folder of the policy inside FOLDER")
    parser.add_argument("--reference", choices=["live", "precomputed"], default="live")
    parser.add_argument("--tower", choices=["train", "frozen"], default="train")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, TRL's default")
    parser.add_argument("--compact-head", action="store_true")
    given = parser.parse_args()
    import trl
    from transformers import Qwen2AudioForConditionalGeneration  # noqa: F401  (imported before the baseline is read)
    from trl import DPOTrainer  # noqa: F401

    turns = Turns()
    if not given.steps:
        compare(given, turns)
        return
    trainer = make_trainer(given, turns)
    turns.say(ready=True, version=trl.__version__, torch=torch.__version__, baseline_mb=turns.baseline_mb)
    trainer.train()
    turns.say(losses=trainer.losses)


if __name__ == "__main__":
    main()

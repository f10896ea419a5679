"""Pairs a second and memory of DPO: `rba-bench train`'s trainer beside TRL's `DPOTrainer`.

    python benchmarks/trainer_speed.py --trl-python /path/to/python-with-trl [--shapes encoder decoder] [--steps 5]
    python benchmarks/trainer_speed.py --trl-python PYTHON --shapes decoder --towers frozen --ladder --steps 2 \
        --folder KEPT --save RACES.jsonl                  one race, to be repeated; models and pairs stay in KEPT
    python benchmarks/trainer_speed.py --show RACES.jsonl                     the tables of all races together

One random Qwen2-Audio a shape, the same pairs in the same order, float32, AdamW, batches of 8, the same threads.
Every contestant is a process of its own (its peak memory is its own) and makes one step when it is called; they
take turns, and medians are compared. The first step warms up, and its operations are counted: with the machine's rate
of matrix products, measured before each race, they say how near a contestant is to what the machine can do.
`RBA_TRL_PYTHON` may name the environment too; TRL needs to be installed there, rba-bench does not. Best is one
environment with both. Without TRL only our own are compared.
"""

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from trainer_race import Contestant, matmul_rate, race  # noqa: E402
from trainer_shapes import BATCH, NOISE, RATE, SHAPES, PairRow, Shape, median, write_pairs  # noqa: E402

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]


def words(n: int = 400) -> list[str]:
    """Made-up words, one token each."""
    rng = np.random.default_rng(1)
    return sorted({"".join(rng.choice(SYLLABLES, 2)) for _ in range(n)})


def make_tokenizer() -> Any:
    """Byte-level BPE that knows `words`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([f"user assistant {' '.join(words())}"] * 8, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
    )


def make_model(folder: Path, shape: Shape) -> None:
    """`folder/model`, the reference, and `folder/policy`, the same with noise on every weight."""
    import torch
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    tokenizer = make_tokenizer()
    text = {
        "model_type": "qwen2",
        **shape.decoder,
        "max_position_embeddings": 1024,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", "num_mel_bins": 80, **shape.encoder},
        text_config=text,
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(config)
    model.save_pretrained(folder / "model")
    processor = Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer, chat_template=CHATML)
    for name in ("model", "policy"):
        processor.save_pretrained(folder / name)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embed_positions" not in name:
                weight.add_(torch.randn_like(weight) * weight.std() * NOISE)
    model.save_pretrained(folder / "policy")


def make_pairs(folder: Path, shape: Shape, n: int) -> None:
    """Clips of noise around `shape.seconds`, answers of random words, both with lengths spread around their mean."""
    from transformers import AutoProcessor

    from rba_bench.audio.clips import decode_clip, encode_flac

    processor = AutoProcessor.from_pretrained(folder / "model")
    tokenizer = processor.tokenizer
    rng = np.random.default_rng(2)
    turn = [{"role": "user", "content": [{"type": "audio", "audio": ""}]}]
    template = processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    mean = (
        shape.text - (len(tokenizer(template)["input_ids"]) - 1) - 1
    )  # words of an answer; the end token is one more
    vocabulary = words()

    def answer() -> str:
        return " ".join(rng.choice(vocabulary, int(round(mean * rng.uniform(0.75, 1.25)))))

    for number in range(n):
        size = int(shape.seconds * rng.uniform(0.8, 1.2) * RATE)
        time_ = np.arange(size) / RATE
        wave = 0.2 * np.sin(2 * np.pi * time_ * (200 + 100 * rng.random() * time_))
        sound = encode_flac((wave + 0.05 * rng.standard_normal(size)).astype(np.float32), RATE)
        (folder / f"{number}.flac").write_bytes(sound)
        np.save(folder / f"{number}.npy", decode_clip(sound))
    write_pairs(folder, [PairRow(i, "", answer(), answer()) for i in range(n)])


def contestants(given: argparse.Namespace, folder: Path, tower: str) -> list[Contestant]:
    """Who takes part in a race."""
    steps = ["--folder", str(folder), "--tower", tower, "--steps", str(given.steps + 1)]
    ours = [sys.executable, str(HERE / "rba_side.py"), *steps]
    found = []
    if given.trl_python:
        trl = [given.trl_python, str(HERE / "trl_side.py"), *steps]
        found += [
            Contestant("TRL, live reference", [*trl, "--reference", "live"]),
            Contestant("TRL, precomputed reference", [*trl, "--reference", "precomputed"]),
        ]
        if given.trl_variants:
            found += [
                Contestant("TRL, live, checkpointing (its default)", [*trl, "--checkpointing"]),
                Contestant("TRL, live, head on answers only (as on GPU)", [*trl, "--compact-head"]),
                Contestant(
                    "TRL, precomputed, head on answers only",
                    [*trl, "--compact-head", "--reference", "precomputed"],
                ),
            ]
    return found + [
        Contestant("rba-bench, live reference", [*ours, "--reference", "live"]),
        Contestant(
            "rba-bench, live reference, in two batches",
            [*ours, "--reference", "live", "--accumulate", "2"],
        ),
        Contestant("rba-bench, cached reference", [*ours, "--reference", "cached"]),
    ]


def show(title: str, found: list[Contestant]) -> None:
    """A table, with ratios to TRL's rows, or to the first where TRL is absent."""
    trl = {
        name: one for one in found for name in ("live", "precomputed") if one.name == f"TRL, {name} reference"
    }
    bases = (
        [("TRL live", trl["live"]), ("TRL precomputed", trl["precomputed"])] if trl else [("first", found[0])]
    )
    columns = [
        "pairs/s (median)",
        "least to most",
        *(f"x {name}" for name, _ in bases),
        "CPU s a step",
        "TFLOP a step",
        "share of matmul rate",
        "peak MB",
        "above imports",
        "of first row's",
    ]
    print(f"\n{title}\n\n| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for one in found:
        rates = [BATCH / seconds for seconds in one.times]
        peak, above = one.facts["peak_mb"], one.facts["peak_mb"] - one.facts["baseline_mb"]
        cells = [
            f"{BATCH / one.seconds:.2f}",
            f"{min(rates):.2f} to {max(rates):.2f}",
            *(f"{base.seconds / one.seconds:.2f}" for _, base in bases),
            f"{median(one.cpu):.2f}",
            f"{one.facts['tflop']:.3f}",
            one.share(one.facts["rate"]),
            f"{peak:.0f}",
            f"{above:.0f}",
            f"{peak / found[0].facts['peak_mb']:.2f}",
        ]
        print(f"| {one.name} | {' | '.join(cells)} |", flush=True)


def show_all(path: Path) -> None:
    """Tables of the races in a file, repetitions of one race taken together."""
    races: dict[str, dict[str, Contestant]] = {}
    rates: dict[str, list[float]] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        rates.setdefault(record["title"], []).append(record["rate"])
        for row in record["rows"]:
            one = races.setdefault(record["title"], {}).setdefault(row["name"], Contestant(row["name"], []))
            one.times, one.cpu = one.times + row["times"], one.cpu + row["cpu"]
            one.facts = row["facts"] | {
                "peak_mb": max(row["facts"]["peak_mb"], one.facts.get("peak_mb", 0.0))
            }
    for title, found in races.items():
        for one in found.values():
            one.facts["rate"] = median(rates[title])
        steps = len(next(iter(found.values())).times)
        rate = median(rates[title])
        show(f"{title} {steps} steps; {rate:.0f} GFLOP/s in float32 matrix products.", list(found.values()))


def run(given: argparse.Namespace, title: str, found: list[Contestant]) -> None:
    """One race: measured, shown and, if asked for, written down."""
    rate = matmul_rate(sys.executable, given.threads)
    race(found, given.steps, given.threads)
    for one in found:
        one.facts["rate"] = rate
    show(f"{title} {rate:.0f} GFLOP/s in float32 matrix products.", found)
    if given.save:
        rows = [{"name": one.name, "times": one.times, "cpu": one.cpu, "facts": one.facts} for one in found]
        with given.save.open("a") as file:
            file.write(json.dumps({"title": title, "rate": rate, "rows": rows}) + "\n")


def ladder(given: argparse.Namespace, folder: Path) -> list[Contestant]:
    """What each of our own measures brings: the first row does as TRL does."""
    ours = [
        sys.executable,
        str(HERE / "rba_side.py"),
        "--folder",
        str(folder),
        "--steps",
        str(given.steps + 1),
    ]
    disk = ["--encoder-cache", str(folder / "states")]
    return [
        Contestant(name, [*ours, *options])
        for name, options in (
            ("30 s, encoded for each answer, padded", ["--layout", "pad", "--pad-clips", "--per-answer"]),
            ("30 s, encoded once", ["--layout", "pad", "--pad-clips"]),
            ("true length", ["--layout", "pad"]),
            ("answers share the prompt", ["--layout", "share"]),
            ("... and rows are packed", []),
            ("tower frozen, clips met first", ["--tower", "frozen"]),
            ("tower frozen, clips on disk", ["--tower", "frozen", *disk]),
            (
                "tower frozen, clips on disk, reference cached",
                ["--tower", "frozen", "--reference", "cached", *disk],
            ),
        )
    ]


def compare_losses(given: argparse.Namespace, folder: Path) -> None:
    """Loss and gradients of one batch on both sides, with a policy that differs from the reference."""
    import torch

    steps = ["--folder", str(folder), "--steps", "0", "--policy", "policy"]
    both = [
        Contestant("TRL", [given.trl_python, str(HERE / "trl_side.py"), *steps]),
        Contestant("rba-bench", [sys.executable, str(HERE / "rba_side.py"), *steps]),
    ]
    for one in both:
        one.start(given.threads)
        one.finish()
    theirs, ours = (one.facts for one in both)
    assert abs(theirs["loss"] - theirs["silent"]) > 1e-6, "TRL does not hear the audio"
    left, right = (torch.load(folder / f"{name}_gradients.pt") for name in ("trl", "rba"))
    if left.keys() != right.keys():
        raise SystemExit(f"different parameters train: {sorted(left.keys() ^ right.keys())[:5]}")
    a, b = (torch.cat([found[name].flatten() for name in left]).double() for found in (left, right))
    cosine = float(a @ b / a.norm() / b.norm())
    print(
        f"\nloss {theirs['loss']:.7f} (TRL), {ours['loss']:.7f} (ours): differ by "
        f"{abs(theirs['loss'] - ours['loss']):.1e}; silence instead of sound: {theirs['silent']:.7f} (TRL); gradients "
        f"of {len(left)} tensors: cosine {cosine:.8f}, relative distance {float((a - b).norm() / a.norm()):.1e}",
        flush=True,
    )


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = sys.executable if importlib.util.find_spec("trl") else None
    parser.add_argument(
        "--trl-python", default=os.environ.get("RBA_TRL_PYTHON", here), help="Python that has TRL"
    )
    parser.add_argument("--shapes", nargs="*", choices=sorted(SHAPES), default=["encoder", "decoder"])
    parser.add_argument("--towers", nargs="+", choices=["train", "frozen"], default=["train", "frozen"])
    parser.add_argument("--steps", type=int, default=5, help="measured steps, one more warms up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--ladder", nargs="*", choices=sorted(SHAPES), default=["encoder"], help="our own layouts"
    )
    parser.add_argument(
        "--losses", action=argparse.BooleanOptionalAction, default=True, help="compare them first"
    )
    parser.add_argument("--folder", type=Path, default=None, help="keeps models and pairs for the next time")
    parser.add_argument("--save", type=Path, default=None, help="add each race to this file")
    parser.add_argument("--show", type=Path, default=None, help="only show the races of such a file")
    parser.add_argument("--trl-variants", action="store_true", help="also TRL with other settings")
    return parser.parse_args()


def main() -> None:
    """Print Markdown tables."""
    given = parse()
    if given.show:
        show_all(given.show)
        return
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        kept = given.folder or Path(name)
        for shape in dict.fromkeys([*given.shapes, *given.ladder]):
            folder = kept / shape
            if not (folder / "pairs.json").is_file():
                folder.mkdir(parents=True, exist_ok=True)
                make_model(folder, SHAPES[shape])
                make_pairs(folder, SHAPES[shape], BATCH * (given.steps + 1))
        for shape in given.shapes:
            if given.trl_python and given.losses:
                compare_losses(given, kept / shape)
            for tower in given.towers:
                verb = "trains" if tower == "train" else "is frozen"
                title = f"Shape `{shape}`; the audio tower {verb}."
                run(given, title, contestants(given, kept / shape, tower))
        for shape in given.ladder:
            title = f"Shape `{shape}`, live reference, one measure after the other; the audio tower trains."
            run(given, title, ladder(given, kept / shape))
    print(f"\n{time.monotonic() - started:.0f} s in all.")


if __name__ == "__main__":
    main()

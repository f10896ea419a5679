"""Clips a second of training a connector: SFT of the projector between a frozen encoder and a frozen text model.

    python benchmarks/trainer_connector.py [--against OLDER_CHECKOUT] [--steps 3] [--set precision=bfloat16]
    python benchmarks/trainer_connector.py --base COMPOSITE --alignment-set SET      real weights and clips

Random weights of exactly Whisper tiny.en's and SmolLM2-135M's shapes, the system turn of 24 tokens that SmolLM2's
template writes, clips of 1.4 to 3.2 s in groups of four voices, answers of 48 tokens, 32 clips a step, each met for the
first time. With `--against` another checkout of rba-bench trains by the same recipe: they take turns, step by step,
and the losses of all steps are compared. The first step warms up, and its operations are counted.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from trainer_race import Contestant, matmul_rate, race  # noqa: E402
from trainer_shapes import RATE, median  # noqa: E402

GROUPS, VOICES, ANSWER = 8, 4, 48  # groups a step; tokens of an answer, its end included
SYSTEM = "we are a fast and helpful voice that was trained to hear what people say today"
CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    f"{SYSTEM}<|im_end|>\n{{% endif %}}<|im_start|>{{{{ message['role'] }}}}\n{{{{ message['content'] }}}}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENING = 24  # tokens before the audio


def make_base(folder: Path) -> Path:
    """A composite of random parts with the shapes of Whisper tiny.en and SmolLM2-135M-Instruct."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from trainer_speed import words
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        WhisperConfig,
        WhisperForConditionalGeneration,
    )

    from rba_bench.speechlm.compose import compose

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=6000,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(
        ["\n".join(["system", "user", "assistant", SYSTEM, *words(), " ".join(words())])] * 8, trainer
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|im_end|>",
        eos_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    llama = LlamaConfig(
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(llama).save_pretrained(folder / "llm")
    tokenizer.save_pretrained(folder / "llm")
    whisper = WhisperConfig(
        d_model=384,
        encoder_layers=4,
        encoder_attention_heads=6,
        encoder_ffn_dim=1536,
        decoder_layers=1,
        decoder_attention_heads=6,
        decoder_ffn_dim=384,
        vocab_size=1000,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        num_mel_bins=80,
    )
    WhisperForConditionalGeneration(whisper).save_pretrained(folder / "whisper")
    compose(folder / "whisper", folder / "llm", folder / "base")
    return folder / "base"


def make_set(folder: Path, base: Path, n_groups: int) -> Path:
    """An alignment set of swept tones with noise, and answers of random words."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from trainer_speed import words

    from rba_bench.audio.alignment_set import shard_schema
    from rba_bench.audio.clips import encode_flac
    from rba_bench.files import sha256_bytes, sha256_file, write_json
    from rba_bench.speechlm.audiolm.loading import load_family

    family = load_family(base)
    opening = family.prompt_ids("").index(family.audio_token_id)
    if opening != OPENING:
        raise SystemExit(f"{opening} tokens before the audio instead of {OPENING}")
    rng, vocabulary, records = np.random.default_rng(2), words(), []
    for number in range(n_groups):
        answer = " ".join(rng.choice(vocabulary, ANSWER - 1))
        for voice in range(VOICES):
            time = np.arange(int(rng.uniform(1.4, 3.2) * RATE)) / RATE
            wave = 0.2 * np.sin(2 * np.pi * time * (200 + 100 * rng.random() * time))
            data = encode_flac((wave + 0.05 * rng.standard_normal(time.size)).astype(np.float32), RATE)
            texts = dict.fromkeys(shard_schema().names) | {
                "id": f"g{number}-v{voice}",
                "group_id": f"g{number}",
                "kind": "instruct",
                "instruction": "x",
                "prompt": "",
                "response": answer,
                "source_lang": "en",
                "target_lang": "en",
                "voice": f"v{voice}",
                "split": "train",
                "duration": time.size / RATE,
                "sampling_rate": RATE,
                "audio_sha256": sha256_bytes(data),
            }
            records.append({**texts, "audio": {"bytes": data, "path": f"{number}-{voice}.flac"}})
    if len(family.answer_ids(records[0]["response"])) != ANSWER:
        raise SystemExit(f"answers have {len(family.answer_ids(answer))} tokens")
    shard = folder / "shards" / "part-00000.parquet"
    shard.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(records, schema=shard_schema()), shard)
    checksums = {"shards/part-00000.parquet": sha256_file(shard)}
    write_json(folder / "manifest.json", {"schema_version": 1, "status": "complete", "checksums": checksums})
    return folder


def recipe(given: argparse.Namespace, base: Path, alignment_set: Path) -> dict[str, Any]:
    """SFT of the projector alone; the rest are defaults."""
    fixed: dict[str, Any] = {
        "method": "sft",
        "base": str(base),
        "alignment_set": str(alignment_set),
        "train_parts": ["projector"],
        "steps": given.steps + 1,
        "groups_per_step": GROUPS,
        "voices_per_group": VOICES,
        "save_every": 10**6,
        "log_every": 1,
    }
    if given.against:  # sums, as every version understands: equal losses can then be asked for
        fixed["length_normalized"] = False
    return fixed


def show(found: list[Contestant], rate: float) -> None:
    """The table, and how far the losses are apart."""
    columns = [
        "clips/s (median)",
        "least to most",
        "x first",
        "s a step",
        "CPU s",
        "TFLOP",
        "share of matmul rate",
    ]
    print(f"\n{rate:.0f} GFLOP/s in float32 matrix products, {GROUPS * VOICES} clips a step\n")
    print(f"| | {' | '.join([*columns, 'peak MB'])} |\n|---|{'---:|' * (len(columns) + 1)}")
    for one in found:
        rates = [GROUPS * VOICES / seconds for seconds in one.times]
        cells = [
            f"{median(rates):.2f}",
            f"{min(rates):.2f} to {max(rates):.2f}",
            f"{found[0].seconds / one.seconds:.2f}",
            f"{one.seconds:.1f}",
            f"{median(one.cpu):.1f}",
            f"{one.facts['tflop']:.2f}",
            one.share(rate),
            f"{one.facts['peak_mb']:.0f}",
        ]
        print(f"| {one.name} | {' | '.join(cells)} |")
    first = np.array(found[0].facts["losses"])
    for one in found:
        apart = np.abs(np.array(one.facts["losses"]) - first) / np.abs(first)
        print(
            f"\n{one.name}: losses {one.facts['losses']}, relative distance to the first row's {apart.max():.1e}"
        )


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, default=None, help="another checkout, the first row")
    parser.add_argument("--base", type=Path, default=None, help="composite instead of random weights")
    parser.add_argument("--alignment-set", type=Path, default=None)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of a third contestant"
    )
    parser.add_argument("--steps", type=int, default=3, help="measured steps, one more warms up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="keeps model and set for the next time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        kept = given.folder or Path(name) / "made"
        base = given.base or (kept / "base" if (kept / "base").is_dir() else make_base(kept))
        made = kept / f"set-{given.steps}"
        alignment_set = given.alignment_set or (
            made if made.is_dir() else make_set(made, base, GROUPS * (given.steps + 1))
        )
        wanted = [("after", HERE.parent, {})] if given.against else [("rba-bench", HERE.parent, {})]
        if given.against:
            wanted.insert(0, ("before", given.against.resolve(), {}))
        if given.set:
            wanted.append((", ".join(given.set), HERE.parent, dict(one.split("=", 1) for one in given.set)))
        found = []
        for number, (title, tree, changes) in enumerate(wanted):
            path = Path(name) / f"{number}.json"
            given.set = []
            path.write_text(json.dumps(recipe(given, base, alignment_set) | changes))
            command = [
                sys.executable,
                str(HERE / "connector_side.py"),
                "--recipe",
                str(path),
                "--out",
                f"{name}/{number}",
            ]
            found.append(Contestant(title, command, f"{tree}:{HERE}"))
        rate = matmul_rate(sys.executable, given.threads)
        race(found, given.steps, given.threads)
        show(found, rate)


if __name__ == "__main__":
    main()

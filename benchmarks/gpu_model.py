"""The random model of Qwen2-Audio's architecture and the random set that `gpu.py` measures."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16_000
END_EVERY = 60  # every so manieth token ends an answer, so that sampled ones are about as long
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """A model and what it is trained on.

    Attributes:
        words: for the report.
        audio, text: settings of the audio tower and of the language model.
        groups, voices, accumulate: of a step.
        seconds: shortest and longest clip.
        answer: tokens of a teacher's answer.
        new_tokens: longest sample.
        rollout_batch: samples drawn together.
        matmul: largest side of the products that give the ceiling.
        steps: most steps of a method.
    """

    words: str
    audio: dict[str, int]
    text: dict[str, Any]
    groups: int
    voices: int
    accumulate: int
    seconds: tuple[float, float]
    answer: int
    new_tokens: int
    rollout_batch: int
    matmul: int
    steps: int
    mels: int = field(default=128)


SHAPES = {
    # config.json of Qwen/Qwen2-Audio-7B-Instruct
    "qwen2-audio-7b": Shape(
        words="Qwen2-Audio-7B (8.4 B parameters, random), 8 groups of 4 voices a step, clips of 4 to 8 s, answers of "
        "200 tokens, samples of at most 256",
        audio={"encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "d_model": 1280},
        text={
            "vocab_size": 156_032,
            "hidden_size": 4096,
            "intermediate_size": 11_008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
        },
        groups=8,
        voices=4,
        accumulate=4,
        seconds=(4.0, 8.0),
        answer=200,
        new_tokens=256,
        rollout_batch=128,
        matmul=8192,
        steps=12,
    ),
    "tiny": Shape(
        words="two layers of width 32, to try the code path",
        audio={"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64, "d_model": 32},
        text={
            "vocab_size": 480,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 2048,
        },
        groups=2,
        voices=2,
        accumulate=1,
        seconds=(0.3, 0.6),
        answer=12,
        new_tokens=8,
        rollout_batch=8,
        matmul=128,
        steps=3,
        mels=80,
    ),
}


def make_tokenizer() -> Any:
    """Byte-level BPE that knows next to no merges, with the model's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["system user assistant You are a helpful assistant."], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    made.chat_template = CHATML
    return made


def make_family(shape: Shape, device: str) -> Any:
    """The model, random in bfloat16 right on the device, with its processor and adapter."""
    import torch
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    from rba_bench.speechlm.audiolm.families import family_class

    tokenizer = make_tokenizer()
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", "num_mel_bins": shape.mels, **shape.audio},
        text_config={"model_type": "qwen2", "eos_token_id": tokenizer.eos_token_id, **shape.text},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    with torch.device(device):
        model = Qwen2AudioForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    extractor = WhisperFeatureExtractor(feature_size=shape.mels)
    processor = Qwen2AudioProcessor(extractor, tokenizer, chat_template=CHATML)
    family = family_class("qwen2_audio")(model.eval(), processor, True)
    vocabulary = int(shape.text["vocab_size"])
    taken = {family.audio_token_id, *family.stops}
    family.stops = [
        *family.stops,
        *(token for token in range(END_EVERY - 1, vocabulary, END_EVERY) if token not in taken),
    ]
    return family


def write_set(folder: Path, shape: Shape) -> Path:
    """An alignment set of noise and random letters, as many groups as all steps of a method take."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rba_bench.audio.alignment_set import shard_schema
    from rba_bench.audio.clips import encode_flac
    from rba_bench.files import sha256_bytes, sha256_file, write_json

    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    table = []
    for group in range(shape.groups * shape.steps):
        response = "".join(rng.choice(letters, shape.answer))
        for voice in range(shape.voices):
            n = int(rng.uniform(*shape.seconds) * RATE)
            data = encode_flac((0.1 * rng.standard_normal(n)).astype(np.float32), RATE)
            table.append(
                {
                    **{one.name: "" if pa.types.is_string(one.type) else None for one in shard_schema()},
                    "id": f"g{group}-v{voice}",
                    "group_id": f"g{group}",
                    "kind": "instruct",
                    "instruction": f"instruction {group}",
                    "response": response,
                    "voice": f"v{voice}",
                    "split": "train",
                    "audio": {"bytes": data, "path": f"g{group}-v{voice}.flac"},
                    "audio_sha256": sha256_bytes(data),
                    "sampling_rate": RATE,
                    "duration": n / RATE,
                }
            )
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    shard = folder / "shards" / "part-00000.parquet"
    pq.write_table(pa.Table.from_pylist(table, schema=shard_schema()), shard)
    checksums = {"shards/part-00000.parquet": sha256_file(shard)}
    write_json(folder / "manifest.json", {"schema_version": 1, "status": "complete", "checksums": checksums})
    return folder

"""Students with their own LLMs (the composite, Qwen2-Audio), and answers to give them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHATML = (
    "{% for message in messages %}<|user|>"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session")
def qwen2_dir(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """Random Qwen2-Audio on the session's tokenizer, its head wider than the vocabulary, as published ones are."""
    import torch
    from transformers import (
        AutoTokenizer,
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    sizes = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 16}
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", "num_mel_bins": 80, **sizes},
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer) + 8,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "initializer_range": 0.25,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        audio_token_index=tokenizer.convert_tokens_to_ids("<|audio|>"),
    )
    processor = Qwen2AudioProcessor(
        WhisperFeatureExtractor(feature_size=80), tokenizer, chat_template=CHATML, audio_token="<|audio|>"
    )
    folder = tmp_path_factory.mktemp("teachers") / "qwen2"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        Qwen2AudioForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def student(tiny_composite_dir: Path, qwen2_dir: Path) -> Callable[..., Any]:
    """`student("composite" | "qwen2", attention="sdpa")`: a fresh family."""
    from rba_bench.speechlm.audiolm.loading import load_family

    def load(kind: str = "composite", attention: str = "sdpa") -> Any:
        family = load_family({"composite": tiny_composite_dir, "qwen2": qwen2_dir}[kind])
        family.model.set_attn_implementation(attention)
        return family

    return load


@pytest.fixture(scope="session")
def answers(tiny_tokenizer_dir: Path) -> list[tuple[int, ...]]:
    """Token ids of four answers of different lengths, closed."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    lines = ("paris", "plant a tree and water the garden", "the dog", "")
    return [(*tokenizer(line)["input_ids"], tokenizer.eos_token_id) for line in lines]

"""Tiny random checkpoints of the real architectures with their real processors, built offline once per session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<sound>",
)
LINES = (
    "You are a helpful assistant.",
    "system user assistant Audio 1: what is said here ?",
    "translate german to english : der hund schläft im garten",
    "the capital of france is paris",
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}PLACEHOLDER{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENCODER = {
    "num_mel_bins": 80,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "d_model": 32,
}

SMALL_ENCODER = {
    "num_mel_bins": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_size": 32,
}


def make_tokenizer(specials: tuple[str, ...] = SPECIAL) -> Any:
    """Byte-level BPE with ChatML specials; no bos token, `<|im_end|>` ends a turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
    )


def text_config(tokenizer: Any, **changes: Any) -> dict[str, Any]:
    """Two layers of width 32; weights far from uniform, so that greedy choices are not ties."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.25,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        **changes,
    }


def whisper_features(n_mels: int = 80) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=n_mels)


def random_model(make_model: Callable[[], Any], seed: int = 0) -> Any:
    """With louder encoder and projector than at birth: answers then depend on the audio."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make_model().eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "projector" in name and weight.ndim > 1:
                    weight.normal_(0, 0.5)
                elif "audio_tower" in name and weight.ndim > 1 and "embed_positions" not in name:
                    weight.normal_(0, 0.15)
    return model


def save(folder: Path, make_model: Callable[[], Any], processor: Any, seed: int = 0) -> Path:
    """A random model and its processor."""
    random_model(make_model, seed).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def qwen2_audio_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

    tokenizer = make_tokenizer()
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **ENCODER},
        text_config={"model_type": "qwen2", **text_config(tokenizer)},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    processor = Qwen2AudioProcessor(whisper_features(), tokenizer)
    folder = tmp_path_factory.mktemp("audiolm") / "qwen2_audio"
    return save(folder, lambda: Qwen2AudioForConditionalGeneration(config), processor)


@pytest.fixture(scope="session")
def audioflamingo3_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        AudioFlamingo3Config,
        AudioFlamingo3ForConditionalGeneration,
        AudioFlamingo3Processor,
    )

    tokenizer = make_tokenizer()
    config = AudioFlamingo3Config(
        audio_config={"model_type": "audioflamingo3_encoder", **SMALL_ENCODER},
        text_config={"model_type": "qwen2", **text_config(tokenizer)},
        audio_token_id=tokenizer.convert_tokens_to_ids("<sound>"),
    )
    template = CHATML.replace("PLACEHOLDER", "<sound>")
    processor = AudioFlamingo3Processor(whisper_features(), tokenizer, chat_template=template)
    folder = tmp_path_factory.mktemp("audiolm") / "audioflamingo3"
    return save(folder, lambda: AudioFlamingo3ForConditionalGeneration(config), processor)


@pytest.fixture(scope="session")
def glmasr_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import GlmAsrConfig, GlmAsrForConditionalGeneration, GlmAsrProcessor

    tokenizer = make_tokenizer((*SPECIAL, "<|pad|>", "<|begin_of_audio|>", "<|end_of_audio|>"))
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    config = GlmAsrConfig(
        audio_config={
            "model_type": "glmasr_encoder",
            "rope_parameters": rope,
            **SMALL_ENCODER,
            "intermediate_size": 128,
        },
        text_config={"model_type": "llama", **text_config(tokenizer)},
        audio_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )
    template = CHATML.replace("PLACEHOLDER", "<|begin_of_audio|><|pad|><|end_of_audio|>")
    processor = GlmAsrProcessor(whisper_features(), tokenizer, chat_template=template)
    folder = tmp_path_factory.mktemp("audiolm") / "glmasr"
    return save(folder, lambda: GlmAsrForConditionalGeneration(config), processor)


@pytest.fixture(scope="session")
def voxtral_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a plain tokenizer and template: `mistral-common` is not needed to run the model."""
    from transformers import VoxtralConfig, VoxtralForConditionalGeneration, VoxtralProcessor

    fillers = tuple(f"<SPECIAL_{i}>" for i in range(24 - len(SPECIAL)))
    tokenizer = make_tokenizer((*SPECIAL, *fillers, "[AUDIO]"))  # the processor holds it to id 24
    tokenizer.chat_template = CHATML.replace("PLACEHOLDER", "[AUDIO]")
    config = VoxtralConfig(
        audio_config={"model_type": "voxtral_encoder", **SMALL_ENCODER, "intermediate_size": 128},
        text_config={"model_type": "llama", **text_config(tokenizer)},
        audio_token_id=24,
    )
    processor = VoxtralProcessor(whisper_features(), tokenizer)
    folder = tmp_path_factory.mktemp("audiolm") / "voxtral"
    return save(folder, lambda: VoxtralForConditionalGeneration(config), processor)


@pytest.fixture(scope="session")
def omni_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.speechlm.audiolm.omni_granite_phi import make_omni

    return make_omni(tmp_path_factory.mktemp("audiolm") / "thinker")


@pytest.fixture(scope="session")
def granite_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.speechlm.audiolm.omni_granite_phi import make_granite

    return make_granite(tmp_path_factory.mktemp("audiolm") / "granite")


@pytest.fixture(scope="session")
def phi_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.speechlm.audiolm.omni_granite_phi import make_phi

    return make_phi(tmp_path_factory.mktemp("audiolm") / "phi")


@pytest.fixture(scope="session")
def speech() -> list[np.ndarray]:
    """Four clips of 0.35 to 2.3 s at 16 kHz: chords with noise, seeded, read-only."""
    rng = np.random.default_rng(11)
    waves = []
    for number, n_samples in enumerate((5_600, 14_401, 24_160, 36_799)):
        time = np.arange(n_samples) / 16_000
        chord = sum(
            np.sin(2 * np.pi * (150 + 130 * number) * k * time * (1 + 0.1 * time)) / k for k in (1, 2, 3)
        )
        wave = (0.2 * chord + 0.03 * rng.standard_normal(n_samples)).astype(np.float32)
        wave.setflags(write=False)
        waves.append(wave)
    return waves

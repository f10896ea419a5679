"""Tiny random models and clips shared by all tests: nothing is downloaded, each is built once per session.

Fixtures are folders (what `save_pretrained` writes), so every test loads its own copy and none can spoil
another's.
"""

import gc
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>", "<|audio|>")

# List content: non-empty text parts and audio parts joined by single spaces.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% set state = namespace(gap='') %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}{{ state.gap + '<|audio|>' }}{% set state.gap = ' ' %}"
    "{% elif part['text'] %}{{ state.gap + part['text'] }}{% set state.gap = ' ' %}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

TRAINING_LINES = (
    "give me a plan for a trip to the lake",
    "the capital of france is paris",
    "translate german to english : der hund schläft im garten",
    "write a short letter to a friend",
    "what is the largest river in the world ?",
)

SAMPLE_RATE = 16_000

# A shell without job control starts its background jobs with SIGINT ignored; the tests are about Ctrl-C in a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Files whose few tests take long (10 s and more on an idle core) come first: `make test` hands files out in this order,
# and two processes end together only if what is left for the end is short. Those that compute alone are in front.
LONG = (
    "evaluation/test_commands.py",
    "training/test_distributed.py",
    "training/methods/test_every_method.py",
    "training/test_splits.py",
    "training/test_training_run.py",
    "study/test_study.py",
    "leaderboard/test_board.py",
    "test_contributing.py",
    "test_notebook.py",
    "evaluation/test_endpoint_runs.py",
    "textlm/formats/test_real_weights.py",
    "test_real_server.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first."""
    tests = Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


@pytest.fixture(autouse=True, scope="module")
def _old_objects_are_not_searched_for_garbage() -> None:
    """Torch and transformers are a million objects; every training run collects garbage, 0.2 s if it reads them."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Libraries in C++ count what is left when the interpreter ends, and would print pages of it."""
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_disks() -> Iterator[None]:
    """What `fsync` is for, the loss of power, no test can see; it takes 10 ms, twenty times a training run."""
    connect = sqlite3.connect

    def connect_unsynced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **{"factory": _Unsynced, **options})
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        patch.setattr(sqlite3, "connect", connect_unsynced)
        yield


class _Unsynced(sqlite3.Connection):
    """A database that never waits for the disk, whatever the code asks for."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return super().execute(
            "PRAGMA synchronous = OFF" if sql.startswith("PRAGMA synchronous") else sql, *parameters
        )


@pytest.fixture(autouse=True, scope="session")
def _cards_without_figures() -> Iterator[None]:
    """Figures beside a card take half a second; the tests of cards draw them."""
    from rba_bench.audio import card_media

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card_media, "can_draw", lambda: False)
        yield


@pytest.fixture(scope="session")
def tiny_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte-level BPE tokenizer with the six special tokens and a chat template that knows audio parts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TRAINING_LINES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        bos_token="<|bos|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<|audio|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    folder = tmp_path_factory.mktemp("tiny") / "tokenizer"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_textlm_dir(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """Random two-layer Llama of width 32, saved with its tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,  # far from uniform, so that greedy choices are not ties
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("tiny") / "textlm"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def whisper_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random multilingual Whisper, see `tiny_whisper`."""
    from tests.tiny_whisper import make_whisper

    return make_whisper(tmp_path_factory.mktemp("asr") / "whisper-mini")


@pytest.fixture(scope="session")
def thinker(tmp_path_factory: pytest.TempPathFactory, tiny_textlm_dir: Path) -> Path:
    """The same model after it has learnt a few turns, and to think before it answers unless it is told not to."""
    from tests.thinking_lm import teach

    return teach(tiny_textlm_dir, tmp_path_factory.mktemp("taught") / "thinker")


@pytest.fixture(scope="session")
def tiny_composite_dir(tmp_path_factory: pytest.TempPathFactory, tiny_textlm_dir: Path) -> Path:
    """Random composite with processor: two-layer encoder of width 32, 80 mels, k = 3, `tiny_textlm_dir`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, WhisperConfig

    from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder
    from rba_bench.speechlm.composite.modeling import CompositeForConditionalGeneration
    from rba_bench.speechlm.composite.processing import CompositeProcessor, LogMelFeatureExtractor

    tokenizer = AutoTokenizer.from_pretrained(tiny_textlm_dir)
    audio_config = WhisperConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=64,
        num_mel_bins=80,
        max_source_positions=1500,
        init_std=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = CompositeForConditionalGeneration.from_parts(
            encoder=TrueLengthWhisperEncoder(audio_config),
            text_model=AutoModelForCausalLM.from_pretrained(tiny_textlm_dir, dtype=torch.float32),
            audio_token_id=tokenizer.convert_tokens_to_ids("<|audio|>"),
            stack_factor=3,
            projector_hidden_size=48,
        )
    processor = CompositeProcessor(LogMelFeatureExtractor(feature_size=80), tokenizer, stack_factor=3)
    folder = tmp_path_factory.mktemp("tiny") / "composite"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clips() -> list[np.ndarray]:
    """Five float32 16 kHz clips of 0.3, 0.45, 0.8, 1.25 and 2 s: chords with noise, seeded, read-only."""
    rng = np.random.default_rng(7)
    waves = []
    for number, seconds in enumerate((0.3, 0.45, 0.8, 1.25, 2.0)):
        time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        chord = sum(
            np.sin(2 * np.pi * (180 + 170 * number) * harmonic * time) / harmonic for harmonic in (1, 2, 3)
        )
        wave = (0.15 * chord + 0.02 * rng.standard_normal(time.size)).astype(np.float32)
        wave.setflags(write=False)
        waves.append(wave)
    return waves

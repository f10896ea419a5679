"""A tiny random Whisper of the real architecture, in the format of the published checkpoints."""

from pathlib import Path
from typing import Any

import torch

SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>")
LATER = ("<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")


def _processor() -> Any:
    """A real WhisperProcessor on byte-level BPE without merges: 256 bytes, then Whisper's special tokens."""
    from tokenizers import pre_tokenizers
    from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

    vocab = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": [*SPECIAL, *LATER]})
    return WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer)


def make_whisper(folder: Path) -> Path:
    """A multilingual Whisper of two layers each, of width 32, with its processor."""
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    processor = _processor()
    ids = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in (*SPECIAL, *LATER)}
    config = WhisperConfig(
        vocab_size=len(processor.tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_target_positions=64,
        init_std=0.3,
        pad_token_id=ids["<|endoftext|>"],
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = WhisperForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(
        is_multilingual=True,
        lang_to_id={token: ids[token] for token in ("<|en|>", "<|de|>")},
        task_to_id={"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        suppress_tokens=[],
        begin_suppress_tokens=[],
        max_length=64,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder

"""Tiny random recognisers of the real architectures, in the formats of the published checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch


def _seeded(build: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return build().eval()


def _ctc(folder: Path, **changes: Any) -> Path:
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    masked = changes.get("feat_extract_norm") != "group"
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(folder / "vocab.json")
    features = Wav2Vec2FeatureExtractor(return_attention_mask=masked, do_normalize=True)
    config = Wav2Vec2Config(
        vocab_size=len(letters),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        initializer_range=0.5,
        pad_token_id=0,
        **{"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True, **changes},
    )
    _seeded(lambda: Wav2Vec2ForCTC(config)).save_pretrained(folder)
    Wav2Vec2Processor(features, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ctc_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _ctc(tmp_path_factory.mktemp("asr") / "ctc")


@pytest.fixture(scope="session")
def group_norm_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As wav2vec2-base: padding would change the statistics of the first convolution."""
    folder = tmp_path_factory.mktemp("asr") / "group"
    return _ctc(folder, feat_extract_norm="group", do_stable_layer_norm=False, conv_bias=False)


@pytest.fixture(scope="session")
def openai_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The format of the published `tiny.pt`, with another width."""
    from dataclasses import asdict

    from whisper.model import ModelDimensions, Whisper

    dims = ModelDimensions(80, 1500, 32, 4, 2, 51865, 40, 32, 4, 2)
    model = _seeded(lambda: Whisper(dims))
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(6)
        model.decoder.positional_embedding.normal_(std=0.5)
        for name, weight in model.decoder.named_parameters():
            if "cross_attn" in name:
                weight *= 4  # so that what is heard decides
    path = tmp_path_factory.mktemp("asr") / "mini.pt"
    torch.save({"dims": asdict(dims), "model_state_dict": model.state_dict()}, path)
    return path

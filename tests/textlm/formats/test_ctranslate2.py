"""Whisper folders of CTranslate2 (faster-whisper), written here from models of transformers and read back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoTokenizer,
    GenerationConfig,
    WhisperForConditionalGeneration,
)

from rba_bench.errors import UserError
from rba_bench.speechlm.recognizers import load_recognizer
from rba_bench.textlm.formats.conversion import converted_folder, read_source
from rba_bench.textlm.formats.ctranslate2 import read_binary
from tests.textlm.formats.ctranslate2_files import quantised, tiny_whisper, variables_of, write_ctranslate2

CONFIG = {
    "suppress_ids": [1, 2, 7],
    "suppress_ids_begin": [220, 50256],
    "alignment_heads": [[1, 0]],
    "lang_ids": [],
}


@pytest.fixture(scope="module")
def english() -> Any:
    return tiny_whisper()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, english: Any) -> Path:
    return write_ctranslate2(tmp_path_factory.mktemp("ct2") / "tiny", variables_of(english), config=CONFIG)


def test_the_model_is_the_one_that_was_written(folder: Path, own_cache: Path, english: Any) -> None:
    made = converted_folder(folder)
    model = WhisperForConditionalGeneration.from_pretrained(made)
    assert model.state_dict().keys() == english.state_dict().keys()
    assert all(torch.equal(tensor, english.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert converted_folder(folder / "model.bin") == made
    source = read_source(made)
    assert source and source["format"] == "CTranslate2" and source["file"] == "model.bin"
    assert set(json.loads((made / "source.json").read_text())["beside"]) == {"config.json"}


def test_settings_and_tokens_are_those_of_english_whisper(folder: Path, own_cache: Path) -> None:
    made = converted_folder(folder)
    settings = GenerationConfig.from_pretrained(made)
    assert (settings.decoder_start_token_id, settings.eos_token_id, settings.pad_token_id) == (
        50257,
        50256,
        50256,
    )
    assert settings.no_timestamps_token_id == 50362 and not settings.is_multilingual
    assert settings.suppress_tokens == [1, 2, 7] and settings.begin_suppress_tokens == [220, 50256]
    assert settings.alignment_heads == [[1, 0]] and settings.max_length == 40
    tokenizer = AutoTokenizer.from_pretrained(made)
    assert tokenizer("Hello")["input_ids"] == [50257, 50362, 15496, 50256]
    assert len(tokenizer) == 51864 and tokenizer.convert_ids_to_tokens(51863) == "<|30.00|>"
    assert AutoFeatureExtractor.from_pretrained(made).feature_size == 80


def test_a_folder_is_a_recogniser_that_answers_as_the_model_does(
    folder: Path, own_cache: Path, english: Any, clips: list[np.ndarray]
) -> None:
    ear = load_recognizer(str(folder))
    features = AutoFeatureExtractor.from_pretrained(converted_folder(folder))
    mel = features(clips[2], sampling_rate=16_000, return_tensors="pt").input_features
    english.generation_config = GenerationConfig.from_pretrained(converted_folder(folder))
    ids = english.generate(mel, do_sample=False, max_new_tokens=20)
    expected = AutoTokenizer.from_pretrained(converted_folder(folder)).decode(
        ids[0], skip_special_tokens=True
    )
    assert ear.transcribe([clips[2]]) == [expected.strip()] and expected.strip()
    assert ear.identity()["source"]["format"] == "CTranslate2"
    assert load_recognizer(str(folder / "model.bin")).transcribe([clips[2]]) == [expected.strip()]


def test_128_mels_and_100_languages_are_those_of_large_v3(tmp_path: Path, own_cache: Path) -> None:
    model = tiny_whisper(51866, mels=128)
    made = converted_folder(write_ctranslate2(tmp_path / "v3", variables_of(model)))
    settings = GenerationConfig.from_pretrained(made)
    assert settings.is_multilingual and len(settings.lang_to_id) == 100
    assert settings.lang_to_id["<|yue|>"] == 50358 and settings.lang_to_id["<|en|>"] == 50259
    assert settings.task_to_id == {"transcribe": 50360, "translate": 50359}
    assert settings.no_timestamps_token_id == 50364 and settings.decoder_start_token_id == 50258
    assert {50258, 50359, 50360, 50361, 50362, 50363} <= set(settings.suppress_tokens)
    assert settings.begin_suppress_tokens == [220, 50257]
    assert settings.alignment_heads == [[1, 0], [1, 1]]  # the upper half, where none are named
    assert AutoFeatureExtractor.from_pretrained(made).feature_size == 128
    assert AutoTokenizer.from_pretrained(made).convert_tokens_to_ids("<|yue|>") == 50358


@pytest.mark.parametrize(("kind", "coarsest"), [("int8", 254), ("int16", 2**11)])
def test_quantised_weights_are_divided_by_their_scales(
    tmp_path: Path, english: Any, kind: str, coarsest: int
) -> None:
    exact = variables_of(english)
    read = read_binary(write_ctranslate2(tmp_path, quantised(exact, kind)) / "model.bin")
    for name in (
        "encoder/conv1/weight",
        "decoder/layer_1/attention/linear_1/weight",
        "decoder/embeddings/weight",
    ):
        rows = exact[name].reshape(len(exact[name]), -1)
        largest = np.abs(rows).max(axis=1, keepdims=True) if kind == "int8" else np.abs(rows).max()
        error = np.abs(read[name].numpy().reshape(rows.shape) - rows)
        assert (error <= largest / coarsest + 1e-6).all() and read[name].dtype == torch.float32
    assert torch.equal(read["decoder/projection/weight"], read["decoder/embeddings/weight"])


def test_halves_and_older_versions_are_read(tmp_path: Path, english: Any) -> None:
    exact = variables_of(english)
    halves = {name: np.asarray(v, np.float16) if np.ndim(v) else v for name, v in exact.items()}
    for version in (4, 5, 6):
        read = read_binary(write_ctranslate2(tmp_path, halves, version) / "model.bin")
        name = "encoder/layer_0/ffn/linear_0/weight"
        assert read[name].dtype == torch.float16 and np.array_equal(read[name].numpy(), halves[name])


def test_a_vocabulary_is_compared_with_whispers(
    tmp_path: Path, own_cache: Path, english: Any, folder: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted_folder(folder))
    tokens = tokenizer.convert_ids_to_tokens(range(51864))
    place = write_ctranslate2(tmp_path / "own", variables_of(english))
    old = {"<|nospeech|>": "<|nocaptions|>", "<|he|>": "<|iw|>"}
    (place / "vocabulary.txt").write_text("\n".join(old.get(token, token) for token in tokens) + "\n")
    assert (converted_folder(place) / "tokenizer.json").is_file()
    (place / "vocabulary.json").write_text(json.dumps([*tokens[:300], "zebra", *tokens[301:]]))
    with pytest.raises(UserError, match="vocabulary of its own .token 300 is 'zebra'"):
        converted_folder(place)


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda variables: {key: value for key, value in variables.items() if key != name}


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (without(""), {"spec": ("TransformerSpec", 7)}, "it holds TransformerSpec"),
        (without(""), {"spec": ("WhisperSpec", 4)}, r"WhisperSpec \(revision 4\)"),
        (without(""), {"version": 3}, "version 3 of the format; versions 4 to 6"),
        (without(""), {"version": 7}, "version 7 of the format"),
        (without("encoder/layer_1/ffn/linear_0/bias"), {}, "encoder/layer_1/ffn/linear_0/bias"),
        (without("decoder/embeddings/weight"), {}, "decoder/embeddings/weight"),
        (lambda v: {**v, "encoder/conv1/bias": v["encoder/conv1/bias"][:5]}, {}, "model.encoder.conv1.bias"),
        (lambda v: {**v, "encoder/num_heads": np.int16(5)}, {}, "cannot be divided by its number of heads"),
    ],
)
def test_other_models_and_versions_are_refused_in_one_line(
    tmp_path: Path, own_cache: Path, english: Any, change: Any, options: Any, reason: str
) -> None:
    place = write_ctranslate2(tmp_path, change(variables_of(english)), **options)
    with pytest.raises(UserError, match=reason) as caught:
        converted_folder(place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 3, 20, 500, 3_000_000])
def test_a_truncated_file_is_refused_wherever_it_ends(
    folder: Path, tmp_path: Path, own_cache: Path, length: int
) -> None:
    (tmp_path / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:length])
    with pytest.raises(UserError, match="cannot be read as a model of CTranslate2: it ends too early"):
        converted_folder(tmp_path)

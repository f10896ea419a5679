"""Whisper's decoder as a compressor: it writes what Whisper writes, and the LLM reads the same characters."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, WhisperForConditionalGeneration

from rba_bench.errors import UserError
from rba_bench.speechlm.audiolm.loading import load_family
from rba_bench.speechlm.compose import ComposeOptions, compose
from rba_bench.speechlm.composite.connector_file import save_connector
from rba_bench.speechlm.composite.decoder_compressor import LONGEST, fill_window, spell_pieces
from rba_bench.speechlm.composite.modeling import word_embeddings
from rba_bench.speechlm.model_names import load_speech_model
from rba_bench.speechlm.speech_model import SpeechRequest
from rba_bench.textlm.text_model import Decoding

WINDOW = 480_000  # samples


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = (48_000, 20_000, 90_000)
    return [rng.standard_normal(n).astype(np.float32) * np.float32(0.1) for n in lengths]


@pytest.fixture(scope="module")
def composed(whisper_dir: Path, tiny_textlm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoder") / "composite"
    return compose(whisper_dir, tiny_textlm_dir, out, ComposeOptions("decoder")).path


@pytest.fixture
def family(composed: Path) -> Any:
    return load_family(composed)


def written(family: Any, clips: list[np.ndarray]) -> list[list[int]]:
    features = family.features(clips)
    mels, frames = features["input_features"], features["feature_lengths"]
    inner = family.model.model
    with torch.no_grad():
        states, _ = inner.audio_tower(fill_window(mels, frames, 3000))
    rows: list[list[int]] = inner.compressor.transcribe(states, (frames + 1) // 2)
    return rows


@pytest.mark.parametrize("language", ["en", "de"])
def test_it_writes_what_whisper_writes(
    language: str, whisper_dir: Path, tiny_textlm_dir: Path, tmp_path: Path, clips: list[np.ndarray]
) -> None:
    """Stock `generate` on the same 30 s, up to the number of word pieces that a clip may have."""
    folder = compose(
        whisper_dir, tiny_textlm_dir, tmp_path / "out", ComposeOptions("decoder", language=language)
    ).path
    family = load_family(folder)
    ours, features = written(family, clips), family.features(clips)
    windows = fill_window(features["input_features"], features["feature_lengths"], 3000)
    whisper = WhisperForConditionalGeneration.from_pretrained(whisper_dir).eval()
    end = whisper.generation_config.eos_token_id
    # random weights may write languages and tasks anywhere
    whisper.generation_config.suppress_tokens = list(range(end + 1, whisper.config.vocab_size))
    whisper.generation_config.begin_suppress_tokens = [end]
    for clip, row, window in zip(clips, ours, windows, strict=True):
        theirs = whisper.generate(
            window[None], language=language, task="transcribe", do_sample=False, max_new_tokens=58
        )[0].tolist()
        text = [token for token in theirs if token < end]
        assert len(row) >= 5 and row[:58] == text[: len(row)]
        assert len(row[:58]) == min(len(text), len(clip) // 320 // 4)


def test_the_window_is_filled_with_whispers_silence(clips: list[np.ndarray]) -> None:
    from transformers import WhisperFeatureExtractor

    from rba_bench.speechlm.composite.processing import LogMelFeatureExtractor

    features = LogMelFeatureExtractor(80)(clips)
    filled = fill_window(features["input_features"], features["feature_lengths"], 3000)
    for clip, mel in zip(clips, filled, strict=True):
        padded = np.pad(clip, (0, WINDOW - len(clip)))
        stock = WhisperFeatureExtractor(feature_size=80)(padded, sampling_rate=16_000, return_tensors="pt")
        difference = (mel - stock["input_features"][0]).abs().amax(0)
        end = len(clip) // 160
        assert float(difference[: end - 2].max()) < 1e-3  # two frames reach across the end
        assert float(difference[end + 2 :].max()) < 1e-3
    silent = fill_window(torch.full((1, 80, 10), -1.5), None, 20)
    assert silent.shape == (1, 80, 20) and bool((silent == -1.5).all())


def test_a_token_is_the_llms_embedding_of_what_was_written(family: Any, clips: list[np.ndarray]) -> None:
    with torch.no_grad():
        tokens, counts = family.encode_audio(family.features(clips))
        embeds, n_tokens = family.project(tokens, counts)
    assert torch.equal(counts, n_tokens) and torch.equal(embeds, tokens[..., :32])  # as yet untrained
    whisper_tokenizer = AutoTokenizer.from_pretrained(
        json.loads((Path(family.model.name_or_path) / "compose.json").read_text())["encoder"]["id"]
    )
    table = word_embeddings(family.model)
    for row, embedded, count in zip(written(family, clips), embeds, counts.tolist(), strict=True):
        pieces = whisper_tokenizer.convert_ids_to_tokens(row)
        expected = family.tokenizer.convert_tokens_to_ids(pieces)  # both have all bytes
        assert count == len(expected)
        torch.testing.assert_close(embedded[:count], table[expected])
        assert not bool(embedded[count:].any())


def test_a_clip_does_not_depend_on_its_batch_mates(family: Any, clips: list[np.ndarray]) -> None:
    """Not even among more clips than are decoded together."""
    many = clips * 4
    with torch.no_grad():
        tokens, counts = family.encode_audio(family.features(many))
        for i, clip in enumerate(clips):
            alone, count = family.encode_audio(family.features([clip]))
            for j in range(i, len(many), len(clips)):
                assert counts[j] == count[0] <= family.n_tokens(len(clip))
                torch.testing.assert_close(tokens[j, : count[0]], alone[0], atol=1e-4, rtol=1e-4)
                assert not bool(tokens[j, count[0] :].any())


def test_short_clips_have_a_token_and_none_without_states(family: Any) -> None:
    mels = torch.randn(2, 80, 300)
    with torch.no_grad():
        tokens, counts = family.model.encode_audio(mels, torch.tensor([6, 0]))
    assert counts.tolist() == [1, 0] and bool(tokens[0, 0].any()) and not bool(tokens[1].any())


class Words:
    """A tokenizer of whole pieces."""

    eos_token_id = 0

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self.vocabulary = vocabulary

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [self.vocabulary[char] for char in text if char in self.vocabulary]}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [list(self.vocabulary)[i] for i in ids]

    def convert_tokens_to_string(self, pieces: list[str]) -> str:
        return pieces[0].replace("Ġ", " ").replace("ä", "\N{REPLACEMENT CHARACTER}")


def test_pieces_are_spelled_by_the_llm() -> None:
    llm = Words({"Ġthe": 7, "t": 3, "o": 4, "ä": 5, "Ã": 6, " ": 9, "-": 8})
    whisper = Words(dict.fromkeys(("Ġthe", "to", "äÃ", "zz", 20 * "-", "<end>"), 0))
    used, rows = spell_pieces(whisper, llm, 5)
    assert [[used[i] for i in row] for row in rows] == [[7], [3, 4], [5, 6], [9], LONGEST * [8]]


def test_a_trained_connector_holds_its_projector_and_is_put_in_place_again(
    composed: Path, whisper_dir: Path, tiny_textlm_dir: Path, tmp_path: Path, clips: list[np.ndarray]
) -> None:
    german = compose(
        whisper_dir, tiny_textlm_dir, tmp_path / "german", ComposeOptions("decoder", language="de")
    ).path
    first = load_family(german)
    torch.nn.init.normal_(first.model.model.multi_modal_projector.linear_2.weight, std=0.1)
    save_connector(first.model, tmp_path / "connector", {})
    again = compose(
        whisper_dir, tiny_textlm_dir, tmp_path / "again", ComposeOptions(str(tmp_path / "connector"))
    )
    second = load_family(again.path)
    features = first.features(clips)
    with torch.no_grad():
        ours, theirs = (family.project(*family.encode_audio(features))[0] for family in (first, second))
        untrained = load_family(composed).encode_audio(features)[0]
    torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-2)  # float16
    assert not torch.allclose(ours, untrained[:, : ours.shape[1], :32], atol=0.1)  # and another language
    assert set(load_file(tmp_path / "connector" / "connector.safetensors")) == {
        f"projector.{name}" for name in first.model.model.multi_modal_projector.state_dict()
    }


def test_answers_are_recorded_as_padded_and_the_encoder_stays(
    composed: Path, clips: list[np.ndarray]
) -> None:
    assert "hears what Whisper's decoder writes" in (composed / "README.md").read_text()
    lm = load_speech_model(composed, batch_size=2)
    answers = lm.generate([SpeechRequest(clip, prompt="say :") for clip in clips], Decoding(max_new_tokens=4))
    assert all(not answer.error for answer in answers) and lm.family.padding == "30s"


def test_what_has_no_decoder_or_language_is_refused(
    whisper_dir: Path, tiny_composite_dir: Path, tiny_textlm_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds no decoder of Whisper: take a whole Whisper"):
        compose(tiny_composite_dir, tiny_textlm_dir, tmp_path / "a", ComposeOptions("decoder"))
    with pytest.raises(UserError, match="does not know the language 'xx'"):
        compose(whisper_dir, tiny_textlm_dir, tmp_path / "b", ComposeOptions("decoder", language="xx"))
    assert not list(tmp_path.iterdir())

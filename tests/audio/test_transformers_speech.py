"""Speech models of transformers: tiny random ones of the real classes, saved and found as a user's would be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BarkConfig,
    BarkModel,
    BertTokenizerFast,
    SpeechT5Config,
    SpeechT5FeatureExtractor,
    SpeechT5ForTextToSpeech,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    SpeechT5Processor,
    SpeechT5Tokenizer,
    VitsConfig,
    VitsModel,
    VitsTokenizer,
)
from transformers.models.bark.generation_configuration_bark import BarkGenerationConfig

from rba_bench.audio import transformers_speech
from rba_bench.audio.speech_engines import Speaker, find_speakers, speak_all
from rba_bench.errors import AudioError, MissingPrerequisite, UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz '.?-"


@pytest.fixture(scope="module")
def vits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VITS model of three speakers."""
    folder = tmp_path_factory.mktemp("models") / "tiny-vits"
    torch.manual_seed(0)
    config = VitsConfig(
        vocab_size=len(LETTERS) + 1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=16,
        flow_size=8,
        spectrogram_bins=9,
        prior_encoder_num_flows=1,
        prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1,
        duration_predictor_num_flows=1,
        duration_predictor_filter_channels=16,
        depth_separable_num_layers=1,
        upsample_initial_channel=16,
        upsample_rates=[8, 8, 4],
        upsample_kernel_sizes=[16, 16, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
        num_speakers=3,
        speaker_embedding_size=4,
        sampling_rate=16_000,
    )
    VitsModel(config).save_pretrained(folder)
    vocabulary = {letter: number + 1 for number, letter in enumerate(LETTERS)} | {"<pad>": 0}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    VitsTokenizer(
        str(folder / "vocab.json"), pad_token="<pad>", phonemize=False, is_uroman=False
    ).save_pretrained(folder)
    return folder


def say(speaker: Speaker, text: str) -> np.ndarray:
    return speaker.engine.speak(text, "en", speaker.voice)


def test_vits_says_the_same_text_in_the_same_samples_and_leaves_the_random_numbers_alone(vits: Path) -> None:
    speakers = find_speakers([f"hf:{vits}"])
    assert [speaker.name for speaker in speakers] == ["tiny-vits+0", "tiny-vits+1", "tiny-vits+2"]
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    first = say(speakers[0], "hello there")
    assert torch.equal(torch.rand(2), expected), "the caller's random numbers changed"
    other = say(speakers[1], "hello there")
    say(speakers[0], "something else")
    transformers_speech._load.cache_clear()  # another process would load the model anew
    again = say(speakers[0], "hello there")
    assert first.dtype == np.float32 and first.ndim == 1 and np.isfinite(first).all() and first.any()
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    assert not say(speakers[0], "  ").any()


def test_one_voice_may_be_named_and_mistakes_are_one_line(vits: Path, tmp_path: Path) -> None:
    (speaker,) = find_speakers([f"hf:{vits}?voice=2"])
    assert speaker.name == "tiny-vits+2" and speaker.voice.voice == "2"
    facts = speaker.facts()
    assert facts["engine"] == "transformers" and str(vits.parent) not in json.dumps(facts)
    for spec, error, message in (
        (f"hf:{vits}?voice=3", UserError, "has no voice '3'"),
        (f"hf:{vits}?vioce=3", UserError, "unknown option 'vioce'; did you mean 'voice'"),
        (f"hf:{tmp_path / 'nothing'}", MissingPrerequisite, "there is no such folder"),
        ("hf:", UserError, "hf: names no model"),
    ):
        with pytest.raises(error, match=message.replace("(", r"\(")) as caught:
            find_speakers([spec])
        assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="a bert model, which does not speak"):
        find_speakers([f"hf:{tmp_path}"])


def test_a_text_of_unknown_letters_is_an_error_of_this_text_alone(vits: Path) -> None:
    (speaker,) = find_speakers([f"hf:{vits}?voice=0"])
    first, second = speak_all(["你好", "hello"], "en", [speaker, speaker])
    assert isinstance(second, np.ndarray) and len(second)
    assert isinstance(first, AudioError) or not np.array_equal(first, second)


@pytest.fixture(scope="module")
def speecht5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SpeechT5 model, its vocoder, and two speaker vectors."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("models") / "tiny-speecht5"
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([LETTERS, "hello there"]),
        model_prefix=str(folder / "spm_char"),
        model_type="char",
        vocab_size=36,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
    )
    tokenizer = SpeechT5Tokenizer(str(folder / "spm_char.model"))
    SpeechT5Processor(SpeechT5FeatureExtractor(), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in (
        ("layers", 1), ("attention_heads", 2), ("ffn_dim", 16),
    )}  # fmt: skip
    config = SpeechT5Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_mel_bins=8,
        speech_decoder_prenet_units=8,
        speech_decoder_postnet_units=8,
        speech_decoder_postnet_layers=2,
        speaker_embedding_dim=6,
        reduction_factor=2,
        **sizes,
    )
    SpeechT5ForTextToSpeech(config).save_pretrained(folder)
    vocoder = SpeechT5HifiGanConfig(
        model_in_dim=8,
        upsample_initial_channel=8,
        upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
    )
    SpeechT5HifiGan(vocoder).save_pretrained(folder / "vocoder")
    (folder / "vectors").mkdir()
    for name, row in (("anna", np.ones((1, 6))), ("ben", -np.ones(6))):
        np.save(folder / "vectors" / f"{name}.npy", row.astype(np.float32))
    return folder


def test_speecht5_speaks_with_vectors_from_files(speecht5: Path) -> None:
    transformers_speech._load.cache_clear()
    anna, ben = find_speakers(
        [f"hf:{speecht5}?speakers={speecht5 / 'vectors'}&vocoder={speecht5 / 'vocoder'}"]
    )
    assert (anna.name, ben.name) == ("tiny-speecht5+anna", "tiny-speecht5+ben")
    first, other, again = say(anna, "hello"), say(ben, "hello"), say(anna, "hello")
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    assert anna.facts()["vector"] != ben.facts()["vector"]
    with pytest.raises(UserError, match=r"needs speaker vectors: add \?speakers=FOLDER"):
        find_speakers([f"hf:{speecht5}"])
    np.save(speecht5 / "vectors" / "anna.npy", np.full((2, 6), np.nan, np.float32))
    transformers_speech._vector.cache_clear()
    with pytest.raises(UserError, match="anna.npy holds no speaker vector"):
        say(anna, "hello")


@pytest.fixture(scope="module")
def bark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bark model with two voice presets."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bark"
    folder.mkdir()
    torch.manual_seed(0)
    # large weights: what is said depends on the preset, though nothing is drawn at random
    small = {"num_layers": 1, "num_heads": 2, "hidden_size": 16, "block_size": 1024, "initializer_range": 1.0}
    config = BarkConfig(
        semantic_config={**small, "input_vocab_size": 129_600, "output_vocab_size": 10_048},
        coarse_acoustics_config={**small, "input_vocab_size": 12_096, "output_vocab_size": 12_096},
        fine_acoustics_config={**small, "input_vocab_size": 1056, "output_vocab_size": 1056},
        codec_config={
            "model_type": "encodec", "num_filters": 2, "hidden_size": 8, "codebook_dim": 8, "num_lstm_layers": 1,
            "upsampling_ratios": [8, 5, 4, 2],
        },
    )  # fmt: skip
    model = BarkModel(config)
    for layer in model.codec_model.quantizer.layers:  # zeros in a new model: then all codes sound the same
        torch.nn.init.normal_(layer.codebook.embed)
    model.save_pretrained(folder)
    generation = BarkGenerationConfig(semantic_config={"max_new_tokens": 8, "eos_token_id": 10_000})
    (folder / "generation_config.json").write_text(
        json.dumps(generation.to_dict())
    )  # nested, as Bark publishes it
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "there", *LETTERS]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    presets: dict[str, Any] = {"repo_or_path": str(folder)}
    (folder / "v2").mkdir()
    for number in range(2):
        rng, name = np.random.default_rng(number), f"v2/en_speaker_{number}"
        arrays = {
            "semantic_prompt": rng.integers(0, 10_000, 40),
            "coarse_prompt": rng.integers(0, 1024, (2, 60)),
            "fine_prompt": rng.integers(0, 1024, (8, 60)),
        }
        for part, array in arrays.items():
            np.save(folder / f"{name}_{part}.npy", array)
        presets[name] = {part: f"{name}_{part}.npy" for part in arrays}
    (folder / "speaker_embeddings_path.json").write_text(json.dumps(presets))
    return folder


def test_bark_speaks_with_its_presets(bark: Path) -> None:
    speakers = find_speakers([f"hf:{bark}"])
    assert [speaker.name for speaker in speakers] == [
        "tiny-bark+v2-en_speaker_0",
        "tiny-bark+v2-en_speaker_1",
    ]
    first, other, again = (say(speakers[place], "hello there") for place in (0, 1, 0))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    assert [s.name for s in find_speakers([f"hf:{bark}?voice=v2/en_speaker_1"])] == [
        "tiny-bark+v2-en_speaker_1"
    ]

"""Encoders and language models of several kinds joined into checkpoints that answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.speechlm.compose import ComposeOptions, compose, load_whisper_encoder
from rba_bench.speechlm.model_names import load_speech_model
from rba_bench.speechlm.speech_model import SpeechRequest
from rba_bench.textlm.text_model import Decoding

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
TEMPLATE = (  # of a text model: content is a string
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@pytest.fixture(scope="module")
def llm_of(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Any:
    """Builds a random text LLM whose tokenizer has never heard of sound."""
    from transformers import AutoTokenizer, Gemma2Config, GPTNeoXConfig, Qwen2Config

    kinds = {
        "qwen2": lambda size: Qwen2Config(vocab_size=size, num_key_value_heads=2, **SIZES),
        "gpt_neox": lambda size: GPTNeoXConfig(vocab_size=size, **SIZES),
        "gemma2": lambda size: Gemma2Config(
            vocab_size=size, num_key_value_heads=2, head_dim=8, final_logit_softcapping=5.0, **SIZES
        ),
    }

    def build(kind: str) -> Path:
        from transformers import AutoModelForCausalLM

        folder = tmp_path_factory.mktemp(kind) / kind
        tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
        tokenizer.chat_template = TEMPLATE
        config = kinds[kind](len(tokenizer))
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
        with torch.random.fork_rng():
            torch.manual_seed(2)
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return build


@pytest.fixture(scope="module")
def qwen_dir(llm_of: Any) -> Path:
    folder: Path = llm_of("qwen2")
    return folder


@pytest.mark.parametrize("kind", ["qwen2", "gpt_neox", "gemma2"])
def test_whisper_and_any_llm_answer(
    kind: str, llm_of: Any, whisper_dir: Path, tmp_path: Path, clips: list[np.ndarray]
) -> None:
    folder = llm_of(kind)
    options = ComposeOptions(stack=3, projector_size=24, seed=7, audio_token="<sound>", dtype="float32")
    made = compose(whisper_dir, folder, tmp_path / "out", options)
    lm = load_speech_model(made.path, batch_size=2)
    requests = [SpeechRequest(clip, prompt="say :") for clip in clips[1:4]]
    answers = lm.generate(requests, Decoding(max_new_tokens=6))
    assert all(not answer.error for answer in answers)
    if kind != "gemma2":  # whose loud, tied embeddings make it repeat its last word
        assert len({answer.text for answer in answers}) > 1
    config = lm.family.model.config
    assert (config.stack_factor, config.projector_hidden_size) == (3, 24)
    known = json.loads((made.path / "compose.json").read_text())
    assert known["llm"]["id"] == str(folder) and len(known["encoder"]["weights_sha256"]) == 64
    assert known["options"]["seed"] == 7 and known == made.provenance


def test_text_passes_through_the_llm_unchanged(llm_of: Any, whisper_dir: Path, tmp_path: Path) -> None:
    """Gemma 2 bounds its logits: the composite does the same."""
    from transformers import AutoModelForCausalLM

    from rba_bench.speechlm.audiolm.loading import load_family

    folder = llm_of("gemma2")
    family = load_family(compose(whisper_dir, folder, tmp_path / "out").path)
    ids = torch.tensor([[5, 9, 40, 7]])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits
        hidden = family.decode(family.model.get_input_embeddings()(ids), torch.ones_like(ids))
        found = family.head(hidden)
    assert 1.0 < float(expected.abs().max()) <= 5.0
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_encoder_states_are_whispers_own(
    whisper_dir: Path, qwen_dir: Path, tmp_path: Path, clips: list[np.ndarray]
) -> None:
    from transformers import WhisperFeatureExtractor, WhisperModel

    from rba_bench.speechlm.audiolm.loading import load_family

    family = load_family(compose(whisper_dir, qwen_dir, tmp_path / "out").path)
    clip = np.pad(clips[3], (0, 480_000 - len(clips[3])))  # 30 s, as Whisper hears it
    mels = WhisperFeatureExtractor(feature_size=80)(clip, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        whisper = WhisperModel.from_pretrained(whisper_dir).eval()
        expected = whisper.encoder(mels["input_features"]).last_hidden_state
        states, lengths = family.encode_audio(family.features([clip]))
    assert lengths.tolist() == [1500]
    assert float((states - expected).abs().max()) < 1e-5
    assert float(expected.std()) > 0.1


def test_the_same_again_is_kept_and_another_is_refused(
    whisper_dir: Path, qwen_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = compose(whisper_dir, qwen_dir, out)
    written = (out / "model.safetensors").stat().st_mtime_ns
    assert compose(whisper_dir, qwen_dir, out) == first
    assert (out / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(UserError, match="options|seed"):
        compose(whisper_dir, qwen_dir, out, ComposeOptions(seed=1))


def test_number_type_is_that_of_the_llm_unless_asked(
    whisper_dir: Path, qwen_dir: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    out = compose(whisper_dir, qwen_dir, tmp_path / "half", ComposeOptions(dtype="bfloat16")).path
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}


def test_a_tower_of_whispers_kind_gives_its_layers(tmp_path: Path) -> None:
    """Voxtral names its sizes differently; layers and their names are Whisper's."""
    from transformers import VoxtralConfig, VoxtralForConditionalGeneration

    sizes = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = VoxtralConfig(
        audio_config={"model_type": "voxtral_encoder", "num_mel_bins": 80, **sizes},
        text_config={
            "model_type": "llama",
            "vocab_size": 40,
            **{**sizes, "intermediate_size": 64, "head_dim": 8, "num_key_value_heads": 2},
        },
        audio_token_id=24,
    )
    model = VoxtralForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path)
    mels = torch.randn(1, 80, 3000)
    with torch.no_grad():
        expected = model.model.audio_tower(mels).last_hidden_state
        states, _ = load_whisper_encoder(tmp_path)(mels)
    assert float((states - expected).abs().max()) < 1e-5


def _edited(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy with another config.json."""
    import shutil

    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_wrong_parts_are_one_line(
    whisper_dir: Path, qwen_dir: Path, tiny_composite_dir: Path, tmp_path: Path
) -> None:
    mute = _edited(qwen_dir, tmp_path / "mute")
    (mute / "chat_template.jinja").unlink()
    cases: list[tuple[type[RbaError], str, Path, Path]] = [
        (UserError, "not an encoder of Whisper's kind", qwen_dir, qwen_dir),
        (UserError, "64 mel bins", _edited(whisper_dir, tmp_path / "mels", num_mel_bins=64), qwen_dir),
        (UserError, "lacks .* weights of the encoder", _edited(whisper_dir, tmp_path / "w", d_model=64), qwen_dir),
        (UserError, "no chat template", whisper_dir, mute),
        (UserError, "not a causal language model of text alone", whisper_dir, tiny_composite_dir),
        (MissingPrerequisite, "no encoder at", tmp_path / "nowhere", qwen_dir),
        (MissingPrerequisite, "no text LLM at", whisper_dir, tmp_path / "nowhere"),
    ]  # fmt: skip
    for number, (kind, message, encoder, llm) in enumerate(cases):
        with pytest.raises(kind, match=message) as caught:
            compose(encoder, llm, tmp_path / f"out{number}")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="dtype 'int8' is none of"):
        compose(whisper_dir, qwen_dir, tmp_path / "out", ComposeOptions(dtype="int8"))

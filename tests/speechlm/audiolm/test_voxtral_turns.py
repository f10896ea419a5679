"""Voxtral with the tokenizer its checkpoints ship: `tekken.json`, read by mistral-common."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rba_bench.errors import MissingPrerequisite
from rba_bench.speechlm.audiolm.engine import TransformersSpeechLM
from rba_bench.speechlm.audiolm.families.adapter import AudioFamily
from tests.speechlm.audiolm import contract
from tests.speechlm.audiolm.conftest import SMALL_ENCODER, random_model, whisper_features

CONTROL = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
    "[ARGS]",
    "[CALL_ID]",
    "[THINK]",
    "[/THINK]",
    "[AUDIO]",
    "[BEGIN_AUDIO]",
    "[TRANSCRIBE]",
]
N_SPECIAL = 40


def write_tekken(folder: Path) -> Path:
    """The schema of Voxtral's tokenizer file, over single bytes."""
    spectrogram = {"num_mel_bins": 80, "window_size": 400, "hop_length": 160}
    content = {
        "config": {
            "pattern": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+",
            "num_vocab_tokens": 256,
            "default_vocab_size": 256 + N_SPECIAL,
            "default_num_special_tokens": N_SPECIAL,
            "version": "v11",
        },
        "vocab": [
            {"rank": i, "token_bytes": base64.b64encode(bytes([i])).decode(), "token_str": None}
            for i in range(256)
        ],
        "special_tokens": [
            {"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(CONTROL)
        ],
        "audio": {
            "sampling_rate": 16_000,
            "frame_rate": 12.5,
            "audio_encoding_config": spectrogram,
            "chunk_length_s": 30.0,
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tekken.json").write_text(json.dumps(content))
    return folder / "tekken.json"


@pytest.fixture(scope="module")
def tekken_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import VoxtralConfig, VoxtralForConditionalGeneration

    text = {
        "model_type": "llama",
        "vocab_size": 256 + N_SPECIAL,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.25,
    }
    audio = {"model_type": "voxtral_encoder", **SMALL_ENCODER, "intermediate_size": 128}
    folder = tmp_path_factory.mktemp("voxtral") / "tekken"
    write_tekken(folder)
    config = VoxtralConfig(audio_config=audio, text_config=text, audio_token_id=24)
    random_model(lambda: VoxtralForConditionalGeneration(config)).save_pretrained(folder)
    whisper_features().save_pretrained(folder)
    setup = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**setup, "processor_class": "VoxtralProcessor"})
    )
    return folder


def test_turns_and_answers_are_those_of_mistral_common(
    tekken_dir: Path, speech: list[np.ndarray], tmp_path: Path
) -> None:
    pytest.importorskip("mistral_common")

    def inputs_of(family: AudioFamily, audio: np.ndarray, prompt: str) -> dict:
        soundfile.write(tmp_path / "clip.wav", audio, 16_000, subtype="FLOAT")
        turn = [{"type": "audio", "path": str(tmp_path / "clip.wav")}]
        turn += [{"type": "text", "text": prompt}] if prompt else []
        return dict(family.processor.apply_chat_template([{"role": "user", "content": turn}]))

    # on its way through messages the stock path rounds samples to 16 bits
    speech = [np.round(clip * 2**15).astype(np.float32) / 2**15 for clip in speech[:2]]
    contract.answers_are_stock(tekken_dir, speech, inputs_of)
    contract.embeds_and_logits_are_stock(tekken_dir, speech[0], inputs_of)
    family = TransformersSpeechLM.from_pretrained(tekken_dir).family
    assert family.answer_ids("ok")[-1] == 2  # </s>


def test_without_mistral_common_the_user_is_told(tekken_dir: Path) -> None:
    from transformers.utils import is_mistral_common_available

    if is_mistral_common_available():
        pytest.skip("mistral-common is installed")
    with pytest.raises(MissingPrerequisite, match=r"pip install .*\[voxtral\]'"):
        TransformersSpeechLM.from_pretrained(tekken_dir)

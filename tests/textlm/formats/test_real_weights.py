"""Real weights: SmolLM2 in GGUF beside llama.cpp, Whisper tiny.en of CTranslate2 beside openai-whisper's own code.

`make assets` fetches them; `RBA_TEST_GGUF` and `RBA_TEST_CTRANSLATE2` name other places.
"""

import json
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rba_bench.audio import espeak
from rba_bench.files import cache_dir, sha256_file
from rba_bench.speechlm.recognizers import load_recognizer
from rba_bench.textlm.formats.conversion import converted_folder, read_source
from rba_bench.textlm.text_model import Decoding, load_textlm
from tests.textlm.misbehaving_server import free_port
from tests.textlm.real_server import gguf, missing, real_serving

SAID = {
    "The capital of France is Paris.": "the capital of france is paris",
    "How far is the moon from the earth?": "how far is the moon",
}


def binary() -> Path | None:
    """`model.bin` of Whisper tiny.en, None if it is not there."""
    named = os.environ.get("RBA_TEST_CTRANSLATE2")
    places = [Path(named) / "model.bin"] if named else (cache_dir() / "assets").rglob("model.bin")
    return next((place for place in places if place.is_file()), None)


pytestmark = [pytest.mark.assets, pytest.mark.slow]  # the conversion of SmolLM2 alone takes half a minute
needs_llm = pytest.mark.skipif(bool(missing()), reason=missing() or "all there")
needs_whisper = pytest.mark.skipif(
    binary() is None, reason="no model.bin among the assets: run `make assets`"
)


@pytest.fixture(scope="module")
def smollm2() -> Path:
    return converted_folder(gguf())


@pytest.fixture(scope="module")
def tiny_en() -> Path:
    place = binary()
    assert place is not None
    return converted_folder(place)


@pytest.fixture(scope="module")
def llama_cpp() -> Iterator[str]:
    """Address of llama.cpp's server with the same file."""
    with real_serving(free_port()) as server:
        yield server.spec.removeprefix("openai:").partition("/v1")[0]


def ask(address: str, path: str, **body: Any) -> Any:
    request = urllib.request.Request(
        f"{address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


@needs_llm
def test_words_become_the_tokens_of_llama_cpp(smollm2: Path, llama_cpp: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    texts = (
        "The capital of France is",
        "In  2024 there were 1,234 cats;   17 of them didn't sleep.\n\n  - Café déjà vu — 日本語 🙂\t\tend  ",
        "x=  12*(y3 - 4.50)\r\n    return 007",
    )
    for text in texts:
        theirs = ask(llama_cpp, "/tokenize", content=text, add_special=False)["tokens"]
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == theirs
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], add_generation_prompt=True, tokenize=False
    )
    messages = [{"role": "user", "content": "Hello"}]
    assert turn == ask(llama_cpp, "/apply-template", messages=messages)["prompt"]


@needs_llm
def test_metadata_became_settings(smollm2: Path) -> None:
    from transformers import AutoConfig, GenerationConfig

    config, settings = AutoConfig.from_pretrained(smollm2), GenerationConfig.from_pretrained(smollm2)
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (30, 576, 49152)
    assert config.rope_parameters["rope_theta"] == 100_000 and config.max_position_embeddings == 8192
    assert config.tie_word_embeddings and config.dtype == torch.float32
    assert (settings.bos_token_id, settings.eos_token_id, settings.pad_token_id) == (1, 2, 2)
    source = read_source(smollm2)
    assert source is not None and source["sha256"] == sha256_file(gguf())
    assert source["tensors_sha256"].startswith("faf714ce5e44852b")


@needs_llm
def test_answers_begin_as_those_of_llama_cpp(llama_cpp: str) -> None:
    """Its kernels round differently, so long answers part; what is certain to both is not touched by that."""
    lm = load_textlm(str(gguf()))
    [answer] = lm.complete(["The capital of France is"], Decoding(4), [0])
    theirs = ask(llama_cpp, "/completion", prompt="The capital of France is", n_predict=4, temperature=0)
    assert answer.text.split()[0].strip(",.") == "Paris" == theirs["content"].split()[0].strip(",.")


@needs_whisper
def test_speech_is_understood(tiny_en: Path) -> None:
    ear = load_recognizer(str(binary()))
    clips = [espeak.speak(text, "en", espeak.BANKS["base"][0]) for text in SAID]
    for heard, said in zip(ear.transcribe(clips), SAID.values(), strict=True):
        assert said in heard.lower().replace(",", "")


@needs_whisper
def test_the_same_weights_in_openais_own_code_and_format(tiny_en: Path, tmp_path: Path) -> None:
    """tiny.en as a `.pt` file: its logits and the way back are exact."""
    from transformers import GenerationConfig, WhisperForConditionalGeneration
    from whisper.model import ModelDimensions, Whisper

    from rba_bench.textlm.formats.openai_whisper import RENAMED

    ours = WhisperForConditionalGeneration.from_pretrained(tiny_en, dtype=torch.float32).eval()
    theirs = Whisper(ModelDimensions(80, 1500, 384, 6, 4, 51864, 448, 384, 6, 4)).eval()
    names = {}
    for name in theirs.state_dict():
        renamed = name
        for a, b in RENAMED:
            renamed = renamed.replace(a, b)
        names[name] = f"model.{renamed}"
    theirs.load_state_dict({name: ours.state_dict()[key] for name, key in names.items()})
    wave = espeak.speak("The capital of France is Paris.", "en", espeak.BANKS["base"][0])
    import whisper

    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(np.array(wave)))[None]
    ids = torch.tensor([[50257, 50362, 383, 3139, 286]])
    with torch.no_grad():
        expected = theirs(mel, ids)
        assert torch.allclose(ours(mel, decoder_input_ids=ids).logits, expected, atol=1e-4, rtol=1e-5)
    file = tmp_path / "tiny.en.pt"
    torch.save({"dims": asdict(theirs.dims), "model_state_dict": theirs.state_dict()}, file)
    back = converted_folder(file)
    again = WhisperForConditionalGeneration.from_pretrained(back)
    assert all(torch.equal(t, ours.state_dict()[name]) for name, t in again.state_dict().items())
    kept = ("suppress_tokens", "begin_suppress_tokens", "decoder_start_token_id", "no_timestamps_token_id")
    one, other = GenerationConfig.from_pretrained(tiny_en), GenerationConfig.from_pretrained(back)
    assert [getattr(one, name) for name in kept] == [getattr(other, name) for name in kept]

"""Wherever a model is named, a file or folder of another format may stand."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.errors import UserError
from rba_bench.speechlm.compose import compose
from rba_bench.speechlm.model_names import load_speech_model, short_name
from rba_bench.speechlm.speech_model import SpeechRequest
from rba_bench.textlm.text_model import Decoding, load_textlm
from rba_bench.textlm.weights import local_folder
from tests.textlm.formats.ctranslate2_files import tiny_whisper, variables_of, write_ctranslate2
from tests.textlm.formats.test_openai_whisper import random_whisper, save

COMMIT = "c" * 40


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ctranslate2(tmp_path_factory.mktemp("ct2") / "tiny", variables_of(tiny_whisper()))


def ask(spec: Path | str, clip: np.ndarray) -> Any:
    model = load_speech_model(spec, device="cpu")
    [answer] = model.generate([SpeechRequest(clip, "what is the largest river ?")], Decoding(6))
    return model, answer


def test_a_text_llm_and_a_cascade_of_files(
    llama_file: Path, whisper_folder: Path, own_cache: Path, clips: list[np.ndarray]
) -> None:
    reader, answer = ask(f"text:{llama_file}", clips[1])
    assert answer.text and reader.name == "text-tiny-llama"
    assert reader.identity()["source"]["format"] == "GGUF"
    cascade, answer = ask(f"cascade:{whisper_folder}+{llama_file}", clips[1])
    assert answer.heard and cascade.name == "cascade-tiny-tiny-llama"
    assert cascade.identity()["text"]["source"]["file"] == "tiny-llama.gguf"


def test_composites_are_made_of_files(
    llama_file: Path, whisper_folder: Path, own_cache: Path, clips: list[np.ndarray], tmp_path: Path
) -> None:
    made = compose(whisper_folder, llama_file, tmp_path / "ct2")
    assert made.provenance["llm"]["source"]["format"] == "GGUF"
    assert made.provenance["encoder"]["source"]["format"] == "CTranslate2"
    assert made.provenance["encoder"]["id"] == str(whisper_folder)
    assert ask(made.path, clips[1])[1].status in ("ok", "truncated", "empty")
    pt = compose(save(random_whisper(51865), tmp_path / "mini.pt"), llama_file, tmp_path / "openai")
    assert pt.provenance["encoder"]["source"]["format"] == "openai-whisper"


def test_a_published_name_of_whisper_is_an_encoder(
    llama_file: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package takes a file of its cache if its hash is the one in the file's address."""
    import whisper

    from rba_bench.files import sha256_file

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "whisper").mkdir()
    file = save(random_whisper(51865), tmp_path / "whisper" / "tiny.pt")
    monkeypatch.setitem(whisper._MODELS, "tiny", f"http://127.0.0.1:9/{sha256_file(file)}/tiny.pt")
    monkeypatch.setitem(whisper._ALIGNMENT_HEADS, "tiny", whisper_heads([[1, 2], [2, 0]]))
    made = compose("tiny", llama_file, tmp_path / "made")
    assert made.provenance["encoder"]["source"] | {"tensors_sha256": ""} == {
        "format": "openai-whisper",
        "file": "tiny.pt",
        "sha256": sha256_file(file),
        "converter": 1,
        "tensors_sha256": "",
    }
    from transformers import GenerationConfig

    assert GenerationConfig.from_pretrained(local_folder(file)).alignment_heads == [[1, 2], [2, 0]]


def whisper_heads(heads: list[list[int]]) -> bytes:
    import base64
    import gzip

    mask = np.zeros((3, 4), dtype=bool)
    mask[tuple(zip(*heads, strict=True))] = True
    return base64.b85encode(gzip.compress(mask.tobytes()))


def test_a_part_of_a_cascade_alone_is_refused_with_what_to_write(
    llama_file: Path, whisper_folder: Path
) -> None:
    for text in (str(llama_file), "not-there.gguf", "owner/repo:x.gguf"):
        with pytest.raises(UserError, match=rf"{text} is a text LLM: write text:{text} or cascade:"):
            load_speech_model(text)
    with pytest.raises(UserError, match=r"is a recogniser \(CTranslate2\): write cascade:"):
        load_speech_model(whisper_folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama_file: Path, whisper_folder: Path) -> Path:
    """A cache as the Hub's client lays it out: a repository of two GGUF files, of one, and one of CTranslate2."""
    for name, files in {
        "org--two": {"a.gguf": llama_file, "sub/b.gguf": llama_file},
        "org--one": {"a.gguf": llama_file},
        "org--ct2": {f.name: f for f in whisper_folder.iterdir()},
    }.items():
        snapshot = tmp_path / f"models--{name}" / "snapshots" / COMMIT
        for place, file in files.items():
            (snapshot / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, snapshot / place)
        (snapshot.parent.parent / "refs").mkdir()
        (snapshot.parent.parent / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize(
    "spec", ["org/two:a.gguf", "org/two@main:a.gguf", f"org/two@{COMMIT}:sub/b.gguf", "org/one"]
)
def test_a_file_of_a_repository_on_the_hub(hub: Path, llama_folder: Path, spec: str) -> None:
    assert local_folder(spec) == llama_folder
    identity = load_textlm(spec).identity()
    assert identity["path"] == spec and identity["revision"] == COMMIT


def test_a_repository_of_faster_whisper(hub: Path, own_cache: Path, whisper_folder: Path) -> None:
    assert local_folder("org/ct2", "recogniser") == local_folder(whisper_folder)


def test_tables_name_a_file_without_its_end() -> None:
    assert short_name("org/two:a.gguf") == "a"
    assert short_name(f"org/two@{COMMIT}:sub/b.Q4_1.gguf") == "b.Q4_1@cccccccc"
    assert short_name("models/b.Q4_1.gguf") == "b.Q4_1"

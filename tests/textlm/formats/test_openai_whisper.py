"""`.pt` files of openai-whisper: the converted model computes what the package's own model computes."""

import pickle
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from transformers import GenerationConfig, WhisperForConditionalGeneration
from whisper.model import ModelDimensions, Whisper

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.recognizers import load_recognizer
from rba_bench.textlm.formats.conversion import converted_folder
from rba_bench.textlm.formats.openai_whisper import download_openai_whisper, is_openai_name


def random_whisper(size: int, mels: int = 80) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Whisper(ModelDimensions(mels, 1500, 32, 4, 2, size, 40, 32, 4, 3))
        for parameter in model.parameters():
            parameter.data.normal_(std=0.2)
    return model.eval()


def save(model: Any, path: Path) -> Path:
    torch.save({"dims": asdict(model.dims), "model_state_dict": model.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def model() -> Any:
    return random_whisper(51865)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, model: Any) -> Path:
    return save(model, tmp_path_factory.mktemp("openai") / "mini.pt")


@pytest.mark.parametrize(("size", "mels"), [(51864, 80), (51866, 128)])
def test_logits_are_those_of_the_packages_own_model(
    tmp_path: Path, own_cache: Path, size: int, mels: int
) -> None:
    theirs = random_whisper(size, mels)
    made = converted_folder(save(theirs, tmp_path / "mini.pt"))
    ours = WhisperForConditionalGeneration.from_pretrained(made)
    mel = torch.randn(2, mels, 3000, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[50257, 50362, 11, 12], [50258, 7, 8, 9]])
    with torch.no_grad():
        expected = theirs(mel, ids)
        assert torch.allclose(ours(mel, decoder_input_ids=ids).logits, expected, atol=1e-4, rtol=1e-5)
    assert float(expected.abs().max()) > 1


def test_settings_are_those_that_the_package_decodes_with(file: Path, own_cache: Path, model: Any) -> None:
    from whisper.decoding import DecodingOptions, DecodingTask

    settings = GenerationConfig.from_pretrained(converted_folder(file))
    task = DecodingTask(model, DecodingOptions(language="de", without_timestamps=True, fp16=False))
    assert settings.suppress_tokens == list(task._get_suppress_tokens())
    assert settings.begin_suppress_tokens == [*task.tokenizer.encode(" "), task.tokenizer.eot]
    assert (settings.decoder_start_token_id, settings.eos_token_id) == (
        task.tokenizer.sot,
        task.tokenizer.eot,
    )
    assert settings.no_timestamps_token_id == task.tokenizer.no_timestamps
    assert settings.lang_to_id["<|de|>"] == task.tokenizer.to_language_token("de")
    upper = model.alignment_heads.to_dense().nonzero().tolist()
    assert settings.alignment_heads == upper


def test_transcripts_are_those_of_the_package(
    file: Path, own_cache: Path, clips: Sequence[np.ndarray]
) -> None:
    ours = load_recognizer(str(converted_folder(file)), language="de")
    theirs = load_recognizer(str(file), language="de")
    assert ours.transcribe(clips[:2]) == theirs.transcribe(clips[:2])


class Command:
    """What a pickle can make a careless reader do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["code", "text", "cut", "other tensors", "no dims", "own vocabulary"])
def test_other_files_are_refused_in_one_line_and_run_nothing(
    tmp_path: Path, own_cache: Path, file: Path, model: Any, kind: str
) -> None:
    bad, trace = tmp_path / "bad.pt", tmp_path / "ran"
    dims = asdict(model.dims)
    if kind == "code":
        torch.save({"dims": dims, "model_state_dict": Command(trace)}, bad)
    elif kind == "text":
        bad.write_text("hello")
    elif kind == "cut":
        bad.write_bytes(file.read_bytes()[:-50_000])
    elif kind == "other tensors":
        torch.save({"dims": dims, "model_state_dict": {"weight": torch.zeros(3)}}, bad)
    elif kind == "no dims":
        torch.save(model.state_dict(), bad)
    else:
        save(random_whisper(500), bad)
    with pytest.raises(UserError, match=r"bad\.pt") as caught:
        converted_folder(bad)
    assert "\n" not in str(caught.value) and not trace.exists()
    bad.write_bytes(pickle.dumps(Command(trace)))
    with pytest.raises(UserError, match="is no openai-whisper checkpoint"):
        converted_folder(bad)
    assert not trace.exists()


def test_published_names_come_from_the_packages_cache_or_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_openai_name("tiny.en") and is_openai_name("turbo") and not is_openai_name("./tiny.en")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(MissingPrerequisite, match=r"tiny\.en cannot be downloaded .*put tiny\.en\.pt into"):
        download_openai_whisper("tiny.en")


def test_a_published_file_names_the_heads_of_word_times(file: Path) -> None:
    """`tiny` is told by its hash; its heads are those that the package sets."""
    from rba_bench.textlm.formats.openai_whisper import _published_heads, alignment_heads

    theirs = Whisper(ModelDimensions(80, 1500, 384, 6, 4, 51865, 448, 384, 6, 4))
    theirs.set_alignment_heads(whisper._ALIGNMENT_HEADS["tiny"])
    assert alignment_heads("tiny", 4, 6) == theirs.alignment_heads.to_dense().nonzero().tolist()
    assert _published_heads(file, {}) is None

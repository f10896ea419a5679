"""From `--model` to a model."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.composite.ctc import CTCRecognizer
from rba_bench.speechlm.model_names import BUILT_IN, load_speech_model, split_cascade
from rba_bench.speechlm.speech_model import SpeechRequest
from rba_bench.textlm.text_model import Decoding


@pytest.fixture(scope="module")
def weights(
    tmp_path_factory: pytest.TempPathFactory, tiny_composite_dir: Path, tiny_textlm_dir: Path
) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    shutil.copytree(tiny_composite_dir, folder / "base")
    shutil.copytree(tiny_textlm_dir, folder / "teacher")
    CTCRecognizer(32, "abc ").save(folder / "asr")
    return folder


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_name_answers(name: str, weights: Path, clips: Sequence[np.ndarray]) -> None:
    model = load_speech_model(name, batch_size=2, device="cpu", weights=weights)
    assert model.name == name
    requests = [SpeechRequest(clip, "give me a plan") for clip in clips]
    answers = model.generate(requests, Decoding(max_new_tokens=4))
    assert len(answers) == len(clips)
    assert {answer.status for answer in answers} <= {"ok", "empty", "truncated"}
    identity = model.identity()
    assert len(identity["weights_sha256"]) == 64 and identity["n_parameters"] >= 0


def test_names_have_different_identities(weights: Path) -> None:
    hashes = {load_speech_model(name, weights=weights).identity()["weights_sha256"] for name in BUILT_IN}
    assert len(hashes) == len(BUILT_IN)


def test_a_folder_is_a_checkpoint(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(weights / "base", tmp_path / "sft")
    assert load_speech_model(tmp_path / "sft").name == "sft"
    monkeypatch.chdir(tmp_path / "sft")
    assert load_speech_model(".").name == "sft"


def test_weights_come_from_the_environment(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_MICRO_WEIGHTS", str(weights))
    assert load_speech_model("base").identity()["path"] == str(weights / "base")


@pytest.mark.parametrize("spec", ["bse", "runs/none/checkpoint-1"])
def test_what_is_not_there(spec: str) -> None:
    with pytest.raises(
        MissingPrerequisite, match=f"no model '{spec}'.*base, text, cascade, constant"
    ) as caught:
        load_speech_model(spec)
    assert caught.value.exit_code == 3


def test_a_misspelt_name_names_the_nearest() -> None:
    with pytest.raises(MissingPrerequisite, match="no model 'casade', did you mean 'cascade'"):
        load_speech_model("casade")


def test_a_hub_id_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        MissingPrerequisite, match="no speech model at Some/audio-llm: not a folder here, and the Hub says"
    ):
        load_speech_model("Some/audio-llm")


@pytest.mark.parametrize(
    "spec", ["cascade:large-v3", "cascade:", "cascade:large-v3+", "cascade:+Qwen/Qwen2.5"]
)
def test_a_cascade_needs_both_parts(spec: str) -> None:
    with pytest.raises(
        UserError, match=r"names no (text LLM|recogniser): write cascade:<recogniser>\+<llm>, such as"
    ):
        load_speech_model(spec)


def test_a_folder_may_hold_a_plus(tmp_path: Path) -> None:
    (tmp_path / "a+b").mkdir()
    assert split_cascade(f"{tmp_path}/a+b+teacher") == (f"{tmp_path}/a+b", "teacher")
    assert split_cascade("tiny+x+y") == ("tiny", "x+y")


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'cascde'.*; did you mean cascade:tiny"):
        load_speech_model("cascde:tiny+Qwen/Qwen2.5")
    with pytest.raises(UserError, match="it may start with text:, cascade:, openai:"):
        load_speech_model("zzz:model")


def test_a_text_model_needs_a_name() -> None:
    with pytest.raises(UserError, match="write text:<llm>"):
        load_speech_model("text:")


def test_gold_transcripts_for_any_text_llm(tiny_textlm_dir: Path) -> None:
    from rba_bench.textlm.local import LocalTextLM

    model = load_speech_model(f"text:{tiny_textlm_dir}", batch_size=2)
    assert model.name == "text-textlm" and model.identity()["kind"] == "text-oracle"
    requests = [SpeechRequest(None, words, "answer :") for words in ("give me a plan", "what is it ?")]
    decoding = Decoding(max_new_tokens=5)
    stock = LocalTextLM.from_pretrained(tiny_textlm_dir)
    assert model.generate(requests, decoding) == stock.chat(
        ["answer : give me a plan", "answer : what is it ?"], decoding, [0, 0]
    )


def test_a_server_answers_gold_transcripts_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_API_KEY", "sk-secret-of-this-test")
    model = load_speech_model("text:openai:http://127.0.0.1:9/v1#some/model-7b")
    assert model.name == "text-model-7b" and model.identity()["kind"] == "text-oracle"
    assert model.streams and model.reads_transcript
    assert "secret" not in json.dumps(model.identity()) + repr(vars(model))


def test_a_cascade_of_any_recogniser_and_any_text_llm(
    openai_file: Path, tiny_textlm_dir: Path, clips: Sequence[np.ndarray]
) -> None:
    from rba_bench.speechlm.recognizers import load_recognizer

    model = load_speech_model(f"cascade:{openai_file}+{tiny_textlm_dir}", batch_size=2, language="de")
    assert model.name == "cascade-mini-textlm"
    heard = load_recognizer(str(openai_file), language="de").transcribe(clips)
    requests = [SpeechRequest(clip, "gold", key=f"clip {i}") for i, clip in enumerate(clips)]
    answers = model.generate(requests, Decoding(max_new_tokens=4))
    assert [answer.heard for answer in answers] == heard
    text = load_speech_model(f"text:{tiny_textlm_dir}")
    read = text.generate([SpeechRequest(None, words) for words in heard], Decoding(max_new_tokens=4))
    assert [answer.text for answer in answers] == [answer.text for answer in read]
    identity = model.identity()
    assert identity["asr"]["language"] == "de" and identity["asr"]["kind"] == "openai-whisper"
    assert (
        identity["weights_sha256"]
        != load_speech_model(f"text:{tiny_textlm_dir}").identity()["weights_sha256"]
    )


def test_a_cascade_ending_in_a_server(openai_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RBA_API_KEY", raising=False)
    identity = load_speech_model(f"cascade:{openai_file}+openai:http://127.0.0.1:9/v1#m").identity()
    assert identity["text"]["url"] == "http://127.0.0.1:9/v1" and identity["n_parameters"] is None


def test_a_server_that_hears() -> None:
    model = load_speech_model("openai:http://127.0.0.1:9/v1#Qwen/Qwen2-Audio-7B-Instruct")
    assert model.name == "Qwen2-Audio-7B-Instruct" and model.identity()["kind"] == "endpoint"


def test_a_server_that_may_decode_otherwise_is_told_apart_in_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_speech_model("openai:http://localhost:1/v1#m").name == "m"
    monkeypatch.setenv("RBA_ENDPOINT_WITHOUT", "temperature,top_p")
    assert load_speech_model("openai:http://localhost:1/v1#m").name == "m+without-temperature+without-top_p"
    assert (
        load_speech_model("text:openai:http://localhost:1/v1#m").name
        == "text-m+without-temperature+without-top_p"
    )


def test_a_server_without_its_model() -> None:
    with pytest.raises(UserError, match="without a model: write openai:<base_url>#<model>"):
        load_speech_model("openai:http://127.0.0.1:9/v1")


def test_other_models_are_no_speechlms(tiny_textlm_dir: Path) -> None:
    with pytest.raises(UserError):
        load_speech_model(tiny_textlm_dir)


def test_a_damaged_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"no usable config\.json"):
        load_speech_model(tmp_path)


@pytest.mark.parametrize("name", ["base", "text", "cascade"])
def test_names_without_built_weights(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="run `rba-bench micro build`"):
        load_speech_model(name, weights=tmp_path)


def test_a_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is a file"):
        load_speech_model(tmp_path / "model.safetensors")

"""Recognisers on tiny random models of the real architectures, in the formats of the real checkpoints."""

import json
import pickle
import urllib.error
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.speechlm.clip_batches import split_long_clip
from rba_bench.speechlm.recognizers import (
    Recognizer,
    TransformersWhisper,
    load_recognizer,
)


@pytest.fixture(params=["whisper_dir", "ctc_dir", "group_norm_dir", "openai_file"])
def asr(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


def test_each_clip_is_heard_as_if_alone(asr: Path, clips: Sequence[np.ndarray]) -> None:
    ear = load_recognizer(str(asr), batch_size=3)
    assert isinstance(ear, Recognizer)
    heard = ear.transcribe(clips)
    alone = load_recognizer(str(asr), batch_size=1)
    assert heard == [alone.transcribe([clip])[0] for clip in clips]
    assert len(set(heard)) > 1 and all(heard)  # untrained, but neither deaf nor mute


def test_identity_tells_weights_and_settings(asr: Path) -> None:
    identity = load_recognizer(str(asr)).identity()
    assert identity["path"] == str(asr) and len(identity["weights_sha256"]) == 64
    assert identity["n_parameters"] > 1_000 and "greedy" in identity["decoding"]


def test_whisper_is_what_transformers_generates(whisper_dir: Path, clips: Sequence[np.ndarray]) -> None:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    model = WhisperForConditionalGeneration.from_pretrained(whisper_dir)
    processor = WhisperProcessor.from_pretrained(whisper_dir)
    inputs = processor(clips[2], sampling_rate=16_000, return_tensors="pt")
    for language in ("en", "de"):
        ids = model.generate(inputs.input_features, language=language, task="transcribe", max_new_tokens=32)
        expected = processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
        ear = load_recognizer(str(whisper_dir), language=language)
        assert ear.transcribe([clips[2]]) == [expected] and expected
        assert ear.identity()["language"] == language


def test_a_shorter_window_is_whispers_own_where_it_is_whole(
    whisper_dir: Path, clips: Sequence[np.ndarray]
) -> None:
    """With silence up to 30 s the same words; with less, each clip by itself, and the identity says so."""
    whole = load_recognizer(str(whisper_dir), language="en", batch_size=3)
    filled = load_recognizer(str(whisper_dir), language="en", batch_size=3, silence_s=30)
    assert filled.transcribe(clips) == whole.transcribe(clips)
    short = load_recognizer(str(whisper_dir), language="en", batch_size=3, silence_s=2)
    words = short.transcribe(clips)
    assert words == [short.transcribe([clip])[0] for clip in clips] != whole.transcribe(clips)
    assert short.in_whole_windows().transcribe(clips) == whole.transcribe(clips)
    assert short.transcribe(clips) == words
    assert short.identity()["silence_s"] == 2
    assert short.in_whole_windows().identity() == whole.identity()


def test_a_short_window_holds_the_states_of_a_whole_one(
    whisper_dir: Path, clips: Sequence[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder gets the clip, then silence up to a whole step of 2.5 s."""
    short = load_recognizer(str(whisper_dir), language="en", silence_s=2)
    assert isinstance(short, TransformersWhisper)
    frames = [short._window(clip) for clip in clips]
    seconds = [len(clip) / 16_000 for clip in clips]
    assert all(
        2 <= window / 100 - s < 4.5 and window % 250 == 0 for window, s in zip(frames, seconds, strict=True)
    )
    assert short._window(np.zeros(29 * 16_000, np.float32)) == 3000
    assert short._short_encoder.conv1.weight.data_ptr() == short.model.get_encoder().conv1.weight.data_ptr()


def test_openai_whisper_is_what_the_package_decodes(openai_file: Path, clips: Sequence[np.ndarray]) -> None:
    import whisper

    model = whisper.load_model(str(openai_file), "cpu")
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(clips[1]), 80)
    options = whisper.DecodingOptions(language="de", without_timestamps=True, fp16=False)
    expected = whisper.decode(model, mel, options).text
    assert load_recognizer(str(openai_file), language="de").transcribe([clips[1]]) == [expected.strip()]


def test_ctc_is_what_transformers_decodes(ctc_dir: Path, clips: Sequence[np.ndarray]) -> None:
    from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

    model, processor = Wav2Vec2ForCTC.from_pretrained(ctc_dir), Wav2Vec2Processor.from_pretrained(ctc_dir)
    with torch.no_grad():
        logits = model(**processor(clips[3], sampling_rate=16_000, return_tensors="pt")).logits
    assert load_recognizer(str(ctc_dir)).transcribe([clips[3]]) == processor.batch_decode(logits.argmax(-1))


def test_long_clips_are_heard_to_the_end(asr: Path, clips: Sequence[np.ndarray]) -> None:
    silence = np.zeros(16_000, dtype=np.float32)
    first, last = np.tile(clips[4], 13), clips[3]  # 26 s
    long = np.concatenate([first, silence, np.tile(last, 6)])
    ear = load_recognizer(str(asr), batch_size=4)
    pieces = split_long_clip(long)
    assert len(pieces) == 2 and max(map(len, pieces)) <= 30 * 16_000
    assert ear.transcribe([long]) == [" ".join(ear.transcribe(pieces))]
    assert ear.fault(long) == ""


@pytest.mark.parametrize("n_samples", [1, 320, 1_599])
def test_the_shortest_clip_is_heard(asr: Path, n_samples: int) -> None:
    (heard,) = load_recognizer(str(asr)).transcribe([np.full(n_samples, 0.1, dtype=np.float32)])
    assert isinstance(heard, str)


def test_no_clips_at_all(ctc_dir: Path) -> None:
    assert load_recognizer(str(ctc_dir)).transcribe([]) == []


def test_unusable_audio_is_a_fault(ctc_dir: Path) -> None:
    ear = load_recognizer(str(ctc_dir))
    assert ear.fault(None) == "no audio" and "no samples" in ear.fault(np.zeros(0, dtype=np.float32))


def test_an_absent_mask_embedding_does_not_matter(ctc_dir: Path, tmp_path: Path) -> None:
    """As in the published wav2vec2-base-960h."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(ctc_dir, tmp_path / "published"))
    state = load_file(folder / "model.safetensors")
    state.pop("wav2vec2.masked_spec_embed")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    clip = np.sin(np.arange(16_000, dtype=np.float32) / 9)
    assert load_recognizer(str(folder)).transcribe([clip]) == load_recognizer(str(ctc_dir)).transcribe([clip])
    state.pop("lm_head.weight")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 weights of the recogniser"):
        load_recognizer(str(folder))


def test_a_misspelt_name_names_the_nearest() -> None:
    with pytest.raises(MissingPrerequisite, match="no recogniser 'large-v33', did you mean 'large-v3'"):
        load_recognizer("large-v33")
    with pytest.raises(
        MissingPrerequisite, match=r"'nothing/like/it': give one of openai-whisper \(tiny.en,"
    ):
        load_recognizer("nothing/like/it")


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(MissingPrerequisite, match=r"openai-whisper tiny cannot be downloaded \(.*not known"):
        load_recognizer("tiny")


def test_published_names_go_the_same_way(
    openai_file: Path, monkeypatch: pytest.MonkeyPatch, clips: Sequence[np.ndarray]
) -> None:
    """With the download answered by a local file: everything else is the package's own code."""
    monkeypatch.setattr("whisper._download", lambda url, root, in_memory: str(openai_file))
    monkeypatch.setattr("whisper._ALIGNMENT_HEADS", {"tiny": None})
    named, filed = load_recognizer("tiny"), load_recognizer(str(openai_file))
    assert named.transcribe(clips[:2]) == filed.transcribe(clips[:2])
    assert named.identity()["weights_sha256"] == filed.identity()["weights_sha256"]
    assert named.identity()["path"] == "tiny"


class _Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps({"dims": _Exploit()}, 2)])
def test_other_files_are_refused_and_never_executed(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.pt").write_bytes(content)
    with pytest.raises(UserError, match="bad.pt is no openai-whisper checkpoint"):
        load_recognizer("bad.pt")
    torch.save({"dims": _Exploit()}, "worse.pt")
    with pytest.raises(UserError, match="worse.pt is no openai-whisper checkpoint"):
        load_recognizer("worse.pt")
    assert not Path("executed").exists()


def test_languages_are_checked(whisper_dir: Path, openai_file: Path, ctc_dir: Path) -> None:
    with pytest.raises(UserError, match="does not know language 'xx'; use de, en"):
        load_recognizer(str(whisper_dir), language="xx")
    with pytest.raises(UserError, match="does not know language 'xx'; use en, zh, de"):
        load_recognizer(str(openai_file), language="xx")
    with pytest.raises(UserError, match="takes no language"):
        load_recognizer(str(ctc_dir), language="de")


def test_other_models_are_no_recognisers(tiny_textlm_dir: Path, ctc_dir: Path) -> None:
    with pytest.raises(UserError, match="type 'llama'; a recogniser is Whisper or a CTC model"):
        load_recognizer(str(tiny_textlm_dir))
    with pytest.raises(UserError, match="batch size is 0"):
        load_recognizer(str(ctc_dir), batch_size=0)


def test_a_recogniser_needs_its_tokenizer(ctc_dir: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((ctc_dir / name).read_bytes())
    with pytest.raises(UserError, match="holds no usable recogniser"):
        load_recognizer(str(tmp_path))


def test_english_only_whisper(whisper_dir: Path, tmp_path: Path, clips: Sequence[np.ndarray]) -> None:
    import shutil

    folder = Path(shutil.copytree(whisper_dir, tmp_path / "mini.en"))
    config = json.loads((folder / "generation_config.json").read_text())
    for name in ("lang_to_id", "task_to_id"):
        del config[name]
    config["is_multilingual"] = False
    (folder / "generation_config.json").write_text(json.dumps(config))
    ear = load_recognizer(str(folder), language="en")
    assert ear.transcribe(clips) == load_recognizer(str(folder)).transcribe(clips)
    with pytest.raises(UserError, match="English only, not 'de'"):
        load_recognizer(str(folder), language="de")


def test_only_whisper_of_transformers_takes_a_number_type_and_a_window(
    whisper_dir: Path, openai_file: Path, ctc_dir: Path, clips: Sequence[np.ndarray]
) -> None:
    whisper = load_recognizer(str(whisper_dir), dtype="bfloat16")
    assert whisper.identity()["dtype"] == "bfloat16"
    assert (
        whisper.identity()["weights_sha256"] == load_recognizer(str(whisper_dir)).identity()["weights_sha256"]
    )
    assert len(whisper.transcribe(clips[:2])) == 2
    for other in (ctc_dir, openai_file):
        with pytest.raises(UserError, match="cannot be told to compute in bfloat16"):
            load_recognizer(str(other), dtype="bfloat16")
        with pytest.raises(UserError, match="takes no shorter window: leave silence_s out"):
            load_recognizer(str(other), silence_s=10)

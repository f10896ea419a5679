"""Voices by name, balanced draws, speakers in other processes, and samples that must never change."""

import hashlib
import json
import pickle
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rba_bench.assets import ASSETS
from rba_bench.assets.fetching import asset_path, is_cached
from rba_bench.audio.speech_engines import (
    ENGINES,
    Speaker,
    SpeechEngine,
    draw_speakers,
    engine_of_name,
    find_speakers,
    speak_all,
)
from rba_bench.errors import AudioError, MissingPrerequisite, UserError

pytest.importorskip("espeakng_loader")
# SHA-256 of the samples (float32, 16 kHz) of espeak-ng 1.52.0 resampled by soxr: sets that exist hold them
SAMPLES = {
    ("test/en-us+linda", "What is the capital of France?"): (
        "3847cf6239f5ab42a7bb9c0b08438aabeee8f81290b7623f8205e26fd8ce6240"
    ),
    ("base/en-us+m3", "Give me three tips, please."): (
        "2b51a5fe05e0773496889ea3858c6552d71ebcf9d1f73f8ed1b520b26afd2347"
    ),
    ("train/en-gb-x-rp+Annie", "Der Hund"): (
        "c05db2c1564ee485652758520c50733b4f35c97b14a8b0f48ccee44ec4a4e3e9"
    ),
}


def digest(speaker: Speaker, text: str) -> str:
    return hashlib.sha256(speaker.engine.speak(text, "en", speaker.voice).tobytes()).hexdigest()


def test_the_samples_of_existing_voices_never_change() -> None:
    for (name, text), expected in SAMPLES.items():
        assert digest(find_speakers([name])[0], text) == expected, name


@pytest.mark.assets
def test_the_samples_of_the_natural_voice_are_those_of_its_model() -> None:
    if not is_cached(ASSETS["piper-en_US-joe-medium"]):
        pytest.skip("fetch it with `rba-bench assets fetch piper-en_US-joe-medium`")
    (speaker,) = find_speakers(["natural"])
    wave = speaker.engine.speak("The capital of France is Paris.", "en", speaker.voice)
    assert len(wave) == 29_722  # the last bits differ from one kind of processor to another


def test_speakers_are_cheap_to_send_and_sound_the_same_in_another_process() -> None:
    speakers = find_speakers(["test", "base"])
    sizes = [len(pickle.dumps(speaker)) for speaker in speakers]
    assert max(sizes) < 400
    texts = ["hello there"] * 3
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert list(pool.map(digest, speakers[:3], texts)) == [
            digest(speaker, text) for speaker, text in zip(speakers, texts, strict=False)
        ]
    back = pickle.loads(pickle.dumps(speakers[0]))  # noqa: S301 - our own
    assert back == speakers[0] and back.engine is engine_of_name("espeak-ng")


def fake(n: int) -> list[Speaker]:
    voices = [type("V", (), {"name": f"v{i}"})() for i in range(n)]
    return [Speaker(ENGINES[0], voice) for voice in voices]


@pytest.mark.parametrize(("n", "k"), [(2456, 4), (16, 4), (7, 3), (5, 5), (6, 4), (3, 1), (1, 1)])
def test_every_voice_is_used_equally_often_within_one(n: int, k: int) -> None:
    speakers = fake(n)
    used: Counter[str] = Counter({speaker.name: 0 for speaker in speakers})
    for key in range(4 * n + 3):
        drawn = draw_speakers(speakers, k, 1, key)
        assert len({speaker.name for speaker in drawn}) == k
        used.update(speaker.name for speaker in drawn)
        if key < 200 or key > 4 * n:
            assert max(used.values()) - min(used.values()) <= 1, key


def test_draws_depend_on_seed_and_key_alone() -> None:
    speakers = fake(12)
    names = {key: [s.name for s in draw_speakers(speakers, 4, 3, key)] for key in range(60)}
    assert {key: [s.name for s in draw_speakers(speakers, 4, 3, key)] for key in reversed(range(60))} == names
    assert [s.name for s in draw_speakers(speakers, 4, 4, 0)] != names[0]
    companies = {frozenset(group) for group in names.values()}
    assert len(companies) > 50, "the same voices always come together"
    by_name = Counter(s.name for n in range(900) for s in draw_speakers(speakers, 4, 3, f"item-{n}"))
    assert min(by_name.values()) > 230 and max(by_name.values()) < 370
    with pytest.raises(UserError, match="5 voices an item were asked for, and there are 3"):
        draw_speakers(fake(3), 5, 0, 0)


def test_many_texts_at_once_keep_their_places_and_one_error_stays_alone() -> None:
    def picky(text: str, language: str, voice: Any) -> np.ndarray:
        if text == "bad":
            raise AudioError("no")
        return np.full(3, len(text), np.float32)

    def batch(texts: Any, language: str, voices: Any) -> list[Any]:
        return [picky(text, language, voice) for text, voice in zip(texts, voices, strict=True)]

    voice = find_speakers(["clear-dev"])[0].voice
    one = Speaker(SpeechEngine("one", str, picky, {}), voice)
    two = Speaker(SpeechEngine("two", str, picky, {}, speak_batch=batch), voice)
    results = speak_all(["a", "bad", "ccc", "dddd"], "en", [one, one, two, one])
    assert isinstance(results[1], AudioError)
    assert [result[0] for result in results if isinstance(result, np.ndarray)] == [1, 3, 4]


def piper_file(folder: Path, name: str, speakers: dict[str, int] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{name}.onnx"
    model.write_bytes(name.encode())
    settings = {"num_speakers": len(speakers or {}) or 1, "speaker_id_map": speakers or {}}
    Path(f"{model}.json").write_text(json.dumps(settings))
    return model


def test_piper_voices_by_folder_and_speaker(tmp_path: Path) -> None:
    many = piper_file(tmp_path / "en" / "vctk", "vctk", {"p225": 0, "p226": 1, "p227": 2})
    piper_file(tmp_path / "en" / "joe", "joe")
    (tmp_path / "en" / "orphan.onnx").write_bytes(b"no settings beside it")
    speakers = find_speakers([str(tmp_path)])
    assert [speaker.name for speaker in speakers] == ["joe", "vctk+0", "vctk+1", "vctk+2"]
    assert [speaker.voice.speaker for speaker in speakers] == [0, 0, 1, 2]
    assert [s.name for s in find_speakers([f"{many},{many}#p226,{many}#2"])] == ["vctk", "vctk+1", "vctk+2"]
    assert len(find_speakers([f"{many}#all"])) == 3
    facts = speakers[1].facts()
    assert facts["model"] == hashlib.sha256(b"vctk").hexdigest() and facts["engine"] == "piper"
    with pytest.raises(UserError, match="vctk.onnx has no speaker '3': it has 3, from 0 to 2"):
        find_speakers([f"{many}#3"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingPrerequisite, match="no Piper voice in"):
        find_speakers([str(tmp_path / "empty")])
    Path(f"{many}.json").write_text("[")
    with pytest.raises(UserError, match="vctk.onnx is no usable Piper voice"):
        find_speakers([f"{many}#all"])
    with pytest.raises(MissingPrerequisite, match="no folder /nowhere/voices"):
        find_speakers(["/nowhere/voices"])
    with pytest.raises(UserError, match="unknown bank of voices 'natural2'; did you mean 'natural'"):
        find_speakers(["natural2"])


@pytest.mark.assets
def test_a_real_piper_voice_in_a_folder_is_the_one_of_the_bank(tmp_path: Path) -> None:
    if not is_cached(ASSETS["piper-en_US-joe-medium"]):
        pytest.skip("fetch it with `rba-bench assets fetch piper-en_US-joe-medium`")
    model = asset_path("asset:piper-en_US-joe-medium")
    for file in (model, Path(f"{model}.json")):
        (tmp_path / file.name).symlink_to(file)
    (mine,), (natural,) = find_speakers([str(tmp_path)]), find_speakers(["natural"])
    assert digest(mine, "Good morning.") == digest(natural, "Good morning.")

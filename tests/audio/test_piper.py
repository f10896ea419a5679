"""Piper voices: mistakes in one line, and with the real voice equal samples for equal text."""

import sys
from pathlib import Path

import numpy as np
import pytest

from rba_bench.assets import ASSETS
from rba_bench.assets.fetching import is_cached
from rba_bench.audio import piper, speech_engines
from rba_bench.audio.piper import PiperVoice
from rba_bench.errors import MissingPrerequisite, UserError


@pytest.fixture(autouse=True)
def no_voice_is_remembered() -> None:
    piper._load_voice.cache_clear()


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "piper", None)
    with pytest.raises(MissingPrerequisite, match="no Piper: install it with .*tts"):
        piper.piper_version()


def test_files_that_are_no_voice_are_refused(tmp_path: Path) -> None:
    model = tmp_path / "voice.onnx"
    model.write_bytes(b"not an ONNX model")
    with pytest.raises(UserError, match="voice.onnx is no usable Piper voice"):
        piper.speak("hello", "en", PiperVoice("v", str(model)))
    Path(f"{model}.json").write_text("{}")
    with pytest.raises(UserError, match="voice.onnx is no usable Piper voice"):
        piper.speak("hello", "en", PiperVoice("v", str(model)))


def test_banks_of_all_engines_have_names_of_their_own() -> None:
    names = [bank for engine in speech_engines.ENGINES for bank in engine.banks]
    assert len(names) == len(set(names)) == len(speech_engines.VOICE_BANKS)
    assert speech_engines.engine_of_bank("natural").name == "piper"


@pytest.mark.assets
def test_the_real_voice_says_the_same_text_in_the_same_samples() -> None:
    if not is_cached(ASSETS["piper-en_US-joe-medium"]):
        pytest.skip("fetch it with `rba-bench assets fetch piper-en_US-joe-medium`")
    (voice,) = piper.BANKS["natural"]
    first = piper.speak("The capital of France is Paris.", "en", voice)
    piper.speak("Something else in between.", "en", voice)
    again = piper.speak("The capital of France is Paris.", "en", voice)
    assert first.dtype == np.float32 and 1.0 < len(first) / piper.SAMPLING_RATE < 4.0
    assert np.array_equal(first, again) and 0.05 < np.abs(first).max() <= 1.0
    piper._load_voice.cache_clear()  # another process would load the model anew
    assert np.array_equal(first, piper.speak("The capital of France is Paris.", "en", voice))
    with pytest.raises(UserError, match="speaks en, not de"):
        piper.speak("Guten Tag", "de", voice)

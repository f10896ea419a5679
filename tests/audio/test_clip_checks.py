"""Checks of clips: no alarm on real voices, and each fault found on broken clips."""

import numpy as np
import pytest
from pydantic import ValidationError

from rba_bench.assets import ASSETS
from rba_bench.assets.fetching import is_cached
from rba_bench.audio.clip_checks import REASONS, ClipLimits, clip_faults, count_words, measure_speech
from rba_bench.audio.perturbations import gain, overdrive
from rba_bench.audio.speech_engines import find_speakers

pytest.importorskip("espeakng_loader")
TEXTS = (
    "Yes.",
    "Why?",
    "Photosynthesis?",
    "What is it?",
    "Explain antidisestablishmentarianism.",
    "First, boil the water. Then, add salt. Wait. Now, add the pasta.",
    "I would like to know, if that is possible, how the first railways were built; who paid for them, and why.",
)
TEXT = TEXTS[-1]
LIMITS = ClipLimits()
SECOND = np.zeros(16_000, np.float32)


@pytest.fixture(scope="module")
def wave() -> np.ndarray:
    (speaker,) = find_speakers(["test/en-us+linda"])
    return speaker.engine.speak(TEXT, "en", speaker.voice)


def faults(wave: np.ndarray, text: str = TEXT, language: str = "en") -> tuple[str, ...]:
    return clip_faults(measure_speech(wave, text, language), LIMITS)


@pytest.mark.parametrize("bank", ["base", "train", "clear-train", "clear-test", "clear-dev", "test"])
def test_no_alarm_on_real_voices(bank: str) -> None:
    for speaker in find_speakers([bank]):
        for text in TEXTS:
            assert faults(speaker.engine.speak(text, "en", speaker.voice), text) == (), (speaker.name, text)


@pytest.mark.assets
def test_no_alarm_on_a_natural_voice() -> None:
    if not is_cached(ASSETS["piper-en_US-joe-medium"]):
        pytest.skip("fetch it with `rba-bench assets fetch piper-en_US-joe-medium`")
    (speaker,) = find_speakers(["natural"])
    for text in TEXTS[:4]:
        assert faults(speaker.engine.speak(text, "en", speaker.voice), text) == (), text


def test_each_fault_is_found_alone(wave: np.ndarray) -> None:
    middle = len(wave) // 2
    half = np.concatenate([wave[: middle // 3], wave[-middle // 8 :]])
    broken = {
        "silent": 0 * wave,
        "clipped": gain(wave, 18.0),
        "pause_before": np.concatenate([SECOND, 0.1 * SECOND[:4000], wave]),
        "pause_after": np.concatenate([wave, SECOND, SECOND]),
        "pause_inside": np.concatenate([wave[:middle], SECOND, SECOND, SECOND, wave[middle:]]),
        "too_fast": half,
        "too_slow": np.concatenate([wave] * 4),
    }
    assert list(broken) == list(REASONS)
    for reason, samples in broken.items():
        assert faults(samples) == (reason,), reason


def test_peaks_cut_off_below_full_scale_are_found_and_loud_clips_are_not(wave: np.ndarray) -> None:
    assert faults(0.5 * overdrive(wave, 12.0)) == ("clipped",)
    loud = wave / np.abs(wave).max()
    assert faults(loud) == () and measure_speech(loud, TEXT).peak == pytest.approx(1.0)


def test_several_faults_are_all_named_and_nothing_is_silent(wave: np.ndarray) -> None:
    assert faults(np.concatenate([SECOND, SECOND, gain(wave, 18.0)])) == ("clipped", "pause_before")
    for nothing in (np.zeros(0, np.float32), np.zeros(1, np.float32), SECOND):
        assert faults(nothing) == ("silent",)


def test_words_of_languages_without_spaces_and_hyphens() -> None:
    assert count_words("What's up - twenty-one?", "en") == 4
    assert count_words("今天天气很好。", "zh") == 3
    assert measure_speech(np.tile([0.1, -0.1], 20_000).astype(np.float32), "今天天气很好。", "zh").words == 3


def test_limits_are_checked() -> None:
    for wrong in ({"clipped": 2}, {"pause_after": 0}, {"pauses": 1}):
        with pytest.raises(ValidationError):
            ClipLimits.model_validate(wrong)

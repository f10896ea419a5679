"""From text to clips."""

from typing import Any

import numpy as np
import pytest

from rba_bench.audio import clips
from rba_bench.audio.espeak import BANKS, Voice
from rba_bench.audio.speech_engines import VOICE_BANKS, SpeechEngine, engine_of_bank
from rba_bench.files import sha256_bytes
from rba_bench.synthesis.speech import SpokenClips, draw_voices
from rba_bench.synthesis.synthesis_recipe import SynthesisRecipe
from rba_bench.synthesis.units import Unit

UNIT = Unit(
    "g1",
    "train",
    "s2tt",
    "translate german to english :",
    "der hund schläft",
    "the dog sleeps",
    "de",
    "en",
    "others",
    "easy",
)
RECIPE = SynthesisRecipe(snr_db=(10, 20), speed=(0.9, 1.1))


def tone(text: str, language: str, voice: Voice) -> np.ndarray:
    assert (text, language) == ("der hund schläft", "de")  # the prompt is not spoken
    return (0.3 * np.sin(np.arange(16_000) / voice.pitch)).astype(np.float32)


FAKE = SpeechEngine("tone", lambda: "1", tone, BANKS)


def speak(recipe: SynthesisRecipe, engine: SpeechEngine = FAKE) -> list[dict[str, Any]]:
    return SpokenClips(recipe, engine).rows(UNIT)


def test_rows_are_reproducible_and_consistent() -> None:
    rows = speak(RECIPE)
    assert rows == speak(RECIPE)
    assert len({row["voice"] for row in rows}) == 4 == len({row["id"] for row in rows})
    for row in rows:
        data = row["audio"]["bytes"]
        wave = clips.decode_clip(data, row["sampling_rate"])
        assert row["audio_sha256"] == sha256_bytes(data)
        assert row["duration"] == pytest.approx(len(wave) / 16_000)
        assert row["duration"] == pytest.approx(1 / row["speed"], rel=0.01)
        assert 10 <= row["snr_db"] <= 20 and 0.9 <= row["speed"] <= 1.1
        assert row["noise_colour"] in RECIPE.noise_colours
    assert len({row["snr_db"] for row in rows}) > 1


def test_without_noise_the_clip_is_the_voice() -> None:
    clean = RECIPE.model_copy(update={"snr_db": None, "speed": (1.0, 1.0)})
    row = speak(clean)[0]
    voice = draw_voices(clean, UNIT.group_id)[0]
    assert row["snr_db"] is None and row["noise_colour"] is None
    np.testing.assert_allclose(
        clips.decode_clip(row["audio"]["bytes"], 16_000), tone("der hund schläft", "de", voice), atol=4e-5
    )


def test_noise_level_is_what_the_row_says() -> None:
    quiet = speak(RECIPE.model_copy(update={"snr_db": None, "speed": (1.0, 1.0)}))
    noisy = speak(RECIPE.model_copy(update={"speed": (1.0, 1.0)}))
    for clean, row in zip(quiet, noisy, strict=True):
        speech = clips.decode_clip(clean["audio"]["bytes"], 16_000).astype(np.float64)
        noise = clips.decode_clip(row["audio"]["bytes"], 16_000) - speech
        assert 10 * np.log10(np.mean(speech**2) / np.mean(noise**2)) == pytest.approx(row["snr_db"], abs=0.2)


def test_voices_come_from_the_bank_and_differ_between_groups() -> None:
    picks = {tuple(voice.name for voice in draw_voices(RECIPE, f"g{n}")) for n in range(20)}
    assert len(picks) > 10
    assert {name for pick in picks for name in pick} <= {voice.name for voice in BANKS["train"]}


def test_real_speech_is_reproducible() -> None:
    pytest.importorskip("espeakng_loader")
    engine = engine_of_bank(RECIPE.voice_bank)
    rows = speak(RECIPE, engine)
    assert rows == speak(RECIPE, engine)
    assert all(0.4 < row["duration"] < 5 for row in rows)
    assert engine.name == "espeak-ng" and engine.version()


def test_every_bank_is_of_one_engine_and_its_voices_can_be_told_apart() -> None:
    for bank, voices in VOICE_BANKS.items():
        assert engine_of_bank(bank).banks[bank] is voices
        assert len({voice.name for voice in voices}) == len(voices)

"""From text to clips."""

import json
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rba_bench.assets import find_asset
from rba_bench.assets.fetching import is_cached
from rba_bench.audio import clips
from rba_bench.audio.augmentation import Augmentation
from rba_bench.audio.clip_checks import ClipLimits
from rba_bench.audio.espeak import BANKS, Voice
from rba_bench.audio.speech_engines import VOICE_BANKS, SpeechEngine, engine_of_bank
from rba_bench.audio.turns import Turn
from rba_bench.errors import AudioError
from rba_bench.files import sha256_bytes
from rba_bench.synthesis.speech import CLIP_REASONS, SpokenClips, draw_voices
from rba_bench.synthesis.synthesis_recipe import RoundTripOptions, SynthesisRecipe
from rba_bench.synthesis.units import Dialogue, Unit

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
    return SpokenClips(recipe, engine).shard([UNIT], 0).rows


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


def units(n: int, text: str = "a red bird sings in the garden") -> list[Unit]:
    return [
        replace(UNIT, group_id=f"u{i}", instruction=text, source_lang="en", kind="instruct") for i in range(n)
    ]


def test_named_voices_speak_equally_often_whatever_the_shards() -> None:
    pytest.importorskip("espeakng_loader")
    recipe = RECIPE.model_copy(update={"voices": ("clear-test", "clear-dev"), "voices_per_instruction": 3})
    maker = SpokenClips(recipe)
    whole = maker.shard(units(14), 0).rows
    parts = [*maker.shard(units(14)[:5], 0).rows, *maker.shard(units(14)[5:], 5).rows]
    assert whole == parts
    assert set(Counter(row["voice"] for row in whole).values()) == {6}
    assert sorted({row["voice"] for row in whole}) == sorted(maker.voice_names())
    again = pickle.loads(pickle.dumps(maker))  # noqa: S301 - as it is sent to a worker
    assert again.shard(units(2), 0).rows == maker.shard(units(2), 0).rows


def test_numbers_are_said_as_words_and_stay_as_they_are_written() -> None:
    pytest.importorskip("wetext")
    said: list[str] = []

    def listen(text: str, language: str, voice: Voice) -> np.ndarray:
        said.append(text)
        return np.sin(np.arange(32_000) / 9).astype(np.float32) * 0.3

    recipe = RECIPE.model_copy(update={"spoken_form": True, "voices_per_instruction": 1})
    made = SpokenClips(recipe, replace(FAKE, speak=listen)).shard(units(1, "it costs $5 in 2024"), 0)
    assert made.rows[0]["instruction"] == "it costs $5 in 2024"
    assert said == ["it costs five dollars in twenty twenty four"]


def test_clips_that_fail_a_check_are_left_out_with_the_reason() -> None:
    waves = {
        "good": np.sin(np.arange(32_000) / 9) * 0.3,
        "silent": np.zeros(32_000),
        "short": np.sin(np.arange(1_600) / 9) * 0.3,
        "long": np.sin(np.arange(160_000) / 9) * 0.3,
    }

    def broken(text: str, language: str, voice: Voice) -> np.ndarray:
        if text == "refused":
            raise AudioError("no such letters")
        return waves[text.split()[0]].astype(np.float32)

    recipe = RECIPE.model_copy(
        update={
            **{"clip_limits": ClipLimits.model_validate({"most_per_word": 9.0}), "max_seconds": 5.0},
            **{"voices_per_instruction": 1, "snr_db": None, "speed": (1.0, 1.0)},
        }
    )
    some = [
        replace(unit, instruction=text)
        for unit, text in zip(
            units(5), ("good one", "silent one", "short one of six words", "long one", "refused"), strict=True
        )
    ]
    made = SpokenClips(recipe, replace(FAKE, speak=broken)).shard(some, 0)
    assert [row["group_id"] for row in made.rows] == ["u0"]
    reasons = [clip["reason"] for clip in made.dropped]
    assert reasons == ["silent", "too_fast", "too_long", "not_spoken"] and set(reasons) <= set(CLIP_REASONS)


def test_augmentation_is_told_in_a_column_and_comes_again() -> None:
    recipe = RECIPE.model_copy(
        update={"augmentation": Augmentation.model_validate({"telephone": 0.5, "gain": 0.5})}
    )
    made = SpokenClips(recipe, FAKE).shard([UNIT], 0)
    assert made == SpokenClips(recipe, FAKE).shard([UNIT], 0)
    told = [json.loads(row["augmentation"]) for row in made.rows]
    assert any(told) and {key for record in told for key in record} <= {"telephone", "gain"}
    plain = {row["voice"]: row["audio_sha256"] for row in speak(RECIPE)}
    for row, record in zip(made.rows, told, strict=True):
        assert (row["audio_sha256"] == plain[row["voice"]]) == (not record)


def test_a_clip_that_is_not_understood_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hears:
        def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
            return ["a red bird sings in the garden", "a red bread sinks"] * (len(waves) // 2)

    monkeypatch.setattr("rba_bench.synthesis.speech._load_recognizer", lambda *_: Hears())
    recipe = RECIPE.model_copy(
        update={"round_trip": RoundTripOptions.model_validate({"max_wer": 0.4}), "voices_per_instruction": 2}
    )
    plain = lambda *_: np.sin(np.arange(32_000) / 9).astype(np.float32) * 0.3  # noqa: E731
    made = SpokenClips(recipe, replace(FAKE, speak=plain)).shard(units(2), 0)
    assert [row["asr_wer"] for row in made.rows] == [0.0, 0.0]
    assert {row["asr_text"] for row in made.rows} == {"a red bird sings in the garden"}
    assert [(clip["reason"], round(clip["asr_wer"], 2)) for clip in made.dropped] == [("high_wer", 0.71)] * 2


def test_a_short_window_alone_condemns_no_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    class HearsInWhole:
        def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
            return ["a red bird sings in the garden"] * len(waves)

    class Hears:
        def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
            return ["a red bird sings in a garden", "a red bread sinks"] * (len(waves) // 2)

        def in_whole_windows(self) -> HearsInWhole:
            return HearsInWhole()

    monkeypatch.setattr("rba_bench.synthesis.speech._load_recognizer", lambda *_: Hears())
    recipe = RECIPE.model_copy(
        update={
            "round_trip": RoundTripOptions.model_validate({"max_wer": 0.4, "silence_s": 10}),
            "voices_per_instruction": 2,
        }
    )
    plain = lambda *_: np.sin(np.arange(32_000) / 9).astype(np.float32) * 0.3  # noqa: E731
    made = SpokenClips(recipe, replace(FAKE, speak=plain)).shard(units(2), 0)
    assert made.dropped == []
    assert [round(row["asr_wer"], 2) for row in made.rows] == [0.14, 0.0] * 2


def dialogue(number: int, *texts: str) -> Dialogue:
    values = {**vars(units(1, texts[-1])[0]), "group_id": f"d{number}"}
    return Dialogue(**values, turns=tuple(Turn(text, "an answer") for text in texts[:-1]))


def test_a_dialogue_has_one_voice_one_speed_and_one_place() -> None:
    said: list[tuple[str, str]] = []

    def speak_tone(text: str, language: str, voice: Voice) -> np.ndarray:
        said.append((text, voice.name))
        return (0.3 * np.sin(np.arange(16_000) / 9)).astype(np.float32)

    changes = {
        "voices_per_instruction": 2,
        "augmentation": Augmentation.model_validate({"room": 0.5, "gain": 0.5}),
    }
    recipe = RECIPE.model_copy(update=changes)
    made = SpokenClips(recipe, replace(FAKE, speak=speak_tone)).shard([dialogue(0, "one", "two", "three")], 0)
    assert [row["instruction"] for row in made.rows] == ["three", "three"]
    voices = [row["voice"] for row in made.rows]
    assert len(set(voices)) == 2
    assert sorted(said) == sorted((text, voice) for text in ("one", "two", "three") for voice in voices)
    seconds = 0.0
    for row in made.rows:
        assert [turn["instruction"] for turn in row["turns"]] == ["one", "two"]
        waves = [clips.decode_clip(turn["audio"]["bytes"]) for turn in row["turns"]]
        seconds += sum(map(len, waves)) / 16_000
        waves.append(clips.decode_clip(row["audio"]["bytes"]))
        # the same tone in the same place at the same speed: what differs is the noise, of one loudness
        assert len({len(wave) for wave in waves}) == 1
        for first, second in ((0, 1), (1, 2)):
            differs = waves[first] - waves[second]
            assert 0 < np.sqrt(np.mean(differs**2)) < 0.6 * np.sqrt(np.mean(waves[0] ** 2))
    assert made.earlier_seconds == pytest.approx(seconds)


def test_a_dialogue_is_left_out_for_the_fault_of_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = {"long": 90_000}

    def speak_some(text: str, language: str, voice: Voice) -> np.ndarray:
        if text == "refused":
            raise AudioError("no such letters")
        wave = np.sin(np.arange(lengths.get(text, 32_000)) / 9).astype(np.float32) * 0.3
        return np.zeros(32_000, np.float32) if text == "dull" else wave

    class Hears:
        def transcribe(self, waves: Sequence[np.ndarray]) -> list[str]:
            return ["first" for _ in waves]

    monkeypatch.setattr("rba_bench.synthesis.speech._load_recognizer", lambda *_: Hears())
    recipe = RECIPE.model_copy(
        update={
            **{"clip_limits": ClipLimits.model_validate({"most_per_word": 9.0}), "max_seconds": 5.0},
            **{"voices_per_instruction": 1, "snr_db": None, "speed": (1.0, 1.0)},
            "round_trip": RoundTripOptions.model_validate({"max_wer": 0.4}),
        }
    )
    some = [
        dialogue(0, "first", "first"),
        dialogue(1, "refused", "first"),
        dialogue(2, "first", "dull"),
        dialogue(3, "long", "first"),
        dialogue(4, "other", "first"),
    ]
    made = SpokenClips(recipe, replace(FAKE, speak=speak_some)).shard(some, 0)
    assert [(row["group_id"], row["asr_text"], row["asr_wer"]) for row in made.rows] == [("d0", "first", 0.0)]
    assert [(one["id"], one["reason"], one["turn"]) for one in made.dropped] == [
        ("d1-0", "not_spoken", 1),
        ("d2-0", "silent", 2),
        ("d3-0", "too_long", 1),
        ("d4-0", "high_wer", 1),
    ]
    assert made.dropped[-1]["asr_wer"] == 1.0


@pytest.mark.assets
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_whisper_understands_piper_and_its_words_are_in_the_rows(precision: str) -> None:
    absent = [
        name for name in ("whisper-tiny.en", "piper-en_US-joe-medium") if not is_cached(find_asset(name))
    ]
    if absent:
        pytest.skip(f"run `make assets`: {absent}")
    pytest.importorskip("piper")
    recipe = RECIPE.model_copy(
        update={
            **{"voices": ("natural",), "voices_per_instruction": 1, "snr_db": None, "speed": (1.0, 1.0)},
            **{
                "round_trip": RoundTripOptions.model_validate({"precision": precision}),
                "clip_limits": ClipLimits.model_validate({}),
            },
        }
    )
    made = SpokenClips(recipe).shard(units(2, "What is the capital city of France?"), 0)
    assert len(made.rows) == 2 and all(row["asr_wer"] == 0 for row in made.rows)
    facts = SpokenClips(recipe).settings()["round_trip"]
    assert facts["name"] == "asset:whisper-tiny.en" and len(facts["weights_sha256"]) == 64
    assert facts["max_wer"] == 0.3 and facts["dtype"] == precision and "/" not in str(facts)

"""Augmentation: seeded by clip, recorded, the same in every process and thread."""

import hashlib
import json
import random
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from pydantic import ValidationError

from rba_bench.audio import augmentation
from rba_bench.audio.augmentation import Augmentation, augment
from rba_bench.errors import MissingPrerequisite, UserError

RATE = 16_000
WAVE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Noise, of another rate and in two channels too, and impulse responses."""
    root, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(0)
    noise, rooms = root / "noise", root / "rooms"
    (noise / "street").mkdir(parents=True)
    rooms.mkdir()
    sf.write(noise / "a.wav", 0.1 * rng.standard_normal(5 * RATE), RATE)
    sf.write(noise / "street" / "b.flac", 0.1 * rng.standard_normal((3 * 44_100, 2)).clip(-1, 1), 44_100)
    sf.write(noise / "short.wav", 0.1 * rng.standard_normal(RATE // 2), RATE)
    for n in range(2):
        sf.write(rooms / f"{n}.wav", rng.standard_normal(4000) * np.exp(-np.arange(4000) / 800) / 9, RATE)
    return str(noise), str(rooms)


def everything(folders: tuple[str, str]) -> Augmentation:
    chances = dict.fromkeys(("speed", "tempo", "room", "noise", "gain", "telephone", "codec"), 0.5)
    return Augmentation(noise_folder=folders[0], room_folder=folders[1], **chances)


def digest(settings: dict[str, Any], seed: int) -> tuple[str, dict[str, Any]]:
    random.seed(seed * 7)  # what others did to the global state
    np.random.seed(seed % 1000)
    wave, record = augment(WAVE, Augmentation(**settings), seed)
    return hashlib.sha256(wave.tobytes()).hexdigest(), record


def test_the_same_seed_gives_the_same_samples_in_threads_and_processes(folders: tuple[str, str]) -> None:
    pytest.importorskip("audiomentations")
    settings = everything(folders).resolved()
    seeds = list(range(24))
    here = [digest(settings, seed) for seed in seeds]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest, [settings] * 24, seeds)) == here
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert list(pool.map(digest, [settings] * 6, seeds[:6])) == here[:6]
    records = [record for _, record in here]
    assert len({sample for sample, _ in here}) > 20
    for name in ("speed", "tempo", "room", "noise", "gain", "telephone", "codec"):
        assert 4 <= sum(name in record for record in records) <= 20, name
    assert json.loads(json.dumps(records)) == records
    text = json.dumps(records)
    assert "street/b.flac" in text and folders[0] not in text


def test_the_noise_has_the_ratio_that_the_record_says(folders: tuple[str, str]) -> None:
    pytest.importorskip("audiomentations")
    for seed in range(8):
        settings = Augmentation(noise=1.0, noise_folder=folders[0], snr_db=(0.0, 20.0))
        noisy, record = augment(0.2 * WAVE, settings, seed)
        assert len(noisy) == len(WAVE)
        noise = noisy.astype(np.float64) - 0.2 * WAVE
        measured = 10 * np.log10(np.mean((0.2 * WAVE.astype(np.float64)) ** 2) / np.mean(noise**2))
        assert measured == pytest.approx(record["noise"]["snr_db"], abs=0.3)
        assert 0 <= record["noise"]["snr_db"] <= 20


def test_speed_tempo_and_room(folders: tuple[str, str]) -> None:
    pytest.importorskip("audiomentations")
    fast, record = augment(WAVE, Augmentation(speed=1.0, speed_range=(1.25, 1.25)), 0)
    assert record == {"speed": 1.25} and len(fast) == pytest.approx(len(WAVE) / 1.25, abs=2)
    assert _pitch(fast) == pytest.approx(550, abs=3)
    slow, record = augment(WAVE, Augmentation(tempo=1.0, tempo_range=(0.8, 0.8)), 0)
    assert record == {"tempo": 0.8} and len(slow) == pytest.approx(len(WAVE) / 0.8, rel=0.03)
    assert _pitch(slow) == pytest.approx(440, abs=3)
    for folder in (folders[1], None):
        wet, record = augment(WAVE, Augmentation(room=1.0, room_folder=folder), 3)
        assert len(wet) > len(WAVE) and np.abs(wet[len(WAVE) + 100 :]).max() > 0, "no echo after the end"
        assert np.mean(wet[: len(WAVE)] ** 2) == pytest.approx(np.mean(WAVE**2), rel=0.1)
        assert set(record["room"]) == ({"file"} if folder else {"rt60", "drr_db"})


def _pitch(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(np.argmax(spectrum) * RATE / len(wave))


@pytest.mark.parametrize("name", ["mp3", "opus", "mu_law"])
def test_codecs_change_the_samples_a_little_and_keep_their_number(name: str) -> None:
    coded, record = augment(WAVE, Augmentation(codec=1.0, codecs=(name,)), 5)
    assert record["codec"]["name"] == name and 8 < record["codec"]["kbps"] < 140
    assert len(coded) == len(WAVE) and not np.array_equal(coded, WAVE)
    middle = slice(4000, -4000)
    assert np.sqrt(np.mean((coded[middle] - WAVE[middle]) ** 2)) < 0.05


def test_nothing_by_default_and_loud_results_stay_within_full_scale() -> None:
    wave, record = augment(WAVE, Augmentation(), 1)
    assert record == {}
    np.testing.assert_array_equal(wave, WAVE)
    loud, _ = augment(WAVE, Augmentation(noise=1.0, snr_db=(-20, -20)), 1)
    assert np.abs(loud).max() <= 1.0
    for short in (np.zeros(0, np.float32), np.zeros(50, np.float32)):
        chances = dict.fromkeys(("speed", "room", "noise", "gain", "telephone", "codec"), 1.0)
        assert np.isfinite(augment(short, Augmentation(**chances), 2)[0]).all()


def test_one_more_step_does_not_move_the_draws_of_the_others() -> None:
    _, alone = augment(WAVE, Augmentation(noise=1.0), 9)
    _, more = augment(WAVE, Augmentation(noise=1.0, speed=1.0, gain=1.0), 9)
    assert more["noise"] == alone["noise"] and set(more) == {"speed", "noise", "gain"}


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (
        {"snr_db": (20, 5)},
        {"noise": 1.5},
        {"codec": 1.0, "codecs": ()},
        {"noize": 1},
        {"gain_db": (0, 99)},
    ):
        with pytest.raises(ValidationError):
            Augmentation.model_validate(wrong)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no sounds"):
        Augmentation(noise=1.0, noise_folder=str(empty)).facts()
    with pytest.raises(MissingPrerequisite, match="no folder"):
        Augmentation(room=1.0, room_folder=str(tmp_path / "nowhere")).facts()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.wav").write_bytes(b"RIFF no sound")
    for wrong in (
        Augmentation(noise=1.0, noise_folder=str(tmp_path / "broken")),
        Augmentation(room=1.0, room_folder=str(tmp_path / "broken")),
    ):
        with pytest.raises(UserError, match="cannot be read as a sound"):
            augment(WAVE, wrong, 0)
    augmentation._package.cache_clear()
    monkeypatch.setitem(sys.modules, "audiomentations", None)
    with pytest.raises(MissingPrerequisite, match="install it with .*synth"):
        augment(WAVE, Augmentation(tempo=1.0), 0)
    augmentation._package.cache_clear()


def test_facts_hold_no_path_and_change_with_the_files(folders: tuple[str, str], tmp_path: Path) -> None:
    pytest.importorskip("audiomentations")
    sf.write(tmp_path / "a.wav", WAVE, RATE)
    settings = Augmentation(noise=0.3, noise_folder=str(tmp_path))
    facts = settings.facts()
    assert str(tmp_path) not in json.dumps(facts)
    sf.write(tmp_path / "b.wav", WAVE, RATE)
    augmentation.sounds_in.cache_clear()
    assert settings.facts() != facts

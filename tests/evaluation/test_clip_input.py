"""References with a prefix: one recording to the model, one key to the cache, one transcript to a text oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from rba_bench.audio.clips import AudioError, encode_flac
from rba_bench.errors import UserError
from rba_bench.evaluation import model_input
from rba_bench.evaluation.sources.tables import file_clip

RATE = 16_000


@pytest.fixture()
def entries(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A spoken prompt of 0.3 s and a clip of 0.7 s at 8 kHz."""
    rng = np.random.default_rng(1)
    found = []
    for name, seconds, rate in (("prompt", 0.3, RATE), ("clip", 0.7, RATE // 2)):
        file = tmp_path / f"{name}.flac"
        file.write_bytes(encode_flac(rng.uniform(-0.4, 0.4, round(seconds * rate)).astype(np.float32), rate))
        found.append(file_clip(file).reference(f"the {name}"))
    return found[0], found[1]


def test_a_prefix_is_heard_first(entries: tuple[dict[str, Any], dict[str, Any]]) -> None:
    prompt, clip = entries
    heard = model_input.load_wave({**clip, "prefix": prompt})
    first, second = model_input.load_wave(prompt), model_input.load_wave(clip)
    np.testing.assert_array_equal(heard[: len(first)], first)
    np.testing.assert_array_equal(heard[-len(second) :], second)
    assert not heard[len(first) : -len(second)].any()
    assert len(heard) == pytest.approx((0.3 + model_input.PAUSE + 0.7) * RATE, abs=4)
    assert model_input.clip_duration({**clip, "prefix": prompt}) == pytest.approx(len(heard) / RATE, abs=1e-3)
    assert model_input.spoken_text({**clip, "prefix": prompt}) == "the prompt the clip"
    assert heard.dtype == np.float32


def test_the_key_is_of_what_is_heard(entries: tuple[dict[str, Any], dict[str, Any]]) -> None:
    prompt, clip = entries
    keys = {
        model_input.clip_key(value)
        for value in (prompt, clip, {**clip, "prefix": prompt}, {**prompt, "prefix": clip})
    }
    assert len(keys) == 4
    moved = {**clip, "path": "/elsewhere", "prefix": {**prompt, "path": "/there"}}
    assert model_input.clip_key(moved) in keys
    assert model_input.clip_key({**clip, "prefix": None}) == clip["sha256"]


def test_documents_with_and_without_prefix_survive_a_data_set(
    entries: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    prompt, clip = entries
    column = {**clip, "column": "audio"}
    docs = [{"audio": clip}, {"audio": {**column, "prefix": prompt}}]
    plain, prefixed = (row["audio"] for row in Dataset.from_list(docs))
    np.testing.assert_array_equal(model_input.load_wave(plain), model_input.load_wave(clip))
    assert model_input.clip_key(plain) == clip["sha256"]
    assert model_input.clip_duration(prefixed) == pytest.approx(1.5, abs=1e-3)
    assert model_input.load_wave(prefixed).shape == model_input.load_wave({**clip, "prefix": prompt}).shape


def test_a_prefix_without_sound_is_the_items_error(
    tmp_path: Path, entries: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(AudioError, match=r"empty\.wav"):
        model_input.load_wave({**entries[1], "prefix": file_clip(tmp_path / "empty.wav").reference()})


def sine(seconds: float = 1.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * RATE)) / RATE)


@pytest.mark.parametrize(
    ("kind", "scale", "middle"),
    [
        ("int8", 2**7, 0),
        ("uint8", 2**7, 2**7),
        ("int16", 2**15, 0),
        ("uint16", 2**15, 2**15),
        ("int32", 2**31, 0),
        ("int64", 2**15, 0),  # what a list of Python's integers becomes
        ("float16", 1, 0),
        ("float32", 1, 0),
        ("float64", 1, 0),
    ],
)
def test_arrays_of_every_number_type_are_equally_loud(kind: str, scale: int, middle: int) -> None:
    wave = sine()
    values = wave if scale == 1 else np.rint(wave * scale) + middle
    heard = model_input.load_wave({"array": values.astype(kind), "sampling_rate": RATE})
    assert heard.dtype == np.float32
    np.testing.assert_allclose(heard, wave, atol=1 / min(scale, 2**15) if scale > 1 else 2e-4)


def test_lists_of_numbers_are_arrays() -> None:
    wave = sine(0.2)
    loud = [int(value) for value in np.rint(wave * 32768)]
    for values in (loud, [loud, loud], wave.tolist()):
        heard = model_input.load_wave({"array": values, "sampling_rate": RATE})
        np.testing.assert_allclose(heard, wave, atol=1e-4)


@pytest.mark.parametrize("shape", [(-1,), (1, -1), (-1, 1), (1, 1, -1), (1, -1, 1)])
def test_shapes_of_one_channel(shape: tuple[int, ...]) -> None:
    wave = sine(0.2).astype(np.float32)
    heard = model_input.load_wave({"array": wave.reshape(shape), "sampling_rate": RATE})
    np.testing.assert_array_equal(heard, wave)


def test_channels_first_and_last_are_mixed_alike() -> None:
    both = np.stack([sine(0.2), 0.5 * sine(0.2)]).astype(np.float32)
    for values in (both, both.T, both[None]):
        heard = model_input.load_wave({"array": values, "sampling_rate": RATE})
        np.testing.assert_allclose(heard, both.mean(axis=0), atol=1e-7)
    inverted = np.stack([both[0], -both[0]])
    np.testing.assert_array_equal(model_input.load_wave({"array": inverted, "sampling_rate": RATE}), both[0])


@pytest.mark.parametrize(
    "rate", [None, 0, -16_000, 1, 10**9, float("nan"), float("inf"), 16_000.5, "16000", True, [16_000]]
)
def test_rates_that_no_recording_has(rate: Any) -> None:
    with pytest.raises(AudioError, match="sampling rate"):
        model_input.load_wave({"array": sine(0.2), "sampling_rate": rate})
    with pytest.raises(AudioError, match="sampling rate"):
        model_input.load_wave({"array": sine(0.2)})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "shape"),
        (np.zeros((1, 3_601 * RATE), dtype=np.int8), "longer than 3600 s"),
        (np.zeros((0, 2)), "shape"),
        (3.0, "shape"),
        (np.zeros((2, 3, 4)), "shape"),
        (np.zeros((80, 3_000)), "neither axis is one of channels"),
        ([0.1, float("nan")], "not finite"),
        ([0.1, float("inf")], "not finite"),
        (["a", "b"], "want numbers"),
        ([None, 1.0], "want numbers"),
        (np.zeros(9, dtype=bool), "want numbers"),
        (np.zeros(9, dtype=complex), "want numbers"),
        ([[0.1], [0.1, 0.2]], "no array"),
        (np.rint(sine() * 32767), "divide whole numbers by 32768"),
        (sine() * 32767, "divide whole numbers by 32768"),
        (np.rint(sine() * 2**31).astype(np.int64), "unknown scale"),
    ],
)
def test_arrays_that_are_no_sound(values: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        model_input.load_wave({"array": values, "sampling_rate": RATE})


def test_bytes_that_are_none() -> None:
    for value in ("UklGRg==", 7, [82, 73]):
        with pytest.raises(AudioError, match="want bytes"):
            model_input.load_wave({"bytes": value})


def test_an_array_is_heard_at_its_rate() -> None:
    wave = 0.3 * np.sin(2 * np.pi * 220 * np.arange(8_000) / 8_000)
    heard = model_input.load_wave({"array": np.rint(wave * 32767).astype(np.int16), "sampling_rate": 8_000})
    assert len(heard) == RATE
    np.testing.assert_allclose(heard[2_000:14_000], sine()[2_000:14_000], atol=2e-3)


def test_a_decoder_that_fails_is_the_items_error() -> None:
    class Decoder:
        def get_all_samples(self) -> None:
            raise RuntimeError("could not\ndecode")

    with pytest.raises(AudioError, match="could not decode"):
        model_input.load_wave(Decoder())


@pytest.mark.parametrize("sign", [1, -1])
def test_a_rate_too_long_to_be_printed_is_the_items_error(sign: int) -> None:
    with pytest.raises(AudioError, match="sampling rate of more than 12 digits"):
        model_input.load_wave({"array": [0.1, 0.2], "sampling_rate": sign * 10**5000})


def test_a_rate_that_is_an_array_of_one_number_is_that_number() -> None:
    assert len(model_input.load_wave({"array": [0.1, 0.2], "sampling_rate": np.array(16_000)})) == 2
    with pytest.raises(AudioError, match="without a sampling rate"):
        model_input.load_wave({"array": [0.1, 0.2], "sampling_rate": np.array([16_000])})


@pytest.mark.parametrize("error", [IndexError("no frame"), OSError("torn"), RuntimeError("torn")])
def test_whatever_a_decoder_raises_on_damage_is_the_items_error(error: Exception) -> None:
    class Decoder:
        def get_all_samples(self) -> None:
            raise error

    with pytest.raises(AudioError, match="damaged audio"):
        model_input.load_wave(Decoder())


def test_a_path_may_be_an_object_and_one_that_no_file_has_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "clip.flac"
    path.write_bytes(encode_flac(np.full(160, 0.5, np.float32)))
    assert len(model_input.load_wave(path)) == len(model_input.load_wave({"path": path})) == 160
    for name in ("a\0b", "a" * 5000):
        with pytest.raises(UserError, match="cannot read audio file") as refused:
            model_input.load_wave(name)
        assert len(str(refused.value)) < 400


@pytest.mark.parametrize("duration", ["long", [1], float("nan"), float("inf"), 10**400, None])
def test_a_duration_that_is_none_counts_as_unknown(duration: Any) -> None:
    assert model_input.clip_duration({"array": [0.1], "duration": duration}) == 0.0

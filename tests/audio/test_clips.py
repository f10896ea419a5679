"""Clips: what is decoded is what was encoded, and everything that is not sound is refused by name."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rba_bench.audio.clips import AudioError, AudioRef, _ClipCache, decode_clip, encode_flac, load_clip
from rba_bench.audio.parquet import FILES
from rba_bench.errors import MissingPrerequisite, UserError

RATE = 16_000


def tone(seconds: float = 0.5, rate: int = RATE, frequency: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    import soundfile as sf

    buffer = io.BytesIO()
    sf.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def write_shard(path: Path, clips: Sequence[bytes | None], row_group_size: int = 2) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [None if clip is None else {"bytes": clip, "path": f"{i}.flac"} for i, clip in enumerate(clips)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"audio": pa.array(rows, kind), "id": list(range(len(rows)))})
    pq.write_table(table, path, row_group_size=row_group_size)


def test_flac_round_trip_is_within_half_a_step_and_stable() -> None:
    wave = tone()
    data = encode_flac(wave)
    again = decode_clip(data)
    assert again.dtype == np.float32 and again.shape == wave.shape
    assert np.abs(again - wave).max() <= 0.5 / 32768 + 1e-9
    assert encode_flac(again) == data == encode_flac(wave)


def test_loud_samples_are_clipped_not_wrapped() -> None:
    again = decode_clip(encode_flac(np.array([2.0, -2.0, 0.0], dtype=np.float32)))
    np.testing.assert_allclose(again, [32767 / 32768, -1.0, 0.0])


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_formats(kind: str) -> None:
    wave = decode_clip(encoded(tone(1.0), RATE, kind))
    assert abs(len(wave) - RATE) <= 2400  # lossy codecs may pad
    assert 0.2 < np.sqrt(np.mean(wave**2)) < 0.35  # a sine of amplitude 0.4 has 0.283


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_other_rates_are_resampled_to_the_same_sound(rate: int) -> None:
    wave = decode_clip(encoded(tone(1.0, rate), rate))
    assert len(wave) == RATE
    middle = slice(2000, 14000)  # the resampler rings at the ends
    np.testing.assert_allclose(wave[middle], tone(1.0)[middle], atol=2e-3)


def test_stereo_is_the_mean_of_its_channels() -> None:
    left, right = tone(1.0, 48_000, 300.0), tone(1.0, 48_000, 500.0)
    stereo = encoded(np.stack([left, right], axis=1), 48_000, "FLAC")
    np.testing.assert_allclose(decode_clip(stereo, 48_000), (left + right) / 2, atol=1e-4)
    assert decode_clip(stereo).shape == (RATE,)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_numbers(bad: float) -> None:
    wave = tone()
    wave[100] = bad
    with pytest.raises(AudioError, match="not finite"):
        decode_clip(encoded(wave, RATE, "WAV", "FLOAT"))
    with pytest.raises(AudioError, match="finite"):
        encode_flac(wave)


@pytest.mark.parametrize("data", [b"", b"not audio at all", b"RIFF", b"fLaC" + bytes(40)])
def test_bytes_that_are_not_audio(data: bytes) -> None:
    with pytest.raises(AudioError, match="not audio") as caught:
        decode_clip(data)
    assert "0x" not in str(caught.value)  # equal damage, equal message: it goes into records


def test_audio_without_samples() -> None:
    with pytest.raises(AudioError, match="no samples"):
        decode_clip(encoded(np.zeros(0, dtype=np.float32), RATE))
    with pytest.raises(AudioError, match="shape"):
        encode_flac(np.zeros(0, dtype=np.float32))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_truncated_audio_is_never_half_a_clip(kind: str, part: float) -> None:
    data = encoded(tone(2.0), RATE, kind)
    with pytest.raises(AudioError):
        decode_clip(data[: int(len(data) * part)])


def test_streamed_wav_of_unknown_size_is_read() -> None:
    data = bytearray(encoded(tone(), RATE))
    data[4:8] = b"\xff" * 4
    assert decode_clip(bytes(data)).shape == tone().shape


def test_absurd_rate_is_refused_before_resampling() -> None:
    data = bytearray(encoded(tone(), RATE))
    data[24:28] = (1).to_bytes(4, "little")
    with pytest.raises(AudioError, match="sampling rate 1 Hz"):
        decode_clip(bytes(data))


def test_reference_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.flac"
    path.write_bytes(encode_flac(tone(0.5, 8_000), 8_000))
    ref = AudioRef.of(path.read_bytes(), path)
    assert (ref.sampling_rate, ref.duration, ref.row) == (8_000, 0.5, None)
    assert AudioRef.from_dict(ref.to_dict()) == ref
    assert load_clip(ref).shape == (8_000,) and load_clip(ref, 8_000).shape == (4_000,)


def test_reference_with_wrong_keys() -> None:
    with pytest.raises(UserError, match="not an audio reference"):
        AudioRef.from_dict({"path": "x.wav"})
    with pytest.raises(UserError, match="not an audio reference"):
        AudioRef.from_dict({**AudioRef("a", 16_000, 1.0, "x").to_dict(), "start": 0})


def test_every_row_of_a_shard(tmp_path: Path) -> None:
    path = tmp_path / "shard.parquet"
    clips = [encode_flac(tone(0.1 * (i + 1))) for i in range(5)]
    write_shard(path, clips)
    for row in (4, 0, 3, 1, 2):  # row groups are [0, 1], [2, 3], [4]
        np.testing.assert_array_equal(load_clip(AudioRef.of(clips[row], path, row)), decode_clip(clips[row]))


def test_rewritten_shard_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "shard.parquet"
    old, new = encode_flac(tone(0.1)), encode_flac(tone(0.2))
    write_shard(path, [old])
    assert len(load_clip(AudioRef.of(old, path, 0))) == 1_600
    write_shard(path, [new])
    assert len(load_clip(AudioRef.of(new, path, 0))) == 3_200
    with pytest.raises(UserError, match="damaged or was replaced"):
        load_clip(AudioRef.of(old, path, 0))


def test_row_group_cache_keeps_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "shard.parquet"
    clips = [encode_flac(tone(0.1 * (i + 1))) for i in range(6)]
    write_shard(path, clips, row_group_size=1)
    cache = _ClipCache(limit=len(clips[0]) + len(clips[1]) + 64, files=FILES)
    for row in (0, 1, 0, 5, 0):
        assert cache.clip(path, row) == clips[row]
    assert len(cache.groups) <= 2
    assert cache.nbytes == sum(group.nbytes for group in cache.groups.values())


@pytest.mark.parametrize("offset", [-1, 0])
def test_flipped_byte_is_found_by_hash(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "clip.flac"
    data = encode_flac(tone())
    ref = AudioRef.of(data, path)
    damaged = bytearray(data)
    damaged[offset] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(UserError, match="damaged or was replaced"):
        load_clip(ref)


def test_damaged_shards(tmp_path: Path) -> None:
    path = tmp_path / "shard.parquet"
    clip = encode_flac(tone(2.0, frequency=333.0))
    ref = AudioRef.of(clip, path, 0)
    write_shard(path, [clip])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # the footer is gone
    with pytest.raises(UserError, match="damaged"):
        load_clip(ref)
    for at in range(10, len(whole) - 1_000, 999):  # page header and data of the audio, which comes first
        torn = bytearray(whole)
        torn[at : at + 50] = bytes(50)
        path.write_bytes(bytes(torn))
        with pytest.raises(UserError, match="damaged"):
            load_clip(ref)


def test_rows_and_columns_that_are_not_there(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "shard.parquet"
    clip = encode_flac(tone())
    write_shard(path, [clip, None])
    for row in (2, -1):
        with pytest.raises(UserError, match=f"2 rows, no row {row}"):
            load_clip(AudioRef.of(clip, path, row))
    with pytest.raises(AudioError, match="holds no audio bytes"):
        load_clip(AudioRef.of(clip, path, 1))
    pq.write_table(pa.table({"audio": ["a.wav"]}), tmp_path / "names.parquet")
    with pytest.raises(UserError, match="no column `audio` with `bytes`"):
        load_clip(AudioRef.of(clip, tmp_path / "names.parquet", 0))
    with pytest.raises(MissingPrerequisite, match="no audio at"):
        load_clip(AudioRef.of(clip, tmp_path / "absent.parquet", 0))


def test_right_bytes_without_sound_name_the_place(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    data = encoded(np.zeros(0, dtype=np.float32), RATE)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"clip\.wav: audio holds no samples"):
        load_clip(AudioRef.of(data, path))

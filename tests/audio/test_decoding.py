"""Headers that lie, one decoder, one length: a clip is heard whole or refused, never a part of it."""

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rba_bench.audio import decoding, mpeg
from rba_bench.audio.clips import AudioError, AudioRef, decode_clip, encode_flac
from rba_bench.errors import UserError
from tests.audio.mutations import RATE, encoded, seeds, tone

SECONDS = 3.0
WAVE = tone(SECONDS)
WAV = encoded("WAV", "PCM_16", WAVE)
FMT, PCM = WAV[12:36], WAV[44:]
N = len(PCM)
LIST = b"LIST\4\0\0\0abcd"
ODD = b"LIST\3\0\0\0abc"  # no pad byte behind it


def riff(whole: int, samples: int, before: bytes = b"", behind: bytes = b"", fmt: bytes = FMT) -> bytes:
    """A WAV file that states these sizes."""
    sizes = [struct.pack("<I", size) for size in (whole, samples)]
    return b"RIFF" + sizes[0] + b"WAVE" + fmt + before + b"data" + sizes[1] + PCM + behind


GOOD = {
    "sox to a pipe": riff(0x7FFFF024, 0x7FFFF000),
    "0x7fffffff": riff(0x7FFFFFFF, 0x7FFFFFFF - 36),
    "0x80000000": riff(0x80000024, 0x80000000),
    "0xffffffff": riff(0xFFFFFFFF, 0xFFFFFFFF),
    "RIFF size 8 too large": riff(N + 44, N),
    "both sizes 8 too large": riff(N + 44, N + 8),
    "RIFF size 0": riff(0, N),
    "nothing filled in": riff(0, 0),
    "data size never filled in": riff(N + 36, 0),
    "RIFF size of an empty file": riff(36, 0),
    "data size is the file's": riff(N + 36, N + 44),
    "LIST behind": riff(N + 48, N, behind=LIST),
    "LIST behind, not counted": riff(N + 36, N, behind=LIST),
    "odd LIST before": riff(N + 47, N, before=ODD),
    "odd LIST behind": riff(N + 47, N, behind=ODD),
    "junk behind": riff(N + 36, N, behind=b"junk!" * 100),
    "zeros behind": riff(N + 36, N, behind=bytes(2 * N)),
    "ID3v1 behind": riff(N + 36, N, behind=b"TAG" + bytes(125)),
    "BW64": b"BW64\xff\xff\xff\xffWAVEds64"
    + struct.pack("<IQQQI", 28, N + 80, N, N // 2, 0)
    + FMT
    + b"data\xff\xff\xff\xff"
    + PCM,
    "RF64, never filled in": b"RF64\xff\xff\xff\xffWAVEds64"
    + struct.pack("<IQQQI", 28, 0, 0, 0, 0)
    + FMT
    + b"data\xff\xff\xff\xff"
    + PCM,
}


@pytest.mark.parametrize("name", GOOD)
def test_good_wavs_with_wrong_sizes_are_heard_whole(name: str) -> None:
    np.testing.assert_array_equal(decode_clip(GOOD[name]), decode_clip(WAV))
    assert AudioRef.of(GOOD[name], "x").duration == SECONDS


BAD = {
    "torn": (WAV[: N // 2], "cut short"),
    "one sample missing": (WAV[:-2], "cut short"),
    "twice as many promised": (riff(N + 36, 2 * N), "cut short"),
    "two files": (WAV + WAV, "two recordings"),
    "two data chunks": (riff(2 * N + 44, N, behind=b"data" + struct.pack("<I", N) + PCM), "two recordings"),
    "a part of the samples": (riff(N + 36, N // 4), "more follow"),
}


@pytest.mark.parametrize("name", BAD)
def test_wavs_that_are_not_whole_are_refused(name: str) -> None:
    data, message = BAD[name]
    for what in (decode_clip, lambda data: AudioRef.of(data, "x")):
        with pytest.raises(AudioError, match=message):
            what(data)


def test_an_empty_wav_with_a_chunk_behind_is_empty() -> None:
    empty = b"RIFF" + struct.pack("<I", 48) + b"WAVE" + FMT + b"data\0\0\0\0" + LIST
    with pytest.raises(AudioError, match="no samples"):
        decode_clip(empty)


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def test_other_containers_with_sizes_never_filled_in() -> None:
    aiff, caf, w64, sun = (encoded(kind, "PCM_16", WAVE) for kind in ("AIFF", "CAF", "W64", "AU"))
    comm, ssnd = aiff.index(b"COMM"), aiff.index(b"SSND")
    right = decode_clip(WAV)
    for size in (b"\0" * 4, b"\x7f\xff\xff\0"):
        piped = replaced(replaced(replaced(aiff, 4, size), comm + 10, size), ssnd + 4, size)
        np.testing.assert_array_equal(decode_clip(piped), right)
    for size in (b"\0" * 4, b"\xff" * 4):
        np.testing.assert_array_equal(decode_clip(replaced(sun, 8, size)), right)
    np.testing.assert_array_equal(decode_clip(replaced(caf, caf.index(b"data") + 4, b"\xff" * 8)), right)
    endless = b"\xff" * 7 + b"\x7f"
    piped = replaced(replaced(w64, 16, endless), w64.index(b"data") + 16, endless)
    np.testing.assert_array_equal(decode_clip(piped), right)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "SVX", "VOC"])
def test_torn_files_of_every_container_are_refused(kind: str) -> None:
    data = encoded(kind, "PCM_16", WAVE)
    np.testing.assert_allclose(decode_clip(data), WAVE[:, 0], atol=1e-4)
    with pytest.raises(AudioError):
        decode_clip(data[: len(data) // 3])


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32", "NMS_ADPCM_24"])
def test_codecs_that_cannot_seek_are_heard(subtype: str) -> None:
    heard = decode_clip(encoded("WAV", subtype, WAVE))
    assert abs(len(heard) / RATE - SECONDS) < 0.02
    assert np.corrcoef(heard[:40_000], WAVE[:40_000, 0])[0, 1] > 0.98


def test_every_format_that_libsndfile_writes_is_heard_or_refused() -> None:
    for name, data in seeds().items():
        if name.startswith("SDS"):  # libsndfile prints to stdout while it reads one
            with pytest.raises(AudioError, match="MIDI"):
                decode_clip(data)
        elif not name.startswith("XI"):  # has no sampling rate
            assert abs(len(decode_clip(data)) / RATE - 0.5) < 0.06, name


def with_total(data: bytes, total: int) -> bytes:
    number = int.from_bytes(data[18:26], "big") >> 36 << 36 | total
    return replaced(data, 18, number.to_bytes(8, "big"))


def test_flac_of_a_streaming_encoder_is_heard_whole() -> None:
    flac = encoded("FLAC", "PCM_16", WAVE)
    np.testing.assert_array_equal(decode_clip(with_total(flac, 0)), decode_clip(flac))
    assert AudioRef.of(with_total(flac, 0), "x").duration == SECONDS
    with pytest.raises(AudioError, match="damaged"):
        decode_clip(with_total(flac, 0)[: len(flac) // 2])


@pytest.mark.parametrize("total", [1_000, 47_999, 48_001, 96_000, 2**36 - 1])
def test_flac_that_states_another_number_of_samples_is_refused(total: int) -> None:
    with pytest.raises(AudioError, match="cut short|more sound follows"):
        decode_clip(with_total(encoded("FLAC", "PCM_16", WAVE), total))


def test_flac_with_tags_around_it() -> None:
    flac = encoded("FLAC", "PCM_16", WAVE)
    tagged = b"ID3\4\0\0\0\0\0\x0a0123456789" + flac + b"TAG" + bytes(125)
    np.testing.assert_array_equal(decode_clip(tagged), decode_clip(flac))
    with pytest.raises(AudioError, match="more sound follows"):
        decode_clip(flac + flac)


def speech(seconds: float) -> np.ndarray:
    """Silence, then noise: of variable bit rate, and the first frames say nothing of the rest."""
    wave = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    wave[: round(0.3 * len(wave))] = 0
    return wave[:, None]


def mp3(wave: np.ndarray, variable: bool = True) -> bytes:
    buffer = io.BytesIO()
    mode = "VARIABLE" if variable else "CONSTANT"
    with sf.SoundFile(buffer, "w", RATE, 1, format="MP3", bitrate_mode=mode, compression_level=0.5) as out:
        out.write(wave)
    return buffer.getvalue()


def without_xing(data: bytes) -> bytes:
    first = mpeg.parse_frame_header(data, 0)
    assert first is not None
    return data[first.size :]


@pytest.mark.parametrize("variable", [True, False])
@pytest.mark.parametrize("seconds", [0.5, 4.0, 30.0])
def test_mp3_without_xing_header_is_heard_whole(seconds: float, variable: bool) -> None:
    data = mp3(speech(seconds), variable)
    bare = without_xing(data)
    heard = decode_clip(bare)
    assert 0 <= len(heard) / RATE - seconds < 0.2, "with the encoder's padding"
    assert AudioRef.of(bare, "x").duration == len(heard) / RATE
    power = np.square(heard[-RATE // 4 : -RATE // 8]).mean()
    assert power > 1e-3, "the noise at the end is there"


def test_mp3_headers_count_their_frames() -> None:
    data = mp3(speech(4.0))
    found = mpeg.read_frames(data)
    assert found.stated == len(found.spans) and not found.torn
    assert found.samples == pytest.approx(4.0 * RATE, abs=2_500)


def test_mp3_damage() -> None:
    data = mp3(speech(4.0))
    bare = without_xing(data)
    for torn in (data[: len(data) // 2], bare[: len(bare) // 2]):
        with pytest.raises(AudioError, match="cut short"):
            decode_clip(torn)
    middle = mpeg.read_frames(bare).spans[40][0]
    with pytest.raises(AudioError, match="damaged MP3"):
        decode_clip(bare[:middle] + bytes(300) + bare[middle:])
    assert len(decode_clip(data + data)) / RATE == pytest.approx(8.0, abs=0.4), (
        "both recordings, not the first"
    )
    for good in (bytes(400) + data, data + b"TAG" + bytes(125), b"ID3\4\0\0\0\0\0\x0a0123456789" + data):
        np.testing.assert_array_equal(decode_clip(good), decode_clip(data))


def test_files_made_to_be_walked_for_ever_are_refused_at_once() -> None:
    frame = mp3(speech(0.5))[:4]
    many = {
        "zeros": bytes(3 * 10**7),
        "sync bytes": frame + b"\xff" * 3 * 10**7,
        "chunks": b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\0\0\0\0" * 10**6,
        "ogg streams": b"".join(
            b"OggS\0\2" + bytes(8) + n.to_bytes(4, "little") + bytes(9) for n in range(10**5)
        ),
    }
    started = time.perf_counter()
    for name, data in many.items():
        with pytest.raises(AudioError):
            decode_clip(data)
        assert time.perf_counter() - started < 10, name


def test_mp3_frames_are_counted_up_to_the_largest_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "CLIP_BYTES", 100_000)
    with pytest.raises(AudioError, match="more than 25000 samples"):
        decode_clip(mp3(speech(4.0)))


def test_mp3_inside_a_wav() -> None:
    data = mp3(speech(1.0))
    fmt = struct.pack("<IHHIIHHHHIHHH", 30, 0x55, 1, RATE, 4_000, 1, 0, 12, 1, 2, 288, 1, 1393)
    inside = (
        b"RIFF"
        + struct.pack("<I", len(data) + 50)
        + b"WAVEfmt "
        + fmt
        + b"data"
        + struct.pack("<I", len(data))
        + data
    )
    np.testing.assert_array_equal(decode_clip(inside), decode_clip(data))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_is_whole_or_refused(subtype: str) -> None:
    data = encoded("OGG", subtype, speech(20.0))
    assert len(decode_clip(data)) == 20 * RATE
    for part in (0.3, 0.5, 0.9):
        with pytest.raises(AudioError, match="cut short"):
            decode_clip(data[: int(len(data) * part)])
    with pytest.raises(AudioError, match="two recordings"):
        decode_clip(data + data)
    pages = [at for at in range(len(data)) if data.startswith(b"OggS", at)]
    with pytest.raises(AudioError, match="page"):
        decode_clip(data[: pages[3]] + data[pages[4] :])
    np.testing.assert_array_equal(decode_clip(data + b"junk"), decode_clip(data))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "OGG"])
def test_blocks_are_the_clip(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(kind, None, tone(5.0, 44_100, 2), 44_100)
    with sf.SoundFile(io.BytesIO(data)) as sound:
        whole = sound.read(dtype="float32", always_2d=True).mean(axis=1)
    for block in (1_000, 2**18):
        monkeypatch.setattr(decoding, "BLOCK", block)
        np.testing.assert_array_equal(decoding.decode_at_own_rate(data)[0], whole)


def test_a_side_that_is_inverted_does_not_silence_the_other() -> None:
    left = tone(1.0)
    quiet = 0.8 * left
    heard = decode_clip(encoded("WAV", "FLOAT", np.hstack([left, -left])))
    np.testing.assert_array_equal(heard, left[:, 0])
    both = decode_clip(encoded("WAV", "FLOAT", np.hstack([left, quiet])))
    np.testing.assert_allclose(both, 0.9 * left[:, 0], atol=1e-6)


def test_floats_that_are_integers_are_refused() -> None:
    with pytest.raises(AudioError, match="divide whole numbers by 32768"):
        decode_clip(encoded("WAV", "FLOAT", np.rint(WAVE * 32767)))


def test_the_longest_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(decoding.CLIP_SECONDS_VARIABLE, "2.5")
    for data in (WAV, with_total(encoded("FLAC", None, WAVE), 0), mp3(WAVE), encoded("OGG", None, WAVE)):
        for what in (decode_clip, lambda data: AudioRef.of(data, "x")):
            with pytest.raises(
                AudioError, match=r"longer than 2\.5 s: split it, or set RBA_MAX_CLIP_SECONDS"
            ):
                what(data)
    before = decoding.decoding_signature()
    monkeypatch.setenv(decoding.CLIP_SECONDS_VARIABLE, "3")
    assert len(decode_clip(WAV)) == 3 * RATE and decoding.decoding_signature() != before
    monkeypatch.setenv(decoding.CLIP_SECONDS_VARIABLE, "long")
    with pytest.raises(UserError, match="want seconds"):
        decode_clip(WAV)


def test_the_largest_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "CLIP_BYTES", 100_000)
    with pytest.raises(AudioError, match="more than 100000 bytes of samples"):
        decode_clip(encoded("FLAC", None, WAVE))
    monkeypatch.setattr(decoding, "CLIP_BYTES", 1_000)
    with pytest.raises(AudioError, match="more than 1000"):
        decode_clip(WAV)


def test_a_part_is_the_very_samples_of_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "talk.flac"
    path.write_bytes(encode_flac(speech(2.0)[:, 0], RATE))
    whole = decode_clip(path.read_bytes())
    cut, rate = decoding.load_segment(path, 0.5, 0.75)
    assert rate == RATE
    np.testing.assert_array_equal(cut, whole[8_000:20_000])
    assert (
        len(decoding.load_segment(path, 1.5, None)[0])
        == len(decoding.load_segment(path, 1.5, 9.0)[0])
        == 8_000
    )
    for offset, seconds in ((2.0, 1.0), (-1.0, 1.0), (0.5, 0.0)):
        with pytest.raises(AudioError, match="outside"):
            decoding.load_segment(path, offset, seconds)

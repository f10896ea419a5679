"""What libsndfile cannot read, PyAV reads; without it the message says what to install."""

import builtins
from typing import Any

import numpy as np
import pytest

from rba_bench.audio import codecs
from rba_bench.audio.clips import AudioError, AudioRef, decode_clip
from tests.audio.codec_clips import KINDS, LOSSLESS, written
from tests.audio.mutations import RATE, encoded, tone


@pytest.mark.parametrize("name", KINDS)
def test_each_format_is_heard_whole(name: str) -> None:
    rate = KINDS[name][2]
    data = written(name, tone(2.0, rate)[:, 0])
    heard = decode_clip(data)
    assert abs(len(heard) / RATE - 2.0) < 0.13, "with the encoder's padding"
    assert 0.25 < np.abs(heard).max() < 0.35
    ref = AudioRef.of(data, "x")
    assert ref.sampling_rate == rate and ref.duration == pytest.approx(len(heard) / RATE, abs=1e-3)
    if name in LOSSLESS:
        np.testing.assert_allclose(heard, tone(2.0, rate)[:, 0], atol=1e-2 if name != "alac m4a" else 1e-4)


def test_without_pyav_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = {name: written(name) for name in KINDS}
    whole = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name == "av":
            raise ImportError("no av")
        return whole(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    for name, data in clips.items():
        if name == "mp2":
            continue  # libsndfile reads it
        for what in (decode_clip, lambda data: AudioRef.of(data, "x")):
            with pytest.raises(AudioError, match=r"libsndfile cannot read .*: pip install av$"):
                what(data)
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        assert len(decode_clip(encoded(kind))) >= 8_000


@pytest.mark.parametrize("name", ["m4a", "webm opus", "wma", "alac m4a"])
def test_torn_files_are_refused(name: str) -> None:
    data = written(name, tone(4.0, KINDS[name][2])[:, 0])
    for part in (0.4, 0.7):
        with pytest.raises(AudioError):
            decode_clip(data[: int(len(data) * part)])


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hosts\n",
        b"ffconcat version 1.0\nfile '/etc/hosts'\n",
        b"<?xml version='1.0'?><MPD></MPD>",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
    ],
)
def test_ffmpeg_is_never_asked_to_guess(data: bytes) -> None:
    assert codecs.detect_container(data) is None
    with pytest.raises(AudioError, match="not audio"):
        decode_clip(data)


def test_a_container_without_sound() -> None:
    for data in (
        b"\0\0\0\x1cftypisom" + bytes(60),
        b"\x1aE\xdf\xa3" + bytes(60),
        b"#!AMR\n",
        b"wvpk" + bytes(60),
    ):
        with pytest.raises(AudioError):
            decode_clip(data)
        with pytest.raises(AudioError):
            AudioRef.of(data, "x")

"""Clips that libsndfile cannot read, written by FFmpeg through PyAV."""

import io
from functools import cache

import av
import numpy as np

from tests.audio.mutations import tone

KINDS = {  # name -> container, codec, Hz
    "m4a": ("mp4", "aac", 16_000),
    "aac": ("adts", "aac", 16_000),
    "webm opus": ("webm", "libopus", 48_000),
    "wma": ("asf", "wmav2", 44_100),
    "amr": ("amr", "libopencore_amrnb", 8_000),
    "wavpack": ("wv", "wavpack", 16_000),
    "tta": ("tta", "tta", 16_000),
    "ac3": ("ac3", "ac3", 48_000),
    "alac m4a": ("mp4", "alac", 16_000),
    "wav g726": ("wav", "g726", 8_000),
    "mp2": ("mp2", "mp2", 16_000),
    "flac ogg": ("ogg", "flac", 16_000),
    "avi": ("avi", "pcm_s16le", 16_000),
}
LOSSLESS = {"wavpack", "tta", "alac m4a", "flac ogg", "avi"}


def written(name: str, wave: np.ndarray | None = None) -> bytes:
    """A tone in one of KINDS. Raises av's errors where this FFmpeg cannot write it."""
    container, codec, rate = KINDS[name]
    wave = tone(0.5, rate)[:, 0] if wave is None else wave
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 64_000 if codec != "libopencore_amrnb" else 12_200
        frame = av.AudioFrame.from_ndarray(
            np.rint(wave * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(
            format=stream.codec_context.format,
            layout="mono",
            rate=rate,
            frame_size=stream.codec_context.frame_size,
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return buffer.getvalue()


@cache
def codec_seeds() -> dict[str, bytes]:
    """A clip of each kind that this FFmpeg can write."""
    found = {}
    for name in KINDS:
        try:
            found[name] = written(name)
        except (av.error.FFmpegError, ValueError):
            continue
    return found

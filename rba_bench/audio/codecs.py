"""Formats that libsndfile does not read, through PyAV, whose wheels bring FFmpeg's codecs (the extra `codecs`).

The container is told by its first bytes and named to FFmpeg, which guesses nothing: a guess may take a text for a
playlist and open what it names.
"""

import io
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from rba_bench.audio import containers
from rba_bench.audio.samples import as_floats
from rba_bench.errors import AudioError
from rba_bench.installing import package

STATED_TOLERANCE = 0.1  # seconds that a container's stated duration may exceed what is decoded
_SNDFILE_TAGS = {1, 2, 3, 6, 7, 0x11, 0x31, 0x38, 0x40, 0x64, 0xFFFE}  # WAVE formats that libsndfile knows
_SNDFILE_CAF = (b"lpcm", b"alaw", b"ulaw", b"alac")
_SNDFILE_OGG = (b"\x01vorbis", b"OpusHead")  # it knows FLAC in Ogg too, but the one in wheels cannot open it
_STATES_DURATION = {"mov", "matroska", "asf"}  # of the others FFmpeg guesses it from the bit rate
_MAGIC = (  # bytes, where they stand, FFmpeg's name of the container, name for people
    (b"ftyp", 4, "mov", "M4A or MP4"),
    (b"moov", 4, "mov", "M4A or MP4"),
    (b"mdat", 4, "mov", "M4A or MP4"),
    (b"\x1aE\xdf\xa3", 0, "matroska", "WebM or Matroska"),
    (b"#!AMR", 0, "amr", "AMR"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0, "asf", "WMA"),
    (b"ADIF", 0, "aac", "AAC"),
    (b"wvpk", 0, "wv", "WavPack"),
    (b"TTA1", 0, "tta", "TTA"),
    (b"MAC ", 0, "ape", "Monkey's Audio"),
    (b"\x0b\x77", 0, "ac3", "AC-3"),
    (b"FLV\x01", 0, "flv", "FLV"),
    (b"AVI LIST", 8, "avi", "AVI"),
)


def detect_container(data: bytes) -> tuple[str, str] | None:
    """FFmpeg's name of a container that libsndfile does not read, and a name for people; None for all others."""
    for mark, at, name, label in _MAGIC:
        if data.startswith(mark, at):
            return name, label
    if (
        data[:4] == b"RIFF"
        and data[8:12] == b"WAVE"
        and (tag := containers.wave_tag(data)) not in _SNDFILE_TAGS
    ):
        return None if tag is None else ("wav", f"WAV of format {tag:#06x}")
    if data[:4] == b"caff" and data[8:12] == b"desc" and data[28:32] not in _SNDFILE_CAF:
        return "caf", f"{_plain(data[28:32])} in CAF"
    if (
        data[:4] == b"OggS"
        and (packet := containers.first_packet(data))
        and not packet.startswith(_SNDFILE_OGG)
    ):
        return "ogg", f"{_plain(packet[:8])} in Ogg"
    if len(data) > 7 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0:
        return "aac", "AAC"
    if len(data) > 3 and data[0] == 0x56 and data[1] & 0xE0 == 0xE0:
        return "loas", "AAC"
    return None


def pyav_installed() -> bool:
    """Whether PyAV is there."""
    return find_spec("av") is not None


class Codec:
    """A clip opened by FFmpeg.

    Args:
        data: the file.
        name: FFmpeg's name of its container.
        label: name for people.

    Attributes:
        rate: Hz.
        stated: seconds by the container, None where it does not say.

    Raises:
        AudioError: PyAV is missing, or FFmpeg finds no sound.
    """

    def __init__(self, data: bytes, name: str, label: str) -> None:
        try:
            import av
        except ImportError as error:
            raise AudioError(f"libsndfile cannot read {label}; PyAV can: {package('av')}") from error
        self.failures = (av.error.FFmpegError, ValueError, EOFError)
        try:
            self._file = av.open(io.BytesIO(data), format=name, metadata_errors="ignore")
        except self.failures as error:
            raise AudioError(f"damaged {label} ({_reason(error)})") from error
        self.label = label
        # a stream of a codec that FFmpeg does not know has no codec context
        streams = [stream for stream in self._file.streams.audio if stream.codec_context is not None]
        if not streams:
            self._file.close()
            raise AudioError(f"no sound that FFmpeg can decode in this {label}")
        self._stream = streams[0]
        self._stream.codec_context.thread_count = 1
        self.rate = 0
        self.stated: float | None = None
        if name in _STATES_DURATION:
            if self._stream.duration and self._stream.time_base:
                self.stated = float(self._stream.duration * self._stream.time_base)
            elif len(self._file.streams) == 1 and self._file.duration:
                self.stated = float(self._file.duration) / 1e6

    def blocks(self) -> Iterator[np.ndarray]:
        """Samples [n, channels], float32, frame by frame. Raises AudioError where FFmpeg cannot go on."""
        frames: Iterator[Any] = self._file.decode(self._stream)
        try:
            for frame in frames:
                self.rate = self.rate or int(frame.sample_rate)
                if frame.sample_rate != self.rate:
                    raise AudioError(f"{self.label} that changes its sampling rate: convert it to FLAC")
                values = frame.to_ndarray()
                channels = len(frame.layout.channels)
                yield as_floats(values.T if frame.format.is_planar else values.reshape(-1, channels))
        except self.failures as error:
            raise AudioError(f"damaged {self.label} ({_reason(error)})") from error

    def check_length(self, seconds: float) -> None:
        """Raise AudioError if fewer seconds were decoded than the container states."""
        if self.stated is not None and seconds < 0.98 * self.stated - STATED_TOLERANCE:
            raise AudioError(f"audio is cut short ({seconds:.2f} of {self.stated:.2f} s are there)")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _plain(name: bytes) -> str:
    """A name out of a file, for people."""
    return "".join(chr(byte) for byte in name if 32 < byte < 127) or "an unknown codec"


def _reason(error: Exception) -> str:
    """What FFmpeg says; without file names and addresses."""
    text = getattr(error, "strerror", None) or error
    return " ".join(str(text).split())[:120]

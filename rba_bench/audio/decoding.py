"""Decoding: the one way from encoded bytes to float32 mono samples, for evaluation, synthesis and training alike.

    bytes -> container compared with its bytes -> decoder, block by block -> one channel -> requested rate

The result does not depend on what is installed: libsndfile reads what it can, and PyAV only what libsndfile cannot.
Lengths are those of the samples decoded, whatever a header says; where header and samples disagree, the clip is
refused. A clip that is longer than `RBA_MAX_CLIP_SECONDS` (an hour by default) is refused too, never cut.
"""

import io
import os
from collections.abc import Iterator
from contextlib import closing
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rba_bench.audio import codecs, containers, mpeg
from rba_bench.audio.samples import MOST_CHANNELS, cancelled, check_rate, check_samples, resample
from rba_bench.errors import AudioError, UserError
from rba_bench.machine import package_version

SAMPLING_RATE = 16_000  # Hz, the rate at which every model here takes audio
CLIP_SECONDS = 3600.0  # longest clip, unless the variable says otherwise
CLIP_SECONDS_VARIABLE = "RBA_MAX_CLIP_SECONDS"
# Most bytes of an encoded clip, and of its samples in one channel at its own rate (4 each)
CLIP_BYTES = 2**30
BLOCK = 2**18  # samples decoded at a time, all channels together
# Share, and seconds, by which a lossy codec's header may overstate; the lesser counts
LOSSY_SLACK = (0.05, 0.2)
_PLAIN = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")  # fixed size: the bytes give the number of samples
_CHECKED = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST"}  # by `containers`
# libsndfile prints to stdout while it reads one, and fills what is missing with zeros
MIDI_DUMP = b"\xf0\x7e"
_TORN = ("should be", "truncated", "short read")  # libsndfile's log on a torn file of another kind


class Sound(Protocol):
    """An opened clip."""

    rate: int

    def blocks(self) -> Iterator[np.ndarray]:
        """Samples [n, channels], float32, in order."""

    def check_length(self, seconds: float) -> None:
        """Raise AudioError if fewer were decoded than promised."""

    def close(self) -> None:
        """Close the file."""


def decode_clip(data: bytes, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Decode an encoded clip, mix its channels down by their mean and resample it.

    Args:
        data: the bytes of an audio file.
        sampling_rate: of the result, in Hz.

    Returns:
        float32 mono samples, shape [n] with n >= 1, all finite.

    Raises:
        AudioError: unknown format, cut short, too long, no samples, or samples that are not numbers.
    """
    wave, rate = decode_at_own_rate(data)
    return resample(wave, rate, sampling_rate)


def decode_at_own_rate(data: bytes, limit: float | None = None) -> tuple[np.ndarray, int]:
    """Samples [n] of a clip at its own rate, and that rate in Hz. Raises AudioError as `decode` does.

    Args:
        data: the bytes of an audio file.
        limit: seconds it may last, `longest()` by default.
    """
    wave, rate = _mono(data, max_clip_seconds() if limit is None else limit)
    check_samples(wave)
    return wave, rate


def measure_clip(data: bytes) -> tuple[int, int]:
    """Sampling rate in Hz and number of samples of a clip; decoded only where nothing else proves its length.

    Raises:
        AudioError: no audio, or the clip is torn or too long. One without any samples is measured.
    """
    with closing(open_sound(data)) as sound:
        # a FLAC that holds another number than it states is refused when it is decoded
        length = sound.promised if isinstance(sound, _Sndfile) and sound.proven else None
        length = sound.stated or None if isinstance(sound, _Flac) else length
        if length is not None:
            _refuse_long(length, sound.rate, max_clip_seconds())
            return sound.rate, length
    wave, rate = _mono(data, max_clip_seconds())
    return rate, len(wave)


def load_segment(path: Path, offset: float, seconds: float | None) -> tuple[np.ndarray, int]:
    """Samples [n] of a part of a recording at its own rate, and that rate in Hz.

    Args:
        path: the file; the last one is kept in memory, since parts are wanted one after the other.
        offset: where the part begins, in seconds.
        seconds: how long it is; None = to the end. Of a part that reaches beyond the end, what is there.

    Raises:
        AudioError: no usable sound there.
        OSError: the file cannot be read.
    """
    wave, rate = load_recording(path)
    start = round(offset * rate)
    count = len(wave) if seconds is None else round(seconds * rate)
    segment = wave[start : start + count] if start >= 0 and count > 0 else wave[:0]
    if not len(segment):
        raise AudioError(f"{offset:g} s lies outside of {path.name}")
    return segment, rate


def load_recording(path: Path) -> tuple[np.ndarray, int]:
    """All samples [n] of a file at its own rate, and that rate in Hz, however long. Raises as `part`."""
    stat = path.stat()
    if stat.st_size > CLIP_BYTES:
        raise AudioError(f"a recording of {stat.st_size} bytes, more than {CLIP_BYTES}: split it")
    return _recording(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1)
def _recording(path: Path, size: int, changed_ns: int) -> tuple[np.ndarray, int]:
    return decode_at_own_rate(path.read_bytes(), limit=float("inf"))


def decoding_signature() -> str:
    """What decides, beside its bytes, whether a clip can be decoded; cached lengths hold for one signature."""
    pyav = package_version("av") or "none"
    return f"decoding 2, av {pyav}, {max_clip_seconds():g} s"


def max_clip_seconds() -> float:
    """Seconds of the longest clip that is accepted. Raises UserError if the variable is no positive number."""
    text = os.environ.get(CLIP_SECONDS_VARIABLE, "").strip()
    try:
        seconds = float(text) if text else CLIP_SECONDS
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"{CLIP_SECONDS_VARIABLE} is {text!r}: want seconds, such as {CLIP_SECONDS:g}")
    return seconds


def open_sound(data: bytes) -> Sound:
    """The clip, opened by what can read it. Raises AudioError if nothing can, or if it is torn."""
    if len(data) > CLIP_BYTES:
        raise AudioError(f"a clip of more than {CLIP_BYTES} bytes: split it")
    data = containers.repair_container(data)
    data = data.lstrip(b"\0") if data[:1] == b"\0" and mpeg.is_mpeg(data) else data
    behind = mpeg.after_tags(data) if data[:3] == b"ID3" else 0
    if data[:4] == b"OggS":
        containers.check_ogg(data)
    container = codecs.detect_container(data[behind : behind + 65536] if behind else data)
    if container is not None:
        return codecs.Codec(data, *container)
    if mpeg.is_mpeg(data):
        recording = mpeg.read_frames(data, CLIP_BYTES // 4)
        sound = _Sndfile(data)
        repaired = mpeg.repair_mp3(data, recording, sound.promised)
        if repaired is data:
            return sound
        sound.close()
        return _Sndfile(repaired)
    if data[behind : behind + 4] == b"fLaC":
        return _Flac(data, behind)
    return _Sndfile(data)


def _mono(data: bytes, limit: float) -> tuple[np.ndarray, int]:
    """All samples of one channel, and their rate, if they last no more than `limit` seconds."""
    # samples of damaged floats overflow; `check` refuses them
    with closing(open_sound(data)) as sound, np.errstate(over="ignore", invalid="ignore"):
        waves, power, powers = [], 0.0, 0.0  # of the mean of channels, and of each channel
        count = 0
        for block in sound.blocks():
            count += len(block)
            _refuse_long(count, sound.rate, limit)
            wave = block.mean(axis=1)
            if block.shape[1] > 1:
                power += float(np.vdot(wave, wave))
                powers = powers + np.einsum("nc,nc->c", block, block).astype(np.float64)
            waves.append(wave)
        if not sound.rate:  # FFmpeg knows it from the first frame
            raise AudioError("audio holds no samples")
        sound.check_length(count / sound.rate)
        rate = check_rate(sound.rate)
    if isinstance(powers, np.ndarray) and cancelled(power, powers):
        loudest = int(powers.argmax())
        with closing(open_sound(data)) as sound:
            waves = [np.ascontiguousarray(block[:, loudest]) for block in sound.blocks()]
    return waves[0] if len(waves) == 1 else np.concatenate([np.zeros(0, np.float32), *waves]), rate


@cache
def _sequential() -> Any:
    """SoundFile that reads on from where it is: the class itself seeks after each read, which some formats cannot."""
    import soundfile as sf

    class Sequential(sf.SoundFile):
        def seekable(self) -> bool:
            return False

    return Sequential


class _Sndfile:
    """A clip opened by libsndfile.

    Attributes:
        rate: Hz.
        promised: samples per channel by its header, as libsndfile understands it.
        proven: whether the bytes themselves say that there are as many.
    """

    def __init__(self, data: bytes) -> None:
        import soundfile as sf

        if data[:2] == MIDI_DUMP:
            raise AudioError("a MIDI sample dump: convert it to WAV")
        self.failure = sf.LibsndfileError
        try:
            self._file = _sequential()(io.BytesIO(data))
        except self.failure as error:  # str(error) would name a memory address
            raise AudioError(f"not audio ({error.error_string} {len(data)} bytes)") from error
        self.kind, self.rate = str(self._file.format), int(self._file.samplerate)
        self.promised = int(self._file.frames)
        plain = str(self._file.subtype).startswith(_PLAIN)
        self.proven = self.kind in {"MP3", "OGG"} or (self.kind in _CHECKED and plain)
        self.count = 0
        try:
            check_rate(self.rate)
            if self._file.channels > MOST_CHANNELS:
                raise AudioError(f"audio of {self._file.channels} channels, more than {MOST_CHANNELS}")
        except AudioError:
            self.close()
            raise

    def blocks(self, stop: int | None = None) -> Iterator[np.ndarray]:
        """See `Sound.blocks`; up to `stop` samples."""
        most = max(1, BLOCK // self._file.channels)
        end = self.promised if stop is None else stop  # libsndfile gives no more than it promised
        while self.count < end and len(block := self.read(min(most, end - self.count))):
            yield block

    def read(self, samples: int) -> np.ndarray:
        """The next samples [n, channels], fewer at the end."""
        try:
            block: np.ndarray = self._file.read(samples, dtype="float32", always_2d=True)
        except self.failure as error:
            raise AudioError(f"damaged audio ({error.error_string})") from error
        self.count += len(block)
        return block

    def check_length(self, seconds: float) -> None:
        """See `Sound.check_length`."""
        share, most = LOSSY_SLACK if self.kind in ("MP3", "OGG") else (0.0, 0.0)
        if self.count < self.promised - min(share * self.promised, most * self.rate):
            raise AudioError(f"audio is cut short ({self.count} of {self.promised} samples are there)")
        log = "" if self.kind in _CHECKED | {"MP3", "OGG", "FLAC"} else self._file.extra_info
        if any(word in log for word in _TORN):
            raise AudioError(f"audio is cut short ({self.kind})")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Flac:
    """A FLAC file, read to its end: the number of samples in its header is a promise, and encoders may leave it at 0.

    libFLAC stops at that number. Without it, it reads on, and a tag that another tool put behind is an error to it.
    """

    def __init__(self, data: bytes, at: int) -> None:
        number = int.from_bytes(data[at + 18 : at + 26], "big")
        self.stated = number & 2**36 - 1
        self._data, self._behind = data, at + 4
        blank = (number - self.stated).to_bytes(8, "big") if len(data) >= at + 26 else b""
        self._sound = _Sndfile(data[: at + 18] + blank + data[at + 18 + len(blank) :])
        self.rate = self._sound.rate

    def blocks(self) -> Iterator[np.ndarray]:
        """See `Sound.blocks`."""
        return self._sound.blocks(self.stated or None)

    def check_length(self, seconds: float) -> None:
        """See `Sound.check_length`."""
        count = self._sound.count
        if not self.stated:
            return
        if count < self.stated:
            raise AudioError(f"audio is cut short ({count} of {self.stated} samples are there)")
        try:
            more = len(self._sound.read(1)) > 0
        except AudioError:
            more = self._data.find(b"fLaC", self._behind) >= 0  # else a tag
        if more:
            raise AudioError(f"more sound follows the {self.stated} samples that its header states")

    def close(self) -> None:
        """Close the file."""
        self._sound.close()


def _refuse_long(samples: int, rate: int, limit: float) -> None:
    if samples > limit * rate:
        raise AudioError(f"audio is longer than {limit:g} s: split it, or set {CLIP_SECONDS_VARIABLE}")
    if samples * 4 > CLIP_BYTES:
        raise AudioError(f"audio of more than {CLIP_BYTES} bytes of samples: split it")

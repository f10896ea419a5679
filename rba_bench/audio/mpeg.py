"""MPEG audio (MP3): the frames of a recording, and a header that states how many there are.

libsndfile guesses the length of an MP3 without a Xing header from its first frame, and reads no further than that: of
one whose bit rate varies it silently reads a part. It trusts a Xing header too, also where a second recording follows.
Here the frames are counted. Where libsndfile would read fewer, `repair_mp3` puts a Xing header in front that states the
true number.

Source: ISO/IEC 11172-3 and 13818-3, 2.4.1.3 (frame header) and 2.4.3.1 (frame length); the Xing header's layout is
four bytes of name, flags (1: frames, 2: bytes), and the two numbers, after the side information of the first frame.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rba_bench.errors import AudioError

_RATES = (44_100, 48_000, 32_000)  # Hz, MPEG 1; half of it in MPEG 2, a quarter in MPEG 2.5
_KBPS = {  # (MPEG 1 or not, layer) -> bit rates by index
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SIDE = {(True, 1): 17, (True, 2): 32, (False, 1): 9, (False, 2): 17}  # (MPEG 1 or not, channels) -> bytes
_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")  # what may stand behind the last frame
JUNK = 2**20  # bytes behind the last frame that are looked through for more
SLACK = 2  # frames by which an encoder's own count may differ: it counts its header, or the decoder's delay


@dataclass(frozen=True)
class Frame:
    """One frame header.

    Attributes:
        first: MPEG 1, not 2 or 2.5.
        layer: 1, 2 or 3.
        rate: Hz.
        channels: 1 or 2.
        size: bytes of the frame, 0 where its bit rate is free.
        samples: per channel.
    """

    first: bool
    layer: int
    rate: int
    channels: int
    size: int
    samples: int

    def like(self, other: "Frame") -> bool:
        """Whether both can be of one recording."""
        return (self.first, self.layer, self.rate) == (other.first, other.layer, other.rate)


@dataclass(frozen=True)
class Recording:
    """The frames of a file.

    Attributes:
        frame: the first.
        spans: start and end of each frame that holds sound, in order.
        stated: frames by the Xing header, None without one.
        torn: whether the last frame is not all there.
    """

    frame: Frame
    spans: list[tuple[int, int]]
    stated: int | None
    torn: bool

    @property
    def samples(self) -> int:
        """Samples per channel, the encoder's padding included."""
        return len(self.spans) * self.frame.samples


def is_mpeg(data: bytes) -> bool:
    """Whether MPEG audio stands here, after its ID3 tags: two frames in a row, or one that ends the file."""
    at = after_tags(data)
    frame = parse_frame_header(data, at)
    if frame is None:
        return False
    following = at + frame.size
    return following >= len(data) or bool(parse_frame_header(data, following)) or _is_tag(data, following)


def after_tags(data: bytes) -> int:
    """Where the sound begins behind ID3v2 tags and zeros."""
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        at += 10 + size + (10 if data[at + 5] & 0x10 else 0)
    return len(data) - len(data[at:].lstrip(b"\0")) if data[at : at + 1] == b"\0" else at


def parse_frame_header(data: bytes, at: int) -> Frame | None:
    """The frame header at an offset; None if there is none."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    speed, rate_index = data[at + 2] >> 4, data[at + 2] >> 2 & 3
    if version == 1 or layer == 4 or speed == 15 or rate_index == 3:
        return None
    first = version == 3
    rate = _RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == 1 else 1152 if first or layer == 2 else 576
    padding = data[at + 2] >> 1 & 1
    bits = _KBPS[first, layer][speed] * 1000
    size = (12 * bits // rate + padding) * 4 if layer == 1 else samples // 8 * bits // rate + padding
    return Frame(first, layer, rate, 1 if data[at + 3] >> 6 == 3 else 2, size if bits else 0, samples)


def read_frames(data: bytes, most: int = 2**28) -> Recording:
    """Walk the frames.

    Raises:
        AudioError: sync is lost before the end, no frame size can be known, or there are more than `most` samples.
    """
    at = after_tags(data)
    frame = parse_frame_header(data, at)
    if frame is None or not frame.size:
        raise AudioError("an MP3 whose frames cannot be counted (free bit rate): convert it to FLAC")
    spans: list[tuple[int, int]] = []
    stated, torn = None, False
    for start, current in _walk(data, at, frame):
        if start + current.size > len(data):
            torn = True
            break
        count = _xing_count(data, start, current)
        if count is None:
            spans.append((start, start + current.size))
        elif not spans:
            stated = count or None
        if len(spans) * frame.samples > most:
            raise AudioError(f"audio of more than {most} samples: split it")
    return Recording(frame, spans, stated, torn)


def _walk(data: bytes, at: int, like: Frame) -> Iterator[tuple[int, Frame]]:
    while at < len(data):
        frame = parse_frame_header(data, at)
        if frame is not None and frame.size and frame.like(like):
            yield at, frame
            at += frame.size
        elif data[at : at + 3] == b"ID3":
            at += max(after_tags(data[at:]), 1)
        elif data[at : at + 3] == b"TAG" and len(data) > at + 128:
            at += 128  # of a file that was put in front
        else:
            if not _is_tag(data, at) and (more := _resync(data, at, like)) is not None:
                raise AudioError(f"damaged MP3 (no frame at byte {at}, the next at {more})")
            return


def _is_tag(data: bytes, at: int) -> bool:
    return any(data.startswith(tag, at) for tag in _TAGS)


def _resync(data: bytes, at: int, like: Frame) -> int | None:
    """Where frames go on behind something else: two in a row. Raises AudioError where that is too far to look."""
    if len(data) - at > JUNK:
        raise AudioError(f"damaged MP3 (no frame at byte {at} of {len(data)})")
    while (at := data.find(b"\xff", at + 1)) >= 0:
        frame = parse_frame_header(data, at)
        if frame is not None and frame.size and frame.channels == like.channels:
            after = parse_frame_header(data, at + frame.size)
            if after is not None and after.like(frame):
                return at
    return None


def _xing_count(data: bytes, start: int, frame: Frame) -> int | None:
    """Frames by the Xing (or Info, or VBRI) header in this frame, 0 if it does not say; None for a frame of sound."""
    if frame.layer != 3:
        return None
    at = start + 4 + _SIDE[frame.first, frame.channels]
    for place in (at, at + 2):  # with a checksum
        if data[place : place + 4] in (b"Xing", b"Info"):
            flags = int.from_bytes(data[place + 4 : place + 8], "big")
            return int.from_bytes(data[place + 8 : place + 12], "big") if flags & 1 else 0
    if data[start + 36 : start + 40] == b"VBRI":
        return int.from_bytes(data[start + 50 : start + 54], "big")
    return None


def repair_mp3(data: bytes, recording: Recording, promised: int) -> bytes:
    """The recording as libsndfile must be given it, to read it whole.

    Args:
        data: the file.
        recording: its frames.
        promised: samples that libsndfile would read of `data`.

    Raises:
        AudioError: the recording is torn, or holds no frames.
    """
    count = len(recording.spans)
    if not count:
        raise AudioError("audio holds no samples")
    if recording.stated is not None and recording.stated > count + SLACK:
        raise AudioError(f"audio is cut short ({count} of {recording.stated} MP3 frames are there)")
    if recording.torn and recording.stated is None:
        raise AudioError(f"audio is cut short (the last of {count + 1} MP3 frames is not all there)")
    encoder_padding = 3 * recording.frame.samples  # a LAME header lets the decoder drop it
    if recording.samples - encoder_padding <= promised <= recording.samples:
        return data
    if recording.frame.layer != 3:
        raise AudioError(
            f"its length cannot be known ({promised} or {recording.samples} samples): convert it to FLAC"
        )
    # The frames go behind one more, of silence, whose Xing header states their number.
    sound = b"".join(data[start:end] for start, end in recording.spans)
    start = recording.spans[0][0]
    head = bytearray(data[start : start + 4])
    head[1] |= 1  # no checksum
    side = _SIDE[recording.frame.first, recording.frame.channels]
    for speed in range(1, 15):
        head[2] = speed << 4 | head[2] & 0x0C
        frame = parse_frame_header(bytes(head), 0)
        if frame is not None and frame.size >= 4 + side + 16:
            break
    assert frame is not None
    numbers = count.to_bytes(4, "big") + (len(sound) + frame.size).to_bytes(4, "big")
    silence = bytes(head) + bytes(side) + b"Xing" + (3).to_bytes(4, "big") + numbers
    return silence.ljust(frame.size, b"\0") + sound

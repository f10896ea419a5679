"""Ogg page by page: libsndfile reads what is left of a torn file, and the first of two recordings.

Source: RFC 3533, section 6 (the page header: 4 bytes `OggS`, flags at 5, serial number at 14, page number at 18, then
27 bytes on the sizes of the segments, as many as byte 26 says).
"""

from rba_bench.audio.containers import TWO
from rba_bench.errors import AudioError

MOST_STREAMS = 64
_FIRST, _LAST = 2, 4  # flags: first and last page of a stream


def check(data: bytes) -> None:
    """Raise AudioError if the file is torn, lacks a page in the middle, or holds one recording after another."""
    at, body_began, ended = 0, False, False
    numbers: dict[bytes, int] = {}
    while at < len(data):
        if data[at : at + 4] != b"OggS":
            if data.find(b"OggS", at) >= 0:
                raise AudioError(f"damaged Ogg (no page at byte {at})")
            if not ended:
                raise AudioError(f"audio is cut short (an Ogg page ends at byte {at}, before the last one)")
            return  # junk behind the last page
        end = _end(data, at)
        flags, serial = data[at + 5], data[at + 14 : at + 18]
        number = int.from_bytes(data[at + 18 : at + 22], "little")
        if flags & _FIRST and body_began:
            raise AudioError(TWO)
        if serial in numbers and number != (numbers[serial] + 1) & 0xFFFFFFFF:
            raise AudioError(f"damaged Ogg (page {number} follows page {numbers[serial]})")
        body_began |= not flags & _FIRST
        ended |= bool(flags & _LAST)
        numbers[serial] = number
        if len(numbers) > MOST_STREAMS:
            raise AudioError(f"damaged Ogg (more than {MOST_STREAMS} streams)")
        at = end


def first_packet(data: bytes) -> bytes:
    """The packet that says what the first stream is; b"" if there is none."""
    return data[27 + data[26] :][: data[27]] if len(data) > 28 else b""


def _end(data: bytes, at: int) -> int:
    """Where the page at `at` ends. Raises AudioError where the file ends before."""
    sizes = data[at + 27 : at + 27 + data[at + 26]] if at + 26 < len(data) else b""
    end = at + 27 + len(sizes) + sum(sizes)
    if at + 27 > len(data) or len(sizes) < data[at + 26] or end > len(data):
        raise AudioError(f"audio is cut short (an Ogg page of byte {at} is not all there)")
    return end

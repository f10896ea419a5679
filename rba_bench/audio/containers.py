"""Containers of clips: the length that a header states, compared with the bytes that are there.

libsndfile reads what is left of a torn file and says nothing, and refuses or shortens a good one whose sizes a writer
never filled in. `repair_container` walks the chunks itself, in WAV (RIFF, RIFX, RF64, BW64), Sony Wave64, AIFF, IFF and
CAF, and reads the headers of AU and NIST. A torn file raises AudioError; a complete file with wrong sizes comes back
with its sizes corrected; all others come back as they are. `check_ogg` reads Ogg page by page: of a torn file
libsndfile reads what is left, and of two recordings the first.

Sources: Microsoft's RIFF specification (chunks are padded to even sizes), EBU Tech 3306 (RF64), Apple's CAF
specification 1.0 (a data chunk of size -1 reaches to the end), Sun's AU header (size 0xFFFFFFFF is unknown), RFC 3533,
section 6 (the page header: 4 bytes `OggS`, flags at 5, serial number at 14, page number at 18, then 27 bytes on the
sizes of the segments, as many as byte 26 says).
"""

from dataclasses import dataclass, replace
from typing import Literal

from rba_bench.errors import AudioError

STREAMED = 0x7F000000  # bytes; writers to a pipe put 0x7FFFF000 (sox), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF for "unknown"
MOST_CHUNKS = 10_000  # a file of chunks without content must not take minutes
MPEG_TAGS = {0x50, 0x55}  # WAVE format tags: MPEG audio layers I and II, layer III
TWO = "two recordings in one clip: split them"
MOST_STREAMS = 64
_FIRST, _LAST = 2, 4  # flags of Ogg: first and last page of a stream


@dataclass(frozen=True)
class Layout:
    """How a family of containers writes its chunks.

    Attributes:
        first: offset of the first chunk.
        id: bytes of a chunk's name.
        width: bytes of its size.
        order: byte order of sizes.
        counted: whether a size counts the chunk's own header.
        align: chunks begin at multiples of this.
        data: name of the chunk with the samples.
        inside: bytes at the start of that chunk which are no samples.
    """

    first: int
    id: int = 4
    width: int = 4
    order: Literal["little", "big"] = "little"
    counted: bool = False
    align: int = 2
    data: bytes = b"data"
    inside: int = 0

    @property
    def header(self) -> int:
        """Bytes of a chunk's name and size."""
        return self.id + self.width

    def number(self, data: bytes) -> int:
        """A size as it is written."""
        return int.from_bytes(data, self.order)

    def write(self, number: int) -> bytes:
        """The inverse of `number`."""
        return number.to_bytes(self.width, self.order)


RIFF, RIFX = Layout(12), Layout(12, order="big")
WAVE64 = Layout(
    40, id=16, width=8, counted=True, align=8, data=b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
)
AIFF = Layout(12, order="big", data=b"SSND", inside=8)
IFF = Layout(12, order="big", data=b"BODY")
CAF = Layout(8, width=8, order="big", align=1, inside=4)


@dataclass(frozen=True)
class Chunk:
    """One chunk: its name, where its content begins, and the size that its header states."""

    name: bytes
    start: int
    size: int

    def of(self, data: bytes) -> bytes:
        """Its content."""
        return data[self.start : self.start + self.size]


def repair_container(data: bytes) -> bytes:
    """The clip with a header that states its true length: the same object where it already does.

    Of a WAV file that holds MPEG audio, the MPEG audio.

    Raises:
        AudioError: the header promises more than there is, or another recording follows.
    """
    kind, form = data[:4], data[8:12]
    if kind in (b"RIFF", b"RIFX", b"RF64", b"BW64") and form == b"WAVE":
        return _repair_wav(data, RIFX if kind == b"RIFX" else RIFF)
    if kind == b"riff":
        return _fix_sizes(data, WAVE64, (16, 0))
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        return _fix_sizes(data, AIFF, (4, 8))
    if kind == b"FORM" and form in (b"8SVX", b"16SV"):
        return _fix_sizes(data, IFF, (4, 8))
    if kind == b"caff":
        return _fix_sizes(data, CAF, None)
    if kind == b".snd":  # the header has the offset and the size of the samples
        start, stated = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
        if len(data) < 24 or start > len(data) or stated == 0xFFFFFFFF:
            return data
        size = _size(data, start, stated, Layout(start, order="big", align=1))
        return data if size == stated else data[:8] + size.to_bytes(4, "big") + data[12:]
    if kind == b"NIST":
        _check_nist(data)
    return data


def _chunks(data: bytes, layout: Layout) -> list[Chunk]:
    """Chunks in order, MOST_CHUNKS at most; the last may promise more than there is.

    The pad byte after an odd chunk is required and often left out: where no name stands behind it, it was.
    """
    at, chunks = layout.first, list[Chunk]()
    while at + layout.header <= len(data) and _is_name(data[at : at + 4]) and len(chunks) < MOST_CHUNKS:
        start = at + layout.header
        size = layout.number(data[at + layout.id : start]) - (layout.header if layout.counted else 0)
        chunks.append(Chunk(data[at : at + layout.id], start, max(size, 0)))
        end = start + max(size, 0)
        at = _aligned(end, layout)
        if at != end and _is_name(data[end : end + 4]) and not _is_name(data[at : at + 4]):
            at = end
    return chunks


def _aligned(at: int, layout: Layout) -> int:
    return -(-at // layout.align) * layout.align


def _is_name(text: bytes) -> bool:
    """Whether these four bytes can name a chunk: printable ASCII, as all registered ones are."""
    return len(text) == 4 and all(32 <= byte < 127 for byte in text)


def _samples(
    data: bytes, layout: Layout, stated: int | None = None
) -> tuple[Chunk, int, dict[bytes, Chunk]] | None:
    """The chunk of the samples, bytes that belong to it, and the chunks before it; None where there is no such chunk.

    `stated` replaces the size that the chunk states.
    """
    before: dict[bytes, Chunk] = {}
    for chunk in _chunks(data, layout):
        if chunk.name == layout.data:
            return chunk, _size(data, chunk.start, chunk.size if stated is None else stated, layout), before
        before.setdefault(chunk.name, chunk)
    return None


def _size(data: bytes, start: int, stated: int, layout: Layout) -> int:
    """Bytes of samples from `start`, where the header states `stated`. Raises AudioError if they cannot be right."""
    present = len(data) - start
    if stated > present and stated >= STREAMED:
        return present
    if stated <= layout.inside < present:
        # Never filled in, unless other chunks follow to the end: then the clip is truly empty.
        rest = _chunks(data, replace(layout, first=_aligned(start + stated, layout)))
        return stated if rest and rest[-1].start + rest[-1].size <= len(data) + 1 else present
    if stated == present:
        return stated
    if stated < present:
        # Which of two recordings is meant, nobody can say. Chunks, padding and a little junk may follow.
        end = start + stated
        padded = _aligned(end, layout)
        rest = _chunks(data, replace(layout, first=padded))
        again = any(data[at : at + 4] == data[:4] for at in (end, padded))
        if again or any(chunk.name == layout.data for chunk in rest):
            raise AudioError(TWO)
        last = min(rest[-1].start + rest[-1].size, len(data)) if rest else end
        if len(data) - last > stated and data[last:].strip(b"\0"):
            raise AudioError(
                f"its header states {stated} bytes of samples, and {len(data) - last} more follow"
            )
        return stated
    # the size of the file instead of that of the samples; or, of a RIFF size that counts its own header, 36 less
    if stated in (len(data), len(data) - 8, len(data) - 36):
        return present
    raise AudioError(f"audio is cut short ({present} of {stated} bytes are present)")


def _repair_wav(data: bytes, layout: Layout) -> bytes:
    """Any WAV file: as it is if its sizes agree, else its format and its samples as a plain one."""
    # By the 64-bit chunk of an RF64 file, where the data chunk leaves its size to it
    stated: int | None = None
    if data[:4] in (b"RF64", b"BW64") and data[12:16] == b"ds64":
        chunk = next((chunk for chunk in _chunks(data, RIFF) if chunk.name == b"data"), None)
        if chunk is not None and chunk.size == 0xFFFFFFFF:
            stated = int.from_bytes(data[28:36], "little")
    found = _samples(data, layout, stated)
    if found is None or b"fmt " not in found[2]:
        return data  # the decoder says what is wrong
    chunk, size, before = found
    form, sound = before[b"fmt "].of(data), data[chunk.start : chunk.start + size]
    if layout.number(form[:2]) in MPEG_TAGS:
        return sound
    if data[:4] == b"RF64" and size == stated:
        return data
    whole = abs(layout.number(data[4:8]) + 8 - len(data)) <= 1
    if data[:4] in (b"RIFF", b"RIFX") and size == chunk.size and whole and _is_contiguous(data, layout):
        return data
    parts = [_chunk(b"fmt ", form, layout)]
    if b"fact" in before:
        parts.append(_chunk(b"fact", before[b"fact"].of(data), layout))
    body = b"".join([b"WAVE", *parts, _chunk(b"data", sound, layout)])
    return _chunk(b"RIFX" if layout is RIFX else b"RIFF", body, layout)


def _is_contiguous(data: bytes, layout: Layout) -> bool:
    """Whether the chunks follow each other, padded, to the end: what libsndfile reads without guessing."""
    at = layout.first
    for chunk in _chunks(data, layout):
        if chunk.start - layout.header != at:
            return False
        at = _aligned(chunk.start + chunk.size, layout)
    return at in (len(data), len(data) + 1)


def _chunk(name: bytes, content: bytes, layout: Layout) -> bytes:
    return name + layout.write(len(content)) + content + bytes(len(content) % 2)


def _fix_sizes(data: bytes, layout: Layout, container: tuple[int, int] | None) -> bytes:
    """The file up to the end of its samples, sizes put right, where they did not agree.

    `container` says where the size of the whole file stands, and how much of the file it leaves out; None if nowhere.
    """
    found = _samples(data, layout)
    if found is None or found[1] == found[0].size:
        return data
    chunk, size, _ = found
    repaired = bytearray(data[: chunk.start + size])
    header = layout.header if layout.counted else 0
    repaired[chunk.start - layout.width : chunk.start] = layout.write(size + header)
    if container is not None:
        at, without = container
        repaired[at : at + layout.width] = layout.write(len(repaired) - without)
    return bytes(repaired)


def _check_nist(data: bytes) -> None:
    """Raise AudioError where a NIST file is shorter than its header, lines of `name -type value`, says."""
    lines = [line.split() for line in data[:1024].decode("ascii", "replace").splitlines()]
    fields = {line[0]: line[2] for line in lines if len(line) == 3}
    try:
        samples = int(fields["sample_count"]) * int(fields["sample_n_bytes"])
        needed = int(lines[1][0]) + samples * int(fields.get("channel_count", "1"))
    except (KeyError, ValueError, IndexError):
        return  # nothing is promised
    if needed > len(data) and "shorten" not in fields.get("sample_coding", ""):
        raise AudioError(f"audio is cut short ({len(data)} of {needed} bytes are there)")


def wave_tag(data: bytes) -> int | None:
    """The format tag of a RIFF WAV file; None if it has none."""
    chunk = next((chunk for chunk in _chunks(data, RIFF) if chunk.name == b"fmt "), None)
    return int.from_bytes(data[chunk.start : chunk.start + 2], "little") if chunk is not None else None


def check_ogg(data: bytes) -> None:
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
        sizes = data[at + 27 : at + 27 + data[at + 26]] if at + 26 < len(data) else b""
        end = at + 27 + len(sizes) + sum(sizes)
        if at + 27 > len(data) or len(sizes) < data[at + 26] or end > len(data):
            raise AudioError(f"audio is cut short (an Ogg page of byte {at} is not all there)")
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

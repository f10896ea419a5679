"""Clips of every format that libsndfile writes, and damage of every kind that files meet; seeded."""

import io
import struct
from collections.abc import Iterator

import numpy as np
import soundfile as sf

RATE = 16_000
UNKNOWN = (0, 1, 36, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFF0)  # sizes that writers leave behind
NOT_WRITTEN = {"RAW", "SD2"}  # no header; a resource fork in the working folder


def tone(seconds: float = 0.5, rate: int = RATE, channels: int = 1) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * 220 * t) * (1 + np.sin(2 * np.pi * 5 * t)) / 2
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def encoded(kind: str, subtype: str | None = None, wave: np.ndarray | None = None, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, tone(rate=rate) if wave is None else wave, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def seeds() -> dict[str, bytes]:
    """A clip of each format and subtype that libsndfile writes, mono and stereo where it can."""
    found = {}
    for kind in sorted(set(sf.available_formats()) - NOT_WRITTEN):
        for subtype in sorted(sf.available_subtypes(kind)):
            rate = 8_000 if kind == "WVE" else RATE
            for channels in (1, 2):
                try:
                    found[f"{kind} {subtype} {channels}"] = encoded(
                        kind, subtype, tone(rate=rate, channels=channels), rate
                    )
                except sf.LibsndfileError:
                    continue  # a pair that it lists and does not write
    return found


def _flip(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    for at in rng.integers(0, len(data), int(rng.integers(1, 20))):
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _flip_header(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    for at in rng.integers(0, min(len(data), 64), int(rng.integers(1, 6))):
        data[at] = int(rng.integers(256))
    return bytes(data)


def _truncate(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    return bytes(data[: int(rng.integers(len(data)))])


def _size(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    at = int(rng.integers(0, min(len(data), 80) - 4))
    value = int(rng.choice(UNKNOWN)) if rng.random() < 0.7 else int(rng.integers(2**32))
    data[at : at + 4] = struct.pack("<I" if rng.random() < 0.5 else ">I", value)
    return bytes(data)


def _swap(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    a, b, c = sorted(int(n) for n in rng.integers(0, len(data), 3))
    return bytes(data[:a] + data[b:c] + data[a:b] + data[c:])


def _repeat(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    a, b = sorted(int(n) for n in rng.integers(0, len(data), 2))
    return bytes(data[:b] + data[a:b] * int(rng.integers(1, 4)) + data[b:])


def _splice(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    other = others[int(rng.integers(len(others)))]
    return bytes(data[: int(rng.integers(len(data)))]) + other[int(rng.integers(len(other))) :]


def _behind(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    return bytes(data) + others[int(rng.integers(len(others)))]


def _zeros(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    a, b = sorted(int(n) for n in rng.integers(0, len(data), 2))
    data[a:b] = bytes(b - a)
    return bytes(data)


def _noise(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    keep = int(rng.integers(0, 64))
    return bytes(data[:keep]) + rng.bytes(int(rng.integers(0, 5_000)))


def _text(data: bytearray, rng: np.random.Generator, others: list[bytes]) -> bytes:
    texts = (
        b"",
        b"\0" * 500,
        b"<!DOCTYPE html><html></html>",
        b"#EXTM3U\nfile:///etc/hosts\n",
        b"version https://git-lfs",
    )
    return texts[int(rng.integers(len(texts)))]


MUTATIONS = {
    "bits": _flip,
    "header bytes": _flip_header,
    "truncated": _truncate,
    "size": _size,
    "swapped": _swap,
    "repeated": _repeat,
    "spliced": _splice,
    "another behind": _behind,
    "zeros": _zeros,
    "noise": _noise,
    "no audio": _text,
}


def mutants(number: int, seed: int = 1, more: dict[str, bytes] | None = None) -> Iterator[tuple[str, bytes]]:
    """`(name, bytes)` of damaged clips: formats and kinds of damage in turn, the same for equal arguments."""
    rng = np.random.default_rng(seed)
    clips = seeds() | (more or {})
    names = sorted(clips)
    for index in range(number):
        kind = list(MUTATIONS)[index % len(MUTATIONS)]
        name = names[int(rng.integers(len(names)))]
        yield f"{index} {name}: {kind}", MUTATIONS[kind](bytearray(clips[name]), rng, list(clips.values()))

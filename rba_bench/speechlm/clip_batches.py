"""Clips as a recogniser takes them: long ones in pieces, pieces of like length together."""

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from rba_bench.speechlm.speech_model import SAMPLING_RATE

PIECE_S = 30.0  # what Whisper takes at once; the others too, since attention grows with its square
SEARCH_S = 5.0  # a cut lies within so much of the end of a piece
QUIET_S = 0.2  # loudness is averaged over so much


def split_long_clip(audio: np.ndarray, longest_s: float = PIECE_S) -> list[np.ndarray]:
    """Pieces of at most `longest_s` seconds, together the whole clip, cut at the quietest place near their ends."""
    longest, search, quiet = (round(s * SAMPLING_RATE) for s in (longest_s, SEARCH_S, QUIET_S))
    pieces, start = [], 0
    while len(audio) - start > longest:
        window = np.abs(audio[start + longest - search : start + longest]).astype(np.float64)
        loudness = np.convolve(window, np.ones(quiet), mode="valid")
        end = start + longest - search + int(loudness.argmin()) + quiet // 2
        pieces.append(audio[start:end])
        start = end
    return [*pieces, audio[start:]]


def transcribe_in_batches(
    clips: Sequence[np.ndarray],
    size: int,
    transcribe: Callable[[Sequence[np.ndarray]], list[str]],
    window: Callable[[np.ndarray], int] = lambda _clip: 0,
) -> list[str]:
    """`transcribe` on batches of like length, longest first, so that memory peaks at once; results in input order.

    Clips for which `window` differs, which must not grow as clips get shorter, never share a batch.
    """
    order = sorted(range(len(clips)), key=lambda i: (-len(clips[i]), i))
    words = [""] * len(clips)
    for _, alike in groupby(order, key=lambda i: window(clips[i])):
        numbers = list(alike)
        for start in range(0, len(numbers), size):
            batch = numbers[start : start + size]
            for i, text in zip(batch, transcribe([clips[i] for i in batch]), strict=True):
                words[i] = text.strip()
    return words

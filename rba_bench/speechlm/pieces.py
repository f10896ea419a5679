"""Recognising in batches of pieces: clips longer than 30 s are cut where they are quietest, and their words joined."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rba_bench.speechlm.base import SAMPLING_RATE, audio_fault

PIECE_S = 30.0  # what Whisper hears at once; others are held to it, since attention grows with its square
SEARCH_S = 5.0  # a cut lies within so much of the end of a piece
QUIET_S = 0.2  # loudness is averaged over so much


class InPieces(ABC):
    """What recognisers of up to 30 s at a time share."""

    rows: int
    _identity: dict[str, Any]

    def identity(self) -> dict[str, Any]:
        """Kind, path, hashes, `n_parameters`, language, and how long clips are cut."""
        return {**self._identity, "decoding": f"greedy, pieces of {PIECE_S:g} s"}

    def fault(self, audio: np.ndarray | None) -> str:
        """Unusable samples; no clip is too long."""
        return audio_fault(audio)

    def transcribe(self, clips: Sequence[np.ndarray]) -> list[str]:
        """Words of each clip, in order."""
        pieces = [(i, piece) for i, clip in enumerate(clips) for piece in cut(clip)]
        heard = in_batches([piece for _, piece in pieces], self.rows, self._hear)
        words: list[list[str]] = [[] for _ in clips]
        for (i, _), text in zip(pieces, heard, strict=True):
            words[i] += [text] if text else []
        return [" ".join(parts) for parts in words]

    @abstractmethod
    def _hear(self, pieces: Sequence[np.ndarray]) -> list[str]:
        """Words of pieces that fit the recogniser, in order."""


def cut(audio: np.ndarray, longest_s: float = PIECE_S) -> list[np.ndarray]:
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


def in_batches(
    clips: Sequence[np.ndarray], size: int, hear: Callable[[Sequence[np.ndarray]], list[str]]
) -> list[str]:
    """`hear` on batches of like length, longest first, so that memory peaks at once; results in input order."""
    order = sorted(range(len(clips)), key=lambda i: (-len(clips[i]), i))
    words = [""] * len(clips)
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        for i, text in zip(batch, hear([clips[i] for i in batch]), strict=True):
            words[i] = text.strip()
    return words

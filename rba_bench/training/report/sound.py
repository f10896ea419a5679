"""Clips as data URIs: short, in a codec that every browser plays, and within a budget for the whole page."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.audio.clips import SAMPLING_RATE, load
from rba_bench.errors import RbaError

SECONDS = 20  # of a clip
BYTES = 6 * 2**20  # of all clips of a page, as they stand in it


class Player:
    """Gives the clips of a page.

    Args:
        groups: rows by group id; None where the set cannot be read.

    Attributes:
        left_out: clips that found no room.
        unread: clips that could not be read.
    """

    def __init__(self, groups: Mapping[str, Sequence[AlignmentRow]] | None) -> None:
        self.groups = groups
        self.left_out = 0
        self.unread = 0
        self._known: dict[str, str] = {}
        self._bytes = 0

    def __call__(self, group: str, clip: str) -> str:
        """A clip as a data URI; empty where there is none to give."""
        if self.groups is None:
            return ""
        if clip not in self._known:
            self._known[clip] = self._uri(group, clip)
        return self._known[clip]

    def _uri(self, group: str, clip: str) -> str:
        try:
            assert self.groups is not None
            (row,) = [row for row in self.groups[group] if row.id == clip]
            uri = data_uri(load(row.audio))
        except (KeyError, ValueError, OSError, RbaError):  # another set by now, or a damaged one
            self.unread += 1
            return ""
        if self._bytes + len(uri) > BYTES:
            self.left_out += 1
            return ""
        self._bytes += len(uri)
        return uri


def data_uri(wave: np.ndarray) -> str:
    """The first seconds of a wave [n] at 16 kHz, as MP3, or as FLAC where this libsndfile cannot write MP3."""
    import soundfile

    has_mp3 = "MPEG_LAYER_III" in soundfile.available_subtypes("MP3")
    kind, subtype, mime = (
        ("MP3", "MPEG_LAYER_III", "audio/mpeg") if has_mp3 else ("FLAC", "PCM_16", "audio/flac")
    )
    buffer = io.BytesIO()
    heard = np.clip(wave[: SECONDS * SAMPLING_RATE], -1.0, 1.0)
    soundfile.write(buffer, heard, SAMPLING_RATE, format=kind, subtype=subtype)
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"

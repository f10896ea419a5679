"""Recorded utterances that are to be translated, by reference."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recorded utterance that is to be translated.

    Attributes:
        id: unique among the utterances of a set.
        path: audio file, or parquet or Arrow file.
        transcript: what is said.
        source_lang, target_lang: short codes.
        voice: speaker, "" if unknown.
        row, column: place in a parquet or Arrow file; row None for an audio file.
        offset, duration: part of a longer file in seconds; None = all of it.
    """

    id: str
    path: str
    transcript: str
    source_lang: str
    target_lang: str
    voice: str = ""
    row: int | None = None
    column: str = "audio"
    offset: float | None = None
    duration: float | None = None

    def content(self) -> list[Any]:
        """What identifies the utterance wherever its file lies."""
        place = [Path(self.path).name, self.row, self.offset, self.duration]
        return [self.id, self.transcript, self.source_lang, self.target_lang, self.voice, *place]

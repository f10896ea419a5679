"""Voice banks: folders of reference clips for speech engines that clone a voice, one clip a speaker.

Two layouts, which may be mixed:

    FOLDER/anna.wav, FOLDER/anna.txt             a clip lies in the folder itself: its name is the speaker's
    FOLDER/anna/morning.wav                      any clip below a folder: the folder is the speaker
    FOLDER/.../1089/134686/1089_134686_000002_000000.wav, and .normalized.txt    LibriTTS: speaker 1089

LibriTTS is told by the names of its files, `<speaker>_<chapter>_<paragraph>_<sentence>` in folders `speaker/chapter`,
at whatever depth, so its subsets can be given together. (Zen et al. 2019, "LibriTTS: A corpus derived from LibriSpeech
for text-to-speech", section 3; LibriTTS has 2,456 speakers.)

Of each speaker the first usable clip counts, by the order of names; the others are not opened. What was found is kept
in the cache with size and time of change of each file, so that a large bank is read once.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rba_bench.audio.decoding import CLIP_BYTES, decode_at_own_rate
from rba_bench.audio.samples import is_silent
from rba_bench.errors import AudioError, MissingPrerequisite, UserError, first_line
from rba_bench.files import cache_dir, read_json, sha256_bytes, write_atomic

SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus"})
LEAST_SECONDS = 3.0  # shorter references tell too little of a voice
MOST_SECONDS = 30.0  # engines that clone refuse longer ones
REASONS = {
    "short": "shorter than min_seconds",
    "long": "longer than max_seconds",
    "silent": "no sound",
    "broken": "not readable as audio",
}
USABLE = ""
_TRANSCRIPTS = (".normalized.txt", ".txt", ".lab")
_LIBRITTS = re.compile(r"(\d+)_(\d+)_\d+_\d+")
_FORMAT = 1  # of the index


@dataclass(frozen=True)
class ReferenceClip:
    """A speaker of a bank.

    Attributes:
        name: Of the speaker.
        path: The clip.
        sha256: Of its bytes.
        seconds: How long it is.
        transcript: What is said in it, "" where that is not known.
    """

    name: str
    path: str
    sha256: str
    seconds: float
    transcript: str = ""


@dataclass(frozen=True)
class VoiceBank:
    """What a folder holds.

    Attributes:
        clips: One a speaker, by name.
        left_out: Clips that were looked at and cannot be used, counted by the keys of REASONS.
        without: Speakers of whom no clip can be used.
    """

    clips: tuple[ReferenceClip, ...]
    left_out: dict[str, int]
    without: tuple[str, ...]

    def summary(self) -> str:
        """One line for the user."""
        counts = ", ".join(f"{n} {REASONS[reason]}" for reason, n in self.left_out.items())
        speakers = f"; no usable clip of {len(self.without)} speakers" if self.without else ""
        return f"{len(self.clips)} voices" + (f"; left out: {counts}" if counts else "") + speakers


def read_voice_bank(
    folder: Path | str, min_seconds: float = LEAST_SECONDS, max_seconds: float = MOST_SECONDS
) -> VoiceBank:
    """Find the speakers of a folder.

    Args:
        folder: See above.
        min_seconds: Shortest clip that is used.
        max_seconds: Longest.

    Raises:
        MissingPrerequisite: No such folder.
        UserError: It holds no clips, or none that can be used.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingPrerequisite(f"no voice bank at {folder}: it is a folder of clips")
    speakers = _clips_by_speaker(root)
    if not speakers:
        raise UserError(
            f"{folder} holds no clips: a voice bank consists of {', '.join(sorted(SUFFIXES))} files"
        )
    index = _Index(root)
    found: list[ReferenceClip] = []
    left_out: Counter[str] = Counter()
    without = []
    for name, files in sorted(speakers.items()):
        for file in sorted(files):
            seconds, sha256, reason = index.look(file)
            reason = reason or _out_of_range(seconds, min_seconds, max_seconds)
            if reason == USABLE:
                found.append(ReferenceClip(name, str(file), sha256, seconds, _transcript(file)))
                break
            left_out[reason] += 1
        else:
            without.append(name)
    index.save()
    bank = VoiceBank(tuple(found), {key: left_out[key] for key in REASONS if left_out[key]}, tuple(without))
    if not found:
        counts = ", ".join(f"{n} {REASONS[reason]}" for reason, n in bank.left_out.items())
        raise UserError(f"no clip in {folder} can be used as a voice: {counts}")
    return bank


def _out_of_range(seconds: float, least: float, most: float) -> str:
    return "short" if seconds < least else "long" if seconds > most else USABLE


def _clips_by_speaker(root: Path) -> dict[str, list[Path]]:
    speakers: dict[str, list[Path]] = {}
    for folder, names in _walk(root):
        parts = folder.relative_to(root).parts
        for name in names:
            file = folder / name
            match = _LIBRITTS.fullmatch(file.stem)
            if match and len(parts) > 1 and parts[-2:] == match.groups():
                speaker = match[1]
            else:
                speaker = parts[0] if parts else file.stem
            speakers.setdefault(speaker, []).append(file)
    return speakers


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        clips = [name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES and name[0] != "."]
        if clips:
            yield Path(folder), clips


def _transcript(clip: Path) -> str:
    for suffix in _TRANSCRIPTS:
        with suppress(OSError, UnicodeDecodeError):
            return " ".join((clip.parent / f"{clip.stem}{suffix}").read_text(encoding="utf-8").split())
    return ""


class _Index:
    """Length, hash and fitness of each clip that was ever looked at, by its place; kept in the cache."""

    def __init__(self, root: Path) -> None:
        self._root = root
        place = sha256_bytes(str(root.resolve()).encode())[:16]
        self._file = cache_dir() / "voice-banks" / f"{place}.json"
        self._changed = False
        self._known: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or damaged: it is made again
            content = read_json(self._file)
            self._known = dict(content["clips"]) if content["format"] == _FORMAT else {}

    def look(self, clip: Path) -> tuple[float, str, str]:
        """Seconds, SHA-256, and `silent`, `broken` or USABLE."""
        key = clip.relative_to(self._root).as_posix()
        try:
            stat = clip.stat()
            stamp = [stat.st_size, stat.st_mtime_ns]
            if key in self._known and self._known[key][:2] == stamp:
                _, _, seconds, sha256, reason = self._known[key]
                return float(seconds), str(sha256), str(reason)
            measured = _measure(clip, stat.st_size)
        except OSError:
            return 0.0, "", "broken"
        self._known[key] = [*stamp, *measured]
        self._changed = True
        return measured

    def save(self) -> None:
        """Keep what was found, where the cache can be written."""
        if self._changed:
            with suppress(OSError, MissingPrerequisite):
                text = json.dumps({"format": _FORMAT, "clips": self._known})
                write_atomic(self._file, text)


def _measure(clip: Path, size: int) -> tuple[float, str, str]:
    if size > CLIP_BYTES:
        return 0.0, "", "long"
    data = clip.read_bytes()
    try:
        wave, rate = decode_at_own_rate(data)
    except AudioError:
        return 0.0, "", "broken"
    return len(wave) / rate, sha256_bytes(data), "silent" if is_silent(wave) else USABLE


def read_reference(clip: ReferenceClip) -> bytes:
    """The bytes of a clip. Raises UserError if it is gone or another one than was found."""
    try:
        data = Path(clip.path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the voice {clip.name}: {first_line(error)}") from error
    if sha256_bytes(data) != clip.sha256:
        raise UserError(
            f"the clip of the voice {clip.name} was replaced: start again with the bank as it is now"
        )
    return data

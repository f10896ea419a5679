"""Checks of spoken clips: cut-off peaks, silence and pauses, and a length that does not fit the text.

They find what a speech engine does wrong without a recogniser: nothing said, half of it, a loop, a level beyond full
scale. Clips are checked as the engine made them, before noise or rooms are added. Thresholds are set by measurement:
no clip of the espeak-ng and Piper voices here comes near them (`tests/audio/test_clip_checks.py`).
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from rba_bench.audio.decoding import SAMPLING_RATE
from rba_bench.audio.samples import is_silent
from rba_bench.recipes import Recipe

REASONS = {
    "silent": "no sound",
    "clipped": "peaks are cut off",
    "pause_before": "silence before the first word",
    "pause_after": "silence after the last word",
    "pause_inside": "silence between words",
    "too_fast": "too short for the number of words",
    "too_slow": "too long for the number of words",
}
FRAME = SAMPLING_RATE // 50  # samples: 20 ms
QUIET = 0.01  # a frame 40 dB below the loud ones is a pause
LOUD = 95  # percentile of the frames that stands for the loud ones
FLAT = 3  # samples in a row at the same peak are no peak of a voice
WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my"})  # languages that write words together
CHARACTERS_A_WORD = 2  # in those


class ClipLimits(Recipe):
    """What a good clip may have at most."""

    clipped: float = Field(0.002, ge=0, le=1, description="share of samples in peaks that are cut off")
    pause_before: float = Field(1.0, gt=0, description="seconds of silence before the first word")
    pause_after: float = Field(1.5, gt=0, description="seconds of silence after the last word")
    pause_inside: float = Field(2.0, gt=0, description="seconds of silence between words")
    least_per_word: float = Field(0.12, ge=0, description="seconds a word, pauses before and after left out")
    most_per_word: float = Field(0.9, gt=0, description="seconds a word, beyond the first `spare` seconds")
    spare: float = Field(1.0, ge=0, description="seconds that a text of any length may take")


@dataclass(frozen=True)
class ClipMeasures:
    """What was measured on a clip.

    Attributes:
        seconds: Of the whole.
        peak: Loudest sample; 1 is full scale.
        clipped: Share of samples in peaks that are cut off: `FLAT` or more in a row, within a thousandth of the peak.
        pause_before: Seconds of silence at the beginning.
        pause_after: At the end.
        pause_inside: The longest between.
        words: Of the text; in languages without spaces `CHARACTERS_A_WORD` characters count as one.
        silent: There is no sound at all.
    """

    seconds: float
    peak: float
    clipped: float
    pause_before: float
    pause_after: float
    pause_inside: float
    words: int
    silent: bool

    @property
    def spoken_seconds(self) -> float:
        """Without the silence at both ends."""
        return self.seconds - self.pause_before - self.pause_after


def measure_speech(wave: np.ndarray, text: str, language: str = "en") -> ClipMeasures:
    """Measure a clip.

    Args:
        wave: Float mono samples at 16 kHz, [n].
        text: What is said in it, in its spoken form: a written number has fewer words.
        language: Of the text.
    """
    seconds, words = len(wave) / SAMPLING_RATE, count_words(text, language)
    if not len(wave) or is_silent(wave):
        return ClipMeasures(
            seconds, float(np.abs(wave).max(initial=0.0)), 0.0, seconds, 0.0, 0.0, words, True
        )
    before, after, inside = (frames * FRAME / SAMPLING_RATE for frames in _pauses(wave))
    peak = float(np.abs(wave).max())
    return ClipMeasures(seconds, peak, _clipped(wave, peak), before, after, inside, words, False)


def count_words(text: str, language: str) -> int:
    """Words of a text; see `ClipMeasures.words`."""
    if language in WITHOUT_SPACES:
        return -(-sum(character.isalnum() for character in text) // CHARACTERS_A_WORD)
    return sum(any(character.isalnum() for character in word) for word in text.replace("-", " ").split())


def clip_faults(measures: ClipMeasures, limits: ClipLimits) -> tuple[str, ...]:
    """What is wrong with a clip: keys of REASONS, in their order; () where nothing is."""
    if measures.silent:
        return ("silent",)
    spoken, words = measures.spoken_seconds, measures.words
    wrong = {
        "clipped": measures.clipped > limits.clipped,
        "pause_before": measures.pause_before > limits.pause_before,
        "pause_after": measures.pause_after > limits.pause_after,
        "pause_inside": measures.pause_inside > limits.pause_inside,
        "too_fast": spoken < limits.least_per_word * words,
        "too_slow": spoken > limits.most_per_word * words + limits.spare,
    }
    return tuple(reason for reason in REASONS if wrong.get(reason))


def _pauses(wave: np.ndarray) -> tuple[int, int, int]:
    """Quiet frames at the beginning, at the end, and the most in a row between."""
    frames = np.pad(wave, (0, -len(wave) % FRAME)).reshape(-1, FRAME).astype(np.float64)
    levels = np.sqrt(np.mean(frames**2, axis=1))
    sounding = np.flatnonzero(levels >= QUIET * np.percentile(levels, LOUD))
    gaps = np.diff(sounding) - 1
    return int(sounding[0]), len(levels) - 1 - int(sounding[-1]), int(gaps.max(initial=0))


def _clipped(wave: np.ndarray, peak: float) -> float:
    at_peak = np.abs(wave) >= 0.999 * peak
    edges = np.flatnonzero(np.diff(np.concatenate([[False], at_peak, [False]]).astype(np.int8)))
    runs = edges[1::2] - edges[::2]
    return float(runs[runs >= FLAT].sum() / len(wave))

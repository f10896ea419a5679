"""The voices of the micro world: who speaks in the base's data, in the alignment set and in the tests.

A voice is a speaker shape of espeak-ng (formants, timbre) with a pitch and a speaking rate. It can speak every
language: `en-us+f2` and `de+f2` are the same voice. The three banks share no shape, so the test voices are unseen in
training.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Voice:
    """One speaker. `shape` is an espeak-ng voice variant, `pitch` 0-99 (50 neutral), `rate` words a minute."""

    shape: str
    pitch: int = 50
    rate: int = 165
    accent: str = "en-us"

    @property
    def name(self) -> str:
        """Stable identifier used in data sets and records."""
        return f"{self.accent}+{self.shape}"

    def espeak_name(self, language: str) -> str:
        """The espeak-ng voice string for `language` (en, de, fr, es); the accent matters for English only."""
        return f"{self.accent if language == 'en' else language}+{self.shape}"


BANKS: dict[str, tuple[Voice, ...]] = {
    "base": (
        Voice("m3", 45, 160),
        Voice("f2", 60, 165, "en"),
        Voice("m7", 50, 155, "en"),
        Voice("f4", 55, 170),
    ),
    "train": (
        Voice("m1", 50, 160),
        Voice("f1", 58, 170, "en"),
        Voice("m4", 40, 175, "en-gb-x-rp"),
        Voice("f3", 65, 160),
        Voice("m8", 48, 180, "en-gb-scotland"),
        Voice("f5", 52, 155, "en"),
        Voice("klatt", 50, 165),
        Voice("klatt3", 55, 170, "en"),
        Voice("Andy", 50, 165),
        Voice("Annie", 60, 175, "en-gb-x-rp"),
        Voice("Gene", 45, 160),
        Voice("Alicia", 62, 165, "en-gb-scotland"),
        Voice("Mario", 50, 170, "en"),
        Voice("Michael", 42, 165),
        Voice("belinda", 58, 165, "en"),
        Voice("paul", 46, 175),
    ),
    "test": (
        Voice("m2", 52, 165),
        Voice("m5", 44, 170, "en-gb-x-rp"),
        Voice("Andrea", 62, 165, "en"),
        Voice("linda", 57, 160),
        Voice("Denis", 48, 165, "en"),
        Voice("robert", 45, 160, "en-gb-x-rp"),
    ),
}

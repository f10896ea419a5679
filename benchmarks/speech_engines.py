"""Speed of speech engines and of what is done to their clips, in seconds of speech per second of one core.

    python benchmarks/speech_engines.py [VOICES ...]      by default a bank of espeak-ng, and the Piper asset if fetched

CPU time counts, not time on the wall, so other work on the machine disturbs little. Run it with OMP_NUM_THREADS=1.
"""

import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from rba_bench.assets import ASSETS
from rba_bench.assets.fetching import is_cached
from rba_bench.audio.augmentation import Augmentation, augment
from rba_bench.audio.clip_checks import ClipLimits, clip_faults, measure_speech
from rba_bench.audio.clips import encode_flac
from rba_bench.audio.speech_engines import Speaker, draw_speakers, find_speakers
from rba_bench.audio.spoken_form import spoken_form

TEXTS = (
    "What is the capital of France, and how did it become so important in the history of Europe?",
    "Give me three tips for better sleep.",
    "Can you explain how photosynthesis works to a child of ten years?",
    "I paid $1,200 on 3/15/2024 for a flight of 5 hours: was that too much?",
)
SECONDS = 60.0  # of speech of each engine


def row(label: str, speech: float, work: Callable[[], object]) -> None:
    """Time `work`, which handles so many seconds of speech."""
    started = time.process_time()
    work()
    used = time.process_time() - started
    print(f"| {label} | {speech:.0f} | {used:.2f} | {speech / max(used, 1e-9):,.0f} |", flush=True)


def speak(speakers: Sequence[Speaker]) -> list[tuple[str, np.ndarray]]:
    """Texts in turn, by speakers in turn, until there is enough."""
    clips: list[tuple[str, np.ndarray]] = []
    total, key = 0, 0
    while total < SECONDS * 16_000:
        text = spoken_form(TEXTS[key % len(TEXTS)], "en")
        (speaker,) = draw_speakers(speakers, 1, 0, key)
        clips.append((text, speaker.engine.speak(text, "en", speaker.voice)))
        total, key = total + len(clips[-1][1]), key + 1
    return clips


def main() -> None:
    """Print a Markdown table."""
    natural = ["natural"] if is_cached(ASSETS["piper-en_US-joe-medium"]) else []
    print(
        "| what | seconds of speech | CPU seconds | times real time, one core |\n| --- | ---: | ---: | ---: |"
    )
    for name in sys.argv[1:] or ["clear-train", *natural]:
        speakers = find_speakers([name])
        for speaker in speakers:
            speaker.engine.speak("Hello.", "en", speaker.voice)  # what is loaded once
        started = time.process_time()
        clips = speak(speakers)
        used, speech = time.process_time() - started, sum(len(wave) for _, wave in clips) / 16_000
        print(f"| speak: {name} | {speech:.0f} | {used:.2f} | {speech / used:,.0f} |", flush=True)
    steps = dict.fromkeys(("speed", "room", "noise", "gain", "telephone"), 0.3)
    settings = Augmentation(**steps)
    row(
        "checks",
        speech,
        lambda: [clip_faults(measure_speech(wave, text), ClipLimits()) for text, wave in clips],
    )
    row("augmentation, each step in 3 of 10 clips", speech,
        lambda: [augment(wave, settings, n) for n, (_, wave) in enumerate(clips)])  # fmt: skip
    row("MP3, Opus or mu-law", speech,
        lambda: [augment(wave, Augmentation(codec=1.0), n) for n, (_, wave) in enumerate(clips)])  # fmt: skip
    row("FLAC", speech, lambda: [encode_flac(wave) for _, wave in clips])
    texts = [text for text in TEXTS for _ in range(25)]
    started = time.process_time()
    for text in texts:
        spoken_form(text, "en")
    print(f"\nspoken form: {(time.process_time() - started) / len(texts) * 1000:.1f} ms a sentence")


if __name__ == "__main__":
    main()

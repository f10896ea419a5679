"""What a user waits for before any model runs: `--help`, the bootstrap of a large test set, speaking, log-mel.

    python benchmarks/small_things.py

Prints the median of five, and the least, in seconds. Machines are noisy: compare within one run.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np


def measure(label: str, run: Callable[[], object], repeats: int = 5) -> None:
    """Time `run` after one warm-up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    print(f"| {label} | {statistics.median(times):.3f} | {min(times):.3f} |")


def main() -> None:
    """Print a Markdown table."""
    from whisper.audio import log_mel_spectrogram

    from rba_bench.audio import espeak, perturbations
    from rba_bench.audio.espeak import BANKS
    from rba_bench.metrics.aggregate import score_function
    from rba_bench.metrics.bootstrap import bootstrap_corpus

    rows = np.random.default_rng(0).integers(0, 30, size=(15_531, 10))
    wave = espeak.speak("tell me about the fox and what it eats", "en", BANKS["test"][0])
    print("| what | median s | least s |\n| --- | ---: | ---: |")
    measure(
        "`rba-bench --help`", lambda: subprocess.run([sys.executable, "-m", "rba_bench", "--help"], stdout=-3)
    )
    measure(
        "BLEU interval, 15,531 pairs, 1,000 resamples", lambda: bootstrap_corpus(rows, score_function("bleu"))
    )
    measure(
        f"speak {len(wave) / 16_000:.1f} s",
        lambda: espeak.speak("tell me about the fox", "en", BANKS["test"][0]),
    )
    measure("pink noise on it", lambda: perturbations.add_noise(wave, 10.0, np.random.default_rng(0), "pink"))
    measure("log-mel of it", lambda: log_mel_spectrogram(wave))


if __name__ == "__main__":
    main()

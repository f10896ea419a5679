"""Duplicates among a million generated texts: texts a second, memory, and how many planted ones are found.

    python benchmarks/near_duplicates.py [--texts 1000000]

Texts have 5 to 30 words: a common beginning ("what is the", "how do I"), then words of a vocabulary of 50,000 by Zipf's
law. 5 % repeat an earlier text exactly, but for its signs, and 5 % repeat one of at least 16 words with one word more.
Times are processor time of this process, as machines are shared; memory is what the process holds above what it held
before, and what the index says of itself.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rba_bench.synthesis.texts.exact_duplicates import ExactDuplicates, text_keys
from rba_bench.synthesis.texts.near_duplicates import NearDuplicateOptions, NearDuplicates, sketch_texts

BATCH = 5000
BEGINNINGS = (
    "what is the",
    "how do I",
    "tell me about",
    "write a story about a",
    "why does the",
    "explain",
    "can you",
)


def batches(n: int, seed: int = 0) -> Iterator[tuple[list[str], list[str]]]:
    """Texts, and what each is: `new`, `exact` or `near`."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"w{number:x}" for number in range(50_000)])
    weights = 1 / np.arange(1, len(vocabulary) + 1)
    edges = np.cumsum(weights / weights.sum())
    earlier: list[str] = []  # long ones of the batch before
    for start in range(0, n, BATCH):
        size = min(BATCH, n - start)
        lengths = rng.integers(2, 28, size)
        drawn = vocabulary[
            np.searchsorted(edges, rng.random(int(lengths.sum()))).clip(max=len(vocabulary) - 1)
        ]
        parts = np.split(drawn, np.cumsum(lengths)[:-1])
        starts = rng.integers(len(BEGINNINGS), size=size)
        texts = [f"{BEGINNINGS[first]} {' '.join(part)}" for first, part in zip(starts, parts, strict=True)]
        kinds = ["new"] * size
        for row in np.nonzero(rng.random(size) < 0.1)[0].tolist() if earlier else ():
            text = earlier[int(rng.integers(len(earlier)))]
            kinds[row] = "exact" if rng.random() < 0.5 else "near"
            texts[row] = f"{text.capitalize()}!" if kinds[row] == "exact" else f"{text} indeed"
        earlier = [
            text for text, kind in zip(texts, kinds, strict=True) if kind == "new" and text.count(" ") >= 15
        ]
        yield texts, kinds


def resident_mb() -> float:
    """Memory that this process holds."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096 / 1e6


def main() -> None:
    """Print one table row at every tenth."""
    parser = argparse.ArgumentParser(description="Speed and memory of the index of near duplicates.")
    parser.add_argument("--texts", type=int, default=1_000_000)
    n = parser.parse_args().texts
    options = NearDuplicateOptions()
    sketch_texts(["warm up"], options)
    before = resident_mb()
    exact, near = ExactDuplicates(), NearDuplicates(options)
    spent = dict.fromkeys(("exact", "sketches", "near"), 0.0)
    found = {"exact": [0, 0], "near": [0, 0], "new": [0, 0]}  # dropped, all
    print(
        "| texts | kept | exact, us a text | sketches, us a text | index, us a text | texts/s | index MB | process MB |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    done, steps = 0, max(1, n // BATCH // 10)

    def timed(name: str, start: float) -> float:
        now = time.process_time()
        spent[name] += now - start
        return now

    for number, (texts, kinds) in enumerate(batches(n), 1):
        now = time.process_time()
        new = exact.add(text_keys(texts))
        now = timed("exact", now)
        rest = [text for text, fresh in zip(texts, new.tolist(), strict=True) if fresh]
        sketches = sketch_texts(rest, options)
        now = timed("sketches", now)
        earlier = near.add(sketches)
        timed("near", now)
        dropped = np.ones(len(texts), bool)
        dropped[new] = earlier >= 0
        for kind, drop in zip(kinds, dropped.tolist(), strict=True):
            found[kind][0] += drop
            found[kind][1] += 1
        done += len(texts)
        if number % steps == 0 or done == n:
            each = [spent[name] / done * 1e6 for name in ("exact", "sketches", "near")]
            cells = [
                f"{done:,}",
                f"{len(near):,}",
                *(f"{value:.0f}" for value in each),
                f"{1e6 / sum(each):,.0f}",
            ]
            print(
                f"| {' | '.join(cells)} | {near.nbytes / 1e6:.0f} | {resident_mb() - before:.0f} |",
                flush=True,
            )
    for kind, (dropped_of_kind, total) in found.items():
        print(f"{kind}: {dropped_of_kind} of {total} dropped")


if __name__ == "__main__":
    main()

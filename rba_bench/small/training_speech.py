"""How the sentences of `training_texts` are said: many voices, each clip with its own pitch, speed, room and noise.

Everything about a clip follows from its number and the seed, so any process can make any clip, and none is kept. The
voices of the test sets are not among these.
"""

import os
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from rba_bench.audio import espeak, flite
from rba_bench.audio.espeak import Voice
from rba_bench.audio.perturbations import add_noise, change_speed, gain, reverberate, telephone
from rba_bench.seeding import stable_seed

SHAPES = (
    "m1", "m3", "m4", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "Alex", "Andy", "Annie", "Alicia", "Gene",
    "Mario", "Michael", "belinda", "paul", "adam", "benjamin", "ed", "edward", "john", "michael", "norbert", "steph",
    "steph3", "victor", "quincy",
)  # fmt: skip
ACCENTS = ("en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland")
RECORDED = 0.55  # share of the voices that were made from recordings
PEAK = 0.7
TOGETHER, AHEAD = 16, 16  # clips that a process says at once, and how many times as many wait to be used
Clip = tuple[int, str, np.ndarray]  # number and text of a sentence, and its samples


def clip(number: int, text: str, seed: int = 0, recorded: float = RECORDED) -> np.ndarray:
    """One clip, float32 at 16 kHz, [n].

    Args:
        number: Of the clip.
        text: What is said.
        seed: Of voices and rooms.
        recorded: Share of flite's voices, which need Debian's package; the others are espeak-ng's.

    Raises:
        MissingPrerequisite: An engine is not installed.
    """
    rng = random.Random(stable_seed("small training clip", seed, number))
    if rng.random() < recorded:
        wave = flite.speak(text, "en", rng.choice(flite.BANKS["flite"]))
        if rng.random() < 0.7:  # another size of mouth
            wave = change_speed(wave, rng.uniform(0.87, 1.16))
    else:
        shape, accent = rng.choice(SHAPES), rng.choice(ACCENTS)
        wave = espeak.speak(text, "en", Voice(shape, rng.randint(30, 70), rng.randint(135, 190), accent))
    wave = wave * (PEAK / max(float(np.abs(wave).max()), 1e-4))
    return _record(wave.astype(np.float32), rng, np.random.default_rng(stable_seed("noise", seed, number)))


def _record(wave: np.ndarray, rng: random.Random, noise: np.random.Generator) -> np.ndarray:
    """The clip as some microphone in some room takes it up."""
    length = len(wave)
    if rng.random() < 0.4:
        wave = reverberate(wave, rng.uniform(0.1, 0.5), rng.uniform(0.0, 15.0), noise)[: length + 1600]
    if rng.random() < 0.1:
        wave = telephone(wave)
    if rng.random() < 0.5:
        wave = add_noise(wave, rng.uniform(5.0, 35.0), noise, rng.choice(("white", "pink", "brown")))
    return gain(wave, rng.uniform(-10.0, 2.0))


def clips(
    numbered: Sequence[tuple[int, str]], seed: int = 0, processes: int = 2, recorded: float = RECORDED
) -> Iterator[Clip]:
    """Clips of numbered sentences in their order, made by several processes a little ahead of their use.

    `recorded`: see `clip`.
    """
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_end_with, initargs=(os.getpid(),)
    )
    pending: deque[Future[list[Clip]]] = deque()
    try:
        for start in range(0, len(numbered), TOGETHER):
            pending.append(pool.submit(_say, numbered[start : start + TOGETHER], seed, recorded))
            if len(pending) > AHEAD * processes:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:  # who stops here does not wait for what is not begun
        pool.shutdown(cancel_futures=True)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed one cannot tell its workers."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _say(numbered: Sequence[tuple[int, str]], seed: int, recorded: float) -> list[Clip]:
    return [(number, text, clip(number, text, seed, recorded)) for number, text in numbered]

"""The clips of the base's training: the same in every process, many voices, and no workers left behind."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from rba_bench.audio import flite
from rba_bench.errors import MissingPrerequisite
from rba_bench.small import training_speech

pytest.importorskip("espeakng_loader")
TEXT = "Where does the word silk come from?"
WORKERS = """
import random, sys
from rba_bench.seeding import stable_seed
from rba_bench.small import training_speech
if __name__ == "__main__":
    draws = [random.Random(stable_seed("small training clip", 0, number)).random() for number in range(400)]
    spoken = [number for number, draw in enumerate(draws) if draw >= training_speech.RECORDED]  # by espeak-ng
    clips = training_speech.clips([(number, "Yes, please.") for number in spoken], processes=1)
    next(clips)
    import multiprocessing
    print(multiprocessing.active_children()[0].pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _only_espeak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flite is a package of the system, which not every machine has."""
    try:
        flite.speak("Yes.", "en", flite.BANKS["flite"][0])
    except MissingPrerequisite:
        monkeypatch.setattr(training_speech, "RECORDED", 0.0)


def test_a_clip_follows_from_number_and_seed() -> None:
    first = training_speech.clip(3, TEXT)
    assert first.dtype == np.float32 and 0.01 < np.abs(first).max() <= 1.5 and len(first) > 16_000
    np.testing.assert_array_equal(first, training_speech.clip(3, TEXT))
    others = [training_speech.clip(3, TEXT, seed=1), training_speech.clip(4, TEXT)]
    assert all(len(other) != len(first) or not np.array_equal(other, first) for other in others)


def test_workers_end_with_a_parent_that_is_killed(tmp_path: "os.PathLike[str]") -> None:
    program = os.path.join(tmp_path, "speak.py")
    with open(program, "w", encoding="utf-8") as file:
        file.write(WORKERS)
    parent = subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"worker {worker} still runs")


def test_who_stops_early_does_not_wait_for_all_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    spoken: list[int] = []

    def say(numbered: Any, seed: int, recorded: float) -> list[Any]:
        spoken.extend(number for number, _ in numbered)
        time.sleep(0.01)
        return [(number, text, np.zeros(1)) for number, text in numbered]

    monkeypatch.setattr(training_speech, "_say", say)
    pool = partial(ThreadPoolExecutor, 1)
    monkeypatch.setattr(training_speech, "ProcessPoolExecutor", lambda *_, **__: pool())
    clips = training_speech.clips([(number, "Yes.") for number in range(100_000)], processes=1)
    assert [next(clips)[0] for _ in range(40)] == list(range(40))
    clips.close()
    ahead = (training_speech.AHEAD + 4) * training_speech.TOGETHER
    assert 40 <= len(spoken) <= ahead  # and what waits to be used stays small
    assert [number for number, _, _ in training_speech.clips([(n, "No.") for n in range(50)])] == list(
        range(50)
    )

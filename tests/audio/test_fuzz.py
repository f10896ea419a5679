"""Damaged clips of every format: samples or AudioError, nothing else. `benchmarks/fuzz_audio.py` takes thousands."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from rba_bench.audio.clips import AudioError, AudioRef, decode_clip
from tests.audio.codec_clips import codec_seeds
from tests.audio.mutations import mutants


def test_damaged_clips_give_samples_or_audio_error() -> None:
    heard = 0
    for name, data in mutants(220, seed=7, more=codec_seeds()):
        try:
            wave = decode_clip(data)
            heard += 1
            assert wave.dtype == np.float32 and wave.ndim == 1 and len(wave) and np.isfinite(wave).all(), name
        except AudioError as error:
            assert str(error).isprintable(), name
        with suppress(AudioError):
            assert AudioRef.of(data, "x").duration >= 0, name
    assert 50 < heard < 170, "damage that does nothing, or leaves nothing, tests nothing"


@pytest.mark.slow
def test_a_thousand_damaged_clips_crash_nothing_and_stay_small() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "benchmarks" / "fuzz_audio.py"), "1000", "11"]
    done = subprocess.run(command, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "no crash" in done.stdout, done.stdout[-2000:]

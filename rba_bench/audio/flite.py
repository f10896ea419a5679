"""Flite: voices made from recordings of four people (CMU Arctic), by the system's library (Debian: `flite`).

The library and its voices are the operating system's, loaded at run time; licence as of BSD. A voice speaks English
alone. Equal texts give equal samples.

Source: Black and Lenzo 2001, "Flite: a small fast run-time synthesis engine"; the interface is that of `flite.h`.
"""

import ctypes
import threading
from ctypes.util import find_library
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from rba_bench.errors import MissingPrerequisite, UserError

SAMPLING_RATE = 16_000  # Hz of what `speak` returns
_lock = threading.Lock()


@dataclass(frozen=True)
class FliteVoice:
    """One speaker: `slt` (a woman), `rms`, `awb` (Scottish) or `kal16` (older, from diphones)."""

    shape: str

    @property
    def name(self) -> str:
        """Stable identifier used in data sets and records."""
        return f"flite-{self.shape}"


BANKS: dict[str, tuple[FliteVoice, ...]] = {
    "flite": tuple(FliteVoice(shape) for shape in ("slt", "rms", "awb", "kal16"))
}


class _Wave(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


def flite_version() -> str:
    """The library's file name, which holds its version. Raises MissingPrerequisite where there is none."""
    return _find("flite")


def speak(text: str, language: str, voice: FliteVoice) -> np.ndarray:
    """Say `text` with `voice`; equal arguments give equal samples.

    Returns:
        float32 mono samples at 16 kHz, shape [n].

    Raises:
        MissingPrerequisite: The library is not installed.
        UserError: Another language than English, or an unknown voice.
    """
    if language != "en":
        raise UserError(f"flite speaks English alone, not {language}")
    import soxr

    with _lock:
        library, made = _library(), _voice(voice.shape)
        pointer = library.flite_text_to_wave(text.encode("ascii", "ignore"), made)
        wave = pointer.contents
        samples = np.ctypeslib.as_array(wave.samples, shape=(wave.num_samples,)).astype(np.float32) / 32768.0
        rate = wave.sample_rate
        library.delete_wave(pointer)
    if not samples.size:
        return np.zeros(SAMPLING_RATE // 10, dtype=np.float32)
    return np.asarray(soxr.resample(samples, rate, SAMPLING_RATE), dtype=np.float32)


def _find(name: str) -> str:
    path = find_library(name)
    if path is None:
        raise MissingPrerequisite(f"no library {name}: install the system's package flite")
    return path


@cache
def _library() -> Any:
    library: Any = ctypes.CDLL(_find("flite"))
    library.flite_init()
    library.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
    library.flite_text_to_wave.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    library.delete_wave.argtypes = [ctypes.POINTER(_Wave)]
    return library


@cache
def _voice(shape: str) -> Any:
    if shape not in {voice.shape for voice in BANKS["flite"]}:
        raise UserError(f"flite has no voice {shape!r}: choose one of slt, rms, awb, kal16")
    register = getattr(ctypes.CDLL(_find(f"flite_cmu_us_{shape}")), f"register_cmu_us_{shape}")
    register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    return register(None)

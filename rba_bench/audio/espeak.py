"""espeak-ng: voices of the micro world, and speech by the optional package `espeakng-loader` (GPL-3, extra `tts`).

A voice is a speaker shape of espeak-ng (formants, timbre) with a pitch and a speaking rate. It can speak every
language: `en-us+f2` and `de+f2` are the same voice. The three banks share no shape, so the test voices are unseen in
training.

Only the C interface documented in espeak-ng's `speak_lib.h` is used (ctypes). The library keeps oscillator phases in
static variables that `espeak_Terminate` does not reset, so the same text in the same voice differs from call to call
(measured: by up to the full amplitude). Each utterance therefore loads the library afresh and unloads it: then the
samples depend on text, language and voice alone, and it costs about 1 ms.
"""

import ctypes
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.installing import extra, package

SAMPLING_RATE = 16_000  # Hz of what `speak` returns
AUDIO_OUTPUT_SYNCHRONOUS, CHARS_UTF8, POSITION_CHARACTER = 2, 1, 1
PARAMETER_RATE, PARAMETER_PITCH = 1, 3
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_lock = threading.Lock()  # one loaded copy at a time: a second CDLL would share its static state


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
    # the alignment set of the track small: well understood, and among those that its base has heard
    "clear-train": (
        Voice("m3", 45, 160),
        Voice("m4", 42, 170, "en-gb-x-rp"),
        Voice("m6", 48, 155),
        Voice("m8", 50, 165, "en"),
        Voice("f1", 58, 165),
        Voice("f2", 62, 160, "en-gb-x-rp"),
        Voice("f5", 54, 155),
        Voice("Gene", 45, 160),
    ),
    # Understood by recognisers of English; the base of the track small has heard none.
    # Five, because the questions come in turns of three levels: so every voice meets all levels.
    "clear-test": tuple(Voice(shape, 50, 160) for shape in ("Diogo", "Henrique", "Antonio", "Denis", "m2")),
    "clear-dev": tuple(Voice(shape, 50, 160) for shape in ("Hugo", "m5")),
    "test": (
        Voice("m2", 52, 165),
        Voice("m5", 44, 170, "en-gb-x-rp"),
        Voice("Andrea", 62, 165, "en"),
        Voice("linda", 57, 160),
        Voice("Denis", 48, 165, "en"),
        Voice("robert", 45, 160, "en-gb-x-rp"),
    ),
}


@cache
def _paths() -> tuple[str, bytes]:
    """Where the library and its data lie."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise MissingPrerequisite(f"no speech synthesis: install it with `{extra('tts')}`") from error
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path().encode()


class _Library:
    """espeak-ng from load to unload; `native_rate` in Hz."""

    def __init__(self) -> None:
        library, data = _paths()
        self.lib: Any = ctypes.CDLL(library)
        self.native_rate: int = self.lib.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
        if self.native_rate <= 0:
            raise MissingPrerequisite(
                f"espeak-ng could not start: reinstall it with `{package('espeakng-loader', upgrade=True)}`"
            )
        self.lib.espeak_ng_SetRandSeed(ctypes.c_long(0))  # breath noise comes from rand()

    def __enter__(self) -> "_Library":
        return self

    def __exit__(self, *_: object) -> None:
        import _ctypes

        self.lib.espeak_Terminate()
        unload: Any = getattr(_ctypes, "dlclose", None) or getattr(_ctypes, "FreeLibrary")  # noqa: B009 - Windows alone
        unload(self.lib._handle)

    def render(self, text: str, language: str, voice: Voice) -> np.ndarray:
        chunks: list[np.ndarray] = []

        def collect(samples: Any, count: int, _events: Any) -> int:
            if samples and count > 0:
                chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
            return 0

        callback = _Callback(collect)  # must outlive the synthesis: C holds only the address
        self.lib.espeak_SetSynthCallback(callback)
        if self.lib.espeak_SetVoiceByName(voice.espeak_name(language).encode()) != 0:
            raise UserError(
                f"espeak-ng does not speak {language!r}: it has no voice {voice.espeak_name(language)!r}, see its list "
                "of languages and variants"
            )
        self.lib.espeak_SetParameter(PARAMETER_RATE, voice.rate, 0)
        self.lib.espeak_SetParameter(PARAMETER_PITCH, voice.pitch, 0)
        data = text.encode() + b"\0"
        self.lib.espeak_Synth(data, len(data), 0, POSITION_CHARACTER, 0, CHARS_UTF8, None, None)
        self.lib.espeak_Synchronize()
        if not chunks:  # nothing to say: a tenth of a second of silence
            return np.zeros(self.native_rate // 10, dtype=np.float32)
        return np.concatenate(chunks).astype(np.float32) / 32768.0


def espeak_version() -> str:
    """Version of the loaded espeak-ng. Raises MissingPrerequisite without the extra `tts`."""
    with _lock, _Library() as library:
        library.lib.espeak_Info.restype = ctypes.c_char_p
        return str(library.lib.espeak_Info(None).decode())


def speak(text: str, language: str, voice: Voice) -> np.ndarray:
    """Say `text` in `language` (en, de, fr, es, ...) with `voice`; equal arguments give equal samples.

    Returns:
        float32 mono samples at 16 kHz, shape [n].

    Raises:
        MissingPrerequisite: the extra `tts` is not installed.
        UserError: espeak-ng does not know the voice.
    """
    import soxr

    with _lock, _Library() as library:
        wave = library.render(text, language, voice)
        rate = library.native_rate
    return np.asarray(soxr.resample(wave, rate, SAMPLING_RATE), dtype=np.float32)

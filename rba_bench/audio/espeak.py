"""Speech from espeak-ng, loaded at run time from the optional package `espeakng-loader` (GPL-3, extra `tts`).

Only the C interface documented in espeak-ng's `speak_lib.h` is used (ctypes). The library keeps global state, so one lock
guards it; synthesis runs at hundreds of times real time, so that costs nothing.
"""

import ctypes
import threading
from functools import lru_cache
from typing import Any

import numpy as np

from rba_bench.audio.voices import Voice
from rba_bench.errors import MissingPrerequisite, UserError

SAMPLING_RATE = 16_000  # Hz of what `speak` returns
AUDIO_OUTPUT_SYNCHRONOUS, CHARS_UTF8, POSITION_CHARACTER = 2, 1, 1
PARAMETER_RATE, PARAMETER_PITCH = 1, 3
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_lock = threading.Lock()


class Espeak:
    """One loaded espeak-ng library; use `speak`, which shares it."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise MissingPrerequisite("no speech synthesis: install it with `pip install 'rba-bench[tts]'`") from error
        self._lib: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.native_rate: int = self._lib.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, data, 0)
        if self.native_rate <= 0:
            raise MissingPrerequisite("espeak-ng could not start: reinstall it with `pip install -U espeakng-loader`")
        self._lib.espeak_Info.restype = ctypes.c_char_p
        self.version: str = self._lib.espeak_Info(None).decode()
        self._chunks: list[np.ndarray] = []
        self._callback = _Callback(self._collect)  # kept alive here: C holds only the address
        self._lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    def render(self, text: str, language: str, voice: Voice) -> np.ndarray:
        """Mono float32 samples at `native_rate` in [-1, 1]."""
        with _lock:
            if self._lib.espeak_SetVoiceByName(voice.espeak_name(language).encode()) != 0:
                raise UserError(f"espeak-ng has no voice {voice.espeak_name(language)!r}; see `rba-bench doctor`")
            self._lib.espeak_SetParameter(PARAMETER_RATE, voice.rate, 0)
            self._lib.espeak_SetParameter(PARAMETER_PITCH, voice.pitch, 0)
            self._chunks = []
            data = text.encode() + b"\0"
            self._lib.espeak_Synth(data, len(data), 0, POSITION_CHARACTER, 0, CHARS_UTF8, None, None)
            self._lib.espeak_Synchronize()
            chunks, self._chunks = self._chunks, []
        if not chunks:
            return np.zeros(self.native_rate // 10, dtype=np.float32)
        return np.concatenate(chunks).astype(np.float32) / 32768.0


@lru_cache(maxsize=1)
def _shared() -> Espeak:
    return Espeak()


def version() -> str:
    """Version of the loaded espeak-ng. Raises MissingPrerequisite without the extra `tts`."""
    return _shared().version


def speak(text: str, language: str, voice: Voice) -> np.ndarray:
    """Say `text` in `language` (en, de, fr, es, ...) with `voice`.

    Returns:
        float32 mono samples at 16 kHz, shape [n].

    Raises:
        MissingPrerequisite: the extra `tts` is not installed.
        UserError: espeak-ng does not know the voice.
    """
    import soxr

    espeak = _shared()
    wave = espeak.render(text, language, voice)
    return np.asarray(soxr.resample(wave, espeak.native_rate, SAMPLING_RATE), dtype=np.float32)

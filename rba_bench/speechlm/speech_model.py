"""Speech language models under test: the interface that evaluation calls, its requests, and a clock by stage."""

import base64
import io
import time
import wave
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from rba_bench.textlm.text_model import Decoding, Generation


class StageClock:
    """Adds up wall time by stage (`features`, `encoder`, `decoder`); a stage within another one is not counted twice.

    Args:
        synchronize: Called before each reading, for devices that compute asynchronously.

    Attributes:
        seconds: Wall time by stage so far.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._synchronize = synchronize
        self._outer: list[float] = []  # time spent in inner stages, for each stage that is open

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the body of a `with` under `stage`."""
        started = self._now()
        self._outer.append(0.0)
        try:
            yield
        finally:
            spent = self._now() - started
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent - self._outer.pop()
            if self._outer:
                self._outer[-1] += spent

    def _now(self) -> float:
        if self._synchronize is not None:
            self._synchronize()
        return time.perf_counter()


def device_clock(device: str) -> StageClock:
    """A clock for models on `device` (`cpu`, `cuda:0`): on a GPU it waits for the kernels before it reads."""
    if not str(device).startswith("cuda"):
        return StageClock()
    import torch

    return StageClock(torch.cuda.synchronize)


SAMPLING_RATE = 16_000  # Hz of every clip in a request


@dataclass(frozen=True, eq=False)
class SpeechRequest:
    """One user turn.

    Attributes:
        audio: float mono samples at 16 kHz, shape [n]; None for models that read the transcript.
        transcript: what is spoken. Only text oracles look at it.
        prompt: text beside the audio, such as "translate german to english :"; may be empty.
        seed: of this request's sampled answer; not used when greedy.
        key: hash of the clip with any perturbation, "" where unknown; encoder caches use it.
    """

    audio: np.ndarray | None
    transcript: str = ""
    prompt: str = ""
    seed: int = 0
    key: str = ""

    def user_text(self, spoken: str | None = None) -> str:
        """The turn as a text model reads it: prompt, then `spoken` (by default the transcript)."""
        return f"{self.prompt} {self.transcript if spoken is None else spoken}".strip()


class SpeechLM(ABC):
    """A speech language model. Whoever adds one writes `identity` and `generate`; the rest has defaults.

    Attributes:
        name: short name for tables and folders.
        clock: seconds spent by stage, where the model measures them.
        reads_transcript: True if it reads the transcript and needs no audio.
        streams: True if `stream` gives answers as they complete (a server); then it gets the whole test set at once.
    """

    name: str
    clock: StageClock | None = None
    reads_transcript: bool = False
    streams: bool = False

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What identifies the model in records: `kind`, `weights_sha256`, `n_parameters` and more by kind."""

    @abstractmethod
    def generate(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Generation]:
        """Answer each request, in order.

        An answer depends on model, request and decoding alone, not on the other requests. A request that cannot
        be answered yields a status with the reason (`not_heard` for unusable audio, `error` for what is too long for
        the model, `no_reply` for a server that failed); it never ends the run.
        """

    def stream(
        self, requests: Sequence[SpeechRequest], decoding: Decoding
    ) -> Iterator[tuple[int, Generation]]:
        """`(position, answer)` in any order, each position exactly once; by default the answers of `generate`."""
        yield from enumerate(self.generate(requests, decoding))

    def prepare(self, requests: Sequence[SpeechRequest]) -> None:  # noqa: B027 - a default, not a gap
        """Work ahead for these requests, called from another thread; by default nothing."""

    def observed(self) -> dict[str, list[str]]:
        """What the answers so far said of the model behind a server; {} by default."""
        return {}


def audio_fault(audio: np.ndarray | None) -> str:
    """Why these samples are unusable for any model, "" if they are fine."""
    if audio is None:
        return "no audio"
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        return f"audio is {audio.dtype} of shape {audio.shape}, not mono floating-point samples"
    if not len(audio):
        return "audio holds no samples"
    return "" if np.isfinite(audio).all() else "audio holds samples that are not finite numbers"


def wav_base64(audio: np.ndarray) -> str:
    """Float mono samples at 16 kHz as a WAV file of 16-bit samples, in base64; what exceeds [-1, 1) is clipped."""
    integers = np.clip(np.rint(audio * 32768), -32768, 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLING_RATE)
        out.writeframes(integers.tobytes())
    return base64.b64encode(file.getvalue()).decode("ascii")


def answer_usable(
    requests: Sequence[SpeechRequest], faults: Sequence[str], answers: Sequence[Generation]
) -> list[Generation]:
    """Weave `answers` (to the requests without a fault, in order) with a status for each faulty request."""
    remaining = iter(answers)
    woven = [
        # without usable audio the data is at fault; else the model cannot take the request
        Generation("", 0, "not_heard" if audio_fault(request.audio) else "error", fault)
        if fault
        else next(remaining)
        for request, fault in zip(requests, faults, strict=True)
    ]
    if len(woven) != len(requests) or next(remaining, None) is not None:
        raise ValueError(f"{len(answers)} answers do not fit {len(requests)} requests")
    return woven

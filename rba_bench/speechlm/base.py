"""What a speech language model promises, whoever runs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rba_bench.textlm.base import Decoding, Generation

SAMPLING_RATE = 16_000  # Hz of every clip in a request


@dataclass(frozen=True, eq=False)
class SpeechRequest:
    """One user turn.

    Attributes:
        audio: float mono samples at 16 kHz, shape [n]; None for models that read the transcript.
        transcript: what is spoken. Only text oracles look at it.
        prompt: text beside the audio, such as "translate german to english :"; may be empty.
        seed: of this request's sampled answer; not used when greedy.
        key: content of the clip as it is heard (hash, with any perturbation), "" where unknown; encoder caches go
            by it.
    """

    audio: np.ndarray | None
    transcript: str = ""
    prompt: str = ""
    seed: int = 0
    key: str = ""

    def user_text(self, spoken: str | None = None) -> str:
        """The turn as a text model reads it: prompt, then `spoken` (by default the transcript)."""
        return f"{self.prompt} {self.transcript if spoken is None else spoken}".strip()


@runtime_checkable
class SpeechLM(Protocol):
    """A speech language model.

    Attributes:
        name: short name for tables and folders.

    What a model may offer beside: `clock` (a StageClock), `prepare(requests)` (work ahead in another thread),
    `stream(requests, decoding)` (answers as they complete), `reads_transcript` (True if it never listens), `observed()`
    (what a server said of itself).
    """

    name: str

    def identity(self) -> dict[str, Any]:
        """What identifies the model in records: `kind`, `weights_sha256`, `n_parameters` and more by kind."""
        ...

    def generate(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Generation]:
        """Answer each request, in order.

        An answer depends on model, request and decoding alone, not on the other requests. A request that cannot
        be answered yields a status with the reason (`not_heard` for unusable audio, `error` for what is too long for
        the model, `no_reply` for a server that failed); it never ends the run.
        """
        ...


def audio_fault(audio: np.ndarray | None) -> str:
    """Why no model can hear these samples, "" if they are fine."""
    if audio is None:
        return "no audio"
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        return f"audio is {audio.dtype} of shape {audio.shape}, not mono floating-point samples"
    if not len(audio):
        return "audio holds no samples"
    return "" if np.isfinite(audio).all() else "audio holds samples that are not finite numbers"


def answer_usable(
    requests: Sequence[SpeechRequest], faults: Sequence[str], answers: Sequence[Generation]
) -> list[Generation]:
    """Weave `answers` (to the requests without a fault, in order) with a status for each faulty request."""
    remaining = iter(answers)
    woven = [
        _unanswered(request, fault) if fault else next(remaining)
        for request, fault in zip(requests, faults, strict=True)
    ]
    if len(woven) != len(requests) or next(remaining, None) is not None:
        raise ValueError(f"{len(answers)} answers do not fit {len(requests)} requests")
    return woven


def _unanswered(request: SpeechRequest, fault: str) -> Generation:
    """Where there is nothing to hear, the data is at fault; else the model cannot take the request."""
    return Generation("", 0, "not_heard" if audio_fault(request.audio) else "error", fault)

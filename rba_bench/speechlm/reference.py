"""Reference rows of every table: a text ceiling, a cascade, and an answer that hears nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.speechlm.base import SpeechRequest, answer_usable, audio_fault
from rba_bench.speechlm.composite.ctc import CTCRecognizer
from rba_bench.speechlm.composite.encoder import TrueLengthWhisperEncoder
from rba_bench.speechlm.composite.features import LogMelFeatureExtractor
from rba_bench.textlm.base import Decoding, Generation, TextLM

CONSTANT = "i do not know"


class TextOracle:
    """A text LLM that reads the gold transcript: what the SpeechLM would reach if it heard perfectly."""

    def __init__(self, textlm: TextLM, name: str = "text") -> None:
        self.textlm = textlm
        self.name = name

    def identity(self) -> dict[str, Any]:
        """Identity of the text model, of kind `text-oracle`."""
        return {**self.textlm.identity(), "kind": "text-oracle"}

    def generate(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Generation]:
        """Answer prompt + transcript; a request without a transcript is an error, never an answer to nothing."""
        faults = ["" if request.transcript.strip() else "no transcript to read" for request in requests]
        usable = [request for request, fault in zip(requests, faults, strict=True) if not fault]
        texts = [request.user_text() for request in usable]
        answers = self.textlm.chat(texts, decoding, [request.seed for request in usable])
        return answer_usable(requests, faults, answers)


class Cascade:
    """Speech recognition, then a text LLM on the recognised words; the recogniser is greedy under any decoding.

    Args:
        recognizer: CTC head.
        encoder: the encoder it was trained on.
        features: log-mel features of that encoder.
        textlm: what reads the transcript.
        asr_sha256: hash of head and encoder weights, for the identity.
        batch_size: clips per batch of the recogniser.
        name: for tables and folders.
    """

    def __init__(
        self,
        recognizer: CTCRecognizer,
        encoder: TrueLengthWhisperEncoder,
        features: LogMelFeatureExtractor,
        textlm: TextLM,
        asr_sha256: str,
        batch_size: int = 32,
        name: str = "cascade",
    ) -> None:
        self.recognizer = recognizer
        self.encoder = encoder
        self.features = features
        self.textlm = textlm
        self.asr_sha256 = asr_sha256
        self.batch_size = batch_size
        self.name = name

    def identity(self) -> dict[str, Any]:
        """Kind `cascade`, one hash over recogniser and text model, and the text model's own identity."""
        text = self.textlm.identity()
        parts = [*self.recognizer.parameters(), *self.encoder.parameters()]
        return {
            "kind": "cascade",
            "weights_sha256": sha256_json([self.asr_sha256, text["weights_sha256"]]),
            "asr_sha256": self.asr_sha256,
            "n_parameters": text["n_parameters"] + sum(part.numel() for part in parts),
            "text": text,
        }

    def generate(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Generation]:
        """Answer prompt + recognised words."""
        faults = [audio_fault(request.audio) or self._too_long(request) for request in requests]
        usable = [request for request, fault in zip(requests, faults, strict=True) if not fault]
        heard = self.transcribe([request.audio for request in usable if request.audio is not None])
        texts = [request.user_text(words) for request, words in zip(usable, heard, strict=True)]
        answers = self.textlm.chat(texts, decoding, [request.seed for request in usable])
        return answer_usable(requests, faults, answers)

    @torch.no_grad()
    def transcribe(self, clips: Sequence[np.ndarray]) -> list[str]:
        """Recognised words of each clip (float mono, 16 kHz), in order."""
        order = sorted(range(len(clips)), key=lambda i: (-len(clips[i]), i))
        words = [""] * len(clips)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            mel = self.features([clips[i] for i in batch]).to(self.encoder.device)
            found = self.recognizer.transcribe(self.encoder, mel["input_features"], mel["feature_lengths"])
            for i, text in zip(batch, found, strict=True):
                words[i] = text.strip()
        return words

    def _too_long(self, request: SpeechRequest) -> str:
        frames = self.features.n_frames(0 if request.audio is None else len(request.audio))
        longest = 2 * self.encoder.config.max_source_positions
        return "" if frames <= longest else f"audio is longer than the encoder's {longest / 100:g} s"


class ConstantAnswer:
    """The same words whatever is asked: the floor that every metric must show."""

    def __init__(self, answer: str = CONSTANT, name: str = "constant") -> None:
        self.answer = answer
        self.name = name

    def identity(self) -> dict[str, Any]:
        """Kind `constant` and the answer; its hash stands for weights."""
        digest = sha256_bytes(self.answer.encode())
        return {"kind": "constant", "weights_sha256": digest, "n_parameters": 0, "answer": self.answer}

    def generate(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Generation]:
        """The constant for every request, even one without audio."""
        del decoding
        n_words = len(self.answer.split())
        return [Generation(self.answer, n_words, "ok" if self.answer else "empty") for _ in requests]

"""Reference rows of every table: a text LLM that reads the transcript, a cascade, and a constant answer."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.speechlm.recognizers import Recognizer
from rba_bench.speechlm.speech_model import SpeechLM, SpeechRequest, StageClock, answer_usable, device_clock
from rba_bench.textlm.text_model import Decoding, Generation, TextLM

CONSTANT = "i do not know"
UNREADABLE = "no transcript to read"


class TextOracle(SpeechLM):
    """A text LLM that reads the gold transcript: what the SpeechLM would reach with perfect speech recognition.

    Args:
        textlm: the text LLM.
        name: for tables and folders.
    """

    reads_transcript = True

    def __init__(self, textlm: TextLM, name: str = "text") -> None:
        self.textlm = textlm
        self.name = name
        self.streams = textlm.streams

    def identity(self) -> dict[str, Any]:
        """Identity of the text model, of kind `text-oracle`."""
        return {**self.textlm.identity(), "kind": "text-oracle"}

    def observed(self) -> dict[str, list[str]]:
        """What a server says of the text model, {} for a local one."""
        return self.textlm.observed()

    def generate(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Generation]:
        """Answer prompt + transcript; a request without a transcript is `not_heard`, never answered."""
        faults = ["" if request.transcript.strip() else UNREADABLE for request in requests]
        usable = [request for request, fault in zip(requests, faults, strict=True) if not fault]
        texts = [request.user_text() for request in usable]
        answers = self.textlm.chat(texts, decoding, [request.seed for request in usable])
        return answer_usable(requests, faults, answers)

    def stream(
        self, requests: Sequence[SpeechRequest], decoding: Decoding
    ) -> Iterator[tuple[int, Generation]]:
        """`(position, answer)` as they complete, each position exactly once; those without a transcript first."""
        usable = [i for i, request in enumerate(requests) if request.transcript.strip()]
        for i in sorted(set(range(len(requests))) - set(usable)):
            yield i, Generation("", 0, "not_heard", UNREADABLE)
        texts = [requests[i].user_text() for i in usable]
        for position, answer in self.textlm.chat_stream(texts, decoding, [requests[i].seed for i in usable]):
            yield usable[position], answer


class Cascade(SpeechLM):
    """Speech recognition, then a text LLM on the recognised words; the recogniser is greedy under any decoding.

    The recognised words are kept with each answer. A clip whose content key is known is recognised once.

    Args:
        recognizer: from clips to words.
        textlm: what reads the words.
        name: for tables and folders.
        device: where the recogniser runs, for the clock.

    Attributes:
        clock: recognition counts as `encoder`, answering as `decoder`.
    """

    clock: StageClock

    def __init__(
        self, recognizer: Recognizer, textlm: TextLM, name: str = "cascade", device: str = "cpu"
    ) -> None:
        self.recognizer = recognizer
        self.textlm = textlm
        self.name = name
        self.clock = device_clock(device)
        self._transcripts: dict[str, str] = {}  # content key of a clip -> words: a few bytes each

    def identity(self) -> dict[str, Any]:
        """Kind `cascade`, one hash over recogniser and text model, what else decides the transcript, the text model."""
        asr, text = self.recognizer.identity(), self.textlm.identity()
        n_text: int | None = text.get("n_parameters")  # None where the text model does not say
        details = {key: value for key, value in asr.items() if key not in ("weights_sha256", "n_parameters")}
        return {
            "kind": "cascade",
            "weights_sha256": sha256_json([asr["weights_sha256"], text.get("weights_sha256")]),
            "asr_sha256": asr["weights_sha256"],
            "n_parameters": None if n_text is None else asr["n_parameters"] + n_text,
            "text": text,
            **({"asr": details} if details else {}),
        }

    def generate(self, requests: Sequence[SpeechRequest], decoding: Decoding) -> list[Generation]:
        """Answer prompt + recognised words."""
        faults = [self.recognizer.fault(request.audio) for request in requests]
        usable = [request for request, fault in zip(requests, faults, strict=True) if not fault]
        with self.clock("encoder"):
            # one clip is recognised once, within a batch and, if its key is known, ever
            keys = [request.key or f"#{id(request.audio)}" for request in usable]
            fresh = {
                key: request.audio
                for key, request in zip(keys, usable, strict=True)
                if key not in self._transcripts and request.audio is not None
            }
            new = dict(zip(fresh, self.recognizer.transcribe(list(fresh.values())), strict=True))
            self._transcripts.update({key: text for key, text in new.items() if not key.startswith("#")})
            transcripts = [new[key] if key in new else self._transcripts[key] for key in keys]
        texts = [request.user_text(words) for request, words in zip(usable, transcripts, strict=True)]
        with self.clock("decoder"):
            answers = self.textlm.chat(texts, decoding, [request.seed for request in usable])
        answers = [replace(answer, heard=words) for answer, words in zip(answers, transcripts, strict=True)]
        return answer_usable(requests, faults, answers)

    def transcribe(self, clips: Sequence[np.ndarray]) -> list[str]:
        """Recognised words of each clip (float mono, 16 kHz), in order."""
        return self.recognizer.transcribe(clips)


class ConstantAnswer(SpeechLM):
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

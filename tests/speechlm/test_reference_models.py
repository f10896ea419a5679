"""Reference models against a text LM that repeats what it was asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rba_bench.files import sha256_json
from rba_bench.speechlm.audiolm.loading import load_family
from rba_bench.speechlm.composite.ctc import CTCRecognizer
from rba_bench.speechlm.recognizers import EncoderCTC
from rba_bench.speechlm.reference_models import Cascade, ConstantAnswer, TextOracle
from rba_bench.speechlm.speech_model import SpeechLM, SpeechRequest
from rba_bench.textlm.text_model import Decoding, Generation, TextLM

GREEDY = Decoding()


class Echo(TextLM):
    """A TextLM that answers with the user's words and the seed."""

    def chat(self, user_texts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        return [Generation(f"{text}|{seed}", 1, "ok") for text, seed in zip(user_texts, seeds, strict=True)]

    def complete(self, prompts: Sequence[str], decoding: Decoding, seeds: Sequence[int]) -> list[Generation]:
        return self.chat(prompts, decoding, seeds)

    def logprobs(self, user_texts: Sequence[str], responses: Sequence[str]) -> list[float]:
        return [0.0] * len(user_texts)

    def pre_query_template(self) -> str:
        return ""

    def identity(self) -> dict[str, Any]:
        return {"kind": "text", "weights_sha256": "abc", "n_parameters": 5}


@pytest.fixture
def cascade(tiny_composite_dir: Path) -> Cascade:
    family = load_family(tiny_composite_dir)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        head = CTCRecognizer(32, "abcdef ").eval()
    encoder = family.encoder
    ear = EncoderCTC(head, encoder, family.processor.feature_extractor, "head", batch_size=2)
    return Cascade(ear, Echo())


def test_all_are_speechlms(cascade: Cascade) -> None:
    assert all(isinstance(model, SpeechLM) for model in (cascade, TextOracle(Echo()), ConstantAnswer()))


def test_text_oracle_reads_prompt_and_transcript() -> None:
    requests = [
        SpeechRequest(None, "der hund", "translate german to english :", 7),
        SpeechRequest(None, "  ", "translate german to english :", 8),
        SpeechRequest(np.full(3, np.nan), "what is it", "", 9),
    ]
    answers = TextOracle(Echo()).generate(requests, GREEDY)
    assert [answer.text for answer in answers] == [
        "translate german to english : der hund|7",
        "",
        "what is it|9",
    ]
    assert (answers[1].status, answers[1].error) == ("not_heard", "no transcript to read")
    assert TextOracle(Echo()).identity()["kind"] == "text-oracle"


def test_cascade_hears_each_clip_as_if_alone(cascade: Cascade, clips: Sequence[np.ndarray]) -> None:
    heard = cascade.transcribe(clips)
    assert heard == [cascade.transcribe([clip])[0] for clip in clips]
    assert len(set(heard)) > 2  # an untrained head, but not a deaf one
    requests = [SpeechRequest(clip, "gold", "say :", seed) for seed, clip in enumerate(clips)]
    answers = cascade.generate(requests, GREEDY)
    assert [answer.text for answer in answers] == [
        f"say : {words}".strip() + f"|{i}" for i, words in enumerate(heard)
    ]
    assert not any("gold" in answer.text for answer in answers)
    assert [answer.heard for answer in answers] == heard
    assert set(cascade.clock.seconds) == {"encoder", "decoder"}


def test_cascade_survives_bad_clips(cascade: Cascade, clips: Sequence[np.ndarray]) -> None:
    assert isinstance(cascade.recognizer, EncoderCTC)
    cascade.recognizer.features.max_seconds = 60.0
    bad = [None, np.full(800, np.nan), np.zeros(0), np.zeros(16_000 * 31, dtype=np.float32)]
    requests = [SpeechRequest(clips[0]), *(SpeechRequest(audio) for audio in bad), SpeechRequest(clips[1])]
    answers = cascade.generate(requests, GREEDY)
    assert [answer.status for answer in answers] == ["ok", *["not_heard"] * 3, "error", "ok"]
    assert "longer than the encoder's 30 s" in answers[4].error


def test_cascade_identity_covers_all_parts(cascade: Cascade) -> None:
    identity = cascade.identity()
    assert identity["kind"] == "cascade" and identity["n_parameters"] > 5
    assert identity["weights_sha256"] == sha256_json(["head", "abc"]) and "asr" not in identity
    assert isinstance(cascade.recognizer, EncoderCTC)
    cascade.recognizer.weights_sha256 = "other head"
    assert cascade.identity()["weights_sha256"] != identity["weights_sha256"]


class CountingEar:
    """A recogniser that hears how many clips it has heard before."""

    def __init__(self) -> None:
        self.clips: list[np.ndarray] = []

    def identity(self) -> dict[str, Any]:
        return {"weights_sha256": "ear", "n_parameters": 2, "language": "de"}

    def fault(self, audio: np.ndarray | None) -> str:
        return "" if audio is not None else "no audio"

    def transcribe(self, clips: Sequence[np.ndarray]) -> list[str]:
        start = len(self.clips)
        self.clips += list(clips)
        return [f"clip {start + i}" for i in range(len(clips))]


def test_a_clip_is_recognised_once(clips: Sequence[np.ndarray]) -> None:
    ear = CountingEar()
    model = Cascade(ear, Echo())
    keyed = [
        SpeechRequest(clips[0], key="a"),
        SpeechRequest(clips[0].copy(), key="a"),
        SpeechRequest(clips[1]),
    ]
    assert [answer.heard for answer in model.generate(keyed, GREEDY)] == ["clip 0", "clip 0", "clip 1"]
    again = [SpeechRequest(clips[1]), SpeechRequest(clips[1]), SpeechRequest(clips[0], key="a")]
    assert [answer.heard for answer in model.generate(again, GREEDY)] == ["clip 2", "clip 2", "clip 0"]
    assert len(ear.clips) == 3  # without a key nothing is kept beyond the call


def test_what_decides_the_transcript_is_in_the_identity() -> None:
    identity = Cascade(CountingEar(), Echo()).identity()
    assert identity["asr"] == {"language": "de"} and identity["n_parameters"] == 7


def test_constant_answers_everything_alike() -> None:
    requests = [SpeechRequest(None), SpeechRequest(np.zeros(9))]
    assert ConstantAnswer("yes it is").generate(requests, GREEDY) == [Generation("yes it is", 3, "ok")] * 2
    assert ConstantAnswer("").generate(requests[:1], GREEDY)[0].status == "empty"
    assert (
        ConstantAnswer("a").identity()["weights_sha256"] != ConstantAnswer("b").identity()["weights_sha256"]
    )

"""Requests and their faults."""

import numpy as np
import pytest

from rba_bench.speechlm.speech_model import SpeechRequest, answer_usable, audio_fault
from rba_bench.textlm.text_model import Generation

OK = np.zeros(1600, dtype=np.float32)


def test_user_text_joins_prompt_and_words() -> None:
    assert SpeechRequest(None, "der hund", "translate german to english :").user_text() == (
        "translate german to english : der hund"
    )
    assert SpeechRequest(None, "der hund", "translate :").user_text("der mund") == "translate : der mund"
    assert SpeechRequest(None, "what is it").user_text() == "what is it"


@pytest.mark.parametrize(
    ("audio", "fault"),
    [
        (OK, ""),
        (OK.astype(np.float64), ""),
        (None, "no audio"),
        (OK[:0], "no samples"),
        (OK.reshape(2, -1), "not mono"),
        (OK.astype(np.int16), "not mono floating-point"),
        (np.where(np.arange(1600) == 7, np.nan, OK), "not finite"),
        (np.where(np.arange(1600) == 7, np.inf, OK), "not finite"),
    ],
)
def test_faults(audio: np.ndarray | None, fault: str) -> None:
    found = audio_fault(audio)
    assert found == "" if fault == "" else fault in found


def test_answers_find_their_requests() -> None:
    requests = [SpeechRequest(None)] * 3 + [SpeechRequest(OK)]
    answers = [Generation("first", 1, "ok"), Generation("second", 1, "ok")]
    woven = answer_usable(requests, ["", "broken", "", "too long"], answers)
    assert [answer.text for answer in woven] == ["first", "", "second", ""]
    assert [(answer.status, answer.error) for answer in woven[1::2]] == [
        ("not_heard", "broken"),
        ("error", "too long"),
    ]
    with pytest.raises(ValueError, match="do not fit"):
        answer_usable(requests, ["", "", "x", "x"], [*answers, answers[0]])

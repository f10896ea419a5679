"""A speech LLM over HTTP, against a real server: what it hears, and what becomes of what it cannot."""

import base64
import io
import time
import wave
from itertools import islice

import numpy as np
import pytest

from rba_bench.errors import UserError
from rba_bench.speechlm.endpoint import EndpointSpeechLM
from rba_bench.speechlm.model_names import load_speech_model
from rba_bench.speechlm.speech_model import SpeechLM, SpeechRequest
from rba_bench.textlm.endpoints.address import EndpointOptions
from rba_bench.textlm.text_model import Decoding
from tests.textlm.misbehaving_server import Reaction, Seen, answer, failure, serving

QUICK = EndpointOptions(timeout_s=20, backoff_s=0.01, retries=2)
GREEDY = Decoding(max_new_tokens=7)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RBA_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def tone(n: int = 1600, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(np.arange(n) / 7)).astype(np.float32)


def heard(part: dict[str, object]) -> np.ndarray:
    """The samples of an `input_audio` part, as a server would read them."""
    sound = part["input_audio"]
    assert isinstance(sound, dict)
    assert sound["format"] == "wav"
    with wave.open(io.BytesIO(base64.b64decode(sound["data"], validate=True))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def test_a_clip_arrives_as_16_bit_wave_with_its_prompt_after_it() -> None:
    audio = np.concatenate([tone(), [-1.0, 1.0, 2.0, -2.0]]).astype(np.float32)
    with serving(lambda _: answer("a tone", usage={"prompt_tokens": 90, "completion_tokens": 3})) as server:
        lm = EndpointSpeechLM.from_spec(server.spec, QUICK)
        assert isinstance(lm, SpeechLM)
        [one] = lm.generate([SpeechRequest(audio, prompt="what is it ?", seed=2**60)], Decoding(7, 0.5, 0.8))
    assert (one.text, one.n_tokens, one.status) == ("a tone", 3, "ok")
    sent = server.seen[0].body
    sound, text = sent.pop("messages")[0]["content"]
    assert sent == {"model": "m", "max_tokens": 7, "temperature": 0.5, "top_p": 0.8, "seed": 2**60}
    assert text == {"type": "text", "text": "what is it ?"}
    assert sound["type"] == "input_audio"
    assert np.abs(heard(sound) - np.clip(audio, -1, 32767 / 32768)).max() <= 0.5 / 32768 + 1e-9


def test_a_clip_without_prompt_travels_alone_and_the_order_can_be_turned() -> None:
    with serving(lambda _: answer("fine")) as server:
        lm = EndpointSpeechLM.from_spec(server.spec, QUICK, prompt_first=True)
        lm.generate([SpeechRequest(tone(), prompt="")], GREEDY)
        lm.generate([SpeechRequest(tone(), prompt="listen :")], GREEDY)
        assert lm.identity()["parts"] == ["text", "audio"]
        assert EndpointSpeechLM.from_spec(server.spec).identity()["parts"] == ["audio", "text"]
    kinds = [[part["type"] for part in seen.body["messages"][0]["content"]] for seen in server.seen]
    assert kinds == [["input_audio"], ["text", "input_audio"]]
    assert server.seen[0].body["temperature"] == 0


def test_unusable_audio_is_not_heard_and_not_sent() -> None:
    requests = [
        SpeechRequest(None, prompt="0"),
        SpeechRequest(tone(), prompt="1"),
        SpeechRequest(np.zeros(0, np.float32), prompt="2"),
        SpeechRequest(np.full(9, np.nan, np.float32), prompt="3"),
        SpeechRequest(tone(), prompt="4"),
    ]
    with serving(lambda seen: answer(f"re {seen.text}")) as server:
        answers = EndpointSpeechLM.from_spec(server.spec, QUICK).generate(requests, GREEDY)
    assert [one.status for one in answers] == ["not_heard", "ok", "not_heard", "not_heard", "ok"]
    assert [one.text for one in answers] == ["", "re 1", "", "", "re 4"]
    assert [bool(one.error) for one in answers] == [True, False, True, True, False]
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("status", "message", "whose"),
    [
        (400, "This model's maximum context length is 8192 tokens", "error"),
        (400, "the request exceeds the available context size", "error"),
        (400, "audio too long", "error"),
        (400, "unsupported content type input_audio", "no_reply"),
        (422, "Extra inputs are not permitted", "no_reply"),
        (403, "no", "no_reply"),
        (502, "bad gateway", "no_reply"),
    ],
)
def test_only_what_the_model_cannot_hold_is_its_own_failure(status: int, message: str, whose: str) -> None:
    react = {"0": answer("fine"), "1": failure(status, message)}
    with serving(lambda seen: react[seen.text]) as server:
        lm = EndpointSpeechLM.from_spec(server.spec, QUICK)
        answers = lm.generate([SpeechRequest(tone(), prompt=str(i)) for i in range(2)], GREEDY)
    assert [one.status for one in answers] == ["ok", whose]
    assert message in answers[1].error


def test_answers_stream_as_they_come_and_failures_do_not_end_the_rest() -> None:
    def react(seen: Seen) -> Reaction:
        if seen.text == "2":
            return failure(400, "audio too long")
        return answer(
            f"re {seen.text}", finish="length" if seen.text == "3" else "stop", after=1.0 * (seen.text == "0")
        )

    requests = [SpeechRequest(tone(), prompt=str(i)) for i in range(5)]
    with serving(react) as server:
        lm = EndpointSpeechLM.from_spec(server.spec, QUICK)
        found = list(lm.stream(requests, GREEDY))
    assert found[-1][0] == 0  # the slow one
    answers = dict(found)
    assert len(found) == len(answers) == 5
    assert [answers[i].status for i in range(5)] == ["ok", "ok", "error", "truncated", "ok"]
    assert answers[2].error == "400: audio too long"
    assert answers[4].text == "re 4"


def test_the_clock_counts_waiting_for_the_server_and_not_the_reader() -> None:
    with serving(lambda _: answer("fine", after=0.2)) as server:
        lm = EndpointSpeechLM.from_spec(server.spec, EndpointOptions(timeout_s=20, max_concurrency=1))
        started = time.perf_counter()
        for _ in lm.stream([SpeechRequest(tone(), prompt=str(i)) for i in range(2)], GREEDY):
            time.sleep(0.5)
        wall = time.perf_counter() - started
    assert set(lm.clock.seconds) == {"endpoint"}
    assert 0.2 <= lm.clock.seconds["endpoint"] <= wall - 0.9


def test_stopping_early_stops_asking() -> None:
    with serving(lambda _: answer("fine", after=0.01)) as server:
        lm = EndpointSpeechLM.from_spec(server.spec, QUICK)
        stream = lm.stream([SpeechRequest(tone(), prompt=str(i)) for i in range(300)], GREEDY)
        assert len(list(islice(stream, 3))) == 3
        stream.close()  # type: ignore[attr-defined]
        time.sleep(0.2)  # what was on its way has come
        at_stop = len(server.seen)
        time.sleep(0.2)
        assert len(server.seen) == at_stop < 100


def test_the_model_option_loads_it() -> None:
    with serving(lambda _: answer("fine")) as server:
        lm = load_speech_model(server.spec)
        assert isinstance(lm, EndpointSpeechLM)
        assert lm.name == "m"
        assert lm.identity()["kind"] == "endpoint"
        assert lm.generate([SpeechRequest(tone())], GREEDY)[0].text == "fine"
        assert lm.observed() == {"model": ["m"]}
    with pytest.raises(UserError, match="without a model"):
        load_speech_model("openai:gpt-4o-audio-preview")

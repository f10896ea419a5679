"""Speech servers: a real HTTP server that answers with speech of espeak-ng, and one that misbehaves."""

import base64
import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from rba_bench.audio import espeak
from rba_bench.audio.speech_engines import find_speakers, speak_all
from rba_bench.errors import AudioError, MissingPrerequisite, RbaError, UserError
from rba_bench.textlm.endpoints import speech
from tests.textlm.misbehaving_server import Reaction, Seen, Server, body, failure, free_port, serving

pytest.importorskip("espeakng_loader")
VOICES = {voice.shape: voice for voice in espeak.BANKS["test"]}
FORMATS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III")}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("RBA_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "2")
    speech._client.cache_clear()
    client = speech.SpeechClient.__init__

    def init(self: speech.SpeechClient, url: str, model: str) -> None:
        client(self, url, model)
        object.__setattr__(self.options, "backoff_s", 0.01)

    monkeypatch.setattr(speech.SpeechClient, "__init__", init)
    yield
    speech._client.cache_clear()


def sound(data: bytes, media: str = "audio/wav") -> Reaction:
    return Reaction(lambda handler: handler.reply(data, media))


def spoken(request: Seen) -> Reaction:
    """What a proper server does."""
    assert request.path == "/v1/audio/speech"
    wave = espeak.speak(request.body["input"], "en", VOICES.get(request.body.get("voice", ""), VOICES["m2"]))
    form = request.body["response_format"]
    if form == "pcm":
        return sound((wave * 32767).astype("<i2").tobytes(), "audio/pcm;rate=16000")
    file = io.BytesIO()
    name, subtype = FORMATS[form]
    sf.write(file, wave, 16_000, format=name, subtype=subtype)
    return sound(file.getvalue(), f"audio/{form}")


def spec(server: Server, options: str = "?voice=m2,linda") -> str:
    return f"server:{server.url}#kokoro{options}"


def test_real_speech_comes_back_in_every_format() -> None:
    expected = espeak.speak("What is the capital of France?", "en", VOICES["linda"])
    with serving(spoken) as server:
        for form, tolerance in (("wav", 1e-4), ("flac", 1e-4), ("pcm", 1e-4), ("mp3", 0.1)):
            m2, linda = find_speakers([spec(server, f"?voice=m2,linda&format={form}&speed=1.5&lang=en")])
            assert (m2.name, linda.name) == ("m2", "linda")
            wave = linda.engine.speak("What is the capital of France?", "en", linda.voice)
            assert wave.dtype == np.float32
            n = min(len(wave), len(expected))
            assert abs(len(wave) - len(expected)) < 3000
            assert np.sqrt(np.mean((wave[:n] - expected[:n]) ** 2)) < tolerance, form
        sent = server.seen[0].body
    assert sent == {
        "model": "kokoro", "input": "What is the capital of France?", "voice": "linda", "response_format": "wav",
        "speed": 1.5, "lang": "en",
    }  # fmt: skip


def test_a_wav_that_was_streamed_states_no_length() -> None:
    file = io.BytesIO()
    sf.write(file, np.sin(np.arange(8000) / 9), 16_000, format="WAV", subtype="PCM_16")
    data = bytearray(file.getvalue())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert data[36:40] == b"data"
    assert len(speech.decode_answer(bytes(data), "audio/wav", 24_000, False)) == 8000


def test_many_requests_are_in_flight_and_answers_keep_their_places() -> None:
    with serving(spoken) as server:
        speakers = find_speakers([spec(server)])
        texts = [f"number {n}" for n in range(40)]
        chosen = [speakers[n % 2] for n in range(40)]
        waves = speak_all(texts, "en", chosen)
        assert server.most > 4
    for text, speaker, wave in zip(texts, chosen, waves, strict=True):
        assert isinstance(wave, np.ndarray)
        right = espeak.speak(text, "en", VOICES[speaker.voice.voice])
        np.testing.assert_allclose(wave, right, atol=1e-4)


def test_a_text_that_the_server_refuses_is_an_error_of_this_text_alone() -> None:
    def react(request: Seen) -> Reaction:
        return failure(400, "text is too long") if request.body["input"] == "bad" else spoken(request)

    with serving(react) as server:
        (speaker,) = find_speakers([spec(server, "?voice=m2")])
        first, bad, last, empty = speak_all(["one", "bad", "two", " "], "en", [speaker] * 4)
        assert isinstance(first, np.ndarray) and isinstance(last, np.ndarray)
        assert isinstance(empty, np.ndarray) and not empty.any()
        assert isinstance(bad, AudioError) and "text is too long" in str(bad)
        with pytest.raises(AudioError, match="did not say this text"):
            speaker.engine.speak("bad", "en", speaker.voice)
    assert all(request.body["input"] != " " for request in server.seen)


@pytest.mark.parametrize(
    "broken",
    [
        lambda: failure(503, "busy"),
        lambda: failure(429, "slow down", {"Retry-After": "0"}),
        lambda: sound(b"RIFF\x00\x00", "audio/wav"),
        lambda: body({"error": "cold start"}),
    ],
    ids=["503", "429", "torn", "json"],
)
def test_what_may_pass_is_tried_again(broken: Callable[[], Reaction]) -> None:
    with serving(lambda request: broken() if request.tries == 0 else spoken(request)) as server:
        (speaker,) = find_speakers([spec(server, "?voice=m2")])
        assert len(speaker.engine.speak("hello", "en", speaker.voice)) > 1000
    assert len(server.seen) == 2


def test_a_server_of_which_nothing_works_ends_the_run_in_one_line() -> None:
    with serving(lambda request: failure(503, "out of order")) as server:
        (speaker,) = find_speakers([spec(server, "?voice=m2")])
        with pytest.raises(RbaError, match="run the same command again") as error:
            speak_all([f"text {n}" for n in range(60)], "en", [speaker] * 60)
        assert not isinstance(error.value, UserError | AudioError) and "\n" not in str(error.value)
    url = f"http://127.0.0.1:{free_port()}/v1"
    (speaker,) = find_speakers([f"server:{url}#kokoro?voice=a"])
    with pytest.raises(RbaError, match="no server answers at"):
        speaker.engine.speak("hello", "en", speaker.voice)
    with pytest.raises(RbaError, match="no server answers at"):
        find_speakers([f"server:{url}#kokoro"])


def test_voices_are_asked_for_where_none_is_named() -> None:
    lists = {"voices": ["linda", {"id": "m2", "name": "Em Two"}, {"name": 3}, "linda"]}
    with serving(
        spoken, gets=lambda path: body(lists) if path == "/v1/audio/voices" else failure(404)
    ) as server:
        assert [speaker.name for speaker in find_speakers([f"natural,{spec(server, '')}"])][1:] == [
            "linda",
            "m2",
        ]
    with (
        serving(spoken, gets=lambda path: failure(404)) as server,
        pytest.raises(
            UserError, match=r"lists no voices \(404: no\): name them, as in server:.*#kokoro\?voice=A,B"
        ),
    ):
        find_speakers([spec(server, "")])


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    folder = tmp_path / "bank"
    folder.mkdir()
    text = "The quick brown fox jumps over the lazy dog, and then it sleeps for a very long time indeed."
    for name in ("anna", "ben"):
        wave = espeak.speak(text, "en", VOICES["linda" if name == "anna" else "m2"])
        sf.write(folder / f"{name}.wav", wave, 16_000)
    (folder / "anna.txt").write_text(text)
    return folder


def test_the_clip_of_a_bank_travels_with_its_transcript(bank: Path) -> None:
    with serving(spoken) as server:
        anna, ben = find_speakers([spec(server, f"?bank={bank}&task_type=Base")])
        anna = pickle.loads(pickle.dumps(anna))  # noqa: S301 - our own, as worker processes get it
        speak_all(["hello", "hello"], "en", [anna, ben])
        by_text = {request.body.get("ref_text", ""): request.body for request in server.seen}
        first, second = by_text[anna.voice.clip.transcript], by_text[""]
        assert (
            base64.b64decode(first["ref_audio"].removeprefix("data:audio/wav;base64,"))
            == (bank / "anna.wav").read_bytes()
        )
        assert (
            first["task_type"] == "Base"
            and "voice" not in first
            and second["ref_audio"] != first["ref_audio"]
        )
        facts = json.dumps(anna.facts())
        assert str(bank) not in facts and anna.voice.clip.sha256 in facts
        (again,) = find_speakers(
            [spec(server, f"?bank={bank}&text_field=none&audio_field=clip&min_seconds=5")]
        )[:1]
        again.engine.speak("again", "en", again.voice)
        assert {"clip"} == {"clip", "ref_audio", "ref_text"} & server.seen[-1].body.keys()
    sf.write(bank / "ben.wav", np.ones(9), 16_000)
    speech._data_url.cache_clear()
    with serving(spoken), pytest.raises(UserError, match="the clip of the voice ben was replaced"):
        ben.engine.speak("hello", "en", ben.voice)


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("http://localhost:1/v1?voice=a", UserError, "without a model: write server:<base_url>#<model>"),
        ("http://me:secret@localhost/v1#m?voice=a", UserError, "credentials in the URL"),
        (
            "http://localhost:1/v1/audio/speech#m?voice=a",
            UserError,
            "give the base URL 'http://localhost:1/v1'",
        ),
        ("http://localhost:1/v1#m?voice=a&format=avi", UserError, "format is one of wav"),
        ("http://localhost:1/v1#m?bank=nowhere", MissingPrerequisite, "no voice bank at nowhere"),
        ("http://localhost:1/v1#m?bank=x&min_seconds=-1", UserError, "min_seconds is '-1'"),
        ("http://localhost:1/v1#m?voice=a&voice=b", UserError, "voice is given twice"),
    ],
)
def test_mistakes_are_one_line(address: str, error: type[RbaError], message: str) -> None:
    with pytest.raises(error) as caught:
        find_speakers([f"server:{address}"])
    assert (
        message in str(caught.value) and "\n" not in str(caught.value) and "secret" not in str(caught.value)
    )

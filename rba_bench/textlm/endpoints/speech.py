"""Speech by any server with OpenAI's `/v1/audio/speech`: Kokoro, Qwen3-TTS, CosyVoice and Fish Speech are served so.

    server:http://localhost:8880/v1#kokoro?voice=af_sky,am_adam     voices of the server, by name
    server:http://localhost:8880/v1#kokoro                          all that it lists under /audio/voices
    server:http://localhost:8091/v1#Qwen/Qwen3-TTS-12Hz-0.6B-Base?bank=LibriTTS_R&task_type=Base
                                                                    one voice for each speaker of a voice bank

Options: `voice`, `bank` (see `rba_bench.audio.voice_banks`), `min_seconds` and `max_seconds` of its clips, `format`
(wav, flac, mp3, opus or pcm; wav by default), `rate` (Hz of pcm, 24000 by default), `audio_field` and `text_field`.
Anything else goes into every request as it is, such as `speed=1.1`, `task_type=Base` or `language=English`.

The clip of a bank is sent as a data URL in `ref_audio`, and what is said in it, where that is known, in `ref_text`:
the fields of vLLM-Omni. `audio_field` and `text_field` name others; `text_field=none` sends no transcript.
Source: https://platform.openai.com/docs/api-reference/audio/createSpeech,
https://docs.vllm.ai/projects/vllm-omni/en/stable/serving/speech_api/

Requests, keys, retries and the number of requests in flight are those of text models (`EndpointClient`). Whether a
server says a text twice in the same way is its own business; clips that are written stay.
"""

import base64
import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from rba_bench.audio.decoding import SAMPLING_RATE, decode_clip
from rba_bench.audio.samples import as_floats, check_samples, resample
from rba_bench.audio.speech_engines import Speaker, SpeechEngine
from rba_bench.audio.voice_banks import (
    LEAST_SECONDS,
    MOST_SECONDS,
    ReferenceClip,
    read_reference,
    read_voice_bank,
)
from rba_bench.audio.voice_options import parse_options, split_values
from rba_bench.errors import AudioError, RbaError, UserError, first_line
from rba_bench.progress import say
from rba_bench.textlm.endpoints.address import parse_endpoint
from rba_bench.textlm.endpoints.client import EndpointClient, run_to_end
from rba_bench.textlm.endpoints.health import EndpointRequest, RequestFailure
from rba_bench.textlm.endpoints.replies import ServerAnswer

SCHEME = "server:"
FORMATS = ("wav", "flac", "mp3", "opus", "pcm")
PCM_RATE = 24_000  # Hz of OpenAI's `pcm`: signed integers of 16 bits, little-endian, one channel
VOICES_S = 10.0  # longest wait for the list of voices
NO_FIELD = "none"
_CONTAINERS = (b"RIFF", b"fLaC", b"OggS", b"ID3")
_MEDIA = {".wav": "wav", ".flac": "flac", ".mp3": "mpeg", ".ogg": "ogg", ".opus": "ogg"}


@dataclass(frozen=True)
class ServerVoice:
    """One speaker.

    Attributes:
        name: Stable identifier used in data sets and records.
        url: Base URL.
        model: As the server calls it.
        voice: As the server calls it; "" sends none.
        clip: Of a voice bank; None where the server has the voice.
        format: Of the answers.
        rate: Hz of answers in pcm.
        fields: Where the clip and its transcript go.
        extra: What else is sent, as `(name, JSON)`.
    """

    name: str
    url: str
    model: str
    voice: str = ""
    clip: ReferenceClip | None = None
    format: str = "wav"
    rate: int = PCM_RATE
    fields: tuple[str, str] = ("ref_audio", "ref_text")
    extra: tuple[tuple[str, str], ...] = ()


def find(spec: str) -> list[Speaker]:
    """The speakers of `BASE-URL#MODEL[?OPTIONS]`.

    Raises:
        UserError: It is no such address, an option cannot be used, or the server lists no voices.
        MissingPrerequisite: No such voice bank, or the key is unusable.
    """
    whole = SCHEME + spec
    url, mark, rest = spec.partition("#")  # a "?" may stand in both parts
    model, _, text = rest.partition("?")
    address = parse_endpoint(f"{SCHEME}{url}{mark}{model}", SCHEME)
    assert address is not None  # the scheme is there
    options = parse_options(text, whole)
    names, bank = split_values(options.pop("voice", "")), options.pop("bank", "")
    limits = (
        _number(options, "min_seconds", LEAST_SECONDS, whole),
        _number(options, "max_seconds", MOST_SECONDS, whole),
    )
    shared = _settings(options, whole) | {"url": address[0], "model": address[1]}
    if bank:
        if len(names) > 1:
            raise UserError(
                f"--voices {whole}: a voice bank takes one voice= at most, which goes with every clip"
            )
        voices = _bank_voices(bank, *limits, **shared, voice="".join(names))
    else:
        listed = names or _list_voices(*address)
        voices = [ServerVoice(name, voice=name, **shared) for name in listed]
    return [Speaker(ENGINE, voice) for voice in voices]


def _settings(options: dict[str, str], spec: str) -> dict[str, Any]:
    """Fields of a voice from the options, which are used up."""
    if (form := options.pop("format", "wav")) not in FORMATS:
        raise UserError(f"--voices {spec}: format is one of {', '.join(FORMATS)}, not {form!r}")
    rate = int(_number(options, "rate", PCM_RATE, spec))
    fields = (options.pop("audio_field", "ref_audio"), options.pop("text_field", "ref_text"))
    extra = tuple(sorted((name, _as_json(value)) for name, value in options.items()))
    return {"format": form, "rate": rate, "fields": fields, "extra": extra}


def _number(options: dict[str, str], name: str, default: float, spec: str) -> float:
    text = options.pop(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise UserError(f"--voices {spec}: {name} is {text!r}: give a number above 0")
    return value


def _as_json(text: str) -> str:
    """`1.1`, `true` and `{"a": 1}` as what they are, anything else as a string."""
    try:
        return json.dumps(json.loads(text))
    except ValueError:
        return json.dumps(text)


def _bank_voices(folder: str, least: float, most: float, **shared: Any) -> list[ServerVoice]:
    bank = read_voice_bank(folder, least, most)
    say(f"voice bank {folder}: {bank.summary()}")
    return [ServerVoice(clip.name, clip=clip, **shared) for clip in bank.clips]


def _list_voices(url: str, model: str) -> list[str]:
    """The voices that the server lists, which the protocol does not ask of it."""
    outcome = _client(url, model).voices()
    if isinstance(outcome, RequestFailure) or not outcome:
        why = f" ({outcome.reason})" if isinstance(outcome, RequestFailure) else ""
        if isinstance(outcome, RequestFailure) and outcome.kind in ("connect", "timeout"):
            raise RbaError(f"no server answers at {url}{why}: start it or check the address")
        raise UserError(f"{url} lists no voices{why}: name them, as in {SCHEME}{url}#{model}?voice=A,B")
    return outcome


@dataclass(frozen=True)
class SpokenAnswer(ServerAnswer):
    """An answer with sound: float32 mono samples at 16 kHz, [n]."""

    wave: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True)
class SpeechRequest(EndpointRequest):
    """A text to say; `rate` in Hz is that of answers without a header."""

    rate: int = PCM_RATE


class SpeechClient(EndpointClient):
    """Sends texts to a speech model; `run` takes `SpeechRequest`s and gives `SpokenAnswer`s."""

    async def _send(self, http: Any, call: EndpointRequest, started: float) -> ServerAnswer | RequestFailure:
        assert isinstance(call, SpeechRequest)  # nothing else is put to a speech model
        payload = {"model": self.model, **call.payload}
        limit = self.options.timeout_s
        received = await self._receive(http, "POST", "/audio/speech", limit, payload, sound=True)
        if isinstance(received, RequestFailure):
            return received
        try:
            media = received.headers.get("content-type", "")
            wave = decode_answer(received.body, media, call.rate, payload["response_format"] == "pcm")
        except AudioError as error:
            return RequestFailure("garbage", f"the answer is no sound: {self.key.wash(first_line(error))}")
        return SpokenAnswer("", latency_s=time.monotonic() - started, wave=wave)

    def voices(self) -> list[str] | RequestFailure:
        """What `/audio/voices` lists, or why it lists nothing."""

        async def ask() -> Any:
            async with self._connected() as http:
                return await self._exchange(http, "GET", "/audio/voices", VOICES_S)

        outcome = run_to_end(ask())
        if isinstance(outcome, RequestFailure):
            return outcome
        rows = outcome.get("voices") if isinstance(outcome, Mapping) else outcome
        names = [_voice_name(row) for row in rows] if isinstance(rows, list) else []
        return list(dict.fromkeys(name for name in names if name))


def _voice_name(row: object) -> str:
    """A name, or an entry with one."""
    if isinstance(row, Mapping):
        row = next((row[key] for key in ("id", "voice_id", "name") if isinstance(row.get(key), str)), "")
    return row if isinstance(row, str) and row.isprintable() and len(row) <= 200 else ""


def decode_answer(data: bytes, media: str, rate: int, raw: bool) -> np.ndarray:
    """Samples at 16 kHz of what a server answered.

    Args:
        data: A file, or bare samples of 16 bits, little-endian, one channel.
        media: The content type; `audio/pcm` is bare, and may tell its rate (`audio/pcm;rate=24000`).
        rate: Hz of bare samples, where the content type does not tell it.
        raw: Bare samples were asked for.

    Raises:
        AudioError: It is neither.
    """
    kind, _, parameters = media.lower().partition(";")
    if kind.strip() in ("application/json", "text/html", "text/plain"):
        raise AudioError(f"it is {kind.strip()}")
    if not (raw or kind.strip() in ("audio/pcm", "audio/raw")) or data.startswith(_CONTAINERS):
        return decode_clip(data, SAMPLING_RATE)
    told = parameters.partition("rate=")[2].partition(";")[0].strip()
    samples = as_floats(np.frombuffer(data[: len(data) // 2 * 2], "<i2"))
    check_samples(samples)
    return resample(
        samples, int(told) if told.isdecimal() and 1000 <= int(told) <= 192_000 else rate, SAMPLING_RATE
    )


@lru_cache(maxsize=8)
def _client(url: str, model: str) -> SpeechClient:
    """One of each server in each process: what it learns lasts."""
    return SpeechClient(url, model)


_lock = threading.Lock()  # a client runs once at a time


def engine_version() -> str:
    """The interface; what stands behind it is not known."""
    return "/v1/audio/speech"


def voice_facts(voice: ServerVoice) -> dict[str, Any]:
    """What decides how the voice sounds, as far as it is known; the clip without its place."""
    facts = asdict(voice) | {"fields": list(voice.fields), "extra": dict(voice.extra)}
    if voice.clip is not None:
        facts["clip"] = {key: value for key, value in facts["clip"].items() if key != "path"}
    return facts


def speak(text: str, language: str, voice: ServerVoice) -> np.ndarray:
    """Have one text said; `speak_batch` is faster for many.

    Returns:
        float32 mono samples at 16 kHz, shape [n].

    Raises:
        AudioError: The server cannot say this text, or not any more after all retries, though it answers others.
        RbaError: It does not work at all; UserError or MissingPrerequisite by what is wrong.
    """
    [outcome] = speak_batch([text], language, [voice])
    if isinstance(outcome, AudioError):
        raise outcome
    return outcome


def speak_batch(
    texts: Sequence[str], language: str, voices: Sequence[ServerVoice]
) -> list[np.ndarray | AudioError]:
    """Have each text said with the voice at its position, many at once.

    Args:
        texts: What to say.
        language: Not sent: servers name languages in their own ways; add `language=...` to the voice's options.
        voices: Who says it.

    Raises:
        RbaError: A server does not work at all; UserError or MissingPrerequisite by what is wrong.
    """
    results: dict[int, np.ndarray | AudioError] = {
        place: np.zeros(SAMPLING_RATE // 10, np.float32)
        for place, text in enumerate(texts)
        if not text.strip()
    }
    for url, model in dict.fromkeys((voice.url, voice.model) for voice in voices):
        here = [place for place, voice in enumerate(voices) if (voice.url, voice.model) == (url, model)]
        places = [place for place in here if place not in results]
        outcomes = _ask(_client(url, model), [(texts[place], voices[place]) for place in places])
        results |= zip(places, outcomes, strict=True)
    return [results[place] for place in range(len(texts))]


def _ask(client: SpeechClient, calls: Sequence[tuple[str, ServerVoice]]) -> list[np.ndarray | AudioError]:
    answers: dict[int, np.ndarray | AudioError] = {}
    with _lock, closing(client.run(len(calls), lambda i: _request(*calls[i]))) as outcomes:
        for place, outcome in outcomes:
            if isinstance(outcome, SpokenAnswer):
                answers[place] = outcome.wave
            else:
                assert isinstance(outcome, RequestFailure)  # this client gives no other answers
                answers[place] = AudioError(f"{client.model} did not say this text: {outcome.reason}")
    return [answers[place] for place in range(len(calls))]


def _request(text: str, voice: ServerVoice) -> SpeechRequest:
    payload: dict[str, Any] = {"input": text, "response_format": voice.format}
    if voice.voice:
        payload["voice"] = voice.voice
    if voice.clip is not None:
        audio_field, text_field = voice.fields
        payload[audio_field] = _data_url(voice.clip)
        if voice.clip.transcript and text_field != NO_FIELD:
            payload[text_field] = voice.clip.transcript
    payload |= {name: json.loads(value) for name, value in voice.extra}
    return SpeechRequest("speech", payload, rate=voice.rate)


@lru_cache(maxsize=64)
def _data_url(clip: ReferenceClip) -> str:
    kind = _MEDIA[clip.path[clip.path.rindex(".") :].lower()]
    return f"data:audio/{kind};base64,{base64.b64encode(read_reference(clip)).decode('ascii')}"


ENGINE = SpeechEngine("server", engine_version, speak, {}, voice_facts, speak_batch)

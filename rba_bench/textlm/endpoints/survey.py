"""Survey of a server for `rba-bench doctor --endpoint`: its models, and by small requests what it accepts."""

import base64
import io
import math
import struct
import wave
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.textlm.endpoints.address import SCHEME, EndpointOptions, one_line, parse_endpoint
from rba_bench.textlm.endpoints.client import EndpointClient, EndpointRequest
from rba_bench.textlm.endpoints.health import RequestFailure
from rba_bench.textlm.endpoints.keys import host_of, is_local, where_to_set
from rba_bench.textlm.endpoints.replies import ServerAnswer

_MOST_MODELS = 200  # told; hosted servers list some hundred
_UNNAMED = "(not named)"
# Where servers tell how many tokens a model takes: vLLM and SGLang; OpenRouter; Groq; llama.cpp in `meta`; Mistral.
_CONTEXT = ("max_model_len", "context_length", "context_window", "n_ctx", "n_ctx_train", "max_context_length")
_TONE_S, _RATE = 0.3, 16_000
_WORD = {"messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 16, "temperature": 0, "seed": 0}


@dataclass(frozen=True)
class ServerFinding:
    """One thing looked at: its name, whether it is there, and what was found in a few words without secrets."""

    name: str
    ok: bool
    found: str


def survey_server(address: str, probe: bool = False) -> list[ServerFinding]:
    """Look at a server.

    Args:
        address: `openai:<base_url>#<model>`, or the base URL alone.
        probe: Also send four small requests to the model.

    Returns:
        Key, models, and with `probe` what the model takes.

    Raises:
        UserError: The address is none, or it serves no such thing.
        MissingPrerequisite: It wants a key.
        RbaError: Nobody answers there.
    """
    url, _, model = address.removeprefix(SCHEME).partition("#")
    parsed = parse_endpoint(f"{SCHEME}{url}#{model or _UNNAMED}")
    assert parsed is not None  # the scheme is there
    options = replace(EndpointOptions.from_environment(), retries=0, max_concurrency=1, start_concurrency=1)
    client = EndpointClient(*parsed, options=options)
    key = f"set ({client.key.source})"
    if not client.key.known:
        host = host_of(client.base_url)
        needless = "; servers on this machine mostly need none" if is_local(host) else ""
        key = f"not set; it would go into {where_to_set(host)}{needless}"
    findings = [ServerFinding("key", True, key)]
    listed = client.models()
    if isinstance(listed, RequestFailure):
        _refuse(listed, client)
        findings.append(ServerFinding("models", False, f"not listed ({listed.reason})"))
        listed = []
    findings += [_model(row) for row in listed[:_MOST_MODELS]]
    if len(listed) > _MOST_MODELS:
        findings.append(ServerFinding("models", True, f"and {len(listed) - _MOST_MODELS} more"))
    names = [str(row.get("id")) for row in listed]
    if model and names and model not in names:
        raise UserError(f"{client.base_url} does not list {model!r}; it lists {one_line(', '.join(names))}")
    if probe:
        if not model and len(names) != 1:
            raise UserError(f"--probe asks one model: write {client.base_url}#MODEL")
        findings += _probes(EndpointClient(client.base_url, model or names[0], options=options))
    return findings


def _refuse(failure: RequestFailure, client: EndpointClient) -> None:
    """Raise where there is no use in asking further."""
    if failure.kind in ("connect", "timeout"):
        raise RbaError(
            f"no server answers at {client.base_url} ({failure.reason}): start it or check the address"
        )
    if failure.kind in ("key", "forbidden"):
        place = where_to_set(host_of(client.base_url))
        fix = f"check {client.key.source}" if client.key.known else f"set {place}"
        raise MissingPrerequisite(f"{client.base_url} refuses the API key ({failure.reason}): {fix}")


def _model(row: Mapping[str, Any]) -> ServerFinding:
    places = [row, *(row[name] for name in ("meta", "capabilities") if isinstance(row.get(name), Mapping))]
    sizes = [place[name] for place in places for name in _CONTEXT if isinstance(place.get(name), int)]
    facts = [f"{sizes[0]:,} tokens"] if sizes else []
    takes = [row.get("architecture"), row.get("modalities"), row.get("input_modalities")]
    lists: list[Any] = [m.get("input_modalities") if isinstance(m, Mapping) else m for m in takes]
    inputs = next((names for names in lists if isinstance(names, list) and names), [])
    if inputs:
        facts.append(f"takes {', '.join(map(str, inputs))}")
    if isinstance(ends := row.get("shutdown_date"), str) and ends:
        facts.append(f"shut down on {ends}")
    return ServerFinding("model", True, one_line("; ".join([str(row.get("id")), *facts])))


def _probes(client: EndpointClient) -> list[ServerFinding]:
    """Small requests, each of which fails on its own."""
    payloads: tuple[dict[str, Any], ...] = ({}, _LOGPROBS, {"stream": True}, _audio_question())
    answer, logprobs, stream, audio = (_outcome(client, payload) for payload in payloads)
    changes = ", ".join(client.observed().get("asked", [])) or "as the protocol says"
    if isinstance(answer, RequestFailure):
        _refuse(answer, client)
    if isinstance(logprobs, ServerAnswer) and not logprobs.logprobs:
        logprobs = RequestFailure("request", "not given")
    count = f"{len(logprobs.logprobs)} likeliest first tokens" if isinstance(logprobs, ServerAnswer) else ""
    return [
        _finding("answers", answer, changes),
        _finding("logprobs", logprobs, count),
        _finding("stream", stream, "answers in pieces"),
        _finding("audio", audio, "takes input_audio"),
    ]


_LOGPROBS = {"logprobs": True, "top_logprobs": 5, "max_tokens": 1}


def _outcome(client: EndpointClient, payload: Mapping[str, Any]) -> ServerAnswer | RequestFailure:
    """What becomes of one request; what would end a run is its outcome here."""
    try:
        [(_, outcome)] = client.run(1, lambda _: EndpointRequest("chat", {**_WORD, **payload}))
    except RbaError as error:
        return RequestFailure("request", one_line(str(error)))
    return outcome


def _finding(name: str, outcome: ServerAnswer | RequestFailure, summary: str) -> ServerFinding:
    if isinstance(outcome, RequestFailure):
        return ServerFinding(name, False, outcome.reason)
    return ServerFinding(name, True, summary)


def _audio_question() -> dict[str, Any]:
    """A short tone with a question."""
    samples = [int(8000 * math.sin(math.tau * 440 * i / _RATE)) for i in range(int(_TONE_S * _RATE))]
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(_RATE)
        out.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    sound = {"data": base64.b64encode(file.getvalue()).decode("ascii"), "format": "wav"}
    parts = [{"type": "input_audio", "input_audio": sound}, {"type": "text", "text": "What do you hear?"}]
    return {"messages": [{"role": "user", "content": parts}]}

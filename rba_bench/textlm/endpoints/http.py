"""HTTP: one request and a reply of bounded size, in one piece or as server-sent events.

Sizes are counted after decompression, which goes in small steps: a body that swells a thousandfold is given up as soon
as it passes the bound. `httpx2` is used and not the `openai` package: that one reads bodies whole, and adds headers of
its own from the environment (`OPENAI_ORG_ID`, `OPENAI_PROJECT_ID`) to the requests to any host.

Format of streams: WHATWG HTML, "Server-sent events"; their pieces: OpenAI's `chat.completion.chunk`.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from rba_bench import __version__
from rba_bench.textlm.endpoints.replies import (
    REASONING,
    TEXT_CHARACTERS,
    Unusable,
    content_text,
    error_message,
    parse_body,
)

ANSWER_BYTES = 8 * 2**20  # of one body: 30,000 tokens with log-probabilities of one, or two minutes of speech
STREAM_BYTES = 8 * ANSWER_BYTES  # of one stream, which is not held: each token comes with 300 bytes around it
SOUND_BYTES = 4 * ANSWER_BYTES  # of one spoken answer: five minutes at 48 kHz
ERROR_BYTES = 2**16  # of the body of an error; the rest is not read
_STEP = 2**16  # bytes that decompression may give at once
_EVENT_MARKS = (b"data:", b"event:", b": ")
LINE_BYTES = 2**20  # one event; pieces of text have some hundred bytes
DONE = b"[DONE]"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_TEXTS = ("content", "refusal", *REASONING)


class BrokenOff(Unusable):
    """The stream ended before the answer did."""


class Events:
    """Puts an answer together from the bytes of its stream. Spoken pieces are dropped, their transcript is kept.

    Raises:
        Unusable: A piece cannot be read, is too long, or is an error.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._texts: dict[str, list[str]] = {}
        self._characters = 0
        self._choice: dict[str, Any] = {}
        self._body: dict[str, Any] = {}
        self._pieces = 0
        self._done = False

    def feed(self, chunk: bytes) -> None:
        """The next bytes, cut anywhere."""
        whole = self._rest + chunk
        open_end = whole[-1:] if whole.endswith(b"\r") else b""  # a line feed may follow
        *lines, self._rest = _LINE_END.split(whole.removesuffix(open_end))
        self._rest += open_end
        if len(self._rest) > LINE_BYTES:
            raise Unusable(f"a piece of the answer is longer than {LINE_BYTES:,} bytes")
        for line in lines:
            self._line(line)

    def body(self) -> dict[str, Any]:
        """The whole answer, as JSON of an unstreamed one.

        Raises:
            BrokenOff: The stream ended in the middle.
        """
        if self._rest:
            self._line(self._rest.removesuffix(b"\r"))
            self._rest = b""
        self._dispatch()
        if not self._pieces:
            raise Unusable("the answer holds no choices")
        if not self._done and not self._choice.get("finish_reason"):
            raise BrokenOff("the answer broke off: its stream ended without an end")
        texts = {name: "".join(parts) for name, parts in self._texts.items()}
        message: dict[str, Any] = {name: texts.get(name) for name in _TEXTS}
        if "transcript" in texts:
            message["audio"] = {"transcript": texts["transcript"]}
        choice = {**self._choice, "message": message, "text": texts.get("text", "")}
        return {**self._body, "choices": [choice]}

    def _line(self, line: bytes) -> None:
        if not line:
            self._dispatch()
            return
        name, _, value = line.removeprefix(b"\xef\xbb\xbf").partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(value) + 1
            if self._data_bytes > LINE_BYTES:
                raise Unusable(f"a piece of the answer is longer than {LINE_BYTES:,} bytes")

    def _dispatch(self) -> None:
        data, self._data, self._data_bytes = b"\n".join(self._data), [], 0
        if not data.strip() or self._done:
            return
        if data.strip() == DONE:
            self._done = True
            return
        piece = parse_body(data)
        if not isinstance(piece, Mapping):
            raise Unusable("a piece of the answer is no JSON object")
        if piece.get("error"):
            raise Unusable(f"the answer broke off: {error_message(piece) or 'an error of the server'}")
        kept = ("model", "system_fingerprint", "usage")
        self._body |= {name: piece[name] for name in kept if piece.get(name) is not None}
        choices = piece.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, Mapping) and choice.get("index") in (0, None):
                self._pieces += 1
                self._add(choice)
                return

    def _add(self, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta")
        source = delta if isinstance(delta, Mapping) else choice.get("message")  # some send whole messages
        message = source if isinstance(source, Mapping) else {}
        for name in _TEXTS:
            self._text(name, content_text(message.get(name)))
        if isinstance(message.get("content"), list):
            self._text(REASONING[0], content_text(message["content"], thinking=True))
        self._text("text", content_text(choice.get("text")))
        audio = message.get("audio")
        if isinstance(audio, Mapping):
            self._text("transcript", content_text(audio.get("transcript")))
        if choice.get("logprobs") and "logprobs" not in self._choice:  # of the first token; more is not read
            self._choice["logprobs"] = choice["logprobs"]
        if choice.get("finish_reason"):
            self._choice["finish_reason"] = choice["finish_reason"]

    def _text(self, name: str, piece: str) -> None:
        if piece:
            self._texts.setdefault(name, []).append(piece)
            self._characters += len(piece)
        if self._characters > 2 * TEXT_CHARACTERS:
            raise Unusable(f"the answer is longer than {TEXT_CHARACTERS:,} characters")


class TooLarge(Unusable):
    """A body beyond the bound."""


@dataclass(frozen=True)
class Received:
    """A reply.

    Attributes:
        status: HTTP status.
        headers: By lower-case name.
        body: JSON or bytes of a success; of an error the JSON if it is any, else its text.
    """

    status: int
    headers: Mapping[str, str]
    body: Any


def connect(secure: bool, local: bool, timeout_s: float, connect_s: float, most: int) -> Any:
    """The HTTP client, an `httpx2.AsyncClient`.

    Args:
        secure: Over TLS. Over plain http there is nothing to verify, and loading the roots is slow.
        local: The server runs on this machine: no proxy can reach it.
        timeout_s: Longest silence, in seconds.
        connect_s: Longest wait for a connection, in seconds.
        most: Connections that are kept open.
    """
    import httpx2

    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(timeout_s, connect=connect_s),
        follow_redirects=False,  # a key goes to the address that the user wrote, and nowhere else
        trust_env=not local,
        verify=secure,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=most),
        headers={"User-Agent": f"rba-bench/{__version__}", "Accept-Encoding": "identity"},
    )


async def send(
    http: Any, method: str, url: str, headers: Mapping[str, str], payload: object = None, sound: bool = False
) -> Received:
    """Send one request and read the reply.

    Args:
        http: Of `connect`.
        method: GET or POST.
        url: The whole address.
        headers: Beside those of the client.
        payload: Sent as JSON.
        sound: The body of a success is no JSON, but bytes.

    Raises:
        Unusable: The reply of a success cannot be read; TooLarge if there is too much of it.
        httpx2.HTTPError: No reply.
    """
    # ASCII: half an emoji in a question goes out as an escape, where UTF-8 has no form for it.
    content = None if payload is None else json.dumps(payload).encode("ascii")
    kind = {} if payload is None else {"Content-Type": "application/json"}
    async with http.stream(method, url, content=content, headers={**kind, **headers}) as response:
        names = {name.lower(): value for name, value in response.headers.items()}
        success = 200 <= response.status_code < 300
        read_wanted = _read_bytes if sound else _read_success
        read = read_wanted(response, names) if success else _read_error(response, names)
        return Received(response.status_code, names, await read)


async def _read_success(response: Any, headers: Mapping[str, str]) -> Any:
    media, _, parameters = headers.get("content-type", "").lower().partition(";")
    events, held = Events(), bytearray()
    if media.strip() == "text/event-stream":
        await _read(response, headers, STREAM_BYTES, events.feed)
        return events.body()
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:18]) > ANSWER_BYTES:
        raise _too_large(ANSWER_BYTES)
    await _read(response, headers, ANSWER_BYTES, held.extend)
    data = bytes(held)
    if data[:64].lstrip().startswith(_EVENT_MARKS):  # a stream that is not called one
        events.feed(data)
        return events.body()
    charset = parameters.partition("charset=")[2].partition(";")[0].strip(" \"'")
    return parse_body(data, charset or None)


async def _read_bytes(response: Any, headers: Mapping[str, str]) -> bytes:
    held = bytearray()
    await _read(response, headers, SOUND_BYTES, held.extend)
    return bytes(held)


async def _read_error(response: Any, headers: Mapping[str, str]) -> Any:
    held = bytearray()
    with suppress(Unusable):  # what came so far will do
        await _read(response, headers, ERROR_BYTES, held.extend)
    try:
        body = parse_body(bytes(held))
        # Google's errors come in a list
        return body[0] if isinstance(body, list) and len(body) == 1 else body
    except Unusable:
        return held.decode("utf-8", "replace")


async def _read(
    response: Any, headers: Mapping[str, str], most: int, take: Callable[[bytes], object]
) -> None:
    """Hand on the body without its compression, in small parts. Raises TooLarge beyond `most` bytes."""
    inflater, total = _Inflater(headers.get("content-encoding", "")), 0
    async with aclosing(response.aiter_raw(_STEP)) as chunks:
        async for raw in chunks:
            for part in inflater.parts(raw):
                total += len(part)
                if total > most:
                    raise _too_large(most)
                take(part)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the answer is larger than {most:,} bytes")


class _Inflater:
    """Undoes the compression of a body, a little at a time. Raises Unusable for one that was not asked for."""

    def __init__(self, encoding: str) -> None:
        self._name = encoding.strip().lower()
        self._machine: Any = None
        if self._name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Unusable(f"the answer is compressed as {self._name[:40]!r}, which was not asked for")

    def parts(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes stand for, in parts of at most `_STEP` bytes."""
        if self._name in ("", "identity"):
            yield data
            return
        if self._machine is None:
            # Some servers call deflate without the header of zlib "deflate" too. 32: gzip or zlib, by the header.
            bare = self._name == "deflate" and (data[0] & 0x0F != 8 or data[0] >> 4 > 7)
            self._machine = zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)
        while not self._machine.eof:
            try:
                part = self._machine.decompress(data, _STEP)
            except zlib.error:
                raise Unusable("the answer is badly compressed") from None
            data = self._machine.unconsumed_tail
            yield part
            if not data and len(part) < _STEP:
                return

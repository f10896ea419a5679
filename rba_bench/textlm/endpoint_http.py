"""One request over HTTP, and a reply of bounded size: what a server sends too much of is never held.

Sizes are counted behind decompression, which goes in small steps: a body that swells a thousandfold is given up as soon
as it passes the bound. `httpx2` is used and not the `openai` package: that one reads bodies whole, and adds headers of
its own from the environment (`OPENAI_ORG_ID`, `OPENAI_PROJECT_ID`) to the requests to any host.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from rba_bench import __version__
from rba_bench.textlm.endpoint_events import Events
from rba_bench.textlm.endpoint_replies import Unusable, read_json

ANSWER_BYTES = 8 * 2**20  # of one body: 30,000 tokens with the odds of one, or two minutes of speech
STREAM_BYTES = 8 * ANSWER_BYTES  # of one stream, which is not held: each token comes with 300 bytes around it
ERROR_BYTES = 2**16  # of the body of an error; the rest is not read
_STEP = 2**16  # bytes that decompression may give at once
_EVENT_MARKS = (b"data:", b"event:", b": ")


class TooLarge(Unusable):
    """A body beyond the bound."""


@dataclass(frozen=True)
class Received:
    """A reply.

    Attributes:
        status: HTTP status.
        headers: By lower-case name.
        body: JSON of a success; of an error the JSON if it is any, else its text.
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
    http: Any, method: str, url: str, headers: Mapping[str, str], payload: object = None
) -> Received:
    """Send one request and read the reply.

    Args:
        http: Of `connect`.
        method: GET or POST.
        url: The whole address.
        headers: Beside those of the client.
        payload: Sent as JSON.

    Raises:
        Unusable: The reply of a success cannot be read; TooLarge if there is too much of it.
        httpx2.HTTPError: No reply.
    """
    # ASCII: half an emoji in a question goes out as an escape, where UTF-8 has no form for it.
    content = None if payload is None else json.dumps(payload).encode("ascii")
    kind = {} if payload is None else {"Content-Type": "application/json"}
    async with http.stream(method, url, content=content, headers={**kind, **headers}) as response:
        said = {name.lower(): value for name, value in response.headers.items()}
        good = 200 <= response.status_code < 300
        read = _success(response, said) if good else _error(response, said)
        return Received(response.status_code, said, await read)


async def _success(response: Any, headers: Mapping[str, str]) -> Any:
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
    return read_json(data, charset or None)


async def _error(response: Any, headers: Mapping[str, str]) -> Any:
    held = bytearray()
    with suppress(Unusable):  # what came so far will do
        await _read(response, headers, ERROR_BYTES, held.extend)
    try:
        body = read_json(bytes(held))
        return (
            body[0] if isinstance(body, list) and len(body) == 1 else body
        )  # Google's errors come in a list
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

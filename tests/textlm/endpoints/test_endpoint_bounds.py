"""Bodies without measure, over a real connection: each is its item's error, and memory stays bounded."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from rba_bench.errors import RbaError
from rba_bench.textlm.endpoints.address import EndpointOptions
from rba_bench.textlm.endpoints.http import ANSWER_BYTES, ERROR_BYTES, STREAM_BYTES
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.judging import Message, Question, Reply
from tests.textlm.misbehaving_server import Handler, Headers, Reaction, Server, answer, serving

QUICK = EndpointOptions(timeout_s=20, backoff_s=0.01, retries=2)
FINE = json.dumps({"choices": [{"message": {"content": "fine"}}]}).encode()
MIB = 2**20


def asked(server: Server, *texts: str, options: EndpointOptions = QUICK) -> list[Reply]:
    questions = [Question((Message("user", text),)) for text in texts]
    pairs = sorted(EndpointLM.from_spec(server.spec, options).ask(questions), key=lambda pair: pair[0])
    return [reply for _, reply in pairs]


def raw(data: bytes, status: int = 200, **headers: str) -> Reaction:
    named: Headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reaction(lambda handler: handler.reply(data, "application/json", status, named))


def chunked(pieces: Callable[[Handler], object], media: str = "application/json", **headers: str) -> Reaction:
    """A body of unknown length; `pieces` writes it."""

    def send(handler: Handler) -> None:
        handler.send_response(200)
        for name, value in {"Content-Type": media, "Transfer-Encoding": "chunked", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        pieces(handler)

    return Reaction(send)


def write(handler: Handler, data: bytes) -> None:
    handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def endless(handler: Handler) -> None:
    while not handler.script.stopped.is_set():
        write(handler, b" " * 65536)


def endless_stream(handler: Handler) -> None:
    piece = b'data: {"choices": [{"delta": {"content": ""}}], "padding": "%s"}\n\n' % (b"x" * 60_000)
    while not handler.script.stopped.is_set():
        write(handler, piece)


def bomb(mebibytes: int, window: int = 31) -> bytes:
    """JSON with so many mebibytes of blanks in it, compressed a thousandfold."""
    machine = zlib.compressobj(9, zlib.DEFLATED, window)
    parts = [machine.compress(b" " * MIB) for _ in range(mebibytes)]
    return b"".join([*parts, machine.compress(FINE), machine.flush()])


LARGE = {
    "ten megabytes": lambda: raw(FINE + b" " * 10_000_000),
    "a text of ten megabytes": lambda: raw(FINE.replace(b"fine", b"x" * 10_000_000)),
    "a gzip bomb": lambda: raw(bomb(100), Content_Encoding="gzip"),
    "a deflate bomb": lambda: raw(bomb(100, -15), Content_Encoding="deflate"),
    "without end": lambda: chunked(endless),
    "a stream without end": lambda: chunked(endless_stream, "text/event-stream"),
}


@pytest.mark.parametrize("name", LARGE)
def test_too_much_is_an_error_of_its_item_at_the_first_try_and_is_never_held(name: str) -> None:
    too_much = LARGE[name]()
    with serving(lambda seen: too_much if seen.text == "b" else answer("fine")) as server:
        asked(server, "warm up")
        tracemalloc.start()
        replies = asked(server, "a", "b", "c")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert [reply.status for reply in replies] == ["ok", "error", "ok"]
    most = STREAM_BYTES if "stream" in name else ANSWER_BYTES
    assert replies[1].error == f"the answer is larger than {most:,} bytes"
    assert sum(seen.text == "b" for seen in server.seen) == 1
    assert peak < 4 * ANSWER_BYTES


def test_a_server_that_sends_too_much_to_everything_ends_the_run() -> None:
    with (
        serving(lambda _: raw(b" " * (ANSWER_BYTES + 1))) as server,
        pytest.raises(RbaError, match="8 items in a row failed"),
    ):
        asked(server, *map(str, range(200)), options=EndpointOptions(max_concurrency=2))
    assert len(server.seen) < 30


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (gzip.compress(FINE, mtime=0), "gzip"),
        (gzip.compress(FINE, mtime=0), "X-GZIP"),
        (zlib.compress(FINE), "deflate"),
        (zlib.compress(FINE)[2:-4], "deflate"),  # raw deflate under the same name
        (FINE, "identity"),
        (bomb(5), "gzip"),
    ],
)
def test_compression_that_was_not_asked_for_is_undone_all_the_same(data: bytes, encoding: str) -> None:
    with serving(lambda _: raw(data, Content_Encoding=encoding)) as server:
        [reply] = asked(server, "a")
    assert (reply.status, reply.text) == ("ok", "fine")
    assert server.seen[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("data", "encoding", "reason"),
    [
        (FINE, "br", "compressed as 'br', which was not asked for"),
        (FINE, "gzip, gzip", "not asked for"),
        (FINE, "gzip", "badly compressed"),
        (gzip.compress(FINE, mtime=0)[:-20], "gzip", "not JSON"),
        (b"", "gzip", "not JSON"),
    ],
)
def test_compression_that_cannot_be_undone_is_an_error(data: bytes, encoding: str, reason: str) -> None:
    with serving(lambda _: raw(data, Content_Encoding=encoding)) as server:
        [reply] = asked(server, "a")
    assert reply.status == "error"
    assert reason in reply.error


def test_of_the_body_of_an_error_no_more_is_read_than_is_needed() -> None:
    message = json.dumps({"error": {"message": "no audio here"}}).encode()
    reactions = {
        "long": raw(message + b" " * (50 * MIB), 400),
        "bomb": raw(bomb(100), 400, Content_Encoding="gzip"),
        "charset": raw(b'{"error": "\xfc"}', 400, Content_Type="application/json; charset=zlib"),
        "digits": raw(b'{"error": {"message": "cut", "n": %s}}' % (b"9" * 5000), 400),
    }
    with serving(lambda seen: reactions.get(seen.text) or answer("fine")) as server:
        replies = asked(server, *reactions, "a")
    assert [reply.error for reply in replies] == ["400: no audio here", "400", "400: \ufffd", "400: cut", ""]
    assert ERROR_BYTES < MIB


def test_header_lines_without_end_are_an_error() -> None:
    def send(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(100_000):
            handler.wfile.write(b"X-%d: %s\r\n" % (number, b"x" * 1000))

    with serving(lambda seen: Reaction(send) if seen.text == "b" else answer("fine")) as server:
        replies = asked(server, "a", "b")
    assert [reply.status for reply in replies] == ["ok", "error"]


def test_half_an_emoji_in_a_question_is_sent() -> None:
    with serving(lambda seen: answer("fine" if seen.text == "half \ud83d" else "other")) as server:
        [reply] = asked(server, "half \ud83d")
    assert reply.text == "fine"


SSE = b'data: {"choices": [{"delta": {"content": "fine"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize("media", ["text/event-stream; charset=utf-8", "application/json", "text/plain"])
def test_a_stream_that_nobody_asked_for_is_read(media: str) -> None:
    with serving(lambda _: Reaction(lambda handler: handler.reply(SSE, media))) as server:
        [reply] = asked(server, "a")
    assert (reply.status, reply.text, "stream" in server.seen[0].body) == ("ok", "fine", False)


def test_a_stream_that_breaks_off_is_asked_for_again() -> None:
    half = Reaction(
        lambda handler: handler.reply(SSE.partition(b', "fin')[0] + b"}]}\n\n", "text/event-stream")
    )
    with serving(lambda seen: answer("fine") if seen.tries else half) as server:
        [reply] = asked(server, "a")
    assert (reply.text, len(server.seen)) == ("fine", 2)

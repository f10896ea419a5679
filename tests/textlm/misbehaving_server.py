"""A real HTTP server on 127.0.0.1 that speaks the OpenAI protocol, and misbehaves on request."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Headers = dict[str, str]


@dataclass
class Seen:
    """One request as it came in.

    Attributes:
        path: Of the URL, query included.
        headers: By lower-case name.
        body: Its JSON, {} if it has none.
        tries: How often the same body had come before.
        at: Time of arrival (`time.monotonic`).
    """

    path: str
    headers: Headers
    body: dict[str, Any]
    tries: int
    at: float

    @property
    def text(self) -> str:
        """What the user said last: message text, or the raw prompt."""
        if "prompt" in self.body:
            return str(self.body["prompt"])
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class Reaction:
    """How a request is met; called with the open handler."""

    def __init__(self, send: Callable[["Handler"], None]) -> None:
        self.send = send


def answer(text: str = "fine", finish: str = "stop", after: float = 0.0, **extra: Any) -> Reaction:
    """A proper chat answer, `after` seconds; `message` and `choice` add to these parts, the rest to the body."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **extra.pop("message", {})},
        "text": text,
        "finish_reason": finish,
        **extra.pop("choice", {}),
    }
    usage = {"prompt_tokens": 7, "completion_tokens": len(text.split())}
    return body(
        {"object": "chat.completion", "model": "m", "choices": [choice], "usage": usage, **extra}, after=after
    )


def body(content: object, status: int = 200, after: float = 0.0, headers: Headers | None = None) -> Reaction:
    """Any content: a string goes out as it is, anything else as JSON."""

    def send(handler: "Handler") -> None:
        time.sleep(after)
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        handler.reply(data, "application/json", status, headers)

    return Reaction(send)


def failure(status: int, message: str = "no", headers: Headers | None = None, **more: Any) -> Reaction:
    """An error as OpenAI words it."""
    return body({"error": {"message": message, **more}}, status, headers=headers)


def hang() -> Reaction:
    """No answer until the server stops."""

    def send(handler: "Handler") -> None:
        handler.script.stopped.wait(30)

    return Reaction(send)


def reset() -> Reaction:
    """Half an answer, then the connection is torn down."""

    def send(handler: "Handler") -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"choices": [{"mess')
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.rfile.close()  # the last holder of the socket beside the connection
        handler.connection.close()  # with no time to linger: RST instead of FIN

    return Reaction(send)


def drip(every: float = 0.02) -> Reaction:
    """A proper beginning, then one byte at a time, for ever."""

    def send(handler: "Handler") -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not handler.script.stopped.wait(every):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    return Reaction(send)


@dataclass
class Server:
    """The server, and what it saw.

    Attributes:
        react: Decides how each request is met.
        seen: All requests, in order of arrival.
        most: Largest number of requests under way at once.
        levels: Requests under way at each arrival, the arriving one included.
        under_way: Requests under way now.
        stopped: Set when the server stops; whoever hangs listens to it.
        models: What it lists: names, or whole rows.
        list_status: HTTP status of the list.
        gets: Meets GET requests by their path, where the list of models is not enough.
    """

    react: Callable[[Seen], Reaction]
    seen: list[Seen] = field(default_factory=list)
    most: int = 0
    levels: list[int] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    models: Sequence[Any] = ("m",)
    list_status: int = 200
    gets: Callable[[str], Reaction] | None = None
    port: int = 0
    under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Base URL for clients."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def spec(self) -> str:
        """The server's model as users write it."""
        return f"openai:{self.url}#m"

    def met(self, handler: "Handler") -> None:
        """Note a request and react to it."""
        raw = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            parsed = json.loads(raw) if raw else {}
            tries = sum(one.body == parsed for one in self.seen)
            request = Seen(handler.path, headers, parsed, tries, time.monotonic())
            self.seen.append(request)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.levels.append(self.under_way)
        try:
            self.react(request).send(handler)
        except OSError:  # the client has gone
            handler.close_connection = True
        finally:
            with self._lock:
                self.under_way -= 1


class Handler(BaseHTTPRequestHandler):
    """Hands requests to the server's script, quietly."""

    protocol_version = "HTTP/1.1"
    script: Server

    def do_POST(self) -> None:
        """A question."""
        self.script.met(self)

    def do_GET(self) -> None:
        """The list of models, or what the script has."""
        if self.script.gets is not None:
            self.script.gets(self.path).send(self)
            return
        rows = [name if isinstance(name, dict) else {"id": name} for name in self.script.models]
        body({"object": "list", "data": rows}, self.script.list_status).send(self)

    def reply(
        self, data: bytes, content_type: str, status: int = 200, headers: Headers | None = None
    ) -> None:
        """Send bytes as they are."""
        self.send_response(status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections torn down on purpose are no news."""


@contextmanager
def serving(
    react: Callable[[Seen], Reaction],
    host: str = "127.0.0.1",
    gets: Callable[[str], Reaction] | None = None,
) -> Iterator[Server]:
    """The server for the body of a `with`."""
    script = Server(react, gets=gets)
    handler = type("ScriptedHandler", (Handler,), {"script": script})
    family = {"address_family": socket.AF_INET6} if ":" in host else {}
    with type("_Server", (_QuietServer,), family)((host, 0), handler) as server:
        script.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield script
        finally:
            script.stopped.set()
            server.shutdown()
            thread.join()


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

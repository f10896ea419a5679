"""A server for the pages of local runs: for this machine alone, and with byte ranges, so that players can seek.

Runs may be private, and any page that is open in the browser can send requests to this machine. Therefore the socket is
bound to the loopback address; a request must name a loopback host, so that no foreign name can be pointed here (DNS
rebinding); and a request that another site caused is refused (`Sec-Fetch-Site`, https://www.w3.org/TR/fetch-metadata/),
as is its use of an answer (`Cross-Origin-Resource-Policy`,
https://fetch.spec.whatwg.org/#cross-origin-resource-policy-header).
"""

import re
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from rba_bench.errors import RbaError, UserError
from rba_bench.leaderboard.site.shell import POLICY

LOOPBACK = "127.0.0.1"
PORT = 8021
_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "flac": "audio/flac",
}
_SAFE_SITES = (None, "same-origin", "none")  # no such header: not a browser, or an old one
IDLE_S = 30.0  # a connection that says nothing is closed

FileSource = Callable[[str], bytes | None]


class SiteServer(ThreadingHTTPServer):
    """Serves files from memory.

    Args:
        source: Gives the content of a file by its address without the leading `/`, None where there is none.
        port: Port of the loopback address; 0 for any free one, None for `PORT` or, where that is taken, any free one.

    Raises:
        UserError: the port cannot be used.
    """

    daemon_threads = True
    request_queue_size = 128  # connections that wait; a page opens more than the five of the library

    def __init__(self, source: FileSource, port: int | None = None) -> None:
        self.source = source
        try:
            super().__init__((LOOPBACK, PORT if port is None else port), _Handler)
        except OSError as error:
            if port is not None:
                raise UserError(
                    f"port {port} cannot be used ({error.strerror}): choose another --port"
                ) from error
            super().__init__((LOOPBACK, 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away in the middle of an answer is no fault; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        """Address of the first page."""
        return f"http://{LOOPBACK}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: SiteServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "rba-bench", ""
    timeout = IDLE_S

    def do_GET(self) -> None:  # the name is the library's
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""

    def _answer(self, with_body: bool) -> None:
        if {"content-length", "transfer-encoding"} & {name.lower() for name in self.headers}:
            self.close_connection = True  # a body is not read, so it must not be taken for the next request
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            self._refuse(
                HTTPStatus.FORBIDDEN, f"open http://{LOOPBACK}:{self.server.server_port}/", with_body
            )
            return
        if self.headers.get("Sec-Fetch-Site") not in _SAFE_SITES and not self._is_link():
            self._refuse(HTTPStatus.FORBIDDEN, "only pages of this server may load its files", with_body)
            return
        try:
            address = unquote(urlsplit(self.path).path, errors="strict").removeprefix("/")
            content = self.server.source(address)
        except ValueError:
            content = None
        except RbaError as error:  # the runs were removed while they were shown
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error), with_body)
            return
        if content is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such file", with_body)
            return
        self._send(content, _TYPES.get(address.rpartition(".")[2], _TYPES["html"]), with_body)

    def _is_link(self) -> bool:
        """Whether somebody followed a link to a page here: that shows it, and tells the other site nothing."""
        return (self.headers.get("Sec-Fetch-Mode"), self.headers.get("Sec-Fetch-Dest")) == (
            "navigate",
            "document",
        )

    def _send(self, content: bytes, kind: str, with_body: bool) -> None:
        # Only GET has ranges, and a condition on an entity tag never holds, as there are none (RFC 9110, 13.1.5, 14.2).
        asked = self.headers.get("Range") if with_body and "If-Range" not in self.headers else None
        wanted = byte_range(asked, len(content))
        if wanted is None:
            self.send_response(HTTPStatus.OK)
        elif wanted:
            self.send_response(HTTPStatus.PARTIAL_CONTENT)
            self.send_header("Content-Range", f"bytes {wanted[0]}-{wanted[-1]}/{len(content)}")
            content = content[wanted.start : wanted.stop]
        else:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            content = b""
        self.send_header("Accept-Ranges", "bytes")
        self._end(content, kind, with_body)

    def _refuse(self, status: HTTPStatus, reason: str, with_body: bool) -> None:
        self.send_response(status)
        self._end(f"{reason}\n".encode(), "text/plain; charset=utf-8", with_body)

    def _end(self, body: bytes, kind: str, with_body: bool) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", f"{POLICY}; frame-ancestors 'none'")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def byte_range(header: str | None, size: int) -> range | None:
    """Positions that a `Range` header asks for (RFC 9110, section 14); an empty range where nothing is there.

    None, for the whole file, where it asks for no single range of bytes, as the standard allows.
    """
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    start, end = int(first), int(last) + 1 if last else size
    return range(start, min(end, size)) if start < end or start >= size else None

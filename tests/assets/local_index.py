"""A package index and a Hub on this machine, for the real pip and the real client of `huggingface_hub`.

Transfers can be cut off, ranges can be unknown, and a password can be asked for.
"""

import base64
import hashlib
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

COMMIT = "c" * 40
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


@dataclass
class LocalIndex:
    """What the server offers, how it misbehaves, and what it was asked.

    Attributes:
        url: Its address.
        wheels: Content by file name.
        hub: Content by `OWNER/NAME/FILE`.
        cut_after: Bytes after which a transfer of a wheel breaks off; None for never.
        pause_after: Bytes after which a transfer of a wheel sends nothing any more, until this is None.
        lengths: Whether it announces the length of a file.
        ranges: Whether it can send a part of a file.
        password: Of the user `ann`, "" if none is asked for. The index asks as well as the files.
        status: Answer to every request for a wheel, instead of the wheel.
        sent: Path, first byte and number of bytes of every transfer of a file.
    """

    url: str = ""
    wheels: dict[str, bytes] = field(default_factory=dict)
    hub: dict[str, bytes] = field(default_factory=dict)
    cut_after: int | None = None
    pause_after: int | None = None
    lengths: bool = True
    ranges: bool = True
    password: str = ""
    status: int = 200
    sent: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def simple(self) -> str:
        """The address that pip is given; with user and password where one is asked for."""
        user = f"ann:{self.password}@" if self.password else ""
        return self.url.replace("http://", f"http://{user}") + "/simple"

    def address(self, wheel: str) -> str:
        """Where a wheel lies."""
        return f"{self.url}/files/{wheel}"

    def page(self, project: str) -> bytes:
        """The page of a project, as in PEP 503, with hashes and metadata of PEP 658."""
        links = [
            f'<a href="{self.address(name)}#sha256={hashlib.sha256(data).hexdigest()}" '
            f'data-core-metadata="true">{name}</a>'
            for name, data in self.wheels.items()
            if name.startswith(project.replace("-", "_") + "-")
        ]
        return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()


def make_wheel(name: str, files: dict[str, bytes]) -> tuple[str, bytes]:
    """File name and content of version 1.0 of a package that imports as a failure."""
    module, stream = name.replace("-", "_"), BytesIO()
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{module}/__init__.py", "raise AssertionError('imported')\n")
        for path, data in files.items():
            archive.writestr(f"{module}/{path}", data)
        archive.writestr(f"{info}/METADATA", METADATA.format(name=name))
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"{module}-1.0-py3-none-any.whl", stream.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    index: LocalIndex

    def do_GET(self) -> None:
        index, path = self.index, self.path
        given = self.headers.get("Authorization", "")
        if index.password and given != "Basic " + base64.b64encode(f"ann:{index.password}".encode()).decode():
            self._send(401, b"", {"WWW-Authenticate": 'Basic realm="index"'})
        elif path.startswith("/simple/"):
            self._send(200, index.page(path.strip("/").split("/")[1]), {"Content-Type": "text/html"})
        elif path.startswith("/files/") and path.endswith(".metadata"):
            module = path.removeprefix("/files/").split("-")[0]
            self._send(200, METADATA.format(name=module.replace("_", "-")).encode(), {})
        elif path.startswith("/files/"):
            self._send_file(index.wheels[path.removeprefix("/files/")], index.status, {})
        elif place := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path.split("?")[0]):
            data = index.hub.get(f"{place[1]}/{place[3]}")
            if data is None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            self._send_file(data, 200, {"ETag": etag, "X-Repo-Commit": COMMIT})
        else:
            self._send(200 if path == "/" else 404, b"", {})

    do_HEAD = do_GET

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _send_file(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        """A file or the part of it that is asked for; perhaps less than was announced."""
        index, wanted = self.index, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and index.ranges else 0
        if status != 200:
            self._send(status, b"", {})
            return
        if wanted and index.ranges:
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        piece = data[start:]
        short = piece if index.cut_after is None else piece[: index.cut_after]
        self.send_response(206 if wanted and index.ranges else 200)
        length = {"Content-Length": str(len(piece))} if index.lengths else {"Connection": "close"}
        for key, value in {**length, **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            index.sent.append((self.path, start, len(short)))
            pause = len(short) if index.pause_after is None else index.pause_after
            self.wfile.write(short[:pause])
            while index.pause_after is not None:
                time.sleep(0.02)
            self.wfile.write(short[pause:])
            self.close_connection = len(short) < len(piece) or not index.lengths

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[LocalIndex]:
    """An index on this machine."""
    index = LocalIndex()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"index": index}))
    index.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def pip_settings(index: LocalIndex | None, find_links: Path | None = None) -> dict[str, str]:
    """Environment in which pip knows this index or folder and nothing else, and no proxy stands between."""
    source = {"PIP_INDEX_URL": index.simple} if index else {"PIP_NO_INDEX": "1"}
    return {
        **source,
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": str(find_links or ""),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }

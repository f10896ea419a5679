"""A small server with the part of the Hub's API that an upload needs, for the real client of `huggingface_hub`.

Paths and JSON are those that version 2.4 sends and reads (`hf_api.py`, `_commit_api.py`, `lfs.py`): who am I, create a
repository, its visibility, front matter, how to upload each file (small text in the commit, the rest by LFS), commit.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_secretsecretsecretsecretsecretsecre"
TEXT = (".json", ".md", ".jinja", ".txt")


@dataclass
class LocalHub:
    """What the server holds and was asked.

    Attributes:
        url: Its address.
        user: Whose token is accepted.
        repos: By kind and id: `private`, and `files` by name.
        blobs: Uploaded by LFS, by SHA-256.
        asked: Method and path of every request.
        refuse: Answer of requests whose path has a piece of text in it, by that text: status and message.
    """

    url: str = ""
    user: str = "ann"
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)

    def files(self, repo: str, kind: str = "model") -> dict[str, bytes]:
        """Content of a repository."""
        found: dict[str, bytes] = self.repos[f"{kind}s/{repo}"]["files"]
        return found

    def answer(self, method: str, path: str, body: bytes, headers: Any) -> tuple[int, Any]:
        """Status and JSON value for one request."""
        self.asked.append(f"{method} {path}")
        for piece, (status, message) in self.refuse.items():
            if piece in path:
                return status, {"error": message}
        if method == "PUT" and path.startswith("/upload/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/upload/")
            self.blobs[path.removeprefix("/upload/")] = body
            return 200, {}
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": self.user, "orgs": []}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, {
                "transfer": "basic",
                "objects": [self._lfs(one) for one in json.loads(body)["objects"]],
            }
        return self._repository(method, path.removeprefix("/api/"), body)

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        owner = wanted["organization"] or self.user
        if owner != self.user:
            return 403, {"error": f"You don't have the rights to create a {wanted['type']} under {owner}"}
        key = f"{wanted['type']}s/{owner}/{wanted['name']}"
        prefix = "" if wanted["type"] == "model" else f"{wanted['type']}s/"
        told = {"url": f"{self.url}/{prefix}{owner}/{wanted['name']}"}
        if key in self.repos:
            return 409, {"error": "You already created this repo", **told}
        self.repos[key] = {"private": wanted.get("visibility") == "private", "files": {}}
        return 200, told

    def _lfs(self, wanted: dict[str, Any]) -> dict[str, Any]:
        there = wanted["oid"] in self.blobs
        actions = {} if there else {"actions": {"upload": {"href": f"{self.url}/upload/{wanted['oid']}"}}}
        return {"oid": wanted["oid"], "size": wanted["size"], **actions}

    def _repository(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        key = "/".join(path.split("?")[0].split("/")[:3])
        if key not in self.repos:
            return 404, {"error": "Repository not found"}
        repo = self.repos[key]
        action = path.removeprefix(key).strip("/").split("/")[0]
        if method == "GET" and not action:
            name = key.split("/", 1)[1]
            return 200, {"id": name, "modelId": name, "private": repo["private"], "sha": "0" * 40, "tags": []}
        if action == "preupload":
            files = [self._mode(one["path"], repo["files"]) for one in json.loads(body)["files"]]
            return 200, {"files": files}
        if action == "commit":
            return self._commit(key, [json.loads(line) for line in body.splitlines()])
        return 404, {"error": f"no {path} here"}

    @staticmethod
    def _mode(path: str, files: dict[str, bytes]) -> dict[str, Any]:
        old = files.get(path)
        sha1 = None if old is None else hashlib.sha1(b"blob %d\0" % len(old) + old).hexdigest()
        return {
            "path": path, "shouldIgnore": False, "oid": sha1 if path.endswith(TEXT) else None,
            "uploadMode": "regular" if path.endswith(TEXT) else "lfs",
        }  # fmt: skip

    def _commit(self, key: str, lines: list[dict[str, Any]]) -> tuple[int, Any]:
        files = self.repos[key]["files"]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
        oid = hashlib.sha1(json.dumps(lines).encode()).hexdigest()
        return 200, {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{key}/commit/{oid}"}


@contextmanager
def serve() -> Iterator[LocalHub]:
    """A Hub on this machine."""
    hub = LocalHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self._body()
            status, value = hub.answer(self.command, self.path, body, self.headers)
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status >= 400:
                self.send_header("X-Error-Message", value["error"])
            self.end_headers()
            self.wfile.write(data)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""A small server with the part of the Hub's API that uploads and downloads need, for the real clients.

Paths and JSON are those that `huggingface_hub` 2.4 sends and reads (`hf_api.py`, `_commit_api.py`, `lfs.py`,
`hf_file_system.py`): who am I, create a repository, its visibility, front matter, how to upload each file (small text
in the commit, the rest by LFS), commit; what a repository holds, and its files.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

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
        spared: Requests that are still answered before `refuse` holds, by the same text.
        commits: Files by commit.
        refuse: Answer of requests whose path has a piece of text in it, by that text: status and message.
    """

    url: str = ""
    user: str = "ann"
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    spared: dict[str, int] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def files(self, repo: str, kind: str = "model") -> dict[str, bytes]:
        """Content of a repository."""
        found: dict[str, bytes] = self.repos[f"{kind}s/{repo}"]["files"]
        return found

    def refuse_after(self, piece: str, n: int, answer: tuple[int, str]) -> None:
        """Refuse requests whose path has `piece` in it, once `n` of them were answered."""
        self.refuse[piece], self.spared[piece] = answer, n

    def commit(self, key: str) -> str:
        """The newest commit of a repository: a hash of its content, which can be read again under it."""
        files = self.repos[key]["files"]
        content = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in files.items())
        sha = hashlib.sha1(repr(content).encode()).hexdigest()
        self.commits[sha] = dict(files)
        return sha

    def at(self, key: str, revision: str) -> tuple[str, dict[str, bytes]]:
        """Commit and files of a revision: those of a commit stay as they were."""
        sha = revision if revision in self.commits else self.commit(key)
        return sha, self.commits[sha]

    def answer(self, method: str, path: str, body: bytes, headers: Any) -> tuple[int, Any]:
        """Status and JSON value for one request."""
        self.asked.append(f"{method} {path}")
        for piece, (status, message) in self.refuse.items():
            if piece in path and self.spared.get(piece, 0) > 0:
                self.spared[piece] -= 1
            elif piece in path:
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
        action, *rest = path.split("?")[0].removeprefix(key).strip("/").split("/")
        if method == "GET" and action in ("", "revision"):
            name = key.split("/", 1)[1]
            facts = {"id": name, "modelId": name, "private": repo["private"], "tags": [], "downloads": 0}
            sha, files = self.at(key, rest[0] if rest else "main")
            return 200, {**facts, "sha": sha, "siblings": [{"rfilename": name} for name in files]}
        if action == "tree":
            return 200, self._tree(self.at(key, rest[0])[1], "/".join(rest[1:]))
        if action == "paths-info":
            asked = parse_qs(body.decode())["paths"]
            return 200, [self._entry(name, repo["files"][name]) for name in asked if name in repo["files"]]
        if action == "preupload":
            files = [self._mode(one["path"], repo["files"]) for one in json.loads(body)["files"]]
            return 200, {"files": files}
        if action == "commit":
            return self._commit(key, [json.loads(line) for line in body.splitlines()])
        return 404, {"error": f"no {path} here"}

    def _tree(self, files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
        """The files and folders in a folder of a repository."""
        inside = f"{folder}/" if folder else ""
        entries = [
            self._entry(n, d)
            for n, d in files.items()
            if n.startswith(inside) and "/" not in n[len(inside) :]
        ]
        below = {
            n[: n.index("/", len(inside))] for n in files if n.startswith(inside) and "/" in n[len(inside) :]
        }
        return [*entries, *({"type": "directory", "path": name, "oid": "0" * 40} for name in sorted(below))]

    @staticmethod
    def _entry(name: str, data: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if name.endswith(TEXT):
            return entry
        return {
            **entry,
            "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130},
        }

    def file(self, path: str) -> tuple[str, bytes] | None:
        """Commit and content of `/[datasets/]OWNER/NAME/resolve/COMMIT/FILE`; None for any other path."""
        match = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)", path.split("?")[0])
        key = f"{'datasets' if match[1] else 'models'}/{match[2]}" if match else ""
        if match is None or key not in self.repos:
            return None
        sha, files = self.at(key, match[3])
        name = unquote(match[4])
        return (sha, files[name]) if name in files else None

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
            found = hub.file(self.path) if self.command in ("GET", "HEAD") else None
            if found is not None:
                hub.asked.append(f"{self.command} {self.path}")
                self._send(
                    200,
                    found[1],
                    {"X-Repo-Commit": found[0], "ETag": f'"{hashlib.sha256(found[1]).hexdigest()}"'},
                )
                return
            status, value = hub.answer(self.command, self.path, body, self.headers)
            more = {"X-Error-Message": value["error"]} if status >= 400 else {}
            if status == 404:
                more["X-Error-Code"] = "EntryNotFound" if "/resolve/" in self.path else "RepoNotFound"
            self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **more})

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
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

        do_GET = do_HEAD = do_POST = do_PUT = _answer

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

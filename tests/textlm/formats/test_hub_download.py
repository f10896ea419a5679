"""Repositories of GGUF and faster-whisper on the Hub, fetched by its real client from a small server."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.textlm.weights import hub_commit, local_folder
from tests.textlm.formats.ctranslate2_files import tiny_whisper, variables_of, write_ctranslate2

COMMIT = "d" * 40


class Repositories(BaseHTTPRequestHandler):
    """The part of the Hub's API that downloads need: the list of files at a commit, and the files."""

    files: dict[str, dict[str, Path]]
    served: list[str]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/"):
            owner, name, kind = path.removeprefix("/api/models/").split("/")[:3]
            files = self.files[f"{owner}/{name}"]
            siblings = [{"rfilename": name} for name in files]
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": "0" * 40}
                for name, file in files.items()
            ]
            answer = (
                tree if kind == "tree" else {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings}
            )
            self._send(json.dumps(answer).encode())
            return
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        name = rest.partition("/")[2]
        if name not in self.files[repo]:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return
        if self.command == "GET":
            self.served.append(f"{repo}:{name}")
        self._send(self.files[repo][name].read_bytes())

    do_HEAD = do_GET

    def _send(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(files: dict[str, dict[str, Path]]) -> Iterator[tuple[str, list[str]]]:
    handler = type("Handler", (Repositories,), {"files": files, "served": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.served
    server.shutdown()
    server.server_close()


@pytest.fixture
def served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama_file: Path, own_cache: Path
) -> Iterator[list[str]]:
    """What was downloaded of a repository with one GGUF file, one with two, one of faster-whisper, one of neither."""
    whisper = write_ctranslate2(tmp_path / "ct2", variables_of(tiny_whisper()))
    card = tmp_path / "README.md"
    card.write_text("# A model\n")
    files = {
        "org/one": {"README.md": card, "big.gguf": llama_file},
        "org/two": {"README.md": card, "a.gguf": llama_file, "b.gguf": llama_file},
        "org/ct2": {name: whisper / name for name in ("config.json", "model.bin")},
        "org/none": {"README.md": card},
    }
    with serving(files) as (address, asked):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield asked


def test_the_only_file_is_fetched_once(served: list[str], llama_folder: Path) -> None:
    assert local_folder("org/one") == llama_folder and hub_commit(llama_folder) == COMMIT
    assert served.count("org/one:big.gguf") == 1
    assert local_folder("org/one") == local_folder("org/one:big.gguf") == llama_folder
    assert served.count("org/one:big.gguf") == 1


def test_of_several_files_the_named_one_alone_is_fetched(served: list[str], llama_folder: Path) -> None:
    with pytest.raises(
        UserError, match=r"org/two holds 2 GGUF files: name the judge .* such as org/two:a\.gguf"
    ):
        local_folder("org/two", "judge")
    assert local_folder(f"org/two@{COMMIT}:b.gguf") == llama_folder
    assert [name for name in served if name.endswith(".gguf")] == ["org/two:b.gguf"]


def test_a_repository_of_faster_whisper_is_fetched_with_its_binary(served: list[str], tmp_path: Path) -> None:
    assert local_folder("org/ct2", "encoder") == local_folder(tmp_path / "ct2")
    assert "org/ct2:model.bin" in served


@pytest.mark.parametrize("name", ["org/none", "org/one:other.gguf"])
def test_what_a_repository_does_not_have_is_said_in_one_line(served: list[str], name: str) -> None:
    with pytest.raises(MissingPrerequisite, match="text LLM") as caught:
        local_folder(name, "text LLM")
    assert "\n" not in str(caught.value)

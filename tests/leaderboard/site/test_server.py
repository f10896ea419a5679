"""The server of `rba-bench view`: byte ranges, and who is refused."""

import http.client
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from rba_bench.errors import RbaError, UserError
from rba_bench.leaderboard.site.server import SiteServer, byte_range

CLIP = bytes(range(256)) * 40
FILES = {"": b"<h1>first</h1>", "clips/a.flac": CLIP, "samples/x/summary.js": b"rbaSummary({});"}


@pytest.fixture
def server() -> Iterator[SiteServer]:
    def source(address: str) -> bytes | None:
        if address == "gone":
            raise RbaError("the runs are gone")
        return FILES.get(address)

    with SiteServer(source, 0) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: SiteServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-", 0, len(CLIP)),
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=10000-99999999", 10_000, len(CLIP)),
        ("bytes=-5", len(CLIP) - 5, len(CLIP)),
        ("bytes=-999999", 0, len(CLIP)),
        ("bytes=0-1", 0, 2),  # how Safari asks whether there are ranges
        ("Bytes=3-3", 3, 4),
    ],
)
def test_a_part_of_a_clip_is_sent(server: SiteServer, header: str, start: int, end: int) -> None:
    status, headers, body = ask(server, "/clips/a.flac", Range=header)
    assert status == 206 and body == CLIP[start:end]
    assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(CLIP)}"
    assert headers["Content-Type"] == "audio/flac" and headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    "header",
    ["bytes=5-2", "bytes=-", "bytes=0-1,3-4", "items=0-1", "bytes=\xb2-\xb3", "bytes=" + "9" * 5000 + "-"],
)
def test_what_is_no_single_range_gives_the_whole_file(server: SiteServer, header: str) -> None:
    status, _, body = ask(server, "/clips/a.flac", Range=header)
    assert status == 200 and body == CLIP


@pytest.mark.parametrize("header", [f"bytes={len(CLIP)}-", "bytes=-0", "bytes=99999999-"])
def test_a_range_behind_the_end_is_told_the_size(server: SiteServer, header: str) -> None:
    status, headers, body = ask(server, "/clips/a.flac", Range=header)
    assert status == 416 and headers["Content-Range"] == f"bytes */{len(CLIP)}" and not body


def test_ranges_are_for_get_and_a_condition_on_an_entity_tag_does_not_hold(server: SiteServer) -> None:
    status, headers, body = ask(server, "/clips/a.flac", "HEAD", Range="bytes=0-9")
    assert status == 200 and headers["Content-Length"] == str(len(CLIP)) and not body
    assert ask(server, "/clips/a.flac", Range="bytes=0-9", If_Range='"tag"')[::2] == (200, CLIP)


def test_ranges_of_nothing() -> None:
    assert byte_range("bytes=0-", 0) == range(0) and byte_range(None, 5) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1234", "LOCALHOST", "[::1]:80"])
def test_a_loopback_name_is_answered(server: SiteServer, host: str) -> None:
    assert ask(server, "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "192.168.0.2:8021", "", "127.0.0.1:8021:1"],
)
def test_a_foreign_name_that_points_here_is_refused(server: SiteServer, host: str) -> None:
    status, _, body = ask(server, "/samples/x/summary.js", Host=host)
    assert status == 403 and b"rbaSummary" not in body


def test_a_request_that_another_site_caused_is_refused_and_a_link_is_not(server: SiteServer) -> None:
    for site in ("cross-site", "same-site", "anything"):
        status, _, body = ask(server, "/samples/x/summary.js", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")
        assert status == 403 and b"rbaSummary" not in body
    assert ask(server, "/samples/x/summary.js", Sec_Fetch_Site="same-origin")[0] == 200
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert ask(server, "/", **link, Sec_Fetch_Dest="document")[0] == 200
    assert ask(server, "/", **link, Sec_Fetch_Dest="iframe")[0] == 403


def test_answers_say_what_may_be_done_with_them(server: SiteServer) -> None:
    _, headers, _ = ask(server, "/")
    assert (
        headers["Cross-Origin-Resource-Policy"] == "same-origin"
        and headers["X-Content-Type-Options"] == "nosniff"
    )
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"] and headers["Cache-Control"] == "no-store"


def test_only_files_of_the_site_are_read(server: SiteServer) -> None:
    for path in (
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/%ff",
        "/%00",
        "/samples/x/summary.js%00",
        "/samples/x/..%5c..%5cindex.html",
        "/samples\\x\\summary.js",
        "/samples/x/%2e%2e/x/summary.js",
        "/samples/x/",
        "/nothing",
    ):
        assert ask(server, path)[0] == 404
    assert ask(server, "/", "POST")[0] == 501 and ask(server, "/", "DELETE")[0] == 501
    status, headers, body = ask(server, "/clips/a.flac", "HEAD")
    assert status == 200 and headers["Content-Length"] == str(len(CLIP)) and not body
    status, _, body = ask(server, "/gone")
    assert status == 500 and body == b"the runs are gone\n"


def test_only_this_machine_can_connect_and_a_port_is_used_once(server: SiteServer) -> None:
    assert server.server_address[0] == "127.0.0.1" and server.url == f"http://127.0.0.1:{server.server_port}/"
    with pytest.raises(UserError, match=f"port {server.server_port} cannot be used.*--port"):
        SiteServer(FILES.get, server.server_port)


def connect(server: SiteServer, request: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=20)
    connection.sendall(request)
    return connection


def test_what_follows_a_request_as_its_body_is_no_request(server: SiteServer) -> None:
    second = b"GET /clips/a.flac HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = f"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(second)}\r\n\r\n".encode()
    with connect(server, head + second) as connection:
        answers = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 ") == 1 and answers.endswith(b"<h1>first</h1>")


def test_a_browser_that_goes_away_is_no_fault(
    server: SiteServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reset = struct.pack("ii", 1, 0)  # close with a reset
    asked = threading.Event()

    def slowly(address: str) -> bytes:
        asked.wait(20)
        return CLIP * 1000

    monkeypatch.setattr(server, "source", slowly)
    for _ in range(3):
        connection = connect(server, b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        connection.close()
    asked.set()
    assert ask(server, "/x")[0] == 200
    ended = [thread for thread in threading.enumerate() if "process_request" in thread.name]
    for thread in ended:
        thread.join(20)
    assert capsys.readouterr().err == ""


def test_a_fault_of_the_server_is_shown(server: SiteServer, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(address: str) -> bytes:
        raise RuntimeError("a fault")

    server.source = broken
    with pytest.raises(http.client.HTTPException):
        ask(server, "/")
    assert "RuntimeError: a fault" in capsys.readouterr().err


def test_many_requests_at_once_are_all_answered(server: SiteServer) -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(ask(server, "/clips/a.flac")[0])) for _ in range(200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [200] * 200

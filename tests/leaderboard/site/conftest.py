"""A browser for the pages, and what every page must keep: nothing leaves it, and the console stays empty."""

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Watched
from tests.browser import chromium as chromium


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens tabs; at the end, each asked only its own place for files, and its console is empty."""
    tabs: list[tuple[str, Watched]] = []

    def open_tab(address: str, **options: Any) -> Any:
        page = chromium.new_page(**{"viewport": {"width": 1400, "height": 900}, **options})
        tabs.append((address, Watched(page)))
        page.goto(address)
        return page

    yield open_tab
    for address, tab in tabs:
        home = address.partition("#")[0].rpartition("/")[0]
        scheme = home.partition("//")[0] + "//" + home.partition("//")[2].partition("/")[0]
        assert tab.keeps_to(scheme, "data:"), (tab.asked, tab.told)
        tab.page.close()


@pytest.fixture
def served() -> Iterator[Callable[[Path], str]]:
    """Serves a folder on the loopback interface, as any static host does."""
    servers = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    def serve(folder: Path) -> str:
        handler = functools.partial(Handler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()

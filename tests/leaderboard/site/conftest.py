"""A browser for the pages, and what every page must keep: nothing leaves it, and the console stays empty."""

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The installed Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


class Watched:
    """A tab with what it asked for and what its console said."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.told: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.told.append(message.text))
        page.on("pageerror", lambda error: self.told.append(str(error)))
        page.on("dialog", lambda dialog: self.told.append("a dialog"))


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
        assert tab.asked and all(url.startswith((scheme, "data:")) for url in tab.asked), tab.asked
        assert tab.told == []
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

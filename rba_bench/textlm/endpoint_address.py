"""Where a server is and what opens it: `openai:<base_url>#<model>`, and a key that is never shown.

The key comes from the environment, so that it stands in no command line: `RBA_API_KEY`, else `OPENAI_API_KEY`, else
none (local servers want none). It leaves this process in the header of a request and nowhere else: what servers
say and what the HTTP libraries log is washed of it.
"""

import logging
import os
import re
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

from rba_bench.errors import MissingPrerequisite, UserError

SCHEME = "openai:"
KEY_VARIABLES = ("RBA_API_KEY", "OPENAI_API_KEY")
NO_KEY = "none"  # servers without keys take any; the client library insists on one
EXAMPLE = "openai:http://localhost:8000/v1#Qwen/Qwen2.5-7B-Instruct"
HIDDEN = "***"
_TELLING = 8  # characters of a key that are a secret by themselves
_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:Bearer\s+|sk-|api[-_]?key=)[^\s\"',}]+", re.IGNORECASE)
_ROUTES = re.compile(r"/(?:chat/)?completions$|/models$|/responses$")
_LOGGERS = (
    "openai", "openai._base_client", "openai._response", "openai._legacy_response", "asyncio",
    *(f"{library}{version}{part}" for version in ("", "2") for library, part in (
        ("httpx", ""), ("httpcore", ".connection"), ("httpcore", ".http11"), ("httpcore", ".http2"),
        ("httpcore", ".proxy"), ("httpcore", ".socks"),
    )),
)  # fmt: skip


def parse_endpoint(spec: str) -> tuple[str, str] | None:
    """Base URL and model of `openai:<base_url>#<model>`; None where the spec names no server.

    Raises:
        UserError: it names a server, but not so that it can be reached. The message shows no credentials.
    """
    if not spec.startswith(SCHEME):
        if re.match(r"https?://", spec):
            raise UserError(f"a server is written openai:<base_url>#<model>, such as {EXAMPLE}")
        return None
    url, mark, model = (part.strip() for part in spec.removeprefix(SCHEME).partition("#"))
    if not mark or not model or not url:
        lacks = "base URL" if not url else "model"
        raise UserError(
            f"an openai: spec without a {lacks}: write openai:<base_url>#<model>, such as {EXAMPLE}"
        )
    return _checked(url), model


def _checked(url: str) -> str:
    """The base URL without the slash at its end. Raises UserError; a URL that may hold a secret is not repeated."""
    if "@" in url:
        raise UserError("credentials in the URL of an openai: spec: take them out and set RBA_API_KEY")
    if "?" in url:
        raise UserError(
            "a query string in the URL of an openai: spec: take it out; a key goes into RBA_API_KEY"
        )
    host = _host(url)
    if not host:
        raise UserError(f"the URL of the openai: spec is no http(s) address; write it as in {EXAMPLE}")
    bare = url.rstrip("/")
    if route := _ROUTES.search(bare):
        raise UserError(f"give the base URL {bare.removesuffix(route[0])!r}, without {route[0]!r}")
    return bare


def _host(url: str) -> str:
    """The host of an http(s) URL, "" if it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port  # reading it checks it
    except ValueError:
        return ""
    return parts.hostname or "" if parts.scheme in ("http", "https") and port != 0 else ""


class ApiKey:
    """A key that no message, log or `repr` shows.

    Args:
        value: the key; None = none.

    Raises:
        MissingPrerequisite: it holds characters that no header can carry.
    """

    def __init__(self, value: str | None) -> None:
        self._value = (value or "").strip() or NO_KEY
        if not all("!" <= character <= "~" for character in self._value):
            raise MissingPrerequisite(
                f"the API key holds spaces, line breaks or special letters: set {' or '.join(KEY_VARIABLES)} again"
            )
        if self.known:
            _WASHER.watch(self)

    @classmethod
    def from_environment(cls) -> "ApiKey":
        """The key of `RBA_API_KEY`, else of `OPENAI_API_KEY`, else none."""
        found = (os.environ.get(name, "").strip() for name in KEY_VARIABLES)
        return cls(next((value for value in found if value), None))

    @property
    def known(self) -> bool:
        """Whether the user has set one."""
        return self._value != NO_KEY

    def reveal(self) -> str:
        """The key, for the header of a request."""
        return self._value

    def wash(self, text: str) -> str:
        """`text` without the key, or most of it, and without anything else that looks like one."""
        return _LOOKS_LIKE_A_KEY.sub(HIDDEN, self.remove(text))

    def remove(self, text: str) -> str:
        """`text` without the key; otherwise untouched."""
        if not self.known:
            return text
        for form in {self._value, quote(self._value, safe="")}:
            text = text.replace(form, HIDDEN)
        if len(self._value) >= 2 * _TELLING:
            text = re.sub(re.escape(self._value[:_TELLING]) + r"\S*", HIDDEN, text)
        return text

    def __repr__(self) -> str:
        return f"ApiKey({HIDDEN if self.known else NO_KEY})"


class _Washer(logging.Filter):
    """Takes keys out of what the HTTP libraries log: at DEBUG they print the headers that a server sent."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[str, ApiKey] = {}

    def watch(self, key: ApiKey) -> None:
        """From now on, hide this key."""
        self._keys[key.reveal()] = key
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self)  # a second time changes nothing

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, washed."""
        said = record.getMessage()
        for key in self._keys.values():
            said = key.wash(said) if key.reveal() in said else key.remove(said)
        if said != record.getMessage():
            record.msg, record.args = said, ()
        return True


_WASHER = _Washer()


def one_line(text: str, longest: int = 200) -> str:
    """`text` on one line of bounded length."""
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else f"{flat[: longest - 3]}..."


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what brought it about, outermost first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__

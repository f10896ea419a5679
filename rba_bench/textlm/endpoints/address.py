"""Servers: their address `openai:<base_url>#<model>`, and the options of requests, some of them from the environment.

The base URL may end in `?api-version=...`, as Azure's do; it is then sent with every request.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from rba_bench.errors import UserError

SCHEME = "openai:"
EXAMPLE = "openai:http://localhost:8000/v1#Qwen/Qwen2.5-7B-Instruct"
VERSION = "api-version"  # the only thing that may stand behind a "?": anything else could be a secret
_VERSION = re.compile(rf"{VERSION}=[A-Za-z0-9.-]{{1,32}}")
_ROUTES = re.compile(r"/(?:chat/)?completions$|/models$|/responses$|/audio/speech$")


def parse_endpoint(spec: str, scheme: str = SCHEME) -> tuple[str, str] | None:
    """Base URL and model of `openai:<base_url>#<model>`; None where the spec names no server.

    Args:
        spec: What the user wrote.
        scheme: Another word that stands before the URL, such as `server:`.

    Raises:
        UserError: it names a server, but not so that it can be reached. The message shows no credentials.
    """
    if not spec.startswith(scheme):
        if re.match(r"https?://", spec):
            raise UserError(f"a server is written openai:<base_url>#<model>, such as {EXAMPLE}")
        return None
    url, mark, model = (part.strip() for part in spec.removeprefix(scheme).partition("#"))
    if not mark or not model or not url:
        lacks = "base URL" if not url else "model"
        raise UserError(
            f"a spec of {scheme} without a {lacks}: write {scheme}<base_url>#<model>, such as {_example(scheme)}"
        )
    return _check_url(url, scheme), model


def _example(scheme: str) -> str:
    return scheme + EXAMPLE.removeprefix(SCHEME)


def _check_url(url: str, scheme: str) -> str:
    """The base URL without the slash at its end. Raises UserError; a URL that may hold a secret is not repeated."""
    address, mark, query = url.partition("?")
    if "@" in url:
        raise UserError(
            f"credentials in the URL of a spec of {scheme} take them out and set the host's key (see doctor)"
        )
    if mark and not _VERSION.fullmatch(query):
        raise UserError(
            f"a query string in the URL of a spec of {scheme} only ?{VERSION}=... may stand there; a key belongs into "
            "the environment (see `rba-bench doctor`)"
        )
    try:
        parts = urlsplit(address)
        reachable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        reachable = False
    if not reachable or " " in url or not url.isprintable():
        raise UserError(f"the URL behind {scheme} is no http(s) address; write it as in {_example(scheme)}")
    bare = address.rstrip("/")
    if route := _ROUTES.search(bare):
        raise UserError(f"give the base URL {bare.removesuffix(route[0])!r}, without {route[0]!r}")
    return f"{bare}?{query}" if mark else bare


def route_url(base_url: str, route: str) -> str:
    """The address of a route: `/chat/completions` behind the path, before the query."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + route))


def one_line(text: str, longest: int = 200) -> str:
    """`text` on one line of bounded length."""
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else f"{flat[: longest - 3]}..."


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what brought it about, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


_VARIABLES = {
    "timeout_s": "RBA_ENDPOINT_TIMEOUT",
    "retries": "RBA_ENDPOINT_RETRIES",
    "max_concurrency": "RBA_ENDPOINT_CONCURRENCY",
    "least_tokens": "RBA_ENDPOINT_LEAST_TOKENS",
}
WITHOUT = "RBA_ENDPOINT_WITHOUT"
STREAM = "RBA_ENDPOINT_STREAM"
OPTIONAL = ("temperature", "top_p", "seed")  # what decides how an answer is drawn
_LEAST = {
    "timeout_s": 0.01, "retries": 0, "max_concurrency": 1, "start_concurrency": 1, "backoff_s": 0.0,
    "max_backoff_s": 0.0, "max_retry_after_s": 0.0, "patience": 1, "least_tokens": 1,
}  # fmt: skip


@dataclass(frozen=True)
class EndpointOptions:
    """Timeouts, retries and concurrency of requests. Some have an environment variable, named here.

    Attributes:
        timeout_s: Seconds for one whole answer (`RBA_ENDPOINT_TIMEOUT`).
        retries: Times a failed request is sent again (`RBA_ENDPOINT_RETRIES`).
        max_concurrency: Most requests at once (`RBA_ENDPOINT_CONCURRENCY`).
        start_concurrency: Requests at once in the beginning.
        backoff_s: Pause before the first retry; it doubles each time, with jitter.
        max_backoff_s: Longest pause, unless the server asks for more.
        max_retry_after_s: Longest pause that a server can ask for.
        patience: Items lost in a row, with no answer in between, that end the run.
        least_tokens: The length limit is raised to so many tokens where it is lower (`RBA_ENDPOINT_LEAST_TOKENS`):
            models that think need room to.
        without: What may be left out of a request if the server refuses it, though it decides how answers are drawn:
            `temperature` (1 is sent, or nothing), `seed`, `top_p` (`RBA_ENDPOINT_WITHOUT`, by commas).
        stream: Ask for answers in pieces from the beginning (`RBA_ENDPOINT_STREAM=1`); servers that only stream and
            say so are found out without it.

    Raises:
        UserError: a value out of range.
    """

    timeout_s: float = 180.0
    retries: int = 6
    max_concurrency: int = 64
    start_concurrency: int = 4
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    max_retry_after_s: float = 120.0
    patience: int = 8
    least_tokens: int = 1
    without: frozenset[str] = frozenset()
    stream: bool = False

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not least <= value < float("inf"):
                raise UserError(f"{name} of the endpoint is {value}: use {least} or more")
        if unknown := sorted(self.without - set(OPTIONAL)):
            raise UserError(f"{WITHOUT} names {', '.join(unknown)}: it may name {', '.join(OPTIONAL)}")

    @classmethod
    def from_environment(cls) -> "EndpointOptions":
        """The defaults, but for what the environment says. Raises UserError for what is no number."""
        values: dict[str, Any] = {}
        for name, variable in _VARIABLES.items():
            text = os.environ.get(variable, "").strip()
            try:
                values |= {name: (float if name == "timeout_s" else int)(text)} if text else {}
            except ValueError as error:
                raise UserError(f"{variable} is {text!r}: give a number") from error
        without = frozenset(filter(None, re.split(r"[\s,]+", os.environ.get(WITHOUT, ""))))
        return cls(**values, without=without, stream=os.environ.get(STREAM, "").strip() not in ("", "0"))

    def facts(self) -> dict[str, Any]:
        """What of this changes the answers, for the model's identity; {} by default."""
        facts = {"least_tokens": self.least_tokens, "may_omit": sorted(self.without)}
        return {name: value for name, value in facts.items() if value not in (1, [])}

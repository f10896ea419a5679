"""Where a server is: `openai:<base_url>#<model>`.

The base URL may end in `?api-version=...`, as Azure's do; it is then sent with every request.
"""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

from rba_bench.errors import UserError

SCHEME = "openai:"
EXAMPLE = "openai:http://localhost:8000/v1#Qwen/Qwen2.5-7B-Instruct"
VERSION = "api-version"  # the only thing that may stand behind a "?": anything else could be a secret
_VERSION = re.compile(rf"{VERSION}=[A-Za-z0-9.-]{{1,32}}")
_ROUTES = re.compile(r"/(?:chat/)?completions$|/models$|/responses$")


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
    address, mark, query = url.partition("?")
    if "@" in url:
        raise UserError(
            "credentials in the URL of an openai: spec: take them out and set the host's key (see doctor)"
        )
    if mark and not _VERSION.fullmatch(query):
        raise UserError(
            f"a query string in the URL of an openai: spec: only ?{VERSION}=... may stand there; a key belongs into "
            "the environment (see `rba-bench doctor`)"
        )
    if not _host(address) or " " in url or not url.isprintable():
        raise UserError(f"the URL of the openai: spec is no http(s) address; write it as in {EXAMPLE}")
    bare = address.rstrip("/")
    if route := _ROUTES.search(bare):
        raise UserError(f"give the base URL {bare.removesuffix(route[0])!r}, without {route[0]!r}")
    return f"{bare}?{query}" if mark else bare


def route_url(base_url: str, route: str) -> str:
    """The address of a route: `/chat/completions` behind the path, before the query."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + route))


def _host(url: str) -> str:
    """The host of an http(s) URL, "" if it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port  # reading it checks it
    except ValueError:
        return ""
    return parts.hostname or "" if parts.scheme in ("http", "https") and port != 0 else ""


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

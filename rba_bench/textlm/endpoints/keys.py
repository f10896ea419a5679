"""API keys: which one belongs to which host, and how none is ever shown.

A key comes from the environment or from a file, so that it stands in no command line, and goes to its own host alone:

    RBA_API_KEY_API_EXAMPLE_ORG   to api.example.org: capitals, `_` for a dot, `__` for a hyphen
    RBA_API_KEYS                  a file with lines `api.example.org = KEY`
    OPENAI_API_KEY                to api.openai.com and its regions (eu.api.openai.com)
    AZURE_OPENAI_API_KEY          to *.openai.azure.com
    RBA_API_KEY                   to servers on this machine (so does RBA_API_KEY_LOCALHOST)

The first that is set counts. Over plain http a key travels to this machine alone, unless `RBA_ALLOW_PLAIN_HTTP` names
the host. It leaves this process in the header of a request and nowhere else: what servers say and what the HTTP
library logs is washed of it.
"""

import ipaddress
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from rba_bench.errors import MissingPrerequisite, UserError

LOCAL_VARIABLE = "RBA_API_KEY"
FILE_VARIABLE = "RBA_API_KEYS"
PLAIN_VARIABLE = "RBA_ALLOW_PLAIN_HTTP"
VENDORS = {
    "OPENAI_API_KEY": re.compile(r"(?:[a-z0-9-]+\.)?api\.openai\.com"),
    "AZURE_OPENAI_API_KEY": re.compile(r"[a-z0-9-]+\.openai\.azure\.com"),
}
KEY_VARIABLES = (*VENDORS, LOCAL_VARIABLE, FILE_VARIABLE)
NO_KEY = "none"
HIDDEN = "***"
_TELLING = 8  # characters of a key that are a secret by themselves
_LOOKS_LIKE_A_KEY = re.compile(r"\b(?:Bearer\s+|sk-|api[-_]?key=)[^\s\"',}]+", re.IGNORECASE)
# A name, or an IPv6 address; no scheme, no port
_OWNER = re.compile(r"[\w.-]+|\[?[0-9a-fA-F.]*:[0-9a-fA-F.]*:[0-9a-fA-F.:]*\]?")
_LONGEST_FILE = 2**20  # bytes
_LOGGERS = (
    "asyncio",
    *(f"{library}{version}{part}" for version in ("", "2") for library, part in (
        ("httpx", ""), ("httpcore", ".connection"), ("httpcore", ".http11"), ("httpcore", ".http2"),
        ("httpcore", ".proxy"), ("httpcore", ".socks"),
    )),
)  # fmt: skip


class ApiKey:
    """A key that no message, log or `repr` shows.

    Args:
        value: The key; None = none.
        source: Where it came from, for messages: a variable or a file.

    Raises:
        MissingPrerequisite: It holds characters that no header can carry.
    """

    def __init__(self, value: str | None, source: str = "") -> None:
        self._value = (value or "").strip() or NO_KEY
        self.source = source
        if not all("!" <= character <= "~" for character in self._value):
            raise MissingPrerequisite(
                f"the API key holds spaces, line breaks or special letters: set {source or LOCAL_VARIABLE} again"
            )
        if self.known:
            _WASHER.watch(self)

    @classmethod
    def of(cls, url: str) -> "ApiKey":
        """The key of the host of an address, or none.

        Raises:
            MissingPrerequisite: It is unusable, or its file cannot be read.
            UserError: It would travel over plain http to another machine.
        """
        host = host_of(url)
        source, value = next(_candidates(host), ("", None))
        key = cls(value, source)
        plain = {name.strip().lower().strip("[]") for name in os.environ.get(PLAIN_VARIABLE, "").split(",")}
        if key.known and urlsplit(url).scheme == "http" and not is_local(host) and host not in plain:
            raise UserError(
                f"the key of {host} would travel unencrypted over plain http: write https, or set "
                f"{PLAIN_VARIABLE}={host} if that is meant"
            )
        return key

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


def host_of(url: str) -> str:
    """The host of an address as DNS knows it: small letters, international names in ASCII, no dot at the end."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def is_local(host: str) -> bool:
    """Whether a host is this machine: `localhost`, 127.0.0.0/8, `::1`, and "every address" (0.0.0.0, `::`)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def variable_of(host: str) -> str:
    """The variable that holds the key of a host; no two hosts share one."""
    name = host.replace("_", "___").replace("-", "__").replace(".", "_").replace(":", "_")
    return f"{LOCAL_VARIABLE}_{name.upper()}"


def where_to_set(host: str) -> str:
    """Where the key of a host is to be put, for messages."""
    vendor = next((name for name, hosts in VENDORS.items() if hosts.fullmatch(host)), None)
    own = f"{variable_of(host)} (or a line `{host} = KEY` in the file that {FILE_VARIABLE} names)"
    if vendor:
        return f"{vendor} or {variable_of(host)}"
    if is_local(host):
        return f"{LOCAL_VARIABLE} or {variable_of(host)}"
    misplaced = os.environ.get(LOCAL_VARIABLE, "").strip()
    return own + (f"; {LOCAL_VARIABLE} goes to servers on this machine alone" if misplaced else "")


def _candidates(host: str) -> Iterator[tuple[str, str]]:
    """Where there is a key for the host, and the key; the first one counts."""
    if value := os.environ.get(variable_of(host), "").strip():
        yield variable_of(host), value
    yield from ((f"the line of {host} in {name}", value) for name, value in _file_keys(host))
    names = [name for name, hosts in VENDORS.items() if hosts.fullmatch(host)]
    names += [variable_of("localhost"), LOCAL_VARIABLE] if is_local(host) else []  # under whatever name
    yield from ((name, value) for name in names if (value := os.environ.get(name, "").strip()))


def _file_keys(host: str) -> Iterator[tuple[str, str]]:
    """File and key of each line for the host."""
    name = os.environ.get(FILE_VARIABLE, "").strip()
    if not name:
        return
    path = Path(name).expanduser()
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:  # Windows has other rights than these bits
            raise MissingPrerequisite(f"{path} holds keys and others may read it: chmod 600 {path}")
        with open(path, "rb") as handle:
            text = handle.read(_LONGEST_FILE).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise MissingPrerequisite(f"cannot read the keys in {path} ({FILE_VARIABLE}): {reason}") from None
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        owner, mark, key = (part.strip() for part in bare.partition("="))
        if not mark or not key or not _OWNER.fullmatch(owner):
            raise MissingPrerequisite(
                f"line {number} of {path}: write `host = KEY`, the host without scheme, port and path"
            )
        if owner.lower().strip("[]") == host:
            yield str(path), key


class _Washer(logging.Filter):
    """Takes keys out of what the HTTP library logs: at DEBUG it prints the headers that a server sent."""

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
        message = record.getMessage()
        for key in self._keys.values():
            message = key.wash(message) if key.reveal() in message else key.remove(message)
        if message != record.getMessage():
            record.msg, record.args = message, ()
        return True


_WASHER = _Washer()

"""Failures of requests to a server, when a run stops, and the probe that tells a dead server from items it cannot take.

One item that fails is that item's status; a server of which nothing works ends the run with one line. The probe is a
harmless request: the one that was answered last, with another seed, so that no cache answers for a server that is down;
before any answer a greeting in the form of the request that failed: the same parameters, another content.
"""

import asyncio
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.files import sha256_json
from rba_bench.textlm.endpoints.address import causes, one_line
from rba_bench.textlm.endpoints.keys import ApiKey, host_of, where_to_set
from rba_bench.textlm.endpoints.replies import Route, error_message

FailureKind = Literal[
    "connect",  # nobody there
    "timeout",  # no whole answer in time
    "limit",  # 429
    "server",  # 5xx, connection broken off
    "garbage",  # an answer that is none
    "large",  # more of an answer than is read
    "key",  # 401
    "forbidden",  # 403
    "missing",  # 404
    "quota",  # 429 that no waiting cures
    "filtered",  # refused for its content
    "request",  # other 4xx: this request will never do
    "decoding",  # the server cannot draw answers in the way that the protocol asks for
    "unheard",  # the item itself is unusable: nothing was sent
]
RETRIED: frozenset[FailureKind] = frozenset({"connect", "timeout", "limit", "server", "garbage"})
OVERLOAD: frozenset[FailureKind] = frozenset({"timeout", "limit", "server"})
CONNECT_TRIES = 3  # connections refused before it is said that no server is there
REFUSED_ITEMS = 50  # items that fail, or that the server finds wrong, before it ever answered one
FORBIDDEN_ITEMS = 3  # the same for 403
STALLED_S = 60.0  # and two timeouts: no answer for so long, while requests fail, is the end
PROBES = 3  # times a harmless request is tried
GREETING = "Hello"
_FIELDS: dict[Route, str] = {"chat": "messages", "completion": "prompt", "speech": "input"}
_CONTENT = tuple(_FIELDS.values())  # the rest of a payload says how to answer
_LONGEST_DETAIL = 4000  # characters
PARAMETER = "\nparameter: "  # stands before the one that an error is about
# A status 500 that no repetition cures: llama.cpp, of a model that takes text alone
_UNABLE = re.compile(
    r"\b(?:audio|image|multimodal)\b.{0,40}\bnot\s(?:be\s)?supported|not support (?:audio|image)", re.I
)
_CONTENT_CODES = ("content_filter", "content_policy_violation")


@dataclass(frozen=True)
class RequestFailure:
    """Why there is no answer.

    Attributes:
        kind: What to do about it hangs on this.
        reason: One line without secrets.
        retry_after: Seconds to wait, if the server said so.
        detail: All that the server said, for whoever looks for words in it; not washed, never shown.
    """

    kind: FailureKind
    reason: str
    retry_after: float | None = None
    detail: str = field(default="", repr=False, compare=False)


class Health:
    """Whether a server works at all: watches every request, and raises when there is no use in going on.

    Items that fail one after another say little: they may be the ones that this server cannot take (too long, a crash
    of its own), and stand together because they were tried again or lie side by side. So a server that has failed for
    a while is `in doubt`, and only one that then leaves a harmless request unanswered too is given up.

    Args:
        url: For messages.
        model: For messages.
        key: For messages, not shown.
        patience: Different items lost one after another, with no answer in between, after which it is doubted.
        stalled_s: Seconds without any answer, while at least `patience` requests failed, after which it is doubted.

    Attributes:
        answers: How many came so far.
        suspects: Whether items fail one after another though the server works: their failures are their own.
        proofs: How often the server was seen to work: answers, and harmless requests that were answered.
    """

    def __init__(self, url: str, model: str, key: ApiKey, patience: int, stalled_s: float) -> None:
        self.url = url
        self.model = model
        self.answers = 0
        self.suspects = False
        self.proofs = 0
        self._key = key
        self._patience = patience
        self._stalled_s = stalled_s
        self._responded = False
        self._unconnected = 0
        self._failures = 0  # requests since the last answer
        self._lost: set[str] = set()  # different items since an answer, or since the server was seen to work
        self._lost_first: set[str] = set()  # the same before any answer at all
        self._refused = 0  # items refused before any answer
        self._last_answer = time.monotonic()

    def begin(self) -> None:
        """A run starts: what lay idle before it was no stall."""
        self._last_answer = time.monotonic()

    def answered(self) -> None:
        """A usable answer came."""
        self.answers += 1
        self._responded = True
        self.works()
        self.suspects = False

    def works(self) -> None:
        """The server was in doubt and answered a harmless request: what fails are the items."""
        self.suspects = True
        self.proofs += 1
        self._unconnected = self._failures = 0
        self._lost = set()
        self._last_answer = time.monotonic()

    def failed(self, failure: RequestFailure) -> RbaError | None:
        """A request failed; it may be tried again.

        Returns:
            With what to end the run if a harmless request fails too; None where there is no doubt.

        Raises:
            RbaError: nothing works, in one line; by kind also UserError or MissingPrerequisite.
        """
        if failure.kind == "connect" and not self._responded:
            self._unconnected += 1
            if self._unconnected >= CONNECT_TRIES:
                raise RbaError(
                    f"no server answers at {self.url} ({failure.reason}): start it (such as `vllm serve {self.model}`) "
                    "or check the address"
                )
        elif failure.kind not in ("connect", "timeout"):
            self._responded = True
        if failure.kind == "quota" or (failure.kind in ("key", "missing", "decoding") and not self.answers):
            raise self._end(failure)
        if failure.kind not in RETRIED:
            return None
        self._failures += 1
        waited = time.monotonic() - self._last_answer
        if self._failures >= self._patience and waited >= self._stalled_s:
            return self._end(failure, f"no answer for {waited:.0f} s")
        return None

    def lost(self, failure: RequestFailure, item: str) -> RbaError | None:
        """An item failed for good.

        Args:
            failure: How.
            item: The same for requests that ask the same, however often; see `content_hash`.

        Returns:
            With what to end the run if a harmless request fails too; None where there is no doubt.

        Raises:
            RbaError: none was ever answered; by kind also UserError or MissingPrerequisite.
        """
        refusals = ("key", "missing", "forbidden", "decoding")
        if failure.kind in (*RETRIED, "large") or (self.answers and failure.kind in refusals):
            self._lost.add(item)
            if not self.answers:
                self._lost_first.add(item)
                if len(self._lost_first) >= REFUSED_ITEMS:
                    raise self._end(failure, f"all of the first {len(self._lost_first)} items failed")
            # no item is the reason why nobody is there
            if len(self._lost) >= self._patience or failure.kind == "connect":
                n = len(self._lost)
                return self._end(failure, f"{n} items in a row failed" if n > 1 else "an item failed")
        elif not self.answers and failure.kind in ("request", "forbidden"):
            self._refused += 1
            if self._refused >= (FORBIDDEN_ITEMS if failure.kind == "forbidden" else REFUSED_ITEMS):
                raise self._end(failure)
        return None

    def _end(self, failure: RequestFailure, when: str = "") -> RbaError:
        if failure.kind in ("key", "forbidden"):
            missing = f"it wants one, set {where_to_set(host_of(self.url))}"
            fix = f"check {self._key.source or 'it'}" if self._key.known else missing
            return MissingPrerequisite(f"{self.url} refuses the API key ({failure.reason}): {fix}")
        if failure.kind == "missing":
            return UserError(
                f"{self.url} serves no model {self.model!r}, or its path is not that of an OpenAI-compatible API "
                f"({failure.reason}); `/v1` may be missing"
            )
        if failure.kind == "quota":
            return RbaError(
                f"the quota at {self.url} is used up ({failure.reason}): run again when there is more"
            )
        if failure.kind == "decoding":
            return UserError(f"{self.url} does not draw answers as the protocol asks ({failure.reason})")
        if failure.kind == "request":
            return UserError(f"{self.url} refuses every request ({failure.reason})")
        return RbaError(
            f"{self.url} does not answer: {when}, the last of {failure.reason}; run the same command again when it does"
        )


def connection_failure(error: BaseException, key: ApiKey) -> RequestFailure:
    """Why no reply came.

    Args:
        error: `httpx2.HTTPError` or `httpx2.InvalidURL`.
        key: Taken out of what is said.
    """
    names = {cls.__name__ for cause in causes(error) for cls in type(cause).__mro__}
    if {"ConnectError", "ConnectTimeout", "UnsupportedProtocol", "ProxyError", "InvalidURL"} & names:
        return RequestFailure("connect", one_line(key.wash(_root(error))))
    if "TimeoutException" in names:
        return RequestFailure("timeout", "timed out")
    return RequestFailure("server", one_line(key.wash(f"connection broke off: {_root(error)}")))


def _root(error: BaseException) -> str:
    """The innermost reason that says something: "Connection refused" instead of "Connection error."."""
    chain = list(causes(error))
    for cause in reversed(chain):
        if isinstance(cause, ConnectionError) and cause.errno:
            return os.strerror(cause.errno)  # the event loop's own words are "Connect call failed"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return next((str(cause) for cause in reversed(chain) if str(cause).strip()), type(error).__name__)


def status_failure(status: int, headers: Mapping[str, str], body: object, key: ApiKey) -> RequestFailure:
    """What a reply that is no success means.

    Args:
        status: HTTP status.
        headers: By lower-case name.
        body: JSON, or the text of what is none.
        key: Taken out of what the server said.
    """
    if status == 401:  # what is said about a key is not repeated: it often holds half of it
        return RequestFailure("key", "401")
    message, code = error_message(body), _code(body)
    reason = one_line(key.wash(f"{status}{': ' if message else ''}{message}"))
    wait, detail = _retry_after(headers), f"{message[:_LONGEST_DETAIL]} {code}"
    if param := _code(body, "param"):
        detail += f"{PARAMETER}{param}"
    if status == 429:
        return RequestFailure("quota" if code == "insufficient_quota" else "limit", reason, wait)
    if status == 408:
        return RequestFailure("timeout", reason, wait)
    if status == 501 or (status >= 500 and _UNABLE.search(message)):
        return RequestFailure("request", reason, detail=detail)
    if status >= 500 or status in (409, 425):
        return RequestFailure("server", reason, wait, detail)
    if status < 400:
        target = headers.get("location", "elsewhere").partition("?")[0]
        return RequestFailure("missing", one_line(key.wash(f"{status}: moved to {target}")))
    if code in _CONTENT_CODES:
        return RequestFailure("filtered", reason)
    kinds: dict[int, FailureKind] = {403: "forbidden", 404: "missing"}
    return RequestFailure(kinds.get(status, "request"), reason, detail=detail)


def _code(body: object, name: str = "code") -> str:
    """An error's code (or its type), or another of its fields."""
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    if not isinstance(inner, Mapping):
        return ""
    code = inner.get(name) or (inner.get("type") if name == "code" else "")
    return code if isinstance(code, str) else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (seconds or a date); None if not or badly said."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        elif not (text := headers.get("retry-after")):
            return None
        elif text.strip().replace(".", "", 1).isdigit():
            seconds = float(text)
        else:
            until = parsedate_to_datetime(text)
            seconds = (until - datetime.now(until.tzinfo or UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return None if math.isnan(seconds) else max(0.0, seconds)


@dataclass(frozen=True)
class EndpointRequest:
    """One request.

    Attributes:
        route: `/chat/completions`, `/completions` or `/audio/speech`.
        payload: What is sent, without the model.
        lenient: The server may draw the answer in its own way where it takes no other (a judge's vote): what is sent
            instead is told and recorded. Otherwise only what the options let go.
    """

    route: Route
    payload: Mapping[str, Any]
    lenient: bool = False


def content_hash(call: EndpointRequest) -> str:
    """The same for requests that put the same before the model, whatever their limits.

    Seeds do not count, but for raw completions: instructions are sampled from one and the same text.
    """
    names = (*_CONTENT, "seed") if call.route == "completion" else _CONTENT
    return sha256_json({name: call.payload[name] for name in names if name in call.payload})


class Probe:
    """Remembers a request that was answered.

    Attributes:
        turn: Held while a server is probed, so that it happens once; belongs to one event loop, see `begin`.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._answered: EndpointRequest | None = None
        self._sent = 0

    def begin(self) -> None:
        """A run starts, in an event loop of its own."""
        self.turn = asyncio.Lock()

    def answered(self, call: EndpointRequest) -> None:
        """This one is harmless."""
        self._answered = call

    def call(self, failed: EndpointRequest) -> EndpointRequest:
        """The request to send.

        Args:
            failed: The one that raised the doubt.
        """
        self._sent += 1
        payload = dict((self._answered or failed).payload)
        if self._answered is None:
            greeting: Any = [{"role": "user", "content": GREETING}] if failed.route == "chat" else GREETING
            payload[_FIELDS[failed.route]] = greeting
        if "seed" in payload:
            payload["seed"] = (payload["seed"] + self._sent) % 2**31
        return replace(self._answered or failed, payload=payload)

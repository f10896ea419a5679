"""Requests to an OpenAI-compatible server: many at once, each answered or accounted for, none lost.

Every item ends in an answer or in a `Trouble`: after bounded retries with growing, jittered pauses (`Retry-After` is
obeyed), under a concurrency that adapts. A server of which nothing works ends the run with one line.
"""

import asyncio
import json
import queue
import random
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal
from urllib.parse import urlsplit

from rba_bench.errors import UserError
from rba_bench.files import sha256_json
from rba_bench.textlm.concurrency import Pace, Window
from rba_bench.textlm.endpoint_address import ApiKey, one_line, parse_endpoint
from rba_bench.textlm.endpoint_health import OVERLOAD, RETRIED, STALLED_S, Health, Limits, Trouble, trouble_of
from rba_bench.textlm.endpoint_options import EndpointOptions

Route = Literal["chat", "completion"]
TIMEOUT_RETRIES = 2  # a request that hangs is costly: it is tried three times at most
_PATHS: dict[Route, str] = {"chat": "/chat/completions", "completion": "/completions"}
_NOT_JSON = (json.JSONDecodeError, UnicodeDecodeError, RecursionError)  # the last: nested without end
CONNECT_S = 15.0  # longest wait for a connection
JOIN_S = 15.0  # longest wait for the background thread to tidy up
THREAD_NAME = "rba-endpoint"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_SAMPLES_OF_REPORTS = 20  # distinct models and fingerprints remembered
# What some servers do not know, by the word their refusal holds. None of it changes what is asked for.
_DIALECTS = ("max_completion_tokens", "seed", "add_special_tokens")


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        route: `/chat/completions` or `/completions`.
        payload: What is sent, without the model.
    """

    route: Route
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """One usable answer.

    Attributes:
        body: The server's JSON.
        choice: The first of its choices.
        latency_s: Wall time from first sending to answer, retries included.
    """

    body: Mapping[str, Any]
    choice: Mapping[str, Any]
    latency_s: float


@dataclass
class _Done:
    """The background work is over, well or not."""

    error: BaseException | None = None


@dataclass
class EndpointClient:
    """Asks one model of one server. What it learns of the server (pace, health, dialect) lasts from run to run.

    Attributes:
        base_url: Without credentials, query and final slash.
        model: As the server calls it.
        key: Sent with every request.
        options: See there.
    """

    base_url: str
    model: str
    key: ApiKey = field(default_factory=ApiKey.from_environment)
    options: EndpointOptions = field(default_factory=EndpointOptions.from_environment)

    def __post_init__(self) -> None:
        limits = Limits(self.options.patience, max(STALLED_S, 2 * self.options.timeout_s))
        self.pace = Pace(self.options.start_concurrency, self.options.max_concurrency)
        self._health = Health(self.base_url, self.model, self.key, limits)
        self._dialect: frozenset[str] = frozenset()
        self._jitter = random.Random()  # its own: the global generator belongs to what is measured
        self._reported: dict[str, list[str]] = {"model": [], "system_fingerprint": []}

    @classmethod
    def from_spec(cls, spec: str, options: EndpointOptions | None = None) -> "EndpointClient":
        """The client of `openai:<base_url>#<model>`. Raises UserError if the spec is not one."""
        address = parse_endpoint(spec)
        if address is None:
            raise UserError(f"{spec!r} names no server: write openai:<base_url>#<model>")
        return cls(*address, options=options or EndpointOptions.from_environment())

    def identity(self) -> dict[str, Any]:
        """Address and model. The weights behind them are not known; a hash of both stands in, for caches."""
        return {
            "kind": "endpoint",
            "url": self.base_url,
            "model": self.model,
            "weights_sha256": sha256_json([self.base_url, self.model]),
            "weights_known": False,
            "n_parameters": None,
        }

    def observed(self) -> dict[str, list[str]]:
        """What the answers so far said they come from: `model` and `system_fingerprint`, distinct values."""
        return {name: list(values) for name, values in self._reported.items() if values}

    def run(
        self, n: int, build: Callable[[int], Call | Trouble]
    ) -> Generator[tuple[int, Answer | Trouble], None, None]:
        """Send `n` requests; `(position, outcome)` as they complete, each position exactly once.

        Asking for the next outcome says that the last one is safe: never more than `max_concurrency` requests are
        under way or unsafe, so that a kill costs no more than those, however slow the disk of whoever keeps them.
        Closing the iterator (or Ctrl-C) abandons what is under way.

        Args:
            n: How many.
            build: Makes a request, when it is its turn; called in another thread, again for each retry. Trouble
                instead is the outcome, and nothing is sent.

        Raises:
            RbaError: nothing works; UserError or MissingPrerequisite by what is wrong.
        """
        if n == 0:
            return
        out: queue.SimpleQueue[tuple[int, Answer | Trouble] | _Done] = queue.SimpleQueue()
        loop, unsafe = asyncio.new_event_loop(), asyncio.Semaphore(self.options.max_concurrency)
        task = loop.create_task(self._serve(n, build, out.put, unsafe))
        thread = threading.Thread(target=_turn, args=(loop, task, out.put), name=THREAD_NAME, daemon=True)
        thread.start()
        try:
            while not isinstance(said := out.get(), _Done):
                yield said
                _tell(loop, unsafe.release)
        finally:
            _tell(loop, task.cancel)
            thread.join(JOIN_S)
        if said.error is not None:
            raise said.error

    async def _serve(
        self,
        n: int,
        build: Callable[[int], Call | Trouble],
        put: Callable[[Any], None],
        unsafe: asyncio.Semaphore,
    ) -> None:
        self._health.begin()
        window, indices = Window(self.pace), iter(range(n))
        async with self._connected() as api:

            async def work() -> None:
                await unsafe.acquire()
                for index in indices:  # shared: each index goes to one worker
                    put((index, await self._item(api, window, partial(build, index))))
                    await unsafe.acquire()

            workers = [asyncio.create_task(work()) for _ in range(min(n, self.options.max_concurrency))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _item(self, api: Any, window: Window, build: Callable[[], Call | Trouble]) -> Answer | Trouble:
        started, attempt, answers_then = time.monotonic(), 0, -1
        while True:
            entered = await window.enter(urgent=attempt > 0)
            try:
                call = build()
                if isinstance(call, Trouble):
                    return call
                outcome = await self._send(api, call, started)
                if isinstance(outcome, Answer):
                    self._health.answered()
                    window.answered()
                    return outcome
                # What fails again while others are answered is the item's own fault, not a sign of too much.
                alone = attempt > 0 and self._health.answers > answers_then and outcome.kind != "limit"
                if outcome.kind in OVERLOAD and not alone:
                    window.overloaded(entered)
            finally:
                window.leave()
            await self._note(api, outcome)
            answers_then = self._health.answers
            allowed = (
                min(self.options.retries, TIMEOUT_RETRIES)
                if outcome.kind == "timeout"
                else self.options.retries
            )
            if outcome.kind not in RETRIED or attempt >= allowed:
                self._health.lost(outcome)
                return outcome
            await asyncio.sleep(self._pause(attempt, outcome, window))
            attempt += 1

    async def _note(self, api: Any, trouble: Trouble) -> None:
        """Tell the health monitor; where it gives up on the model's name, add which names there are."""
        try:
            self._health.failed(trouble)
        except UserError as error:
            served = await self._served(api) if trouble.kind == "missing" else []
            raise (UserError(f"{error}; it serves {', '.join(served[:5])}") if served else error) from None

    async def _send(self, api: Any, call: Call, started: float) -> Answer | Trouble:
        import openai

        while True:
            spoken = self._dialect
            payload = {"model": self.model, **_translated(call.payload, spoken)}
            try:
                async with asyncio.timeout(
                    self.options.timeout_s
                ):  # of the whole: a slow drip is a timeout too
                    # Not `chat.completions.create`: checking types costs it 5 ms a clip, and we read any body anyway.
                    said = await api.post(_PATHS[call.route], body=payload, cast_to=object)
            except TimeoutError:
                return Trouble("timeout", f"no whole answer within {self.options.timeout_s:g} s")
            except _NOT_JSON:
                return Trouble("garbage", "the answer is not JSON")
            except openai.OpenAIError as error:
                trouble = trouble_of(error, self.key)
                unknown = _unknown(trouble, call.payload) - spoken
                if not unknown:
                    return trouble
                self._dialect |= unknown  # the same request in the server's words; each word is given up once
                continue
            return self._read(call.route, said, started)

    def _read(self, route: Route, content: object, started: float) -> Answer | Trouble:
        body = _parsed(content)
        if not isinstance(body, dict):
            return Trouble("garbage", f"the answer is {'not JSON' if body is None else 'no JSON object'}")
        choice = _first_choice(body, route)
        if choice is None:
            said = body.get("error")
            message = said.get("message") if isinstance(said, dict) else said
            detail = f": {message}" if isinstance(message, str) else ""
            return Trouble("garbage", one_line(self.key.wash(f"the answer holds no choices{detail}")))
        for name, seen in self._reported.items():
            value = body.get(name)
            if isinstance(value, str) and value and value not in seen and len(seen) < _SAMPLES_OF_REPORTS:
                seen.append(one_line(self.key.wash(value)))
        return Answer(body, choice, time.monotonic() - started)

    def _pause(self, attempt: int, trouble: Trouble, window: Window) -> float:
        """Seconds before the next attempt. A pause that the server asked for holds everything."""
        grown = min(self.options.max_backoff_s, self.options.backoff_s * 2.0**attempt)
        pause = grown * self._jitter.uniform(0.5, 1.0)
        if trouble.retry_after is None:
            return pause
        asked = min(trouble.retry_after, self.options.max_retry_after_s)
        window.hold(asked)
        return asked + 0.1 * pause

    async def _served(self, api: Any) -> list[str]:
        """Names of the models that the server lists, [] if it does not."""
        import openai

        try:
            async with asyncio.timeout(min(5.0, self.options.timeout_s)):
                listed = _parsed(await api.get("/models", cast_to=object))
            return [one_line(self.key.wash(str(row["id"]))) for row in listed["data"]]
        except (TimeoutError, openai.OpenAIError, KeyError, TypeError, *_NOT_JSON):
            return []

    def _connected(self) -> Any:
        import openai

        address = urlsplit(self.base_url)
        secure = address.scheme == "https"
        timeout = openai.Timeout(self.options.timeout_s, connect=min(CONNECT_S, self.options.timeout_s))
        http = openai.DefaultAsyncHttpxClient(
            timeout=timeout,
            follow_redirects=False,  # a key goes to the address that the user wrote, and nowhere else
            trust_env=address.hostname not in _LOCAL,  # a proxy cannot reach this machine's own servers
            verify=secure,  # over plain http there is nothing to verify, and loading the roots is slow
        )
        # Ours are the only retries: counted, and seen by the window.
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self.key.reveal(),
            max_retries=0,
            timeout=timeout,
            http_client=http,
        )


def _parsed(content: object) -> Any:
    """JSON that a server did not label as JSON is read all the same; None for what is none."""
    if not isinstance(content, str):
        return content
    try:
        return json.loads(content)
    except _NOT_JSON:
        return None


def _first_choice(body: Mapping[str, Any], route: Route) -> Mapping[str, Any] | None:
    """The first choice if it holds what was asked for; some gateways report an error in its place."""
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or choice.get("finish_reason") == "error":
        return None
    holds = (
        isinstance(choice.get("message"), dict) if route == "chat" else isinstance(choice.get("text"), str)
    )
    return choice if holds else None


def _translated(payload: Mapping[str, Any], dialect: frozenset[str]) -> dict[str, Any]:
    """The payload in the words that the server knows."""
    said = dict(payload)
    if "max_completion_tokens" in dialect and "max_tokens" in said:
        said["max_completion_tokens"] = said.pop("max_tokens")
    if "seed" in dialect and not said.get("temperature"):
        said.pop("seed", None)
    if "add_special_tokens" in dialect:
        said.pop("add_special_tokens", None)
    return said


def _unknown(trouble: Trouble, payload: Mapping[str, Any]) -> frozenset[str]:
    """Words of this payload that a refusal names and that can be put in another way."""
    if trouble.kind != "request":
        return frozenset()
    named = {word for word in _DIALECTS if word in trouble.reason}
    usable = {
        "max_completion_tokens": "max_tokens" in payload,
        "seed": "seed" in payload and not payload.get("temperature"),  # greedy: nothing is drawn
        "add_special_tokens": "add_special_tokens" in payload,
    }
    return frozenset(word for word in named if usable[word])


def _turn(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]", put: Callable[[_Done], None]) -> None:
    """Run the task to its end in this thread, tidy up, and hand on how it ended."""
    try:
        loop.run_until_complete(asyncio.wait({task}))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
        put(_Done(None if task.cancelled() else task.exception()))


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    """Have `what` called in the loop's thread, unless the loop is closed, now or while we ask."""
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:
        if not loop.is_closed():
            raise

"""Client of an OpenAI-compatible server: many requests at once, each answered or accounted for, none lost.

Every item ends in an answer or in a `RequestFailure`: after bounded retries with growing, jittered pauses
(`Retry-After` is obeyed), under a concurrency that adapts to the server. A server of which nothing works ends the run
with one line. The concurrency is found as TCP finds its window, by additive increase and multiplicative decrease
(`Pace`): it grows by one for each answer until the server first signals overload (then by one for each window of
answers), and halves when it does.
"""

import asyncio
import heapq
import queue
import random
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, TypeVar
from urllib.parse import urlsplit

from rba_bench.errors import RbaError, UserError
from rba_bench.files import sha256_json
from rba_bench.progress import say
from rba_bench.textlm.chat import Variables
from rba_bench.textlm.endpoints import http as endpoint_http
from rba_bench.textlm.endpoints.address import (
    OPTIONAL,
    VERSION,
    EndpointOptions,
    one_line,
    parse_endpoint,
    route_url,
)
from rba_bench.textlm.endpoints.dialect import Dialect, adapt_dialect
from rba_bench.textlm.endpoints.health import (
    OVERLOAD,
    PROBES,
    RETRIED,
    STALLED_S,
    EndpointRequest,
    FailureKind,
    Health,
    Probe,
    RequestFailure,
    connection_failure,
    content_hash,
    status_failure,
)
from rba_bench.textlm.endpoints.http import BrokenOff
from rba_bench.textlm.endpoints.keys import VENDORS, ApiKey, host_of, is_local
from rba_bench.textlm.endpoints.replies import Route, ServerAnswer, Unusable, clean_text, parse_answer

T = TypeVar("T")

TIMEOUT_RETRIES = 2  # a request that hangs is costly: it is tried three times at most
SUSPECT_RETRIES = 1  # where a server is seen to work and items fail one after another
_PATHS: dict[Route, str] = {
    "chat": "/chat/completions",
    "completion": "/completions",
    "speech": "/audio/speech",
}
CONNECT_S = 15.0  # longest wait for a connection
LIST_S = 10.0  # longest wait for the list of models
JOIN_S = 15.0  # longest wait for the background thread to tidy up
THREAD_NAME = "rba-endpoint"
_SAMPLES_OF_REPORTS = 20  # distinct models and fingerprints remembered
_MOST_LESSONS = 12  # times one request is put in another way


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work` in an event loop of its own; in another thread where a loop runs here, as in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(asyncio.run, work).result()


class Pace:
    """How wide the window is; kept between runs, so that what was learnt is not learnt again.

    Args:
        start: Requests at once in the beginning.
        most: Never more than this.

    Attributes:
        limit: Requests allowed at once, at least 1; a fraction on its way to the next whole number.
    """

    def __init__(self, start: int, most: int) -> None:
        if start < 1 or most < 1:
            raise UserError(f"requests at once are {min(start, most)}: use 1 or more")
        self.most = most
        self.limit = float(min(start, most))
        self._opening = True  # no sign of too much yet

    def grow(self) -> None:
        """An answer came while the window was full."""
        self.limit = min(float(self.most), self.limit + (1 if self._opening else 1 / self.limit))

    def shrink(self) -> None:
        """The server said that it is too much."""
        self._opening = False
        self.limit = max(1.0, self.limit / 2)


class Window:
    """Lets requests through, as many at once as the pace allows. For one event loop.

    Args:
        pace: What was learnt so far; goes on learning.

    Attributes:
        in_flight: Requests that are through and have not left.
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.in_flight = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = count()
        self._held_until = 0.0
        self._shrunk_at = 0.0

    async def enter(self, urgent: bool = False) -> float:
        """Wait for a place; `urgent` requests (those that were sent before) come first.

        Returns:
            The loop's time of entry, to be handed to `overloaded`.
        """
        place: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._waiting, (0 if urgent else 1, next(self._tickets), place))
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # let in and cancelled in the same moment
                self.leave()
            raise
        return self._loop.time()

    def leave(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
        self._admit()

    def answered(self) -> None:
        """An answer came; call it before `leave`. An idle window learns nothing from it."""
        if self.in_flight >= int(self.pace.limit):
            self.pace.grow()

    def overloaded(self, entered: float) -> None:
        """Too much, says the answer to a request that entered at `entered`; once for all that were under way then."""
        if entered >= self._shrunk_at:
            self._shrunk_at = self._loop.time()
            self.pace.shrink()

    def hold(self, seconds: float) -> None:
        """Let nothing through for so long: the server asked for it."""
        self._held_until = max(self._held_until, self._loop.time() + seconds)
        self._loop.call_at(self._held_until, self._admit)

    def _admit(self) -> None:
        # The clock of the loop is coarse: a call may come a little before its time.
        while (
            self._waiting
            and self.in_flight < int(self.pace.limit)
            and self._loop.time() >= self._held_until - 1e-3
        ):
            place = heapq.heappop(self._waiting)[2]
            if not place.done():
                self.in_flight += 1
                place.set_result(None)


class EndpointClient:
    """Sends requests to one model of one server.

    What it learns of the server (pace, health, dialect) lasts from run to run.

    Args:
        base_url: Without credentials and final slash; an `api-version` may follow.
        model: As the server calls it.
        key: Sent with every request; by default the one that belongs to the host.
        options: By default from the environment.
        template: Variables of the chat template, sent as `chat_template_kwargs` with every chat.

    Attributes:
        prompt_tokens: Of all requests that were answered so far, as the server counted them.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key: ApiKey | None = None,
        options: EndpointOptions | None = None,
        template: Variables | None = None,
    ) -> None:
        self.base_url = base_url
        self.model = model
        self.key = key or ApiKey.of(base_url)
        self.options = options or EndpointOptions.from_environment()
        self.template: Variables = dict(template or {})
        self.prompt_tokens = 0
        self.pace = Pace(self.options.start_concurrency, self.options.max_concurrency)
        stalled_s = max(STALLED_S, 2 * self.options.timeout_s)
        self._health = Health(self.base_url, self.model, self.key, self.options.patience, stalled_s)
        self._dialect = Dialect(least_tokens=self.options.least_tokens, stream=self.options.stream)
        self._probe = Probe()
        self._jitter = random.Random()  # its own: the global generator belongs to what is measured
        self._reported: dict[str, list[str]] = {"model": [], "system_fingerprint": []}

    @classmethod
    def from_spec(
        cls, spec: str, options: EndpointOptions | None = None, template: Variables | None = None
    ) -> "EndpointClient":
        """The client of `openai:<base_url>#<model>`. Raises UserError if the spec is not one."""
        address = parse_endpoint(spec)
        if address is None:
            raise UserError(f"{spec!r} names no server: write openai:<base_url>#<model>")
        return cls(*address, options=options, template=template)

    def identity(self) -> dict[str, Any]:
        """Address and model. The weights behind them are not known; a hash of both stands in, for caches."""
        return {
            "kind": "endpoint",
            "url": self.base_url,
            "model": self.model,
            "weights_sha256": sha256_json([self.base_url, self.model]),
            "weights_known": False,
            "n_parameters": None,
            **self.options.facts(),
            **({"template": dict(self.template)} if self.template else {}),
        }

    def observed(self) -> dict[str, list[str]]:
        """Distinct values of `model` and `system_fingerprint` in the answers so far.

        `asked` says how requests were adapted to the server, where they differ from the protocol.
        """
        reports = {**self._reported, "asked": self._dialect.notes()}
        return {name: list(values) for name, values in reports.items() if values}

    def run(
        self, n: int, build: Callable[[int], EndpointRequest | RequestFailure]
    ) -> Generator[tuple[int, ServerAnswer | RequestFailure], None, None]:
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
        # outcomes, and at last how the background work ended: with an error, or None
        out: queue.SimpleQueue[tuple[int, ServerAnswer | RequestFailure] | BaseException | None]
        out = queue.SimpleQueue()
        loop, unsafe = asyncio.new_event_loop(), asyncio.Semaphore(self.options.max_concurrency)
        task = loop.create_task(self._serve(n, build, out.put, unsafe))
        thread = threading.Thread(target=_run_task, args=(loop, task, out.put), name=THREAD_NAME, daemon=True)
        thread.start()
        try:
            while isinstance(outcome := out.get(), tuple):
                yield outcome
                _call_in_loop(loop, unsafe.release)
        finally:
            _call_in_loop(loop, task.cancel)
            thread.join(JOIN_S)
        if outcome is not None:
            raise outcome

    async def _serve(
        self,
        n: int,
        build: Callable[[int], EndpointRequest | RequestFailure],
        put: Callable[[Any], None],
        unsafe: asyncio.Semaphore,
    ) -> None:
        self._health.begin()
        self._probe.begin()
        window, indices = Window(self.pace), iter(range(n))
        async with self._connected() as http:

            async def work() -> None:
                await unsafe.acquire()
                for index in indices:  # shared: each index goes to one worker
                    put((index, await self._item(http, window, partial(build, index))))
                    await unsafe.acquire()

            workers = [asyncio.create_task(work()) for _ in range(min(n, self.options.max_concurrency))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _item(
        self, http: Any, window: Window, build: Callable[[], EndpointRequest | RequestFailure]
    ) -> ServerAnswer | RequestFailure:
        started, attempt, answers_then = time.monotonic(), 0, -1
        while True:
            entered = await window.enter(urgent=attempt > 0)
            try:
                call = build()
                if isinstance(call, RequestFailure):
                    return call
                outcome = await self._send(http, call, started)
                if isinstance(outcome, ServerAnswer):
                    self._health.answered()
                    self._probe.answered(call)
                    window.answered()
                    self.prompt_tokens += outcome.prompt_tokens
                    return outcome
                # What fails again while others are answered is the item's own fault, not a sign of too much.
                alone = attempt > 0 and self._health.answers > answers_then and outcome.kind != "limit"
                if outcome.kind in OVERLOAD and not alone:
                    window.overloaded(entered)
            finally:
                window.leave()
            await self._note(http, outcome, call)
            answers_then, retries = self._health.answers, self.options.retries
            if outcome.kind == "timeout":
                retries = min(retries, TIMEOUT_RETRIES)
            if self._health.suspects and outcome.kind != "limit":
                retries = min(retries, SUSPECT_RETRIES)
            if outcome.kind not in RETRIED or attempt >= retries:
                await self._unless_it_works(http, call, self._health.lost(outcome, content_hash(call)))
                return outcome
            grown = min(self.options.max_backoff_s, self.options.backoff_s * 2.0**attempt)
            pause = grown * self._jitter.uniform(0.5, 1.0)
            if outcome.retry_after is not None:  # a pause that the server asked for holds everything
                requested = min(outcome.retry_after, self.options.max_retry_after_s)
                window.hold(requested)
                pause = requested + 0.1 * pause
            await asyncio.sleep(pause)
            attempt += 1

    async def _note(self, http: Any, failure: RequestFailure, call: EndpointRequest) -> None:
        """Tell the health monitor; where it gives up on the model's name, add which names there are."""
        try:
            await self._unless_it_works(http, call, self._health.failed(failure))
        except UserError as error:
            models = await self._listed(http) if failure.kind == "missing" else []
            if not models or isinstance(models, RequestFailure):
                raise error from None
            names = ", ".join(str(row["id"]) for row in models[:5])
            raise UserError(f"{error}; it serves {names}") from None

    async def _unless_it_works(self, http: Any, call: EndpointRequest, end: RbaError | None) -> None:
        """Raise what the health monitor would end the run with, unless the server answers a harmless request."""
        if end is None:
            return
        proofs = self._health.proofs
        async with self._probe.turn:
            if self._health.proofs > proofs:  # somebody else has asked meanwhile, or an answer came
                return
            for attempt in range(PROBES):
                outcome = await self._send(http, self._probe.call(call), time.monotonic())
                if isinstance(outcome, ServerAnswer):
                    self._health.works()
                    return
                if outcome.kind in ("connect", "timeout"):  # more than one would be costly, or of no use
                    break
                await asyncio.sleep(min(self.options.max_backoff_s, self.options.backoff_s * 2.0**attempt))
            raise end

    async def _send(self, http: Any, call: EndpointRequest, started: float) -> ServerAnswer | RequestFailure:
        for _ in range(_MOST_LESSONS):
            dialect = self._dialect
            payload = {"model": self.model, **dialect.translate(call.payload)}
            if self.template and call.route == "chat":
                payload["chat_template_kwargs"] = dict(self.template)
            outcome = await self._request(http, call.route, payload)
            if isinstance(outcome, ServerAnswer):
                return replace(outcome, latency_s=time.monotonic() - started)
            may_omit = frozenset(OPTIONAL) if call.lenient else self.options.without
            adapted = adapt_dialect(dialect, outcome, call.payload, may_omit)
            if isinstance(adapted, RequestFailure):
                return adapted
            if self._dialect == dialect:  # else another request has adapted it meanwhile: that is tried first
                self._dialect = adapted
                say(f"{self.model}: requests are adapted to the server ({', '.join(adapted.notes())})")
        return outcome

    async def _exchange(
        self, http: Any, method: str, route: str, limit_s: float, payload: object = None
    ) -> Any | RequestFailure:
        """The JSON of a success, or what went wrong; `limit_s` is for the whole: a slow drip is a timeout too."""
        received = await self._receive(http, method, route, limit_s, payload)
        return received if isinstance(received, RequestFailure) else received.body

    async def _receive(
        self, http: Any, method: str, route: str, limit_s: float, payload: object = None, sound: bool = False
    ) -> endpoint_http.Received | RequestFailure:
        """A success with JSON, or with bytes where `sound` is wanted, or what went wrong."""
        import httpx2

        # what opens the server: nothing without a key; Azure has a header of its own
        headers, key = {}, self.key.reveal()
        if self.key.known:
            host = host_of(self.base_url)
            azure = f"{VERSION}=" in self.base_url or VENDORS["AZURE_OPENAI_API_KEY"].fullmatch(host)
            headers = {"api-key": key} if azure else {"Authorization": f"Bearer {key}"}
        try:
            async with asyncio.timeout(limit_s):
                url = route_url(self.base_url, route)
                received = await endpoint_http.send(http, method, url, headers, payload, sound)
        except TimeoutError:
            return RequestFailure("timeout", f"no whole answer within {limit_s:g} s")
        except Unusable as error:
            return self._unusable(error)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return connection_failure(error, self.key)
        if not 200 <= received.status < 300:
            return status_failure(received.status, received.headers, received.body, self.key)
        return received

    def _unusable(self, error: Unusable) -> RequestFailure:
        large, broken = isinstance(error, endpoint_http.TooLarge), isinstance(error, BrokenOff)
        kind: FailureKind = "large" if large else "server" if broken else "garbage"
        return RequestFailure(kind, one_line(self.key.wash(str(error))))

    async def _request(
        self, http: Any, route: Route, payload: Mapping[str, Any]
    ) -> ServerAnswer | RequestFailure:
        body = await self._exchange(http, "POST", _PATHS[route], self.options.timeout_s, payload)
        if isinstance(body, RequestFailure):
            return body
        try:
            answer = parse_answer(body, route)
        except Unusable as error:
            return self._unusable(error)
        for name, value in answer.reports.items():
            reports, report = self._reported[name], one_line(self.key.wash(value))
            if report not in reports and len(reports) < _SAMPLES_OF_REPORTS:
                reports.append(report)
        remove = self.key.remove
        return replace(answer, text=remove(answer.text), reasoning=remove(answer.reasoning))

    def models(self) -> list[Mapping[str, Any]] | RequestFailure:
        """What `/models` lists, each with its `id`, or why it lists nothing."""

        async def ask() -> list[Mapping[str, Any]] | RequestFailure:
            async with self._connected() as http:
                return await self._listed(http)

        return run_to_end(ask())

    async def _listed(self, http: Any) -> list[Mapping[str, Any]] | RequestFailure:
        outcome = await self._exchange(http, "GET", "/models", min(LIST_S, self.options.timeout_s))
        if isinstance(outcome, RequestFailure):
            return outcome
        data = outcome.get("data") if isinstance(outcome, Mapping) else None
        rows = [row for row in data if isinstance(row, Mapping)] if isinstance(data, list) else []
        if not rows:
            return RequestFailure("garbage", "the answer lists no models")
        return [{**row, "id": one_line(self.key.wash(clean_text(str(row.get("id")))))} for row in rows]

    def _connected(self) -> Any:
        timeout = self.options.timeout_s
        return endpoint_http.connect(
            secure=urlsplit(self.base_url).scheme == "https",
            local=is_local(host_of(self.base_url)),
            timeout_s=timeout,
            connect_s=min(CONNECT_S, timeout),
            most=self.options.max_concurrency,
        )


def _run_task(
    loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]", put: Callable[[BaseException | None], None]
) -> None:
    """Run the task to its end in this thread, tidy up, and hand on how it ended."""
    try:
        loop.run_until_complete(asyncio.wait({task}))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
        put(None if task.cancelled() else task.exception())


def _call_in_loop(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    """Have `what` called in the loop's thread, unless the loop is closed, now or while we ask."""
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:
        if not loop.is_closed():
            raise

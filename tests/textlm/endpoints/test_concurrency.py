"""How many requests go out at once: few at first, more while it goes well, half when it does not."""

import asyncio
import threading

import pytest

from rba_bench.errors import UserError
from rba_bench.textlm.endpoints.address import EndpointOptions
from rba_bench.textlm.endpoints.client import Pace, Window, run_to_end
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.judging import Message, Question
from tests.textlm.misbehaving_server import Reaction, Seen, answer, failure, serving


def questions(n: int, start: int = 0) -> list[Question]:
    return [Question((Message("user", str(i)),), max_tokens=5) for i in range(start, start + n)]


def test_the_pace_opens_quickly_halves_and_then_opens_slowly() -> None:
    pace = Pace(start=4, most=64)
    for _ in range(4):
        pace.grow()
    assert pace.limit == 8
    pace.shrink()
    assert pace.limit == 4
    for _ in range(4):
        pace.grow()
    assert 4.8 < pace.limit < 5.1
    for _ in range(10):
        pace.shrink()
    assert pace.limit == 1
    for _ in range(10_000):
        pace.grow()
    assert pace.limit == 64


def test_a_pace_without_places_is_refused() -> None:
    with pytest.raises(UserError):
        Pace(0, 5)


def test_requests_that_were_under_way_together_halve_the_window_once() -> None:
    async def scene() -> float:
        window = Window(Pace(start=8, most=8))
        entered = [await window.enter() for _ in range(8)]
        for one in entered:
            await asyncio.sleep(0.001)
            window.overloaded(one)
            window.leave()
        return window.pace.limit

    assert asyncio.run(scene()) == 4


def test_a_cancelled_wait_gives_its_place_to_the_next() -> None:
    async def scene() -> int:
        window = Window(Pace(start=1, most=1))
        await window.enter()
        waiting = [asyncio.create_task(window.enter()) for _ in range(3)]
        await asyncio.sleep(0)
        window.leave()  # lets the first in ...
        waiting[0].cancel()  # ... which is cancelled in the same moment
        await asyncio.gather(waiting[0], return_exceptions=True)
        await asyncio.wait_for(waiting[1], 1)
        waiting[2].cancel()
        await asyncio.gather(waiting[2], return_exceptions=True)
        return window.in_flight

    assert asyncio.run(scene()) == 1


def test_a_held_window_lets_nothing_through_until_then_and_urgent_ones_first() -> None:
    async def scene() -> tuple[list[str], float]:
        window, order = Window(Pace(start=1, most=1)), []
        window.hold(0.1)
        started = asyncio.get_running_loop().time()

        async def go(name: str, urgent: bool) -> None:
            await window.enter(urgent)
            order.append(name)
            window.leave()

        await asyncio.gather(go("new", False), go("again", True))
        return order, asyncio.get_running_loop().time() - started

    order, waited = asyncio.run(scene())
    assert order == ["again", "new"]
    assert waited >= 0.09


def test_a_willing_server_gets_more_and_more_up_to_the_maximum() -> None:
    with serving(lambda _: answer("fine", after=0.25)) as server:
        lm = EndpointLM.from_spec(server.spec, EndpointOptions(max_concurrency=12))
        assert all(reply.status == "ok" for _, reply in lm.ask(questions(60)))
        assert max(server.levels[:4]) <= 4
        assert server.most == 12
        arrived = len(server.levels)
        list(lm.ask(questions(12, start=1000)))
    assert max(server.levels[arrived:]) > 4  # what was learnt is kept for the next run


def test_a_server_with_few_places_is_asked_for_few_at_once_and_for_more_when_it_grows() -> None:
    places = [3]

    def react(seen: Seen) -> Reaction:
        return failure(429, "full") if server.under_way > places[0] else answer("fine", after=0.1)

    options = EndpointOptions(
        backoff_s=0.02, max_backoff_s=0.1, retries=50, max_concurrency=32, start_concurrency=12
    )
    with serving(react) as server:
        lm = EndpointLM.from_spec(server.spec, options)
        replies = list(lm.ask(questions(60)))
        assert sorted(index for index, _ in replies) == list(range(60))
        assert all(reply.status == "ok" for _, reply in replies)
        assert lm.client.pace.limit <= 6
        assert 60 < len(server.seen) < 120  # it was refused, but not for ever
        settled = max(server.levels[-30:])
        assert settled <= 6
        places[0] = 32
        list(lm.ask(questions(120, start=1000)))
    assert max(server.levels[-60:]) > settled


def test_one_item_that_always_fails_does_not_slow_the_others_down() -> None:
    def react(seen: Seen) -> Reaction:
        return failure(500, "this one") if seen.text == "7" else answer("fine", after=0.01)

    options = EndpointOptions(backoff_s=0.02, retries=5, max_concurrency=16)
    with serving(react) as server:
        lm = EndpointLM.from_spec(server.spec, options)
        replies = dict(lm.ask(questions(200)))
    assert replies[7].status == "error"
    assert sum(reply.status == "ok" for reply in replies.values()) == 199
    assert lm.client.pace.limit > 4  # halved once, not six times


def test_work_runs_to_its_end_whether_a_loop_runs_here_or_not() -> None:
    """In a notebook one always does."""

    async def work() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def cell() -> str:
        return run_to_end(work())

    here = threading.current_thread().name
    assert run_to_end(work()) == here
    assert asyncio.run(cell()) != here

    async def failing() -> None:
        raise ValueError("told")

    async def bad_cell() -> None:
        run_to_end(failing())

    with pytest.raises(ValueError, match="told"):
        asyncio.run(bad_cell())

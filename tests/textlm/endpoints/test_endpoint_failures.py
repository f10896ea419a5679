"""A server that misbehaves: every item is answered or accounted for once, and a dead server ends the run at once."""

import re
import signal
import threading
import time
from email.utils import formatdate

import pytest

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.textlm.endpoints.address import EndpointOptions
from rba_bench.textlm.endpoints.client import THREAD_NAME
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.judging import Message, Question, Reply
from tests.textlm.misbehaving_server import (
    Reaction,
    Seen,
    Server,
    answer,
    body,
    drip,
    failure,
    free_port,
    hang,
    reset,
    serving,
)

QUICK = EndpointOptions(timeout_s=20, backoff_s=0.01, retries=3)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RBA_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def questions(*texts: str) -> list[Question]:
    return [Question((Message("user", text),), max_tokens=5) for text in texts]


def asked(server: Server, texts: list[str], options: EndpointOptions = QUICK) -> list[Reply]:
    """Replies in order, each position seen exactly once."""
    pairs = list(EndpointLM.from_spec(server.spec, options).ask(questions(*texts)))
    assert sorted(index for index, _ in pairs) == list(range(len(texts)))
    return [reply for _, reply in sorted(pairs, key=lambda pair: pair[0])]


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == THREAD_NAME]


def test_retry_after_is_obeyed_and_holds_everything() -> None:
    def react(seen: Seen) -> Reaction:
        slow = seen.text == "a" and seen.tries == 0
        return failure(429, "slow down", {"Retry-After": "1"}) if slow else answer("fine")

    options = EndpointOptions(timeout_s=5, backoff_s=0.01, max_concurrency=1)
    with serving(react) as server:
        assert [reply.status for reply in asked(server, ["a", "b", "c"], options)] == ["ok"] * 3
    assert [seen.text for seen in server.seen][:2] == ["a", "a"]  # what was sent before goes first
    assert server.seen[1].at - server.seen[0].at >= 1.0


def test_retry_after_may_be_a_date_or_nonsense_and_is_bounded() -> None:
    waits = {
        "date": formatdate(time.time() + 3600, usegmt=True),
        "nonsense": "soon",
        "long": "86400",
        "nan": "nan",
    }

    def react(seen: Seen) -> Reaction:
        return failure(503, "busy", {"Retry-After": waits[seen.text]}) if not seen.tries else answer("fine")

    options = EndpointOptions(timeout_s=5, backoff_s=0.01, max_retry_after_s=0.2)
    started = time.monotonic()
    with serving(react) as server:
        assert [reply.status for reply in asked(server, list(waits), options)] == ["ok"] * 4
    assert time.monotonic() - started < 10


PASSING = {
    "500": failure(500, "crashed"),
    "408": failure(408, "too slow"),
    "409": failure(409, "locked"),
    "502 in HTML": body("<html>bad gateway</html>", 502),
    "no JSON": body("not json"),
    "nothing": body(""),
    "nested without end": body("[" * 100_000),
    "not even text": Reaction(lambda handler: handler.reply(b"\xff\xfe\x00{", "application/json")),
    "text": Reaction(lambda handler: handler.reply(b"please wait", "text/plain")),
    "no choices": body({"hello": 1}),
    "empty choices": body({"choices": []}),
    "null choice": body({"choices": [None]}),
    "no message": body({"choices": [{"finish_reason": "stop"}]}),
    "200 with error": body({"error": {"message": "no worker"}}),
    "broken off in words": answer("half", finish="error"),
    "reset": reset(),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_tried_again_until_it_is_answered(name: str) -> None:
    def react(seen: Seen) -> Reaction:
        return PASSING[name] if seen.tries < 2 else answer(f"re {seen.text}")

    with serving(react) as server:
        [reply] = asked(server, ["a"])
    assert (reply.status, reply.text, len(server.seen)) == ("ok", "re a", 3)


def test_json_that_a_server_calls_text_is_read() -> None:
    data = b'{"choices": [{"message": {"content": "fine"}}]}'
    with serving(lambda _: Reaction(lambda handler: handler.reply(data, "text/plain"))) as server:
        [reply] = asked(server, ["a"])
    assert (reply.status, reply.text, reply.prompt_tokens) == ("ok", "fine", 0)


STAYING = {
    "500": (failure(500, "crashed\nbadly"), "^500: crashed badly$", 4),
    "429": (failure(429, "slow down"), "^429: slow down$", 4),
    "no JSON": (body("not json"), "^the answer is not JSON$", 4),
    "200 with error": (body({"error": {"message": "no worker"}}), "holds no choices: no worker$", 4),
    "reset": (reset(), "^connection broke off: ", 4),
    "hang": (hang(), "timed out|no whole answer within 1 s", 3),
    "drip": (drip(), "^no whole answer within 1 s$", 3),
    "400": (failure(400, "prompt too long " + "x" * 999), r"^400: prompt too long x+\.\.\.$", 1),
    "422 in text": (body("plain", 422), "^422: plain$", 1),
}


@pytest.mark.parametrize("name", STAYING)
def test_what_stays_is_an_error_after_bounded_tries_and_never_ends_the_rest(name: str) -> None:
    reaction, says, tries = STAYING[name]
    slow = name in ("hang", "drip")
    options = EndpointOptions(timeout_s=1.0 if slow else 20, backoff_s=0.01, retries=3)
    with serving(lambda seen: reaction if seen.text == "bad" else answer(f"re {seen.text}")) as server:
        replies = asked(server, ["a", "bad", "b", "c"], options)
    assert [reply.status for reply in replies] == ["ok", "error", "ok", "ok"]
    assert [reply.text for reply in replies] == ["re a", "", "re b", "re c"]
    assert re.search(says, replies[1].error)
    assert len(replies[1].error) <= 200
    assert sum(seen.text == "bad" for seen in server.seen) == tries


def test_bursts_of_errors_lose_nothing() -> None:
    def react(seen: Seen) -> Reaction:
        burst = 20 <= len(server.seen) < 40 or 60 <= len(server.seen) < 70
        return failure(500) if burst else answer(f"re {seen.text}", after=0.002)

    options = EndpointOptions(timeout_s=5, backoff_s=0.02, retries=8, patience=50)
    with serving(react) as server:
        replies = asked(server, [str(i) for i in range(100)], options)
    assert [reply.text for reply in replies] == [f"re {i}" for i in range(100)]


def test_nobody_there_is_one_line_within_seconds() -> None:
    lm = EndpointLM.from_spec(f"openai:http://127.0.0.1:{free_port()}/v1#m", EndpointOptions(backoff_s=0.1))
    started = time.monotonic()
    with pytest.raises(RbaError, match="no server answers at http://127.0.0.1:.*refused") as caught:
        list(lm.ask(questions(*map(str, range(1000)))))
    assert time.monotonic() - started < 10
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert our_threads() == []


@pytest.mark.parametrize(
    ("key", "says"), [("", "it wants one, set RBA_API_KEY"), ("wrong-key", "check RBA_API_KEY")]
)
def test_a_wrong_key_is_a_missing_prerequisite_at_the_first_request(
    key: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RBA_API_KEY", key)
    refusal = failure(401, "Incorrect API key provided: wro*****key")
    with serving(lambda _: refusal) as server, pytest.raises(MissingPrerequisite, match=says) as caught:
        asked(server, [str(i) for i in range(1000)])
    assert len(server.seen) <= 64  # those that were under way, of 1000
    assert "wro*" not in str(caught.value)
    assert our_threads() == []


def test_an_unknown_model_is_a_users_error_that_lists_what_there_is() -> None:
    with serving(lambda _: failure(404, "The model `m` does not exist.")) as server:
        server.models = ("qwen", "llama")
        with pytest.raises(
            UserError, match=r"no model 'm'.*The model `m` does not exist.*it serves qwen, llama"
        ):
            asked(server, [str(i) for i in range(1000)])
    assert len(server.seen) <= 64  # those that were under way, of 1000


def test_a_server_that_moved_is_not_followed() -> None:
    moved = body("", 307, headers={"Location": "http://127.0.0.1:1/v1/x?key=1"})
    with (
        serving(lambda _: moved) as server,
        pytest.raises(UserError, match="moved to http://127.0.0.1:1/v1/x"),
    ):
        asked(server, ["a"])


def test_a_used_up_quota_ends_the_run_even_after_answers() -> None:
    def react(seen: Seen) -> Reaction:
        return failure(429, "no money", code="insufficient_quota") if seen.text == "b" else answer("fine")

    with serving(react) as server:
        lm = EndpointLM.from_spec(server.spec, QUICK)
        assert [reply.status for _, reply in lm.ask(questions("a"))] == ["ok"]
        with pytest.raises(RbaError, match="quota"):
            list(lm.ask(questions("b")))
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("reaction", "error", "most"),
    [
        pytest.param(failure(500, "down"), RbaError, 500, id="500"),
        pytest.param(body("garbage"), RbaError, 500, id="garbage"),
        pytest.param(failure(403, "not yours"), MissingPrerequisite, 50, id="403"),
        pytest.param(failure(400, "no audio here"), UserError, 200, id="400"),
    ],
)
def test_a_server_of_which_nothing_works_does_not_burn_through_all_items(
    reaction: Reaction, error: type[RbaError], most: int
) -> None:
    options = EndpointOptions(timeout_s=5, backoff_s=0.01, retries=2, max_concurrency=16)
    with serving(lambda _: reaction) as server, pytest.raises(error) as caught:
        asked(server, [str(i) for i in range(15_000)], options)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert len(server.seen) < most
    assert our_threads() == []


def test_a_server_that_dies_on_the_way_ends_the_run_after_the_answers_it_gave() -> None:
    with serving(lambda seen: answer("fine", after=0.005)) as server:
        options = EndpointOptions(timeout_s=5, backoff_s=0.01, retries=2, max_concurrency=4)
        lm = EndpointLM.from_spec(server.spec, options)
        assert len(list(lm.ask(questions(*map(str, range(20)))))) == 20
    got = []
    with pytest.raises(RbaError, match=r"does not answer: (an item|\d+ items in a row) failed"):
        for _, reply in lm.ask(questions(*map(str, range(5000)))):
            got.append(reply)
    assert {reply.status for reply in got} <= {"error"}
    assert len(got) < 50


def test_stopping_in_the_middle_leaves_no_threads_and_no_requests() -> None:
    def react(seen: Seen) -> Reaction:
        return answer("fine") if int(seen.text) < 10 else hang()

    with serving(react) as server:
        replies = EndpointLM.from_spec(server.spec, EndpointOptions(timeout_s=60)).ask(
            questions(*map(str, range(500)))
        )
        first = [next(replies) for _ in range(5)]
        started = time.monotonic()
        replies.close()  # type: ignore[attr-defined]
        assert time.monotonic() - started < 5
        assert our_threads() == []
        time.sleep(0.2)  # what was on its way has come
        at_stop = len(server.seen)
        time.sleep(0.2)
        assert len(server.seen) == at_stop
    assert len({index for index, _ in first}) == 5


def test_no_more_is_asked_than_whoever_reads_the_replies_has_kept() -> None:
    with serving(lambda seen: answer("yes")) as server:
        lm = EndpointLM.from_spec(server.spec, EndpointOptions(max_concurrency=2))
        for n_kept, _ in enumerate(lm.ask(questions(*map(str, range(12))))):
            time.sleep(0.05)  # a disk that takes longer than the server
            assert len(server.seen) <= n_kept + 2
    assert len(server.seen) == 12


def test_an_error_of_whoever_reads_the_replies_stops_the_requests() -> None:
    with serving(lambda seen: answer("fine", after=0.01)) as server:
        lm = EndpointLM.from_spec(server.spec, QUICK)
        with pytest.raises(KeyboardInterrupt):
            for _ in lm.ask(questions(*map(str, range(500)))):
                raise KeyboardInterrupt
    assert our_threads() == []
    assert len(server.seen) < 500


def test_ctrl_c_while_waiting_for_a_server_that_hangs_ends_at_once() -> None:
    main = threading.main_thread()
    assert threading.current_thread() is main
    assert main.ident is not None
    with serving(lambda _: hang()) as server:
        lm = EndpointLM.from_spec(server.spec, EndpointOptions(timeout_s=60))
        interrupt = threading.Timer(1.0, signal.pthread_kill, (main.ident, signal.SIGINT))
        interrupt.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(lm.ask(questions(*map(str, range(20)))))
        interrupt.join()
    assert time.monotonic() - started < 15
    assert our_threads() == []

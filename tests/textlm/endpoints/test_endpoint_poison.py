"""Items that a server cannot take are theirs alone; a server that is down is not asked for ever."""

import random

import pytest

from rba_bench.errors import RbaError, UserError
from rba_bench.textlm.endpoints.address import EndpointOptions
from rba_bench.textlm.endpoints.client import EndpointClient
from rba_bench.textlm.endpoints.health import GREETING, EndpointRequest, Probe, content_hash
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.judging import Message, Question
from rba_bench.textlm.text_model import Decoding
from tests.textlm.misbehaving_server import Reaction, Seen, answer, body, failure, reset, serving

QUICK = EndpointOptions(timeout_s=20, backoff_s=0.001, max_backoff_s=0.01, retries=2)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RBA_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def statuses(spec: str, texts: list[str], seeds: int = 1) -> list[str]:
    lm = EndpointLM.from_spec(spec, QUICK)
    asked = [
        Question((Message("user", text),), max_tokens=5, temperature=0.5, seed=seed)
        for text in texts
        for seed in range(seeds)
    ]
    return [reply.status for _, reply in sorted(lm.ask(asked), key=lambda pair: pair[0])]


BOOM = {"500": failure(500, "boom"), "garbage": body("<html>"), "torn down": reset()}


@pytest.mark.parametrize("poison", BOOM.values(), ids=BOOM)
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(range(20), id="the first"),
        pytest.param(range(20, 60), id="the last"),
        pytest.param(range(0, 60, 2), id="every other"),
        pytest.param(range(59), id="all but the last"),
    ],
)
def test_items_that_always_fail_are_errors_of_their_own(bad: range, poison: Reaction) -> None:
    if len(bad) == 59:
        bad = range(45)  # beyond 49 before any answer the server counts as broken
    wrong = {str(i) for i in bad}
    with serving(lambda seen: poison if seen.text in wrong else answer("fine")) as server:
        found = statuses(server.spec, [str(i) for i in range(60)])
    assert [i for i, status in enumerate(found) if status == "error"] == list(bad)
    assert len(server.seen) < 60 + 5 * len(bad)


def test_votes_on_few_items_count_as_few_items() -> None:
    """Three items, six votes on each: eighteen requests in a row that fail, and not a probe is needed."""
    with serving(lambda seen: failure(500) if "bad" in seen.text else answer("fine")) as server:
        found = statuses(server.spec, ["good", "bad 1", "bad 2", "bad 3"], seeds=6)
    assert found == ["ok"] * 6 + ["error"] * 18
    assert len(server.seen) == 6 + 18 * 3


def test_items_that_fail_by_length_or_by_chance_end_nothing() -> None:
    rng = random.Random(5)
    texts = ["x" * rng.randrange(1, 3000) for _ in range(80)]

    def react(seen: Seen) -> Reaction:
        return failure(500) if len(seen.text) > 2000 or rng.random() < 0.3 else answer("fine")

    with serving(react) as server:
        found = statuses(server.spec, texts)
    assert all(status == "error" for text, status in zip(texts, found, strict=True) if len(text) > 2000)
    short = [status for text, status in zip(texts, found, strict=True) if len(text) <= 2000]
    assert short.count("error") < 0.15 * len(short)


def test_a_server_that_fails_on_everything_is_asked_a_hundred_times_at_most() -> None:
    with serving(lambda _: failure(500, "out of memory")) as server, pytest.raises(RbaError) as caught:
        statuses(server.spec, [str(i) for i in range(5_000)])
    assert "8 items in a row failed, the last of 500: out of memory" in str(caught.value)
    assert len(server.seen) < 100 and any(seen.text == GREETING for seen in server.seen)


def test_a_server_that_only_greets_is_given_up_after_fifty_items() -> None:
    def react(seen: Seen) -> Reaction:
        return answer("hi") if seen.text == GREETING else failure(500, "boom")

    with serving(react) as server, pytest.raises(RbaError, match="all of the first 50 items failed"):
        statuses(server.spec, [str(i) for i in range(5_000)])
    assert len(server.seen) < 250


def test_a_server_that_goes_down_on_the_way_ends_the_run() -> None:
    def react(_: Seen) -> Reaction:
        return answer("fine") if len(server.seen) < 30 else failure(503, "overloaded")

    with serving(react) as server, pytest.raises(RbaError, match="run the same command again"):
        statuses(server.spec, [str(i) for i in range(5_000)])
    assert len(server.seen) < 300


def test_what_serves_old_answers_out_of_a_store_does_not_pass_for_a_server() -> None:
    seen_before: dict[str, Reaction] = {}

    def react(seen: Seen) -> Reaction:
        key = f"{seen.text} {seen.body['seed']}"
        if len(server.seen) < 30:
            seen_before[key] = answer("fine")
        return seen_before.get(key, failure(502, "bad gateway"))

    with serving(react) as server, pytest.raises(RbaError, match="does not answer"):
        statuses(server.spec, [str(i) for i in range(5_000)])


def test_the_request_that_asks_whether_a_server_works_is_a_harmless_one() -> None:
    failed = EndpointRequest(
        "chat", {"messages": [{"role": "user", "content": "bad"}], "seed": 5, "logprobs": True}
    )
    good = EndpointRequest(
        "chat", {"messages": [{"role": "user", "content": "good"}], "seed": 2**31 - 1}, lenient=True
    )
    probe = Probe()
    first = probe.call(failed)
    assert first.payload == {**failed.payload, "messages": [{"role": "user", "content": GREETING}], "seed": 6}
    probe.answered(good)
    second = probe.call(failed)
    assert second.payload == {**good.payload, "seed": 1} and second.lenient
    raw = Probe().call(EndpointRequest("completion", {"prompt": "bad", "max_tokens": 3}))
    assert raw.payload == {"prompt": GREETING, "max_tokens": 3} and raw.route == "completion"


def test_an_item_is_what_it_puts_before_the_model() -> None:
    one = EndpointRequest(
        "chat", {"messages": [{"role": "user", "content": "a"}], "seed": 5, "temperature": 0.5}
    )
    same = EndpointRequest(
        "chat", {"messages": [{"role": "user", "content": "a"}], "seed": 6, "max_tokens": 9}
    )
    other = EndpointRequest(
        "chat", {"messages": [{"role": "user", "content": "b"}], "seed": 5, "temperature": 0.5}
    )
    assert content_hash(one) == content_hash(same) != content_hash(other)


def test_a_text_model_under_test_goes_on_too() -> None:
    with serving(lambda seen: failure(500) if seen.text in map(str, range(12)) else answer("fine")) as server:
        lm = EndpointLM(EndpointClient.from_spec(server.spec, QUICK))
        found = lm.chat([str(i) for i in range(20)], Decoding(4), [0] * 20)
    assert [one.status for one in found] == ["no_reply"] * 12 + ["ok"] * 8


@pytest.mark.parametrize(
    "message",
    ["audio input is not supported - hint: provide the mmproj", "This model does not support audio input"],
)
def test_what_a_server_cannot_do_at_all_is_not_tried_again(message: str) -> None:
    """llama.cpp says so with the status 500."""
    with (
        serving(lambda _: failure(500, message)) as server,
        pytest.raises(UserError, match="refuses every request"),
    ):
        statuses(server.spec, [str(i) for i in range(500)])
    assert len(server.seen) < 120

"""An API key leaves the process in the header of a request and nowhere else."""

import logging
import traceback
from collections.abc import Iterator

import pytest

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.textlm.endpoints.address import EndpointOptions, parse_endpoint
from rba_bench.textlm.endpoints.keys import ApiKey
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.judging import Message, Question
from rba_bench.textlm.text_model import Decoding
from tests.textlm.misbehaving_server import Reaction, Seen, answer, body, failure, serving

KEY = "sk-proj-Zq7/secret+Tail_4711=="
QUICK = EndpointOptions(timeout_s=5, backoff_s=0.01, retries=1)
LIBRARIES = ("httpx2", "httpcore2", "asyncio")


@pytest.fixture(autouse=True)
def all_logs(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    monkeypatch.setenv("RBA_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    before = {name: logging.getLogger(name).level for name in LIBRARIES}
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.DEBUG)
    with caplog.at_level(logging.DEBUG):
        yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def echo(seen: Seen, status: int) -> Reaction:
    """An error that repeats the header it was sent, in its body and in its own headers."""
    sent = seen.headers["authorization"]
    message = f"bad request with Authorization: {sent} and {sent[7:-6]}..."
    return failure(status, message, {"X-Echo": sent, "Retry-After": "0"}, code=sent, param=sent)


def clean(*texts: str) -> None:
    for text in texts:
        for secret in (KEY, KEY[:12], KEY[-10:], "Zq7/secret"):
            assert secret not in text


@pytest.mark.parametrize("status", [400, 403, 422, 429, 500])
def test_a_server_that_echoes_the_key_does_not_get_it_into_replies_logs_or_streams(
    status: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda seen: echo(seen, status)) as server:
        lm = EndpointLM.from_spec(server.spec, QUICK)
        [(_, reply)] = lm.ask([Question((Message("user", "a"),))])
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert reply.status == "error"
    assert str(status) in reply.error
    assert caplog.records
    streams = capfd.readouterr()
    records = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    clean(reply.error, repr(reply), caplog.text, *records, streams.out, streams.err)
    clean(repr(lm), repr(lm.client), repr(vars(lm.client)), repr(lm.identity()), repr(lm.observed()))


@pytest.mark.parametrize("status", [401, 404])
def test_the_error_that_ends_a_run_and_its_traceback_do_not_show_the_key(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(lambda seen: echo(seen, status)) as server, pytest.raises(RbaError) as caught:
        list(EndpointLM.from_spec(server.spec, QUICK).ask([Question((Message("user", "a"),))]))
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [
        frame for frame in told.stack if "misbehaving" not in frame.filename and frame.filename != __file__
    ]
    assert any(frame.locals and "self" in frame.locals for frame in ours)
    clean(str(caught.value), *(repr(frame.locals) for frame in ours), caplog.text)
    clean("".join(traceback.format_exception(caught.value)))


def test_a_200_that_echoes_the_key_does_not_get_it_into_the_record() -> None:
    def react(seen: Seen) -> Reaction:
        sent = seen.headers["authorization"]
        if seen.text == "error":
            return body({"error": {"message": f"no worker for {sent}"}})
        return answer(f"your key is {KEY}", system_fingerprint=sent)

    with serving(react) as server:
        lm = EndpointLM.from_spec(server.spec, QUICK)
        told, lost = lm.chat(["tell", "error"], Decoding(9), [0, 0])
        [(_, reply)] = lm.ask([Question((Message("user", "tell"),))])
    assert told.text == reply.text == "your key is ***"
    assert "no worker" in lost.error
    clean(repr(told), repr(lost), repr(reply), repr(lm.observed()))


def test_an_unreachable_server_does_not_show_the_key(caplog: pytest.LogCaptureFixture) -> None:
    lm = EndpointLM.from_spec("openai:http://no-such-host.invalid/v1#m", QUICK)
    with pytest.raises(RbaError, match=r"no server answers at http://no-such-host\.invalid") as caught:
        list(lm.ask([Question((Message("user", str(i)),)) for i in range(5)]))
    clean(str(caught.value), "".join(traceback.format_exception(caught.value)), caplog.text)


@pytest.mark.parametrize("broken", ["two words", "line\nbreak", "schlüssel", "tab\tbed"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RBA_API_KEY", broken)
    with pytest.raises(MissingPrerequisite, match="RBA_API_KEY") as caught:
        EndpointLM.from_spec("openai:http://localhost:1/v1#m")
    assert broken not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "spec",
    [
        f"openai:https://user:{KEY}@host/v1#m",
        f"openai:https://{KEY}@host/v1#m",
        f"openai:https://host/v1?api_key={KEY}#m",
        f"openai:https://host:{KEY}/v1?#m",
        f"openai:https://user:{KEY}@host:port/v1#m",
        f"openai:user:{KEY}@host/v1#m",
    ],
)
def test_secrets_in_the_url_are_refused_without_repeating_them(spec: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_endpoint(spec)
    clean("".join(traceback.format_exception(caught.value)))


def test_without_a_key_words_are_left_alone() -> None:
    assert ApiKey(None).wash("none of it works") == "none of it works"
    assert (
        ApiKey("abc").wash("sent Authorization: Bearer xyz123, sk-abcdef") == "sent Authorization: ***, ***"
    )

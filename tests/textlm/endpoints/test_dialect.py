"""Servers that want to be asked in another way: by itself where nothing changes, by a flag where the protocol does."""

from collections.abc import Callable
from typing import Any

import pytest

from rba_bench.errors import UserError
from rba_bench.textlm.endpoints.address import EndpointOptions
from rba_bench.textlm.endpoints.dialect import Dialect, adapt_dialect
from rba_bench.textlm.endpoints.health import RequestFailure
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.judging import Message, Question
from rba_bench.textlm.text_model import Decoding
from tests.textlm.misbehaving_server import Reaction, Seen, answer, body, failure, serving

GREEDY = Decoding(max_new_tokens=9)
DRAWN = Decoding(max_new_tokens=9, temperature=0.7, top_p=0.9)
JUDGED: dict[str, Any] = {"max_tokens": 1, "top_logprobs": 20}


def options(**more: Any) -> EndpointOptions:
    return EndpointOptions(
        timeout_s=5, backoff_s=0.01, retries=0, start_concurrency=1, max_concurrency=1, **more
    )


def unless(
    accepted: Callable[[dict[str, Any]], bool], message: str, status: int = 400
) -> Callable[[Seen], Reaction]:
    return lambda seen: answer("fine") if accepted(seen.body) else failure(status, message)


BY_THEMSELVES = {
    "max_tokens": (
        lambda body: "max_tokens" not in body,
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        400,
        {"max_completion_tokens": 1},
        "max_completion_tokens",
    ),
    "max_tokens, the other word not named": (
        lambda body: "max_tokens" not in body,
        "Unrecognized request argument supplied: max_tokens",
        400,
        {"max_completion_tokens": 1},
        "max_completion_tokens",
    ),
    "too few tokens": (
        lambda body: body["max_tokens"] >= 16,
        "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.",
        400,
        {"max_tokens": 16},
        "at least 16 tokens",
    ),
    "more than some tokens": (
        lambda body: body["max_tokens"] > 7,
        "max_tokens must be greater than 7",
        422,
        {"max_tokens": 8},
        "at least 8 tokens",
    ),
    "too few tokens, no number": (
        lambda body: body["max_tokens"] >= 16,
        "max_tokens is too small",
        400,
        {"max_tokens": 16},
        "at least 16 tokens",
    ),
    "no odds": (
        lambda body: "logprobs" not in body and "top_logprobs" not in body,
        "You are not allowed to request logprobs from this model.",
        403,
        {},
        "no logprobs",
    ),
    "fewer odds": (
        lambda body: body["top_logprobs"] <= 5,
        "Requested sample logprobs of 20, which is greater than max allowed: 5",
        400,
        {"top_logprobs": 5, "logprobs": True},
        "top_logprobs at most 5",
    ),
    "fewer odds, as a bound": (
        lambda body: body["top_logprobs"] <= 8,
        "body.top_logprobs: Input should be less than or equal to 8",
        422,
        {"top_logprobs": 8},
        "top_logprobs at most 8",
    ),
    "no seed": (
        lambda body: "seed" not in body,
        'Invalid JSON payload received. Unknown name "seed": Cannot find field.',
        400,
        {"temperature": 0.0},
        "no seed where it is greedy",
    ),
}


@pytest.mark.parametrize("name", BY_THEMSELVES)
def test_words_that_do_not_decide_how_answers_are_drawn_are_changed_and_told(name: str) -> None:
    accepted, message, status, sent, note = BY_THEMSELVES[name]
    with serving(unless(accepted, message, status)) as server:
        lm = EndpointLM.from_spec(server.spec, options())
        before = lm.identity()
        replies = list(lm.ask([Question((Message("user", text),), **JUDGED) for text in "abc"]))
    assert [reply.text for _, reply in replies] == ["fine"] * 3
    assert len(server.seen) == 4, "each word is learnt once"
    assert sent.items() <= server.seen[-1].body.items()
    assert lm.observed()["asked"] == [note]
    assert lm.identity() == before


def test_several_words_are_learnt_one_after_another() -> None:
    def react(seen: Seen) -> Reaction:
        if "max_tokens" in seen.body:
            return failure(400, "max_tokens is not supported, use max_completion_tokens")
        if seen.body["max_completion_tokens"] < 16:
            return failure(400, "max_completion_tokens: minimum is 16")
        if "logprobs" in seen.body:
            return failure(400, "'logprobs' is not supported with this model")
        if not seen.body.get("stream"):
            return failure(400, "this model only supports streaming")
        return (
            streamed("fine") if "stream_options" not in seen.body else failure(400, "unknown: stream_options")
        )

    with serving(react) as server:
        lm = EndpointLM.from_spec(server.spec, options())
        [(_, reply)] = lm.ask([Question((Message("user", "a"),), **JUDGED)])
    assert (reply.status, reply.text, len(server.seen)) == ("ok", "fine", 6)
    assert lm.observed()["asked"] == [
        "max_completion_tokens", "at least 16 tokens", "no logprobs", "streamed",
    ]  # fmt: skip


PROTOCOL = {
    "temperature": (
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
        GREEDY,
        lambda body: body["temperature"] == 1,
        ["temperature 1"],
    ),
    "temperature, not taken at all": (
        "Unsupported parameter: 'temperature' is not supported with this model.",
        GREEDY,
        lambda body: "temperature" not in body,
        ["no temperature"],
    ),
    "top_p": (
        "'top_p' cannot be used with this model",
        DRAWN,
        lambda body: "top_p" not in body,
        ["no top_p"],
    ),
    "seed": (
        "body.seed: extra inputs are not permitted",
        DRAWN,
        lambda body: "seed" not in body,
        ["no seed"],
    ),
}


@pytest.mark.parametrize("name", PROTOCOL)
def test_what_the_protocol_asks_for_is_given_up_only_where_the_user_says_so(name: str) -> None:
    message, decoding, accepted, notes = PROTOCOL[name]
    word = name.partition(",")[0]
    with serving(unless(accepted, message)) as server:
        lm = EndpointLM.from_spec(server.spec, options())
        with pytest.raises(UserError, match=f"RBA_ENDPOINT_WITHOUT={word}") as caught:
            lm.chat([str(i) for i in range(100)], decoding, list(range(100)))
        assert len(server.seen) == 1 and "\n" not in str(caught.value)
        free = EndpointLM.from_spec(server.spec, options(without=frozenset({word})))
        assert {one.text for one in free.chat(["a", "b"], decoding, [0, 1])} == {"fine"}
    assert free.observed()["asked"] == notes
    assert free.identity()["may_omit"] == [word]
    assert "may_omit" not in lm.identity()


def test_a_seed_that_is_left_out_of_greedy_requests_is_kept_where_answers_are_drawn() -> None:
    react = unless(lambda body: "seed" not in body or body["temperature"] > 0, "seed is not supported")
    with serving(react) as server:
        lm = EndpointLM.from_spec(server.spec, options())
        lm.chat(["a"], GREEDY, [1])
        lm.chat(["a"], DRAWN, [2])
    assert ["seed" in seen.body for seen in server.seen] == [True, False, True]


def only_warm_and_unseeded(seen: Seen) -> Reaction:
    if seen.body["temperature"] != 1:
        return failure(400, "temperature: only 1 is supported")
    return failure(400, "unknown: seed") if "seed" in seen.body else answer("fine")


def test_without_temperature_a_greedy_seed_decides_again() -> None:
    with serving(only_warm_and_unseeded) as server:
        lm = EndpointLM.from_spec(server.spec, options(without=frozenset({"temperature"})))
        with pytest.raises(UserError, match="RBA_ENDPOINT_WITHOUT=seed"):
            lm.chat(["a"], GREEDY, [0])
        lm = EndpointLM.from_spec(server.spec, options(without=frozenset({"temperature", "seed"})))
        assert lm.chat(["a"], GREEDY, [0])[0].text == "fine"


def test_a_judge_that_takes_no_other_temperature_votes_as_it_can_and_that_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(only_warm_and_unseeded) as server:
        lm = EndpointLM.from_spec(server.spec, options())
        replies = list(lm.ask([Question((Message("user", text),)) for text in "ab"]))
    assert [reply.text for _, reply in replies] == ["fine", "fine"]
    assert len(server.seen) == 4
    assert lm.observed()["asked"] == ["temperature 1", "no seed"]
    assert "m: requests are adapted to the server (temperature 1, no seed)" in capsys.readouterr().err


def test_after_an_answer_a_refused_temperature_is_its_items_failure() -> None:
    react = unless(lambda body: body["temperature"] == 0, "temperature must be 0: unsupported value")
    with serving(react) as server:
        lm = EndpointLM.from_spec(server.spec, options())
        lm.chat(["a"], GREEDY, [1])
        [one] = lm.chat(["b"], DRAWN, [1])
    assert one.text == "" and "RBA_ENDPOINT_WITHOUT=temperature" in one.error


def streamed(text: str) -> Reaction:
    halves = (text[:2], text[2:])
    parts = [
        f'data: {{"choices": [{{"index": 0, "delta": {{"content": "{half}"}}}}]}}\n\n' for half in halves
    ]
    end = 'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
    usage = 'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}\n\ndata: [DONE]\n\n'
    data = "".join([*parts, end, usage]).encode()
    return Reaction(lambda handler: handler.reply(data, "text/event-stream"))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            400,
            "This model only supports stream mode, please enable the stream parameter to access the model.",
        ),
        (400, "parameter.enable_thinking must be set to false for non-streaming calls"),
        (422, "stream must be true"),
        (501, "non-stream completion is not implemented"),
    ],
)
def test_servers_that_only_stream_are_found_out(status: int, message: str) -> None:
    def react(seen: Seen) -> Reaction:
        return streamed(f"re {seen.text}") if seen.body.get("stream") else failure(status, message)

    with serving(react) as server:
        lm = EndpointLM.from_spec(server.spec, options())
        answers = lm.chat(["a", "b"], GREEDY, [0, 0])
    assert [(one.text, one.n_tokens, one.status) for one in answers] == [("re a", 2, "ok"), ("re b", 2, "ok")]
    assert len(server.seen) == 3
    assert server.seen[-1].body["stream_options"] == {"include_usage": True}
    assert lm.observed()["asked"] == ["streamed"]


def test_a_model_that_thinks_until_there_is_no_room_is_told_the_way_out() -> None:
    said = "Could not finish: max_tokens or model output limit was reached. Please try again with higher max_tokens."
    with serving(unless(lambda body: body["max_tokens"] >= 500, said)) as server:
        [one] = EndpointLM.from_spec(server.spec, options()).chat(["a"], GREEDY, [0])
        roomy = EndpointLM.from_spec(server.spec, options(least_tokens=512))
        assert roomy.chat(["a"], GREEDY, [0])[0].text == "fine"
    assert "RBA_ENDPOINT_LEAST_TOKENS=N" in one.error
    assert roomy.observed()["asked"] == ["at least 512 tokens"]


def test_options_ask_so_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_ENDPOINT_STREAM", "1")
    monkeypatch.setenv("RBA_ENDPOINT_LEAST_TOKENS", "64")
    monkeypatch.setenv("RBA_ENDPOINT_WITHOUT", "temperature, seed")
    with serving(lambda _: streamed("fine")) as server:
        lm = EndpointLM.from_spec(server.spec)
        assert lm.chat(["a"], GREEDY, [0])[0].text == "fine"
    assert server.seen[0].body["stream"] is True
    assert server.seen[0].body["max_tokens"] == 64
    assert server.seen[0].body["temperature"] == 0, "what the server takes is asked for"
    assert lm.identity()["may_omit"] == ["seed", "temperature"] and lm.identity()["least_tokens"] == 64
    monkeypatch.setenv("RBA_ENDPOINT_WITHOUT", "messages")
    with pytest.raises(
        UserError, match="RBA_ENDPOINT_WITHOUT names messages: it may name temperature, top_p, seed"
    ):
        EndpointOptions.from_environment()


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 9. This model supports at most 4 completion tokens",
        "This model's maximum context length is 8192 tokens. However, you requested max_tokens 9000",
        "content blocks are expected to be either text or image_url type",
        "upstream connect error",
        "",
    ],
)
def test_a_refusal_of_something_else_teaches_nothing(message: str) -> None:
    payload = {"messages": [], "max_tokens": 9, "temperature": 1.0}
    trouble = RequestFailure("request", message, detail=message)
    assert adapt_dialect(Dialect(), trouble, payload) is trouble


def test_where_the_server_names_the_parameter_the_words_of_a_question_are_not_taken_for_it() -> None:
    def react(seen: Seen) -> Reaction:
        return failure(400, f"invalid, must not be asked: {seen.text}", param=params[seen.text])

    params = {"what is the temperature": "messages", "hot": "temperature"}
    with serving(react) as server:
        lm = EndpointLM.from_spec(server.spec, options())
        [one] = lm.chat(["what is the temperature"], GREEDY, [0])
        assert one.error == "400: invalid, must not be asked: what is the temperature"
        with pytest.raises(UserError, match="RBA_ENDPOINT_WITHOUT=temperature"):
            lm.chat(["hot"], GREEDY, [0])


def test_a_server_that_is_never_content_is_not_asked_for_ever() -> None:
    words = [
        "use max_completion_tokens",
        "minimum max_completion_tokens >= 16",
        ">= 17 max_completion_tokens",
    ]
    with serving(lambda seen: failure(400, words[len(server.seen) % 3])) as server:
        [one] = EndpointLM.from_spec(server.spec, options()).chat(["a"], GREEDY, [0])
    assert one.text == "" and len(server.seen) <= 12


@pytest.mark.parametrize(
    "refusal",
    [
        [{"error": {"code": 400, "message": "Logprobs is not enabled", "status": "INVALID_ARGUMENT"}}],
        "logprobs is not supported",
    ],
    ids=["in a list, as Google's", "in words"],
)
def test_a_refusal_is_understood_in_whatever_it_is_wrapped(refusal: Any) -> None:
    with serving(lambda seen: body(refusal, 400) if "logprobs" in seen.body else answer("fine")) as server:
        lm = EndpointLM.from_spec(server.spec, options())
        ((_, reply),) = lm.ask([Question((Message("user", "?"),), **JUDGED)])
    assert reply.text == "fine" and lm.observed()["asked"] == ["no logprobs"]

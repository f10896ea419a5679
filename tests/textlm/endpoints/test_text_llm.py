"""A text LLM over HTTP, against a real server that answers properly: what is sent, and what is read."""

from pathlib import Path

import pytest

from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.textlm.endpoints.address import EndpointOptions
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.judging import JudgeModel, Message, Question, Reply
from rba_bench.textlm.text_model import Decoding, TextLM, load_judge_model, load_textlm, parse_endpoint
from tests.textlm.misbehaving_server import Reaction, Seen, answer, body, failure, serving

QUICK = EndpointOptions(timeout_s=5, backoff_s=0.01, retries=2)
GREEDY = Decoding(max_new_tokens=9)


def question(text: str = "hello", **more: object) -> Question:
    return Question((Message("system", "be brief"), Message("user", text)), **more)  # type: ignore[arg-type]


def only(lm: EndpointLM, asked: Question) -> Reply:
    [(index, reply)] = lm.ask([asked])
    assert index == 0
    return reply


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RBA_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def test_it_is_an_asker_and_a_textlm() -> None:
    lm = EndpointLM.from_spec("openai:http://localhost:1/v1#org/model-7b")
    assert isinstance(lm, JudgeModel)
    assert isinstance(lm, TextLM)
    assert lm.name == "model-7b"


def test_a_question_travels_whole_and_the_first_tokens_odds_come_back_sorted() -> None:
    top = [
        {"token": "M", "logprob": -2.5},
        {"token": "m", "logprob": -0.1},
        {"token": "x", "logprob": -9999.0},
    ]
    first = {"token": "m", "logprob": -0.1, "top_logprobs": top}
    later = {"token": "x", "logprob": 0.0, "top_logprobs": [{"token": "no", "logprob": 0.0}]}
    with serving(lambda _: answer(" m ", choice={"logprobs": {"content": [first, later]}})) as server:
        lm = EndpointLM.from_spec(server.spec, QUICK)
        reply = only(lm, question("who wins ?", max_tokens=1, temperature=1.0, seed=2**62, top_logprobs=2))
    sent = server.seen[0]
    assert sent.path == "/v1/chat/completions"
    assert not {"authorization", "api-key"} & set(sent.headers)
    assert sent.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "who wins ?"}],
        "max_tokens": 1,
        "temperature": 1.0,
        "seed": 2**62,
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert reply.text == "m"
    assert reply.status == "ok"
    assert reply.top_logprobs == (("m", -0.1), ("M", -2.5))
    assert (reply.prompt_tokens, reply.completion_tokens) == (7, 1)
    assert 0 < reply.latency_s < 5


def test_odds_that_were_not_asked_for_or_not_given_are_empty() -> None:
    with serving(lambda _: answer("m")) as server:
        lm = EndpointLM.from_spec(server.spec, QUICK)
        assert only(lm, question(top_logprobs=5)).top_logprobs == ()
        assert only(lm, question("plain")).top_logprobs == ()
    assert "logprobs" not in server.seen[1].body
    assert "top_logprobs" not in server.seen[1].body


@pytest.mark.parametrize(
    ("reaction", "text", "error"),
    [
        (
            answer("", message={"content": None, "refusal": "i will not"}),
            "i will not",
            "refused by the model",
        ),
        (answer("", finish="content_filter"), "", "refused by the content filter"),
        (failure(400, "flagged", code="content_filter"), "", "400: flagged"),
    ],
)
def test_refusals_are_refused_and_not_tried_again(reaction: Reaction, text: str, error: str) -> None:
    with serving(lambda _: reaction) as server:
        reply = only(EndpointLM.from_spec(server.spec, QUICK), question())
    assert (reply.status, reply.text, reply.error) == ("refused", text, error)
    assert len(server.seen) == 1


def test_chat_answers_are_in_order_whatever_order_they_come_in() -> None:
    def react(seen: Seen) -> Reaction:
        return answer(f"re {seen.text}", after=0.05 if seen.text in ("0", "5") else 0)

    with serving(react) as server:
        lm = EndpointLM.from_spec(server.spec, QUICK)
        answers = lm.chat([str(i) for i in range(20)], GREEDY, list(range(20)))
    assert [one.text for one in answers] == [f"re {i}" for i in range(20)]
    assert {one.status for one in answers} == {"ok"}
    assert answers[0].n_tokens == 2
    assert sorted(seen.body["seed"] for seen in server.seen) == list(range(20))
    assert server.seen[0].body["temperature"] == 0
    assert server.seen[0].body["max_tokens"] == 9
    assert "top_p" not in server.seen[0].body


def test_cut_empty_and_filtered_answers_have_their_status() -> None:
    reactions = {
        "cut": answer("half an", finish="length"),
        "empty": answer("  "),
        "filtered": answer("", finish="content_filter"),
        "parts": answer("", message={"content": [{"type": "text", "text": "in parts"}]}),
        "silent": answer("", message={"content": None}),
    }
    with serving(lambda seen: reactions[seen.text]) as server:
        lm = EndpointLM.from_spec(server.spec, QUICK)
        answers = dict(zip(reactions, lm.chat(list(reactions), GREEDY, [0] * 5), strict=True))
    assert {name: one.status for name, one in answers.items()} == {
        "cut": "truncated",
        "empty": "empty",
        "filtered": "error",
        "parts": "ok",
        "silent": "empty",
    }
    assert answers["cut"].text == "half an"
    assert answers["parts"].text == "in parts"
    assert answers["filtered"].error == "refused by the content filter"


def test_raw_text_goes_to_completions_without_special_tokens_added() -> None:
    with serving(lambda seen: answer(f"{seen.text} on")) as server:
        lm = EndpointLM.from_spec(server.spec, QUICK)
        [continued] = lm.complete(["<|user|>go"], Decoding(5, 0.7, 0.9), [3])
    assert continued.text == "<|user|>go on"
    assert server.seen[0].path == "/v1/completions"
    assert server.seen[0].body == {
        "model": "m",
        "prompt": "<|user|>go",
        "max_tokens": 5,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 3,
        "add_special_tokens": False,
    }


def test_what_servers_cannot_do_is_said_in_one_line_with_the_way_out() -> None:
    lm = EndpointLM.from_spec("openai:http://localhost:1/v1#m")
    with pytest.raises(UserError, match="local folder"):
        lm.logprobs(["a"], ["b"])
    with pytest.raises(UserError, match="template"):
        lm.pre_query_template()


def test_a_server_that_wants_other_words_gets_them_and_each_word_is_learnt_once() -> None:
    def react(seen: Seen) -> Reaction:
        if "max_tokens" in seen.body:
            return failure(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "seed" in seen.body:
            return failure(422, "body.seed: extra inputs are not permitted")
        return answer("fine")

    with serving(react) as server:
        lm = EndpointLM.from_spec(
            server.spec, EndpointOptions(start_concurrency=1, max_concurrency=1, retries=0)
        )
        assert [one.text for one in lm.chat(["a", "b", "c"], GREEDY, [1, 2, 3])] == ["fine"] * 3
    assert len(server.seen) == 5
    assert server.seen[-1].body["max_completion_tokens"] == 9


def test_identity_is_the_same_before_and_after_and_what_answers_report_is_kept_beside_it() -> None:
    with serving(lambda _: answer("fine", model="m-2026-11", system_fingerprint="fp_1")) as server:
        lm = EndpointLM.from_spec(server.spec, QUICK)
        before = lm.identity()
        assert lm.observed() == {}
        lm.chat(["a", "b"], GREEDY, [0, 0])
        assert lm.identity() == before
        assert lm.observed() == {"model": ["m-2026-11"], "system_fingerprint": ["fp_1"]}
        again = EndpointLM.from_spec(server.spec, QUICK).identity()
    assert before == again
    assert before["kind"] == "endpoint"
    assert before["url"] == server.url
    assert before["weights_known"] is False
    assert before["weights_sha256"] != EndpointLM.from_spec(f"{server.spec}2").identity()["weights_sha256"]


def test_nothing_to_ask_asks_nothing() -> None:
    lm = EndpointLM.from_spec("openai:http://localhost:1/v1#m")
    assert list(lm.ask([])) == []
    assert lm.chat([], GREEDY, []) == []


@pytest.mark.parametrize("name", ["model", "org/model", "./openai", "openai"])
def test_other_specs_name_no_server(name: str) -> None:
    assert parse_endpoint(name) is None


@pytest.mark.parametrize(
    ("spec", "address"),
    [
        ("openai:http://localhost:8000/v1#Qwen/Q", ("http://localhost:8000/v1", "Qwen/Q")),
        ("openai: https://api.x.org/v1/ # gpt-4.1 ", ("https://api.x.org/v1", "gpt-4.1")),
        ("openai:http://[::1]:80/v1#m:tag#2", ("http://[::1]:80/v1", "m:tag#2")),
    ],
)
def test_specs_name_base_url_and_model(spec: str, address: tuple[str, str]) -> None:
    assert parse_endpoint(spec) == address


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("openai:gpt-4.1", "without a model"),
        ("openai:http://h/v1#", "without a model"),
        ("openai:#m", "without a base URL"),
        ("openai:localhost:8000/v1#m", "no http"),
        ("openai:ftp://h/v1#m", "no http"),
        ("openai:http:///v1#m", "no http"),
        ("openai:http://h:port/v1#m", "no http"),
        ("openai:http://h/v1/chat/completions#m", "without '/chat/completions'"),
        ("http://h/v1#m", "is written openai:"),
    ],
)
def test_malformed_specs_are_one_line_that_names_the_right_form(spec: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        load_judge_model(spec)
    assert "\n" not in str(caught.value)


def test_specs_load_servers_and_local_models(tiny_textlm_dir: Path) -> None:
    with serving(lambda _: answer("fine")) as server:
        assert load_textlm(server.spec).chat(["a"], GREEDY, [0])[0].text == "fine"
        assert isinstance(load_judge_model(server.spec), EndpointLM)
    assert load_textlm(str(tiny_textlm_dir), batch_size=2).identity()["kind"] == "text"
    local = load_judge_model(str(tiny_textlm_dir), batch_size=2)
    assert [reply.status for _, reply in local.ask([question("hi", max_tokens=3)])] == ["ok"]
    with pytest.raises(MissingPrerequisite):
        load_textlm("no/such-model-anywhere")


def test_the_environment_sets_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBA_ENDPOINT_TIMEOUT", "7.5")
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "1")
    monkeypatch.setenv("RBA_ENDPOINT_CONCURRENCY", "3")
    options = EndpointLM.from_spec("openai:http://localhost:1/v1#m").client.options
    assert (options.timeout_s, options.retries, options.max_concurrency) == (7.5, 1, 3)
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "many")
    with pytest.raises(UserError, match="RBA_ENDPOINT_RETRIES is 'many'"):
        EndpointOptions.from_environment()
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "-1")
    with pytest.raises(UserError, match="retries"):
        EndpointOptions.from_environment()


def test_an_answer_that_is_no_object_is_an_error() -> None:
    with serving(lambda _: body([1, 2])) as server:
        reply = only(EndpointLM.from_spec(server.spec, QUICK), question())
    assert (reply.status, reply.error) == ("error", "the answer is no JSON object")
    assert len(server.seen) == 3

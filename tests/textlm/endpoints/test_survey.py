"""What a server offers, in one line each and with the right exit code."""

import json
from typing import Any

import pytest

from rba_bench.cli.main import main
from tests.textlm.misbehaving_server import Reaction, Seen, Server, answer, failure, free_port, serving


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RBA_API_KEY", "OPENAI_API_KEY", "RBA_API_KEYS"):
        monkeypatch.delenv(name, raising=False)


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    """Exit code, lines on stdout, stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", *words])
    shown = capsys.readouterr()
    return int(str(stopped.value.code)), shown.out.splitlines(), shown.err


def react(seen: Seen) -> Reaction:
    """Takes no `max_tokens`, gives odds, does not stream and hears nothing."""
    if "max_tokens" in seen.body:
        return failure(400, "'max_tokens' is not supported, use 'max_completion_tokens'")
    if seen.body.get("stream"):
        return failure(400, "streams are not offered")
    if not isinstance(seen.body["messages"][0]["content"], str):
        return failure(400, "content must be a string")
    odds = {"content": [{"token": "yes", "top_logprobs": [{"token": "yes", "logprob": -0.1}]}]}
    return answer("yes", choice={"logprobs": odds} if "logprobs" in seen.body else {})


def listing(server: Server, *rows: Any) -> None:
    server.models = rows


def test_models_are_listed_with_what_the_server_tells_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": "a\x1b[31m", "max_model_len": 32768},
        {"id": "b", "meta": {"n_ctx_train": 8192}, "architecture": {"input_modalities": ["text", "audio"]}},
        {"id": "c", "shutdown_date": "2027-01-14"},
        {"id": "d" * 400, "max_model_len": "much"},
    ]
    with serving(react) as server:
        listing(server, *rows)
        code, lines, err = doctor(capsys, "--endpoint", server.url)
    assert (code, err) == (0, "")
    assert lines[0].startswith("ok  key      not set; it would go into RBA_API_KEY")
    assert lines[1].endswith("[31m; 32,768 tokens") and "\x1b" not in lines[1]
    assert lines[2] == "ok  model    b; 8,192 tokens; takes text, audio"
    assert lines[3] == "ok  model    c; shut down on 2027-01-14"
    assert len(lines[4]) < 220 and len(lines) == 5
    assert server.seen == [], "no request costs anything"


def test_a_probe_says_what_the_model_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(react) as server:
        code, lines, _ = doctor(capsys, "--endpoint", server.spec, "--probe")
        as_json = doctor(capsys, "--endpoint", f"{server.url}#m", "--probe", "--json")
    assert code == 0
    assert lines[1:] == [
        "ok  model    m",
        "ok  answers  max_completion_tokens",
        "ok  logprobs 1 likeliest first tokens",
        "--  stream   400: streams are not offered",
        "--  audio    400: content must be a string",
    ]
    assert [one["name"] for one in json.loads("\n".join(as_json[1]))][1:4] == ["model", "answers", "logprobs"]


def test_a_server_without_a_list_can_be_probed(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda _: answer("yes")) as server:
        listing(server)
        assert doctor(capsys, "--endpoint", server.url)[0] == 1
        code, lines, _ = doctor(capsys, "--endpoint", server.spec, "--probe")
    assert code == 0
    assert lines[1] == "--  models   not listed (the answer lists no models)"
    assert lines[2] == "ok  answers  as the protocol says"
    assert lines[3] == "--  logprobs not given"
    assert lines[5] == "ok  audio    takes input_audio"


def test_a_server_whose_model_does_not_answer_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda _: failure(500, "out of memory")) as server:
        code, lines, _ = doctor(capsys, "--endpoint", server.spec, "--probe")
    assert code == 1
    assert "--  answers  500: out of memory" in lines


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--endpoint", "http://127.0.0.1:{free}/v1"], 1, "no server answers at http://127.0.0.1"),
        (["--endpoint", "{url}#other"], 2, "does not list 'other'; it lists m, n"),
        (["--endpoint", "{url}", "--probe"], 2, "--probe asks one model"),
        (["--endpoint", "localhost:8000/v1"], 2, "no http"),
        (["--probe"], 2, "--endpoint"),
    ],
)
def test_what_is_wrong_is_one_line_and_its_code(
    words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(react) as server:
        server.models = ("m", "n")
        found = doctor(capsys, *(word.format(url=server.url, free=free_port()) for word in words))
    assert found[0] == code and found[1] == []
    assert says in found[2] and found[2].count("\n") == 1


def test_a_refused_key_is_a_missing_prerequisite(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RBA_API_KEY", "sk-wrong-key-0123456789")
    with serving(react) as server:
        server.list_status = 401
        code, _, err = doctor(capsys, "--endpoint", server.url)
    assert code == 3 and "refuses the API key (401): check RBA_API_KEY" in err and "wrong" not in err

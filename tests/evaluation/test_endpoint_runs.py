"""Whole runs of a served model on a server that misbehaves: what has been answered is not asked again."""

from pathlib import Path

import pytest

from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.evaluation.records import read_record, read_samples
from rba_bench.evaluation.runner import EvalRequest, evaluate
from tests.evaluation.conftest import ITEMS, write_task, write_test_set
from tests.programs import Program
from tests.textlm.misbehaving_server import Reaction, answer, body, failure, reset, serving

KEY = "sk-secret-of-the-user-0123456789"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("RBA_API_KEY", KEY)
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "3")


def kept_lines(out: Path) -> int:
    """How many answers are on disk."""
    return sum(file.read_bytes().count(b"\n") for file in out.glob("*/*/samples.jsonl"))


def sound(seen):
    return seen.body["messages"][-1]["content"][0]["input_audio"]["data"]


def test_a_server_that_fails_now_and_then_loses_nothing(tmp_path):
    def react(seen):
        if seen.tries:
            return answer("the dorn")
        first = [failure(500), body("<html>"), reset(), failure(429, headers={"Retry-After": "0"})]
        return [answer("the dorn"), *first][len(server.seen) % 5]

    task = write_task(tmp_path, "triviaqa")
    with serving(react) as server:
        [record] = evaluate(EvalRequest((str(task),), server.spec, out=tmp_path / "out", device="cpu"))
    assert record.statuses["ok"] == 6 and record.metrics["alias_match"].value == pytest.approx(1 / 3)
    assert record.model["kind"] == "endpoint" and record.model["observed"]["model"] == ["m"]
    assert all(seen.headers["authorization"] == f"Bearer {KEY}" for seen in server.seen)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_an_item_the_server_refuses_has_no_score_and_can_be_asked_again(tmp_path, capsys):
    task = write_task(tmp_path, "triviaqa")
    broken = {"on": True}

    def react(seen):
        return failure(422, "bad clip") if broken["on"] and sound(seen) == worst[0] else answer("castle")

    worst: list[str] = []
    with serving(lambda seen: worst.append(sound(seen)) or answer("castle")) as server:
        evaluate(EvalRequest((str(task),), server.spec, out=tmp_path / "first", device="cpu"))
    with serving(react) as server:
        request = EvalRequest((str(task),), server.spec, out=tmp_path / "out", device="cpu")
        [record] = evaluate(request)
        found = record.metrics["alias_match"]
        assert (record.statuses["no_reply"], record.n, found.n, found.n_missing) == (1, 6, 5, 1)
        [bad] = [s for s in read_samples(tmp_path / "out" / "m" / record.run_id) if s.status == "no_reply"]
        assert "bad clip" in bad.error and not bad.scores
        said = capsys.readouterr().err
        assert "no_reply 1 of 6" in said and "422: bad clip" in said and "--retry-errors" in said
        [same] = evaluate(request)
        assert same == record, "a run with a record asks again only when told to"
        broken["on"] = False
        before = len(server.seen)
        [again] = evaluate(EvalRequest(request.tasks, server.spec, out=request.out, retry_errors=True))
        assert again.statuses["no_reply"] == 0 and again.metrics["alias_match"].n == 6
        assert len(server.seen) == before + 1


@pytest.mark.parametrize(
    ("status", "error", "message"), [(401, MissingPrerequisite, "RBA_API_KEY"), (404, RbaError, "m")]
)
def test_a_server_that_refuses_everything_ends_the_run_at_once(tmp_path, status, error, message):
    task = write_task(tmp_path, "triviaqa")
    with serving(lambda _: failure(status, "no such thing")) as server:
        with pytest.raises(error, match=message) as caught:
            evaluate(EvalRequest((str(task),), server.spec, out=tmp_path / "out", device="cpu"))
        assert "\n" not in str(caught.value) and KEY not in str(caught.value)
        assert len(server.seen) < 12


def test_kill_9_in_the_middle_then_no_answer_is_paid_for_twice(tmp_path):
    task = write_task(tmp_path, "triviaqa")
    write_test_set(tmp_path / "data" / "triviaqa", "triviaqa", voices=10)
    out = tmp_path / "out"
    with serving(lambda _: answer("the dorn", after=0.15)) as server:
        line = ("-m", "rba_bench", "eval", "--task", str(task), "--model", server.spec, "--track", "micro")
        limited = {"RBA_ENDPOINT_CONCURRENCY": "2"}
        running = Program(*line, "--out", str(out), **limited)
        running.wait_for(lambda: kept_lines(out) >= 5)
        running.kill()
        [file] = out.glob("*/*/samples.jsonl")
        kept = {sample.audio_sha256 for sample in read_samples(file)}
        Program(*line, "--out", str(out), **limited).output()
    assert 5 <= len(kept) < 30
    assert 30 <= len(server.seen) <= 32, "only what was under way is asked again"
    [folder] = {found.parent for found in out.glob("*/*/run.json")}
    assert read_record(folder).statuses["ok"] == 30


def test_a_served_text_llm_is_a_ceiling_that_hears_nothing(tmp_path, monkeypatch):
    task = write_task(tmp_path, "triviaqa")
    monkeypatch.setattr("rba_bench.evaluation.harness.load_wave", lambda _: pytest.fail("a clip was read"))
    with serving(lambda seen: answer("the dorn" if "river" in seen.text else "castle")) as server:
        [record] = evaluate(
            EvalRequest((str(task),), f"text:{server.spec}", out=tmp_path / "out", device="cpu")
        )
    assert {seen.text for seen in server.seen} == {s["instruction"] for s in ITEMS["triviaqa"]}
    assert record.model["kind"] == "text-oracle" and record.statuses["ok"] == 6
    assert record.metrics["alias_match"].value == pytest.approx(2 / 3)


ODD = {
    "half an emoji": b'{"choices": [{"message": {"content": "the dorn \\ud83d"}}]}',
    "a count of 5,000 digits": b'{"choices": [{"message": {"content": "the dorn"}}], "usage": {"prompt_tokens": %s}}'
    % (b"9" * 5000),
    "nested without end": b"[" * 100_000,
    "ten megabytes": b" " * 10_000_000,
}


def test_an_odd_reply_is_a_status_of_its_item_and_the_record_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "0")
    task = write_task(tmp_path, "triviaqa")
    order: list[str] = []

    def react(seen):
        order.append(sound(seen))
        data = [*ODD.values(), b""][min(len(order) - 1, len(ODD))]
        return (
            Reaction(lambda handler: handler.reply(data, "application/json")) if data else answer("the dorn")
        )

    monkeypatch.setenv("RBA_ENDPOINT_CONCURRENCY", "1")
    with serving(react) as server:
        [record] = evaluate(EvalRequest((str(task),), server.spec, out=tmp_path / "out", device="cpu"))
    samples = read_samples(next(tmp_path.glob("out/*/*/samples.jsonl")))
    assert record.n == 6 and record.statuses["ok"] == 4 and len(samples) == 6
    assert {s.response for s in samples if s.status == "ok"} == {"the dorn", "the dorn \ufffd"}
    errors = sorted(s.error for s in samples if s.status != "ok")
    assert errors == ["the answer is larger than 8,388,608 bytes", "the answer is nested too deeply"]


def test_a_server_that_takes_only_temperature_1_is_greedy_for_nobody(tmp_path, monkeypatch):
    task = write_task(tmp_path, "triviaqa")
    message = "'temperature' does not support 0 with this model. Only the default (1) value is supported."

    def react(seen):
        return (
            answer("the dorn")
            if seen.body["temperature"] == 1
            else failure(400, message, param="temperature")
        )

    with serving(react) as server:
        request = EvalRequest((str(task),), server.spec, out=tmp_path / "out", device="cpu")
        with pytest.raises(UserError, match="RBA_ENDPOINT_WITHOUT=temperature") as caught:
            evaluate(request)
        assert caught.value.exit_code == 2 and not list(tmp_path.glob("out/*/*/run.json"))
        monkeypatch.setenv("RBA_ENDPOINT_WITHOUT", "temperature")
        [record] = evaluate(request)
    assert record.statuses["ok"] == 6
    assert record.model["may_omit"] == ["temperature"]
    assert record.model["observed"]["asked"] == ["temperature 1"]

"""Answers kept across runs: what decides an answer is in the key, and nothing else."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation.answering import FILE, AnswerCache, answer_key
from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.textlm.text_model import Decoding, Generation
from tests.evaluation.conftest import ScriptedModel, write_task

MODEL = {"kind": "composite", "weights_sha256": "a"}
GREEDY, SAMPLED = Decoding(8), Decoding(8, temperature=1.0)
BASE = (MODEL, "clip", "words", "prompt", SAMPLED, 1)


@pytest.mark.parametrize(
    "changed",
    [
        ({**MODEL, "weights_sha256": "b"}, *BASE[1:]),
        (MODEL, "clip|noise=10dB", *BASE[2:]),
        (*BASE[:2], "other words", *BASE[3:]),
        (*BASE[:3], "other prompt", *BASE[4:]),
        (*BASE[:4], Decoding(9, temperature=1.0), 1),
        (*BASE[:5], 2),
    ],
)
def test_everything_that_decides_an_answer_is_in_the_key(changed):
    assert answer_key(*changed) != answer_key(*BASE)


def test_the_seed_does_not_matter_to_greedy_decoding():
    assert answer_key(*BASE[:4], GREEDY, 1) == answer_key(*BASE[:4], GREEDY, 2)


def test_answers_come_back_and_errors_are_not_kept(tmp_path):
    good, bad = Generation("ja", 1, "truncated", heard="yes"), Generation("", 0, "error", "timeout")
    with AnswerCache(tmp_path / FILE) as cache:
        cache.keep({"good": good, "bad": bad})
    with AnswerCache(tmp_path / FILE) as cache:
        assert cache.find(["good", "bad", "unknown"]) == {"good": good}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match="remove it"):
        AnswerCache(tmp_path / FILE)


def _write(file: Path, start: int) -> None:
    with AnswerCache(file) as cache:
        for number in range(start, start + 40):
            cache.keep({str(number): Generation(str(number), 1, "ok")})


@pytest.mark.parametrize(
    "stored", [b"\xff\x00", "{", "[1]", '{"text": 7, "n_tokens": 1, "status": "ok"}', 3, None]
)
def test_a_row_that_holds_no_answer_is_asked_again_and_replaced(tmp_path, stored):
    answer = Generation("yes", 1, "ok")
    with AnswerCache(tmp_path / FILE) as cache:
        cache.keep({"a": answer, "b": answer})
        cache._connection.execute("UPDATE answers SET answer = ? WHERE key = 'a'", (stored,))
        assert cache.find(["a", "b"]) == {"b": answer}
        cache.keep({"a": answer})
        assert cache.find(["a"]) == {"a": answer}


def test_a_table_of_another_form_is_named(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("CREATE TABLE answers (x)")
    with pytest.raises(UserError, match="other columns"):
        AnswerCache(tmp_path / FILE)


def test_two_processes_write_at_once(tmp_path):
    workers = [multiprocessing.Process(target=_write, args=(tmp_path / FILE, n)) for n in (0, 40)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with AnswerCache(tmp_path / FILE) as cache:
        assert len(cache.find(map(str, range(80)))) == 80


def test_another_version_of_a_task_asks_the_model_nothing(tmp_path, use_model):
    task = write_task(tmp_path, "triviaqa")
    use_model(ScriptedModel())
    request = EvalRequest((str(task),), "scripted", out=tmp_path / "out")
    [first] = evaluate(request)
    changed = write_task(
        tmp_path, "triviaqa", metadata={"version": 99, "benchmark": "triviaqa", "track": "micro"}
    )
    idle = use_model(ScriptedModel())
    [second] = evaluate(request)
    assert idle.batches == [] and changed == task
    assert second.run_id != first.run_id and second.metrics == first.metrics
    assert second.timing.samples_per_s == 0, "answers from the cache took no time"


def test_no_cache_asks_again(tmp_path, use_model):
    task = write_task(tmp_path, "triviaqa")
    use_model(ScriptedModel())
    evaluate(EvalRequest((str(task),), "scripted", out=tmp_path / "out"))
    busy = use_model(ScriptedModel())
    evaluate(EvalRequest((str(task),), "scripted", out=tmp_path / "out", limit=4, use_cache=False))
    assert len(busy.asked) == 4


def test_errors_are_asked_again_only_on_request(tmp_path, use_model):
    task = write_task(tmp_path, "triviaqa")
    request = EvalRequest((str(task),), "scripted", out=tmp_path / "out")
    use_model(
        ScriptedModel(lambda r: Generation("", 0, "error", "busy") if "river" in r.transcript else "castle")
    )
    [first] = evaluate(request)
    assert first.statuses["error"] == 2
    better = use_model(ScriptedModel(lambda r: "the dorn"))
    assert evaluate(request) == [first] and better.batches == []
    [second] = evaluate(EvalRequest(request.tasks, "scripted", out=request.out, retry_errors=True))
    assert second.statuses["error"] == 0 and second.run_id == first.run_id
    assert len(better.asked) == 2 and all("river" in words for words in better.asked)
    assert second.metrics["alias_match"].value > first.metrics["alias_match"].value

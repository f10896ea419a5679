"""Whole runs whose judge sits behind a server: what it cannot judge is counted, and one of no use leaves no record."""

from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import RbaError
from rba_bench.evaluation.records import RunRecord, read_samples
from rba_bench.evaluation.runner import EvalRequest, evaluate
from tests.evaluation.conftest import ITEMS, ScriptedModel, write_task
from tests.textlm.misbehaving_server import Reaction, Seen, answer, body, failure, serving

POISON = ITEMS["triviaqa"][1]["instruction"]
METADATA = {
    "version": 1,
    "benchmark": "triviaqa",
    "track": "micro",
    "finish": [{"name": "yesno", "weighted": False, "votes": 1}],
}


@pytest.fixture(autouse=True)
def private(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, use_model: Any) -> None:
    for name in ("RBA_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "0")
    use_model(ScriptedModel(lambda request: "the dorn"))


def judged(folder: Path, judge: str, **changes: Any) -> RunRecord:
    task = write_task(folder, "triviaqa", metadata=METADATA)
    [record] = evaluate(
        EvalRequest((str(task),), "scripted", out=folder / "out", device="cpu", judge=judge, **changes)
    )
    return record


FAULTS = {
    "500": failure(500, "boom"),
    "no verdict": answer("As an AI I cannot say"),
    "no choices": body({"choices": []}),
    "half an emoji": body('{"choices": [{"message": {"content": "\\ud83d"}}]}'),
    "refused": answer("", finish="content_filter"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_a_judge_cannot_judge_is_counted_and_asked_again_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: Reaction
) -> None:
    broken = {"on": True}

    def react(seen: Seen) -> Reaction:
        return fault if broken["on"] and POISON in seen.text else answer("**Yes**")

    with serving(react) as server:
        record = judged(tmp_path, server.spec)
        assert (record.statuses["judge_failed"], record.statuses["ok"]) == (2, 4)
        metric = record.metrics["judge_accuracy"]
        assert (metric.value, metric.n, metric.n_missing) == (1.0, 4, 2)
        assert "judge_failed 2 of 6: no verdict" in capsys.readouterr().err
        assert judged(tmp_path, server.spec) == record
        broken["on"] = False
        asked = len(server.seen)
        healed = judged(tmp_path, server.spec, retry_errors=True)
    assert healed.statuses["judge_failed"] == 0 and healed.metrics["judge_accuracy"].n == 6
    assert [POISON in seen.text for seen in server.seen[asked:]] == [True]
    samples = read_samples(next(tmp_path.glob("out/*/*/samples.jsonl")))
    assert all(one.status == "ok" and not one.error for one in samples)


@pytest.mark.parametrize(
    ("reaction", "reason"),
    [(answer("Well ..."), "malformed: 'Well ...'"), (failure(400, "no such thing"), "400: no such thing")],
)
def test_a_judge_of_no_use_leaves_no_record_and_another_one_goes_on(
    tmp_path: Path, reaction: Reaction, reason: str
) -> None:
    with serving(lambda _: reaction) as server, pytest.raises(RbaError) as caught:
        judged(tmp_path, server.spec)
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    assert "judged none of 6 items" in str(caught.value) and reason in str(caught.value)
    assert not list(tmp_path.glob("out/*/*/run.json"))
    with serving(lambda _: answer("No")) as server:
        assert judged(tmp_path, server.spec).metrics["judge_accuracy"].value == 0.0


def test_how_a_judge_was_asked_and_read_is_in_the_record(tmp_path: Path) -> None:
    """A hosted model of today: other names, at least sixteen tokens, its own temperature, no odds."""

    def react(seen: Seen) -> Reaction:
        if "max_tokens" in seen.body:
            return failure(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if seen.body["max_completion_tokens"] < 16:
            return failure(400, "Invalid 'max_completion_tokens': expected a value >= 16")
        if seen.body.get("temperature") != 1:
            return failure(400, "'temperature' does not support 0.5; only the default (1) is supported")
        if "logprobs" in seen.body:
            return failure(403, "You are not allowed to request logprobs from this model")
        return answer("Yes, it does.")

    finish = [{"name": "yesno", "weighted": True, "votes": 1}]
    task = write_task(tmp_path, "triviaqa", metadata={**METADATA, "finish": finish})
    with serving(react) as server:
        [record] = evaluate(
            EvalRequest((str(task),), "scripted", out=tmp_path / "out", device="cpu", judge=server.spec)
        )
    assert record.statuses["ok"] == 6 and record.metrics["judge_accuracy"].value == 1.0
    said = record.finish["yesno"]
    assert said["weighted_share"] == 0.0
    assert {"max_completion_tokens", "at least 16 tokens", "no logprobs"} <= set(said["answered_by"]["asked"])
    sample = read_samples(next(tmp_path.glob("out/*/*/samples.jsonl")))[0]
    assert sample.judge["yesno"]["weighted"] is False
    assert sample.judge["yesno"]["votes"][0]["reply"] == "Yes, it does."


def test_votes_that_were_kept_still_tell_which_model_gave_them(tmp_path: Path) -> None:
    """An alias moves between runs that share their votes: records name the models whose votes they count."""
    version = {"now": "judge-2026-05"}

    def react(seen: Seen) -> Reaction:
        return answer("Yes", model=version["now"])

    with serving(react) as server:
        first = judged(tmp_path, server.spec, limit=2)
        version["now"] = "judge-2026-11"
        second = judged(tmp_path, server.spec)
        asked, version["now"] = len(server.seen), "judge-of-no-vote"
        third = judged(tmp_path, server.spec, limit=3)
        assert len(server.seen) == asked, "all its votes were there"
    both = ["judge-2026-05", "judge-2026-11"]
    assert [record.finish["yesno"]["answered_by"]["model"] for record in (first, second, third)] == [
        both[:1],
        both,
        both,
    ]

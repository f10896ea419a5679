"""`rba-bench rescore`: new scores from kept responses, never asking the model, and never half a record."""

import json
import os
import shutil
from pathlib import Path

import pytest

from rba_bench.cli.main import main
from rba_bench.evaluation import metric as metric_table
from rba_bench.evaluation import rescoring, runner, scoring
from rba_bench.evaluation.metric import ItemScore
from rba_bench.evaluation.plan import EvalRequest
from rba_bench.evaluation.records import RunRecord, Sample, read_record, read_samples
from rba_bench.files import sha256_bytes
from rba_bench.leaderboard import loaded_runs
from rba_bench.textlm.text_model import Generation
from tests.evaluation.conftest import ScriptedModel, write_task
from tests.textlm.misbehaving_server import answer, serving

PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "micro" / "records"
JUDGED = {
    "version": 1,
    "benchmark": "triviaqa",
    "track": "micro",
    "finish": [{"name": "yesno", "weighted": False, "votes": 1}],
}


@pytest.fixture(autouse=True)
def private(monkeypatch, tmp_path):
    monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RBA_API_KEY", "sk-0123456789")


def ran(*words) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    return int(ended.value.code or 0)


def rescored(capsys, *words) -> list[dict]:
    """What `rescore --json` says; it must succeed."""
    capsys.readouterr()
    assert ran("rescore", *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys, *words) -> tuple[int, str]:
    capsys.readouterr()
    code = ran("rescore", *words)
    captured = capsys.readouterr()
    [line] = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in captured.err and not captured.out
    return code, line


def run(task: Path, out: Path, **changes) -> Path:
    """Folder of a finished run."""
    [record] = runner.evaluate(EvalRequest((str(task),), "scripted", out=out, batch_size=2, **changes))
    return out / record.model["name"] / record.run_id


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def edit(folder: Path, change) -> None:
    """Change every sample of a run, and the hash in its record with them."""
    lines = [change(json.loads(line)) for line in (folder / "samples.jsonl").read_text().splitlines()]
    data = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "samples.jsonl").write_text(data)
    record = json.loads((folder / "run.json").read_text())
    record["samples_sha256"] = sha256_bytes(data.encode())
    (folder / "run.json").write_text(json.dumps(record))


def strict_match(monkeypatch) -> None:
    """A new version of the metric: only the bare answer counts, whatever stands around it."""
    real = scoring.score_item

    def score(doc, response):
        found = real(doc, response)
        right = float(response.casefold().strip(" .") in doc["references"])
        return ItemScore({**found.scores, "alias_match": right})

    monkeypatch.setattr(scoring, "score_item", score)
    signature = metric_table._signature
    monkeypatch.setattr(
        metric_table, "_signature", lambda metric, langs: f"{signature(metric, langs)}|strict"
    )


@pytest.fixture
def task(tmp_path):
    return write_task(tmp_path, "triviaqa")


@pytest.fixture
def folder(tmp_path, task, use_model):
    """Right in a sentence, right and bare, wrong; no model can be asked any more."""
    said = {"painted": "it was irene castle", "river": "The Dorn."}
    use_model(
        ScriptedModel(lambda r: next((said[word] for word in said if word in r.transcript), "who knows"))
    )
    place = run(task, tmp_path / "out")
    use_model(ScriptedModel(lambda r: pytest.fail("the model was asked")))
    return place


def test_a_run_that_would_be_scored_alike_is_left_as_it_is(folder, task, capsys):
    before = contents(folder)
    [said] = rescored(capsys, folder, "--task", task)
    assert not said["changed"] and contents(folder) == before
    assert ran("rescore", folder, "--task", task) == 0
    line = capsys.readouterr().out.strip()
    assert (
        "\n" not in line and "alias_match 0.6667" in line and "nothing changed" in line and "->" not in line
    )


def test_a_new_metric_changes_scores_intervals_statuses_hash_and_note(
    folder, task, tmp_path, capsys, monkeypatch
):
    before = read_record(folder)
    strict_match(monkeypatch)
    assert ran("rescore", folder / "run.json", "--task", task) == 0
    line = capsys.readouterr().out
    assert "alias_match 0.6667 -> 0.3333" in line and f"protocol {before.protocol_hash[:12]} -> " in line
    after = loaded_runs.load_checked_run(folder).record
    found = after.metrics["alias_match"]
    assert found.value == pytest.approx(1 / 3) and found.low <= found.value <= found.high
    assert found.signature.endswith("|strict") and after.run_id == before.run_id
    [note] = after.rescored
    assert (note.from_protocol, note.from_samples) == (before.protocol_hash, before.samples_sha256)
    assert (note.from_version, note.judge) == (before.task_version, "")
    assert {s.response for s in read_samples(folder)} == {"it was irene castle", "The Dorn.", "who knows"}


def test_it_is_the_protocol_of_a_run_of_today(folder, task, tmp_path, use_model, capsys, monkeypatch):
    """So that rescored and new runs share a table."""
    strict_match(monkeypatch)
    rescored(capsys, folder, "--task", task)
    use_model(ScriptedModel(lambda r: "the dorn"))
    fresh = read_record(run(task, tmp_path / "fresh"))
    after = read_record(folder)
    assert after.protocol_hash == fresh.protocol_hash and after.protocol_spec == fresh.protocol_spec
    assert list(after.metrics) == list(fresh.metrics)


def test_a_new_version_of_the_task_is_named(folder, task, capsys):
    task.write_text(task.read_text() + "metadata: {version: 7, benchmark: triviaqa, track: micro}\n")
    [said] = rescored(capsys, folder, "--task", task)
    assert (
        said["task_version"] == ["2", "7"]
        and said["metrics"]["alias_match"][0] == said["metrics"]["alias_match"][1]
    )
    assert read_record(folder).task_version == "7"


def test_what_was_asked_stays_and_a_difference_is_said(folder, task, capsys):
    before = read_record(folder)
    task.write_text(task.read_text() + "generation_kwargs: {max_gen_toks: 7, protocol: greedy}\n")
    capsys.readouterr()
    assert ran("rescore", folder, "--task", task) == 0
    said = capsys.readouterr().err
    assert "asked in another way than today" in said and "decoding.max_new_tokens: 48 -> 7" in said
    after = read_record(folder)
    assert after.protocol_spec["decoding"] == before.protocol_spec["decoding"]
    assert after.protocol_hash == before.protocol_hash


def test_scores_in_a_file_count_for_nothing(folder, task, capsys):
    honest = read_record(folder)
    edit(
        folder,
        lambda line: {**line, "scores": {"exact_match": 1.0, "alias_match": 1.0}, "extracted": "paris"},
    )
    rescored(capsys, folder, "--task", task)
    assert read_record(folder).metrics == honest.metrics


def test_samples_of_another_run_are_refused(folder, task, capsys):
    text = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(text.replace("who knows", "porter"))
    code, line = complaint(capsys, folder, "--task", task)
    assert code == 2 and "hash differs" in line


def test_out_leaves_the_old_record_alone(folder, task, tmp_path, capsys, monkeypatch):
    before = contents(folder)
    strict_match(monkeypatch)
    [said] = rescored(capsys, folder, "--task", task, "--out", tmp_path / "new")
    assert contents(folder) == before
    made = tmp_path / "new" / "scripted" / folder.name
    assert Path(said["folder"]) == made and said["metrics"]["alias_match"] == pytest.approx([2 / 3, 1 / 3])
    assert loaded_runs.load_checked_run(made).record.rescored


def test_the_answer_is_taken_from_the_raw_response_by_the_rule_of_today(tmp_path, task, use_model, capsys):
    """A record of a time when thinking was scored, and an unclosed block was a whole answer."""
    said = {"painted": "<think>castle? irene castle?</think> No idea.", "river": "<think>the dorn, maybe"}
    use_model(ScriptedModel(lambda r: next((said[word] for word in said if word in r.transcript), "porter")))
    place = run(task, tmp_path / "out")
    whole = {"status": "ok", "scores": {"exact_match": 1.0, "alias_match": 1.0}}
    edit(place, lambda line: {**line, "extracted": line["response"], **whole})
    rescored(capsys, place, "--task", task)
    samples = {sample.instruction.split()[-1]: sample for sample in read_samples(place)}
    assert (samples["shadows"].extracted, samples["shadows"].status) == ("No idea.", "ok")
    assert (samples["arvania"].extracted, samples["arvania"].status) == ("", "truncated")
    assert samples["shadows"].response == said["painted"] and samples["arvania"].response == said["river"]
    assert loaded_runs.load_checked_run(place).record.metrics["alias_match"].value == pytest.approx(1 / 3)


# Judges


@pytest.fixture
def judged_task(tmp_path):
    return write_task(tmp_path, "triviaqa", metadata=JUDGED)


def test_another_judge_is_asked_about_kept_answers_and_never_twice(tmp_path, judged_task, use_model, capsys):
    use_model(ScriptedModel(lambda r: "the dorn"))
    with serving(lambda _: answer("No")) as first:
        place = run(judged_task, tmp_path / "out", judge=first.spec)
    assert read_record(place).metrics["judge_accuracy"].value == 0
    with serving(lambda _: answer("Yes")) as second:
        [said] = rescored(capsys, place, "--task", judged_task, "--judge", second.spec)
        assert said["metrics"]["judge_accuracy"] == [0.0, 1.0] and len(second.seen) > 0
        asked = len(second.seen)
        [again] = rescored(capsys, place, "--task", judged_task, "--judge", second.spec)
        assert not again["changed"] and len(second.seen) == asked
    record = loaded_runs.load_checked_run(place).record
    assert len(record.rescored) == 1 and record.rescored[0].judge == second.spec
    assert record.finish["yesno"]["n_judged"] == 6
    assert all(sample.judge["yesno"]["votes"][0]["reply"] == "Yes" for sample in read_samples(place))


def test_without_a_judge_verdicts_stay_and_none_drops_them(
    tmp_path, judged_task, use_model, capsys, monkeypatch
):
    use_model(ScriptedModel(lambda r: "the dorn"))
    with serving(lambda _: answer("Yes")) as server:
        place = run(judged_task, tmp_path / "out", judge=server.spec)
    before = read_record(place)
    strict_match(monkeypatch)
    rescored(capsys, place, "--task", judged_task)
    after = loaded_runs.load_checked_run(place).record
    assert after.metrics["judge_accuracy"] == before.metrics["judge_accuracy"]
    assert after.finish == before.finish and after.protocol_spec["finish"] == before.protocol_spec["finish"]
    assert after.metrics["alias_match"].signature.endswith("|strict")
    [said] = rescored(capsys, place, "--task", judged_task, "--judge", "none")
    assert said["metrics"]["judge_accuracy"] == [1.0, None]
    dropped = loaded_runs.load_checked_run(place).record
    assert "judge_accuracy" not in dropped.metrics and "finish" not in dropped.protocol_spec
    assert all(sample.judge is None for sample in read_samples(place))


def test_a_verdict_on_another_text_than_the_one_scored_now_is_none(tmp_path, judged_task, use_model, capsys):
    """Two answers were judged whole and are now cut: their old verdicts say nothing of what is scored."""
    use_model(ScriptedModel(lambda r: "the dorn" if "river" in r.transcript else "castle"))
    with serving(lambda _: answer("Yes")) as server:
        place = run(judged_task, tmp_path / "out", judge=server.spec)
    edit(
        place, lambda line: {**line, "extracted": "the dorn, or not"} if "dorn" in line["response"] else line
    )
    rescored(capsys, place, "--task", judged_task)
    record = loaded_runs.load_checked_run(place).record
    found = record.metrics["judge_accuracy"]
    assert (found.n, found.n_missing, record.statuses["judge_failed"]) == (4, 2, 2)
    stale = [sample for sample in read_samples(place) if sample.status == "judge_failed"]
    assert all("--judge" in sample.error and sample.extracted == "the dorn" for sample in stale)


def test_a_judge_without_a_key_is_named_before_anything_is_written(
    tmp_path, judged_task, use_model, capsys, monkeypatch
):
    monkeypatch.delenv("RBA_API_KEY")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    use_model(ScriptedModel(lambda r: "the dorn"))
    place = run(judged_task, tmp_path / "out", judge="none")
    before = contents(place)
    spec = "openai:https://api.openai.com/v1#gpt-4.1"
    code, line = complaint(capsys, place, "--task", judged_task, "--judge", spec)
    assert code == 3 and "OPENAI_API_KEY" in line and contents(place) == before


# What has no score, and what cannot be scored


def test_unheard_items_stay_without_scores(tmp_path, task, use_model, capsys, monkeypatch):
    outcome = {
        "river": Generation("", 0, "not_heard", "not audio"),
        "painted": Generation("", 0, "error", "too long"),
    }
    use_model(ScriptedModel(lambda r: next((outcome[w] for w in outcome if w in r.transcript), "porter")))
    place = run(task, tmp_path / "out")
    strict_match(monkeypatch)
    rescored(capsys, place, "--task", task)
    record = loaded_runs.load_checked_run(place).record
    found = record.metrics["alias_match"]
    assert (found.value, found.n, found.n_missing) == (0.5, 4, 2)
    assert (record.statuses["not_heard"], record.statuses["error"]) == (2, 2)


def test_a_run_in_which_nothing_was_answered_gets_no_new_record(folder, task, capsys):
    """As older versions left them: a score of 0 for a server that never answered."""
    failed = {"response": "", "extracted": "", "status": "error", "error": "502: bad gateway"}
    edit(folder, lambda line: {**line, **failed, "scores": {"exact_match": 0.0, "alias_match": 0.0}})
    before = contents(folder)
    code, line = complaint(capsys, folder, "--task", task)
    assert code == 1 and "none of 6 items was answered" in line and contents(folder) == before


def test_a_task_that_nobody_knows(folder, task, tmp_path, capsys):
    code, line = complaint(capsys, folder)
    assert code == 2 and "'tiny_triviaqa'" in line and "--task" in line
    other = write_task(tmp_path / "other", "covost2")
    code, line = complaint(capsys, folder, "--task", other)
    assert code == 2 and "tiny_covost2" in line


def test_samples_without_references_are_refused(folder, task, capsys):
    edit(folder, lambda line: {**line, "references": []})
    code, line = complaint(capsys, folder, "--task", task)
    assert code == 2 and "triviaqa-0-0" in line and "references" in line


def test_a_folder_without_runs(tmp_path, capsys):
    code, line = complaint(capsys, tmp_path)
    assert code == 2 and "no finished run" in line


# Published records


def test_records_of_a_board_are_rescored_together_and_stay_packed(tmp_path, capsys):
    """The committed ones. Whatever has changed since they were published, each is whole and verifies afterwards."""
    names = ["sft/micro_triviaqa-*", "constant/micro_covost2-*"]
    for name in names:
        [found] = PUBLISHED.glob(name)
        copy = tmp_path / "records" / found.parent.name / found.name
        shutil.copytree(found, copy, ignore=shutil.ignore_patterns("attestation.json", "submission.json"))
    said = rescored(capsys, tmp_path / "records")
    assert len(said) == 2 and {one["task"] for one in said} == {"micro_triviaqa", "micro_covost2"}
    for one in said:
        assert sorted(os.listdir(one["folder"])) == ["run.json", "samples.jsonl.gz"]
        assert (
            loaded_runs.load_checked_run(Path(one["folder"])).record.n == 96 or one["task"] == "micro_covost2"
        )
    assert not any(one["changed"] for one in rescored(capsys, tmp_path / "records"))


# A kill at any moment


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the program catches it."""


@pytest.mark.parametrize("step", ["samples", "record"])
def test_a_kill_leaves_the_old_run_or_is_finished_by_the_next_rescoring(
    folder, task, capsys, monkeypatch, step
):
    before = contents(folder)
    strict_match(monkeypatch)

    def killed(*_):
        raise Killed

    with monkeypatch.context() as once:
        if step == "samples":
            once.setattr(rescoring, "write_atomic", killed)
        else:
            once.setattr(rescoring.os, "replace", killed)
            once.setattr(rescoring, "write_json", _plainly)
            once.setattr(rescoring, "write_atomic", _plainly_bytes)
        with pytest.raises(Killed):
            rescoring.rescore_folder(folder, rescoring.RescoreOptions(task=task))
    left = contents(folder)
    assert left["run.json"] == before["run.json"]
    if step == "samples":
        assert left["samples.jsonl"] == before["samples.jsonl"] and loaded_runs.load_checked_run(folder)
    [said] = rescored(capsys, folder, "--task", task)
    assert loaded_runs.load_checked_run(folder).record.metrics["alias_match"].value == pytest.approx(1 / 3)
    assert not (folder / rescoring.WAITING).exists() and len(read_record(folder).rescored) == 1


def _plainly(path, value):
    Path(path).write_text(json.dumps(value))


def _plainly_bytes(path, data):
    Path(path).write_bytes(data)


def test_a_record_of_before_this_command_still_loads(folder):
    record = json.loads((folder / "run.json").read_text())
    del record["rescored"]
    record["statuses"] = {"ok": 6, "empty": 0, "truncated": 0, "error": 0, "unparsed": 0, "judge_failed": 0}
    (folder / "run.json").write_text(json.dumps(record))
    assert isinstance(read_record(folder), RunRecord) and isinstance(read_samples(folder)[0], Sample)
    assert loaded_runs.load_checked_run(folder).record.rescored == []

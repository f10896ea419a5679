"""Verification means recomputing: an honest record passes, each of many edits is found, and what cannot be is said."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.leaderboard.board import build_board
from rba_bench.leaderboard.verify import CANNOT_KNOW, verify_records
from tests.leaderboard import forging
from tests.leaderboard.forging import Edit, Json

QA, INSTRUCT, S2TT = "micro_triviaqa", "micro_alpacaeval", "micro_covost2"
MAIN = "alias_match"


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> dict[str, tuple[Json, list[Json]]]:
    with pytest.MonkeyPatch.context() as patch:
        return {
            task: forging.make(tmp_path_factory.mktemp("eval"), task, forging.half_right(task), patch)
            for task in (QA, INSTRUCT, S2TT)
        }


def metric(**changes: Any) -> Edit:
    return lambda record, _: record["metrics"][MAIN].update(changes)


def field(name: str, value: Any) -> Edit:
    return lambda record, _: record.__setitem__(name, value)


def inner(name: str, key: str, value: Any) -> Edit:
    return lambda record, _: record[name].__setitem__(key, value)


def settled(edit: Edit) -> Edit:
    """An edit after which everything computed is computed again."""

    def both(record: Json, samples: list[Json]) -> None:
        edit(record, samples)
        forging.settle(record, samples)

    return both


def rehashed(edit: Edit) -> Edit:
    """The same, with the hashes of the test set."""

    def both(record: Json, samples: list[Json]) -> None:
        edit(record, samples)
        forging.rehash(record, samples)
        forging.settle(record, samples)

    return both


def each(**changes: Any) -> Edit:
    def change(_: Json, samples: list[Json]) -> None:
        for sample in samples:
            sample.update(
                {key: value(sample) if callable(value) else value for key, value in changes.items()}
            )

    return change


def first(**changes: Any) -> Edit:
    return lambda _, samples: samples[0].update(changes)


def wrong_ones(**changes: Any) -> Edit:
    def change(_: Json, samples: list[Json]) -> None:
        for sample in samples:
            if not sample["scores"][MAIN]:
                sample.update(changes)

    return change


def all_one(_: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["scores"] = dict.fromkeys(sample["scores"], 1.0)


def answers_as_references(_: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["references"] = [sample["response"]]
    forging.rescore(samples)


def right_extracts(_: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["extracted"] = sample["references"][0]
    forging.rescore(samples)


def dropped(record: Json, samples: list[Json]) -> None:
    del record
    samples[:] = [sample for sample in samples if sample["scores"][MAIN] or sample["doc_id"] % 2]


def dropped_and_renumbered(record: Json, samples: list[Json]) -> None:
    dropped(record, samples)
    for place, sample in enumerate(samples):
        sample["doc_id"] = place
    record["data"]["n_items"] = len(samples)


def dropped_as_limit(record: Json, samples: list[Json]) -> None:
    del samples[60:]
    record.update(limit=60, partial=False)


def repeated(_: Json, samples: list[Json]) -> None:
    samples[1] = {**samples[0], "doc_id": 1}


def swapped(_: Json, samples: list[Json]) -> None:
    samples[0]["doc_id"], samples[1]["doc_id"] = 1, 0


def protocol(**changes: Any) -> Edit:
    def change(record: Json, samples: list[Json]) -> None:
        record["protocol_spec"].update(changes)
        forging.settle(record, samples)

    return change


def decoding(record: Json, samples: list[Json]) -> None:
    record["decoding"]["max_new_tokens"] = record["protocol_spec"]["decoding"]["max_new_tokens"] = 4096
    forging.settle(record, samples)


def sampled(record: Json, samples: list[Json]) -> None:
    record["protocol"] = record["protocol_spec"]["decoding"]["name"] = "sampled"
    forging.settle(record, samples)


def other_task(record: Json, samples: list[Json]) -> None:
    record["task"] = record["protocol_spec"]["task"] = "micro_webquestions"
    record["benchmark"], record["data"]["source"] = "webquestions", "micro_webquestions"
    forging.settle(record, samples)


def other_version(record: Json, samples: list[Json]) -> None:
    record["task_version"] = record["protocol_spec"]["version"] = "99"
    forging.settle(record, samples)


def perturbed(record: Json, samples: list[Json]) -> None:
    from rba_bench.audio import perturbations

    record["protocol_spec"]["perturb"] = perturbations.parse_perturbation("noise=0dB").identity()
    forging.settle(record, samples)


def judged_by_nobody(record: Json, samples: list[Json]) -> None:
    record["protocol_spec"]["finish"] = [{"name": "yesno", "judge": {"model": "x"}}]
    record["finish"] = {"yesno": {"n": 96}}
    forging.settle(record, samples)


def new_metric(record: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["scores"]["brilliance"] = 1.0
    record["metrics"]["brilliance"] = {**record["metrics"][MAIN], "value": 1.0, "high": 1.0, "breakdown": {}}


def narrow_part(record: Json, _: list[Json]) -> None:
    part = next(iter(record["metrics"][MAIN]["breakdown"].values()))
    part["low"] = part["high"] = part["value"]


def clips_swapped(record: Json, samples: list[Json]) -> None:
    a, b = samples[0], samples[1]
    a["audio_sha256"], b["audio_sha256"] = b["audio_sha256"], a["audio_sha256"]


def clusters_apart(_: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["cluster"] = f"c{sample['doc_id']}"


def fits_the_seed(seed: int) -> Edit:
    def change(record: Json, samples: list[Json]) -> None:
        record["seeds"]["generation"] = seed
        forging.settle(record, samples)

    return change


def other_model(record: Json, _: list[Json]) -> None:
    record["model"]["weights_sha256"] = "ab" * 32


FUTURE = (datetime.now(UTC) + timedelta(days=3000)).isoformat(timespec="seconds")
EDITS: dict[str, Edit] = {
    # scores
    "item scores all 1": all_one,
    "item scores all 1, all recomputed": settled(all_one),
    "one item's score": first(scores={"exact_match": 1.0, MAIN: 0.5}),
    "references are the answers": settled(answers_as_references),
    "references are the answers, test set rehashed": rehashed(answers_as_references),
    "another part of the response is scored": settled(right_extracts),
    "a metric of one's own": new_metric,
    "a metric left out": lambda record, _: record["metrics"].pop("exact_match"),
    "metrics in another order": lambda r, _: r.update(metrics=dict(reversed(r["metrics"].items()))),
    # metrics
    "value": metric(value=0.9),
    "interval narrowed": lambda r, _: r["metrics"][MAIN].update(low=r["metrics"][MAIN]["value"] - 0.001),
    "interval of no width": lambda r, _: r["metrics"][MAIN].update(high=r["metrics"][MAIN]["value"]),
    "standard error": metric(stderr=1e-4),
    "n": metric(n=9600),
    "n_missing": metric(n_missing=1),
    "scale": metric(scale=1e9),
    "scale of percent": metric(scale=100.0),
    "macro": metric(macro=True),
    "direction": metric(higher_is_better=False),
    "signature": metric(signature="alias_match|strict"),
    "method": metric(method="exact"),
    "aggregation": metric(aggregation="error_rate"),
    "interval of a group": narrow_part,
    "a group left out": lambda r, _: r["metrics"][MAIN]["breakdown"].popitem(),
    # statuses
    "wrong answers judge_failed": settled(wrong_ones(status="judge_failed", error="judge: HTTP 500", scores={})),
    "wrong answers no_reply": settled(
        wrong_ones(status="no_reply", error="HTTP 503", scores={}, response="", extracted="")
    ),
    "wrong answers not_heard": settled(
        wrong_ones(status="not_heard", error="no sound", scores={}, response="", extracted="")
    ),
    "wrong answers an error with an answer": settled(wrong_ones(status="error", error="out of memory")),
    "an error without a reason": settled(first(status="error", error="", response="", extracted="")),
    "ok answers empty": settled(first(status="empty")),
    "empty answers ok": settled(first(status="ok", response=" ", extracted=" ")),
    "status counts": field("statuses", {"ok": 95, "empty": 1}),
    # what was asked
    "a quarter of the items dropped": dropped,
    "dropped, all recomputed": settled(dropped),
    "dropped and renumbered": settled(dropped_and_renumbered),
    "dropped, renumbered and rehashed": rehashed(dropped_and_renumbered),
    "cut without a limit": settled(dropped_as_limit),
    "one item twice": settled(repeated),
    "items in another order": settled(swapped),
    "other instruction": settled(first(instruction="what is one and one")),
    "other instruction, rehashed": rehashed(first(instruction="what is one and one")),
    "other id, rehashed": rehashed(first(id="micro_triviaqa-999")),
    "other prompt, rehashed": rehashed(first(prompt="the answer is paris :")),
    "other language, rehashed": rehashed(each(target_lang="de")),
    "other kind, rehashed": rehashed(each(kind="chat", scores={})),
    "clips swapped": clips_swapped,
    "clips swapped, rehashed": rehashed(clips_swapped),
    "every item its own cluster": settled(clusters_apart),
    "one cluster": settled(first(cluster="000000000000")),
    "groups": settled(each(group="facts")),
    "durations": each(duration=30.0),
    "no duration": first(duration=0.0),
    "extra facts": rehashed(first(extra='{"easy": true}')),
    "source of the data": inner("data", "source", "triviaqa"),
    "hash of the texts": inner("data", "items_sha256", "ab" * 32),
    "more about the data": inner("data", "revision", "main"),
    "hash of the clips": inner("data", "audio_set_sha256", "ab" * 32),
    "number of items": inner("data", "n_items", 960),
    # how it was asked
    "protocol hash": field("protocol_hash", "ff" * 32),
    "protocol hash too short": field("protocol_hash", "ffff"),
    "decoding": inner("decoding", "max_new_tokens", 4096),
    "decoding everywhere": decoding,
    "protocol by name": field("protocol", "sampled"),
    "protocol by name everywhere": sampled,
    "metric list": protocol(yaml={}),
    "prompts": protocol(prompts="ab" * 32),
    "signatures in the protocol": protocol(metrics={MAIN: "strict"}),
    "what counts as the answer": protocol(answer="whatever is right"),
    "a judge that never was": judged_by_nobody,
    "noise that never was": perturbed,
    "a judge of the record": field("judge", {"name": "gpt-x"}),
    "a report of a judge": field("finish", {"pairwise": {"agreement": 1.0}}),
    "another task": other_task,
    "task version": field("task_version", "99"),
    "task version everywhere": other_version,
    "benchmark": field("benchmark", "webquestions"),
    "track": field("track", "full"),
    "seed of the run": inner("seeds", "generation", 1),
    "seed of the run, all recomputed": fits_the_seed(1),
    "seed of the intervals": inner("seeds", "bootstrap", 1),
    "seed of an item": first(seed=1),
    "tokens": first(n_tokens=-1),
    "more tokens than allowed": first(n_tokens=10_000),
    # who and when
    "weights": other_model,
    "weights that are no hash": inner("model", "weights_sha256", "x"),
    "posing as a reference": inner("model", "spec", "text:meta/llama"),
    "posing as the base": inner("model", "spec", "base"),
    "kind of model": inner("model", "kind", None),
    "run id": lambda r, _: r.update(run_id=r["run_id"][:-1] + ("0" if r["run_id"][-1] != "0" else "1")),
    "limit": field("limit", 96),
    "partial": field("partial", True),
    "a date to come": field("created", FUTURE),
    "a date before there was any": field("created", "1999-01-01T00:00:00+00:00"),
    "speed": lambda r, _: r["timing"].update(rtfx=1e6),
    "negative time": lambda r, _: r["timing"].update(generation_s=-1.0),
    "hash of the samples": field("samples_sha256", "ab" * 32),
    "a vote": first(judge={"yesno": {"votes": []}}),
}  # fmt: skip


@pytest.mark.parametrize("task", [QA, INSTRUCT, S2TT])
def test_an_honest_record_passes(honest, tmp_path, task):
    folder = forging.write(tmp_path / "run", *honest[task])
    [verdict] = verify_records([folder]).verdicts
    assert verdict.ok and verdict.notes == () and verdict.line().startswith("ok ")


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_found(honest, tmp_path, edit):
    folder = forging.edited(tmp_path / "run", honest[QA], EDITS[edit])
    [verdict] = verify_records([folder]).verdicts
    assert verdict.faults, edit


def votes(_: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["judge"]["preferred"] = "response"


def weak_baseline(_: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["baseline"] = "no"
    forging.rescore(samples)


INSTRUCT_EDITS: dict[str, Edit] = {
    "votes": votes,
    "votes gone": each(judge=None),
    "a better grade": settled(first(scores={"win_rate": 1.0, "rating": 1.0, "valid_rate": 1.0})),
    "a weaker answer to beat": settled(weak_baseline),
    "a weaker answer to beat, rehashed": rehashed(weak_baseline),
    "length of the answers": lambda r, _: r["metrics"]["win_rate"].update(mean_length=1.0),
}
S2TT_EDITS: dict[str, Edit] = {
    "statistics of an item": first(scores={"bleu": [8] * 10, "chrf++": [9] * 24}),
    "statistics of an item, recomputed": settled(
        lambda _, s: s[1].update(scores=s[1]["scores"] | {"bleu": [8] * 10})
    ),
    "fewer statistics": first(scores={"bleu": [1], "chrf++": [1]}),
    "directions": settled(each(group="en-de")),
    "pooled, not averaged": lambda r, _: r["metrics"]["bleu"].update(macro=False),
}


@pytest.mark.parametrize("edit", INSTRUCT_EDITS)
def test_an_edit_of_judged_answers_is_found(honest, tmp_path, edit):
    [verdict] = verify_records(
        [forging.edited(tmp_path / "run", honest[INSTRUCT], INSTRUCT_EDITS[edit])]
    ).verdicts
    assert verdict.faults, edit


@pytest.mark.parametrize("edit", S2TT_EDITS)
def test_an_edit_of_translations_is_found(honest, tmp_path, edit):
    [verdict] = verify_records([forging.edited(tmp_path / "run", honest[S2TT], S2TT_EDITS[edit])]).verdicts
    assert verdict.faults, edit


def right_answers(record: Json, samples: list[Json]) -> None:
    for sample in samples:
        sample["response"] = sample["extracted"] = sample["references"][0]
    forging.rescore(samples)
    forging.settle(record, samples)


UNKNOWABLE: dict[str, Edit] = {
    "responses edited, all recomputed": right_answers,
    "weights of another model, all recomputed": lambda r, s: (other_model(r, s), forging.settle(r, s))[0],
    "training": inner("model", "training", {"method": "rba-group"}),
    "hardware": field("hardware", {"device": "a supercomputer"}),
    "a date in the past": field("created", "2026-01-01T00:00:00+00:00"),
    "what a cascade heard": first(heard="nothing"),
}


@pytest.mark.parametrize("edit", UNKNOWABLE)
def test_what_nobody_can_know_passes_and_is_said(honest, tmp_path, edit):
    checked = verify_records([forging.edited(tmp_path / "run", honest[QA], UNKNOWABLE[edit])])
    assert (
        checked.ok and "responses are the model's own" in "\n".join(checked.lines()) and len(CANNOT_KNOW) == 4
    )


def test_last_digits_may_differ(honest, tmp_path):
    def nudge(record: Json, _: list[Json]) -> None:
        for value in record["metrics"].values():
            for key in ("value", "low", "high", "stderr"):
                value[key] *= 1 + 1e-12

    assert verify_records([forging.edited(tmp_path / "run", honest[S2TT], nudge)]).ok


def test_an_older_version_of_the_task_is_one_line_that_names_the_way(honest, tmp_path):
    def older(record: Json, samples: list[Json]) -> None:
        record["task_version"] = record["protocol_spec"]["version"] = "0.5"
        forging.settle(record, samples)

    folder = forging.edited(tmp_path / "run", honest[QA], older)
    [verdict] = verify_records([folder]).verdicts
    assert len(verdict.faults) == 1 and verdict.faults[0].startswith(
        "made by task version 0.5, this is version "
    )
    assert verdict.faults[0].endswith(f"rba-bench rescore {folder}")
    with pytest.raises(UserError, match="made by task version 0.5"):
        build_board([folder], tmp_path / "board")


def test_a_board_is_only_built_of_records_that_follow_from_their_responses(honest, tmp_path):
    forging.write(tmp_path / "runs" / "a", *honest[QA])
    build_board([tmp_path / "runs"], tmp_path / "board")
    forging.edited(tmp_path / "runs" / "b", honest[INSTRUCT], settled(weak_baseline))
    with pytest.raises(UserError, match="runs/b: .*items_sha256"):
        build_board([tmp_path / "runs"], tmp_path / "board")


def test_records_on_one_test_set_must_have_asked_the_same(honest, tmp_path, monkeypatch):
    """Where the test set itself is not at hand, the other records tell."""
    monkeypatch.setattr("rba_bench.leaderboard.test_sets.load_test_set", lambda spec, data_dir: (None, ""))
    forging.write(tmp_path / "a", *honest[QA])
    forging.write(tmp_path / "b", *honest[QA])
    assert verify_records([tmp_path]).ok

    def longer(record: Json, samples: list[Json]) -> None:
        record["model"]["name"] = "other"
        samples[3].update(duration=9.0, group="facts")
        forging.settle(record, samples)

    forging.edited(tmp_path / "c", honest[QA], longer)
    faults = {verdict.folder.name: verdict.faults for verdict in verify_records([tmp_path]).verdicts}
    assert faults["a"] == faults["b"] == ()
    assert faults["c"] == (
        "1 items differ from other records on the same test set (first: micro_triviaqa-003)",
    )


def test_without_voices_the_texts_are_compared_and_that_is_said(honest, tmp_path, monkeypatch):
    from rba_bench.errors import MissingPrerequisite
    from rba_bench.leaderboard import test_sets

    def silent(name: str) -> Any:
        raise MissingPrerequisite("no espeak-ng")

    monkeypatch.setattr("rba_bench.evaluation.documents.load_documents", silent)
    test_sets._micro_test_set.cache_clear()
    folder = forging.write(tmp_path / "a", *honest[QA])
    [verdict] = verify_records([folder]).verdicts
    assert verdict.ok and "only its texts were compared" in verdict.line()
    folder = forging.edited(tmp_path / "b", honest[QA], rehashed(answers_as_references))
    assert not verify_records([folder]).ok
    test_sets._micro_test_set.cache_clear()


def test_a_board_whose_pages_were_edited_is_found(honest, tmp_path):
    forging.write(tmp_path / "runs" / "a", *honest[QA])
    board = build_board([tmp_path / "runs"], tmp_path / "board").out
    assert verify_records([board]).ok
    page = (board / "index.md").read_text()
    (board / "index.md").write_text(page.replace("scripted", "gpt-9"))
    table = (board / f"{QA}.csv").read_text()
    (board / f"{QA}.csv").write_text(table.replace(",96,", ",960,"))
    [(place, faults)] = verify_records([board]).boards.items()
    assert (
        place == str(board)
        and len(faults) == 2
        and faults[0].startswith("index.md is not what the records give")
    )
    (board / f"{QA}.csv").unlink()
    assert any("is missing" in fault for fault in verify_records([board]).boards[str(board)])


def test_the_command_prints_a_line_a_record_and_its_code_tells(honest, tmp_path, capsys):
    good = forging.write(tmp_path / "good", *honest[QA])
    bad = forging.edited(tmp_path / "bad", honest[QA], EDITS["value"])
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text("{")
    assert run(["leaderboard", "verify", str(good)], capsys)[0] == 0
    code, shown = run(["leaderboard", "verify", str(tmp_path)], capsys)
    lines = shown.splitlines()
    assert code == 1 and len(lines) == 5 + len(CANNOT_KNOW)
    assert lines[0].startswith(f"FAULT  {bad}") and "alias_match is recorded as 0.9" in lines[0]
    assert lines[1].startswith(f"ok     {good} (scripted, n = 96)") and lines[2].startswith("FAULT")
    assert lines[3].startswith("3 records, 2 at fault") and lines[4] == "not known from a record:"
    code, shown = run(["leaderboard", "verify", str(tmp_path), "--json"], capsys)
    found = json.loads(shown)
    assert code == 1 and not found["ok"] and [each["ok"] for each in found["records"]] == [False, True, False]
    assert found["records"][1]["task"] == QA and found["not_known"]
    with pytest.raises(SystemExit) as stopped:
        main(["leaderboard", "verify", str(tmp_path / "nowhere")])
    assert stopped.value.code == 2


def run(words: list[str], capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    return int(stopped.value.code or 0), capsys.readouterr().out


def test_a_partial_record_is_compared_with_the_start_of_its_test_set(tmp_path, monkeypatch):
    honest = forging.make(tmp_path / "eval", QA, forging.half_right(QA), monkeypatch, limit=7)
    assert verify_records([forging.write(tmp_path / "a", *honest)]).ok
    for edit in (rehashed(first(instruction="x")), settled(answers_as_references), field("limit", None)):
        assert not verify_records([forging.edited(tmp_path / "b", honest, edit)]).ok


def test_a_task_of_ones_own_is_checked_against_itself_and_that_is_said(tmp_path, monkeypatch):
    from rba_bench.evaluation.runner import EvalRequest, evaluate
    from tests.evaluation.conftest import ScriptedModel, write_task

    task = write_task(tmp_path / "task", "triviaqa")
    monkeypatch.setattr("rba_bench.speechlm.model_names.load_speech_model", lambda spec, **_: ScriptedModel())
    evaluate(EvalRequest(tasks=(str(task),), model="scripted", out=tmp_path / "eval"))
    [verdict] = verify_records([tmp_path / "eval"]).verdicts
    assert verdict.ok and "tiny_triviaqa is not shipped here" in verdict.line()


def test_a_path_that_is_one_run(honest, tmp_path):
    folder: Path = forging.write(tmp_path / "run", *honest[QA])
    assert verify_records([folder / "run.json"]).ok

"""Whole runs with a scripted model: records, resume, statuses, limits, identity of runs."""

import json
from pathlib import Path

import pytest

from rba_bench.errors import UserError
from rba_bench.evaluation.records import RunRecord, read_samples
from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.files import sha256_file
from rba_bench.textlm.text_model import Generation
from tests.evaluation.conftest import ScriptedModel, read_lines, write_task

PERFECT = {
    "la jeune chatte trouve le livre blanc chaque jour": "every day the young cat finds the white book",
    "la gata grande pinta el balón rojo en el jardín": "the big cat paints the red ball in the garden",
    "el perro pequeño ve la casa blanca hoy": "the small dog sees the white house today",
    "the small woman buys the red boat in the morning": "die kleine frau kauft am morgen das rote boot",
    "the big dog loves the new lamp today": "der große hund liebt heute die neue lampe",
}


def run(task: Path, out: Path, **changes) -> RunRecord:
    [record] = evaluate(EvalRequest(tasks=(str(task),), model="scripted", out=out, batch_size=2, **changes))
    return record


def folder_of(record: RunRecord, out: Path) -> Path:
    return out / record.model["name"] / record.run_id


def test_perfect_translations_score_100(tmp_path, use_model):
    use_model(ScriptedModel(lambda r: PERFECT[r.transcript]))
    record = run(write_task(tmp_path, "covost2"), tmp_path / "out")
    bleu = record.metrics["bleu"]
    assert bleu.value == pytest.approx(100) and record.metrics["chrf++"].value == pytest.approx(100)
    assert (
        bleu.n == 10
        and bleu.macro
        and bleu.scale == 100
        and sorted(bleu.breakdown) == ["en-de", "es-en", "fr-en"]
    )
    assert "tok:13a" in bleu.signature and record.statuses["ok"] == 10
    samples = read_samples(folder_of(record, tmp_path / "out"))
    assert record.partial is False
    assert record.timing.audio_s == pytest.approx(sum(s.duration for s in samples), abs=1e-3)


def test_bleu_is_the_mean_over_directions_of_corpus_bleu(tmp_path, use_model):
    import sacrebleu

    answers = {
        **PERFECT,
        "el perro pequeño ve la casa blanca hoy": "the small dog sees a white house now today",
    }
    use_model(ScriptedModel(lambda r: answers[r.transcript]))
    record = run(write_task(tmp_path, "covost2"), tmp_path / "out")
    samples = read_samples(folder_of(record, tmp_path / "out"))
    spanish = [sample for sample in samples if sample.source_lang == "es"]
    expected = sacrebleu.corpus_bleu(
        [s.response for s in spanish], [[s.references[0] for s in spanish]]
    ).score
    assert record.metrics["bleu"].breakdown["es-en"].value == pytest.approx(expected)
    assert record.metrics["bleu"].value == pytest.approx((200 + expected) / 3)
    assert record.metrics["bleu"].low <= record.metrics["bleu"].value <= record.metrics["bleu"].high


def test_instructions_are_judged_against_the_baseline(tmp_path, use_model):
    answers = {
        "repeat the words orange apple and river": "the words are orange apple and river",
        "please describe the crow": "the crow",
    }
    use_model(ScriptedModel(lambda r: answers.get(r.transcript, "lisa")))
    record = run(write_task(tmp_path, "alpacaeval"), tmp_path / "out")
    samples = {s.instruction: s for s in read_samples(folder_of(record, tmp_path / "out"))}
    assert [samples[text].scores["win_rate"] for text in answers] == [1.0, 0.5]
    assert samples["please describe the crow"].judge["preferred"] == "tie"
    unknown = samples["words that this world has never heard"]
    assert unknown.status == "judge_failed" and unknown.scores == {} and "does not know" in unknown.error
    assert record.statuses["judge_failed"] == 2 and record.n == 8
    assert (record.metrics["win_rate"].n, record.metrics["win_rate"].n_missing) == (6, 2)
    assert record.metrics["win_rate"].value == pytest.approx((1 + 0.5 + 1) / 3)
    assert record.metrics["valid_rate"].value == pytest.approx(1 / 3)
    assert record.judge == {"name": "rba_bench.micro.world.grade", "version": 1}


def test_answers_match_aliases(tmp_path, use_model):
    use_model(ScriptedModel(lambda r: "The Dorn." if "river" in r.transcript else "it was irene castle"))
    record = run(write_task(tmp_path, "triviaqa"), tmp_path / "out")
    assert record.metrics["exact_match"].value == pytest.approx(1 / 3)
    assert record.metrics["alias_match"].value == pytest.approx(2 / 3)
    assert "|rules:2|lang:en|" in record.metrics["asserted_match"].signature
    assert "3 clusters" in record.metrics["alias_match"].method


def test_a_run_on_questions_tells_what_knowing_nothing_would_score(tmp_path, use_model, capsys):
    from rba_bench.cli.evaluate import _print_records
    from rba_bench.leaderboard import loaded_runs, recompute
    from rba_bench.leaderboard.board import build_board

    use_model(ScriptedModel(lambda r: "the dorn"))
    record = run(write_task(tmp_path, "triviaqa"), tmp_path / "out")
    assert record.exploits is not None and record.exploits.n == 3
    assert record.exploits.scores["list of candidates"]["alias_match"] == 1.0
    assert {scores["asserted_match"] for scores in record.exploits.scores.values()} == {0.0}
    _print_records([record], {}, as_json=False)
    assert "score of uninformed answers (3 of the questions)" in capsys.readouterr().out
    folder = folder_of(record, tmp_path / "out")
    assert list(recompute.exploit_faults(loaded_runs.load_checked_run(folder))) == []
    forged = json.loads((folder / "run.json").read_text())
    forged["exploits"]["scores"]["list of candidates"]["alias_match"] = 0.0
    (tmp_path / "forged").mkdir()
    (tmp_path / "forged" / "run.json").write_text(json.dumps(forged))
    (tmp_path / "forged" / "samples.jsonl").write_bytes((folder / "samples.jsonl").read_bytes())
    assert list(recompute.exploit_faults(loaded_runs.load_checked_run(tmp_path / "forged"))) == [
        "its exploit table is not what its questions give"
    ]
    board = build_board([tmp_path / "out"], tmp_path / "board")
    page = (board.out / "index.md").read_text()
    assert "| list of candidates | 0.0 | 0.0 | 100.0 |" in page and "| Uninformed answers" in page


def test_a_crash_in_the_middle_resumes_without_repeating(tmp_path, use_model):
    task = write_task(tmp_path, "covost2")
    whole = ScriptedModel()
    use_model(whole)
    expected = run(task, tmp_path / "whole")

    def fail_on_third(request):
        if len(broken.batches) == 3:
            raise RuntimeError("power cut")
        return request.transcript

    broken = ScriptedModel(fail_on_third)
    use_model(broken)
    with pytest.raises(RuntimeError, match="power cut"):
        run(task, tmp_path / "out")
    [file] = (tmp_path / "out").glob("*/*/samples.jsonl")
    kept = read_lines(file)
    assert len(kept) == 4 and not file.with_name("run.json").exists()
    assert len(read_lines(file.with_name("timing.jsonl"))) == 2
    file.write_bytes(file.read_bytes() + b'{"doc_id": 7, "torn')

    rest = ScriptedModel()
    use_model(rest)
    record = run(task, tmp_path / "out")
    assert rest.seeds == whole.seeds[2:]
    assert sorted(kept, key=lambda line: line["doc_id"]) == [
        line for line in read_lines(file) if line["doc_id"] in {k["doc_id"] for k in kept}
    ]
    assert file.read_bytes() == next((tmp_path / "whole").glob("*/*/samples.jsonl")).read_bytes()
    without_latency = {"timing", "created"}
    assert record.model_dump(exclude=without_latency) == expected.model_dump(exclude=without_latency)


def test_a_finished_run_is_not_repeated(tmp_path, use_model):
    task = write_task(tmp_path, "triviaqa")
    use_model(ScriptedModel())
    first = run(task, tmp_path / "out")
    idle = use_model(ScriptedModel())
    assert run(task, tmp_path / "out") == first and idle.batches == []


def test_statuses_are_counted_and_nothing_is_dropped(tmp_path, use_model):
    outcomes = {
        "i want to know who painted the picture dancing shadows": Generation(
            "castle castle", 48, "truncated"
        ),
        "i want to know which person composed the song called under the stars": Generation(
            "", 0, "error", "no luck"
        ),
        "which river runs through arvania": Generation("", 0, "empty"),
    }
    use_model(ScriptedModel(lambda r: outcomes[r.transcript]))
    record = run(write_task(tmp_path, "triviaqa"), tmp_path / "out")
    assert record.statuses == {
        "ok": 0,
        "empty": 2,
        "truncated": 2,
        "error": 2,
        "not_heard": 0,
        "no_reply": 0,
        "judge_failed": 0,
    }
    assert record.n == record.metrics["alias_match"].n == 6
    assert record.metrics["alias_match"].value == pytest.approx(1 / 3)
    samples = read_samples(folder_of(record, tmp_path / "out"))
    assert {s.error for s in samples if s.status == "error"} == {"no luck"}


def test_limit_marks_the_record_partial(tmp_path, use_model):
    use_model(ScriptedModel())
    task = write_task(tmp_path, "triviaqa")
    partial = run(task, tmp_path / "out", limit=2)
    assert (partial.n, partial.limit, partial.partial) == (2, 2, True)
    whole = run(task, tmp_path / "out", limit=600)
    assert (whole.n, whole.limit, whole.partial) == (6, None, False)
    assert whole.run_id != partial.run_id and whole.protocol_hash == partial.protocol_hash


@pytest.mark.parametrize("limit", [0, -3])
def test_limit_must_be_positive(tmp_path, limit):
    with pytest.raises(UserError, match="at least 1"):
        evaluate(EvalRequest(tasks=("triviaqa",), model="base", out=tmp_path, limit=limit))


def test_seed_is_a_replicate_of_one_protocol(tmp_path, use_model):
    model = use_model(ScriptedModel())
    task = write_task(tmp_path, "triviaqa", sampled=True)
    first, second = run(task, tmp_path / "out"), run(task, tmp_path / "out", seed=7)
    assert first.protocol_hash == second.protocol_hash and first.run_id != second.run_id
    assert (first.protocol, first.seeds["generation"], second.seeds["generation"]) == ("sampled", 1234, 7)
    assert len({seed for batch in model.seeds for seed in batch}) == 12


def test_record_names_no_folder_of_this_machine(tmp_path, use_model):
    use_model(ScriptedModel())
    record = run(write_task(tmp_path, "triviaqa"), tmp_path / "out")
    text = json.dumps(record.model_dump(mode="json"))
    assert str(tmp_path) not in text and "/somewhere" not in text
    samples = folder_of(record, tmp_path / "out") / "samples.jsonl"
    assert str(tmp_path) not in samples.read_text() and record.samples_sha256 == sha256_file(samples)


def test_damaged_clip_ends_the_run_with_one_line(tmp_path, use_model):
    import pyarrow as pa
    import pyarrow.parquet as pq

    use_model(ScriptedModel())
    task = write_task(tmp_path, "triviaqa")
    file = tmp_path / "data" / "triviaqa" / "test.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[1]["audio"]["bytes"] = rows[0]["audio"]["bytes"]
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(UserError, match="damaged"):
        run(task, tmp_path / "out")

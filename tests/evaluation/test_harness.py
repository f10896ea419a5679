"""The model under lm-eval's own evaluator: requests, caching, seeds, batches, other people's audio."""

import json

import numpy as np
import pytest

from rba_bench.audio.clips import AudioError, encode_flac
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import harness, model_input
from rba_bench.evaluation.documents import load_documents
from rba_bench.evaluation.runner import EvalRequest, evaluate
from tests.evaluation.conftest import ScriptedModel, write_task, write_test_set


def language_model(answer=lambda r: r.transcript, batch_size=4):
    return harness.RbaSpeechLM(batch_size=batch_size, device="cpu", model=ScriptedModel(answer))


def stock(lm, task, use_cache=None, **options):
    """lm-eval's own evaluation of a task, without the minute it spends on describing the machine."""
    from lm_eval.api.model import CachingLM
    from lm_eval.evaluator import evaluate as lm_eval_evaluate
    from lm_eval.tasks import TaskManager

    lm = CachingLM(lm, use_cache) if use_cache else lm
    return lm_eval_evaluate(lm, TaskManager(include_defaults=False).load([str(task)]), **options)


@pytest.mark.parametrize("benchmark", ["alpacaeval", "triviaqa", "covost2"])
def test_lm_eval_prints_the_scores_and_errors_that_the_runner_records(tmp_path, use_model, benchmark):
    def answer(request):
        return "the words are river" if request.seed % 3 else "the dorn sees the white house today"

    task = write_task(tmp_path, benchmark)
    printed = stock(language_model(answer), task)["results"][f"tiny_{benchmark}"]
    use_model(ScriptedModel(answer))
    [record] = evaluate(EvalRequest(tasks=(str(task),), model="x", out=tmp_path / "out", batch_size=4))
    assert record.metrics
    for name, metric in record.metrics.items():
        assert printed[f"{name},none"] == pytest.approx(metric.value, abs=1e-12)
        assert printed[f"{name}_stderr,none"] == pytest.approx(metric.stderr, abs=1e-12)


def test_table_of_lm_eval_shows_an_error_for_every_metric(tmp_path):
    from lm_eval.utils import make_table

    table = make_table(stock(language_model(lambda r: "the small dog sees"), write_task(tmp_path, "covost2")))
    rows = [line for line in table.splitlines() if "±" in line]
    assert len(rows) == 2 and "N/A" not in table


def test_response_cache_repeats_nothing_after_a_crash(tmp_path):
    task = write_task(tmp_path, "triviaqa")

    def crash(request):
        if len(broken.model.batches) == 2:
            raise RuntimeError("power cut")
        return "porter"

    broken = language_model(crash)
    with pytest.raises(RuntimeError, match="power cut"):
        stock(broken, task, use_cache=str(tmp_path / "cache"))
    rest = language_model(lambda r: "porter")
    stock(rest, task, use_cache=str(tmp_path / "cache"))
    assert len(rest.model.asked) == 2
    idle = language_model()
    stock(idle, task, use_cache=str(tmp_path / "cache"))
    assert idle.model.asked == []


def test_logged_samples_hold_references_not_audio(tmp_path):
    result = stock(language_model(), write_task(tmp_path, "triviaqa"), log_samples=True)
    samples = result["samples"]["tiny_triviaqa"]
    assert len(json.dumps(samples[0], default=str)) < 4000
    assert len({sample["doc_hash"] for sample in samples}) == 6
    assert len(samples[0]["arguments"][0][2]["audio"][0]["sha256"]) == 64


def test_repeats_draw_different_samples(tmp_path):
    lm = language_model()
    stock(lm, write_task(tmp_path, "triviaqa", sampled=True, repeats=3))
    assert len({request.seed for batch in lm.model.batches for request in batch}) == 18


def test_batches_hold_clips_of_like_length_longest_first(tmp_path):
    lm = language_model(batch_size=4)
    stock(lm, write_task(tmp_path, "covost2"))
    lengths = [[len(request.audio) for request in batch] for batch in lm.model.batches]
    assert [len(batch) for batch in lengths] == [4, 4, 2]
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)


def test_seed_depends_on_the_item_not_on_its_place(tmp_path):
    one, many = language_model(batch_size=1), language_model(batch_size=7)
    task = write_task(tmp_path, "triviaqa", sampled=True)
    stock(one, task)
    stock(many, task, limit=3)
    seeds = {tuple(r.audio[:4]): r.seed for batch in one.model.batches for r in batch}
    assert all(seeds[tuple(r.audio[:4])] == r.seed for batch in many.model.batches for r in batch)


def test_clip_without_sound_is_not_heard(tmp_path, monkeypatch):
    real = model_input.load_wave

    def wave(value):
        if value["row"] == 1:
            raise AudioError("no samples")
        return real(value)

    monkeypatch.setattr(harness, "load_wave", wave)
    lm = language_model()
    task = harness.load_task(write_task(tmp_path, "triviaqa"))
    answers = [a for batch in lm.stream(harness.build_requests(task, None, lm)) for a in batch.answers]
    failed = {a.index: a.generation.error for a in answers if a.generation.status == "not_heard"}
    assert failed == {1: "no samples"} and len(answers) == 6


def test_stock_lm_eval_gets_no_score_where_nothing_was_heard(tmp_path, monkeypatch, capsys):
    def wave(value):
        raise AudioError(f"row {value['row']} holds no audio bytes")

    with monkeypatch.context() as deaf:
        deaf.setattr(harness, "load_wave", wave)
        with pytest.raises(
            MissingPrerequisite, match="none of 6 items was answered .6 times: row . holds no"
        ):
            stock(language_model(), write_task(tmp_path, "triviaqa"))
    real = model_input.load_wave
    monkeypatch.setattr(harness, "load_wave", lambda value: wave(value) if value["row"] == 2 else real(value))
    stock(language_model(), write_task(tmp_path, "triviaqa"))
    assert "not_heard 1 of 6" in capsys.readouterr().err


@pytest.mark.parametrize("clip", [None, {"bytes": b"junk"}])
def test_a_null_or_broken_clip_of_other_peoples_tasks_ends_no_run(tmp_path, clip):
    lm = language_model()
    task = harness.load_task(write_task(tmp_path, "triviaqa"))
    instances = list(harness._instances(task, None, lm))
    prompt, kwargs, media = instances[3].args
    instances[3].arguments = (prompt, kwargs, {**media, "audio": [clip]})
    answers = [a for batch in lm.stream(lm.plan(instances)) for a in batch.answers]
    assert {a.index for a in answers if a.generation.status == "not_heard"} == {3} and len(answers) == 6


def test_audio_of_other_peoples_tasks(tmp_path):
    wave = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)
    data = encode_flac(wave, 8000)
    (tmp_path / "clip.flac").write_bytes(data)

    class Decoder:
        def get_all_samples(self):
            return type("Samples", (), {"data": wave[None, :], "sample_rate": 8000})()

    array = {"array": wave.astype(np.float64), "sampling_rate": 8000}
    file = str(tmp_path / "clip.flac")
    forms = [array, {"bytes": data}, {"path": file, "bytes": None}, file, Decoder()]
    for form in forms:
        found = model_input.load_wave(form)
        assert found.dtype == np.float32 and found.shape == (16000,)
        np.testing.assert_allclose(found, model_input.load_wave(array), atol=1e-4)
    assert model_input.clip_key(array) != model_input.clip_key({"array": wave * 0.5, "sampling_rate": 8000})
    with pytest.raises(UserError, match="cannot read audio from int"):
        model_input.load_wave(3)
    with pytest.raises(UserError, match="cannot read audio file"):
        model_input.load_wave(str(tmp_path / "absent.wav"))


def test_model_args_batch_size_wins_over_the_flag(use_model):
    use_model(ScriptedModel())
    build = harness.RbaSpeechLM.create_from_arg_obj
    flag = {"batch_size": 1, "max_batch_size": None, "device": "cpu"}
    assert build({"pretrained": "base", "batch_size": 8}, flag).batch_size == 8
    assert build({"pretrained": "base"}, flag).batch_size == 1
    assert build({"pretrained": "base"}, {**flag, "batch_size": "auto"}).batch_size == harness.BATCH_SIZE


def test_likelihood_tasks_are_refused():
    for method in ("loglikelihood", "loglikelihood_rolling"):
        with pytest.raises(UserError, match="generate_until"):
            getattr(language_model(), method)([])


def test_documents_refuse_what_is_not_a_test_set(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rba_bench.errors import MissingPrerequisite

    with pytest.raises(MissingPrerequisite, match="does not exist"):
        load_documents(data=str(tmp_path / "absent"))
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match="lacks the columns kind, topic"):
        load_documents(data=str(tmp_path / "other.parquet"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match="is damaged"):
        load_documents(data=str(tmp_path / "torn.parquet"))
    with pytest.raises(UserError, match="names no data"):
        load_documents()
    file = write_test_set(tmp_path / "set", "alpacaeval") / "test.parquet"
    rows = [{**row, "baseline": ""} for row in pq.read_table(file).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), file)
    with pytest.raises(MissingPrerequisite, match="baseline answers"):
        load_documents(data=str(file))


def test_lm_evals_default_device_is_ignored_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    lm = harness.RbaSpeechLM.create_from_arg_obj(
        {"pretrained": "constant"}, {"device": "cuda:0", "batch_size": 1}
    )
    assert lm.device_name == "cpu"

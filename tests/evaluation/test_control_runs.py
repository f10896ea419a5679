"""Runs with `--audio`: what the model gets, how the record says it, what is reused, and who is refused."""

import numpy as np
import pytest

import rba_bench as rba
from rba_bench.audio.clips import SAMPLING_RATE
from rba_bench.cli.evaluate import _evaluate
from rba_bench.cli.main import main
from rba_bench.errors import UserError
from rba_bench.evaluation.harness import RbaSpeechLM
from rba_bench.evaluation.rescoring import RescoreOptions, rescore_folder
from rba_bench.evaluation.runner import EvalRequest, estimate_costs, evaluate
from rba_bench.leaderboard.compare_runs import record_folder
from tests.evaluation.conftest import ITEMS, ScriptedModel, read_lines, write_task


class Recorder(ScriptedModel):
    """Remembers the samples that it got, by transcript of the clip."""

    def __init__(self, answer=lambda request: request.transcript):
        super().__init__(answer)
        self.waves = []

    def generate(self, requests, decoding):
        self.waves += [(request.transcript, request.audio) for request in requests]
        return super().generate(requests, decoding)


@pytest.fixture
def task(tmp_path):
    return str(write_task(tmp_path, "triviaqa"))


def run(tmp_path, task, audio="", **more):
    [record] = evaluate(
        EvalRequest((task,), "scripted", out=tmp_path / "eval", audio=audio, trust=True, **more)
    )
    samples = read_lines(record_folder(tmp_path / "eval", record) / "samples.jsonl")
    return record, samples


def test_the_model_gets_silence_of_equal_length(tmp_path, task, use_model):
    model = use_model(Recorder())
    run(tmp_path, task)
    clips = dict(model.waves)
    model.waves.clear()
    run(tmp_path, task, "silence")
    assert len(model.waves) == 6, "answers to the clips are not answers to silence"
    assert all(not wave.any() and wave.dtype == np.float32 for _, wave in model.waves)
    assert sorted({len(wave) for _, wave in model.waves}) == sorted(
        {4000 + 900 * i + 200 * j for i in range(3) for j in range(2)}
    )
    assert clips and all(wave.any() for wave in clips.values())


def test_first_is_the_beginning_of_the_same_clip(tmp_path, task, use_model):
    model = use_model(Recorder())
    run(tmp_path, task)
    whole = {wave.tobytes() for _, wave in model.waves}
    model.waves.clear()
    record, samples = run(tmp_path, task, "first=0.3s")
    cut = round(0.3 * SAMPLING_RATE)
    assert {wave.tobytes() for _, wave in model.waves} == {clip[: 4 * cut] for clip in whole}
    assert record.timing.audio_s == pytest.approx(
        sum(min(sample["duration"], 0.3) for sample in samples), abs=0.01
    )


def test_shuffle_plays_the_clip_of_another_question_and_says_which(tmp_path, task, use_model):
    model = use_model(Recorder())
    full, own = run(tmp_path, task)
    n_asked = len(model.waves)
    record, samples = run(tmp_path, task, "shuffle")
    assert len(model.waves) == n_asked, "greedy answers to those clips are known from the full run"
    by_clip = {sample["audio_sha256"]: sample for sample in own}
    assert sorted(sample["played_sha256"] for sample in samples) == sorted(by_clip)
    for sample in samples:
        donor = by_clip[sample["played_sha256"]]
        assert donor["cluster"] != sample["cluster"] and sample["response"] == donor["instruction"]
    assert all("played_sha256" not in sample for sample in own)
    assert record.data == full.data and record.metrics["exact_match"].n == 6


def test_a_part_of_a_test_set_gets_the_clips_that_it_gets_in_the_whole(tmp_path, task, use_model):
    use_model(Recorder())
    whole = run(tmp_path, task, "shuffle")[1]
    record, part = run(tmp_path, task, "shuffle", limit=3)
    assert record.partial
    assert [s["played_sha256"] for s in part] == [s["played_sha256"] for s in whole[:3]]


def test_the_record_says_what_it_is_and_is_not_partial(tmp_path, task, use_model):
    use_model(Recorder())
    records = {
        audio: run(tmp_path, task, audio)[0] for audio in ("", "silence", "shuffle", "first=1s", "first=2s")
    }
    assert (
        len({record.run_id for record in records.values()})
        == len({r.protocol_hash for r in records.values()})
        == 5
    )
    for audio, record in records.items():
        assert record.audio_control == audio and not record.partial and record.n == 6
        assert record.protocol_spec.get("audio", {}).get("text", "") == audio


def test_an_interrupted_control_continues(tmp_path, task, use_model):
    class Stops(Recorder):
        def generate(self, requests, decoding):
            if len(self.waves) >= 2:
                raise KeyboardInterrupt
            return super().generate(requests, decoding)

    use_model(Stops())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, task, "silence", batch_size=2)
    model = use_model(Recorder())
    _, samples = run(tmp_path, task, "silence", batch_size=2)
    assert len(model.waves) == 4 and len(samples) == 6


def test_rescoring_keeps_what_it_is(tmp_path, task, use_model):
    use_model(Recorder())
    record, _ = run(tmp_path, task, "shuffle")
    folder = record_folder(tmp_path / "eval", record)
    result = rescore_folder(folder, RescoreOptions(task=tmp_path / "tiny_triviaqa.yaml"))
    assert result.after.audio_control == "shuffle" and not result.changed


def test_perturbed_clips_are_exchanged_and_cut_as_they_are_perturbed(tmp_path, task, use_model):
    model = use_model(Recorder())
    run(tmp_path, task, perturb="noise=5dB")
    noisy = {wave.tobytes() for _, wave in model.waves}
    model.waves.clear()
    run(tmp_path, task, "shuffle", perturb="noise=5dB", use_cache=False)
    assert {wave.tobytes() for _, wave in model.waves} == noisy
    model.waves.clear()
    run(tmp_path, task, "first=0.2s", perturb="noise=5dB")
    assert {wave.tobytes() for _, wave in model.waves} == {wave[: 4 * 3200] for wave in noisy}
    with pytest.raises(UserError, match="leave out the perturbation"):
        run(tmp_path, task, "silence", perturb="noise=5dB")


def test_the_command_says_what_is_retained_of_the_full_run_beside_it(tmp_path, task, use_model, capsys):
    answers = {item["instruction"]: item["references"][-1] for item in ITEMS["triviaqa"]}
    use_model(Recorder(lambda request: answers[request.transcript] if request.audio.any() else "porter"))
    words = ["eval", "--model", "scripted", "--task", task, "--out", str(tmp_path / "eval"), "--trust"]

    def said(*more):
        with pytest.raises(SystemExit) as stopped:
            main([*words, *more])
        assert stopped.value.code in (0, None)
        return capsys.readouterr().out

    assert "control without the speech (silence), not ranked" in (alone := said("--audio", "silence"))
    assert "no full run in this folder" in alone
    assert "control" not in said()
    # all are right, and in silence the answer to one question of three
    assert "retained, % of the full run: asserted_match 33.3 [" in said("--audio", "silence")


def test_of_a_full_score_of_0_the_command_says_that_nothing_is_retained(tmp_path, task, use_model, capsys):
    use_model(Recorder(lambda request: "nobody knows"))
    words = ["eval", "--model", "scripted", "--task", task, "--out", str(tmp_path / "eval"), "--trust"]
    for more in ([], ["--audio", "silence"]):
        with pytest.raises(SystemExit):
            main([*words, *more])
    said = capsys.readouterr().out
    assert "nothing, as the score of the full run is, or may be, 0" in said and "no full run" not in said


@pytest.mark.parametrize("command", [evaluate, estimate_costs])
@pytest.mark.parametrize("audio", ["silence", "shuffle", "first=1s"])
def test_a_model_that_reads_the_transcript_is_refused_before_it_is_loaded(
    tmp_path, task, monkeypatch, command, audio
):
    monkeypatch.setattr(
        "rba_bench.speechlm.model_names.load_speech_model", lambda *_, **__: pytest.fail("loaded")
    )
    for model in ("text", "text:some/llm"):
        with pytest.raises(UserError, match="reads the transcript") as refused:
            command(EvalRequest((task,), model, out=tmp_path, audio=audio, trust=True))
        assert "\n" not in str(refused.value)


def test_so_is_one_that_turns_out_to_read_it(tmp_path, task, use_model):
    use_model(Recorder()).reads_transcript = True
    with pytest.raises(UserError, match="reads the transcript"):
        run(tmp_path, task, "silence")
    assert not list(tmp_path.glob("eval/*/*")), "nothing was begun"


def test_the_gap_to_such_a_model_is_refused_before_the_run(tmp_path, task, use_model):
    model = use_model(Recorder())
    with pytest.raises(UserError, match="--gap"):
        _evaluate(
            EvalRequest((task,), "scripted", out=tmp_path, audio="silence", trust=True), "text:some/llm"
        )
    assert not model.waves


def test_a_test_set_that_says_one_thing_cannot_be_exchanged(tmp_path, use_model, monkeypatch):
    items = [{"instruction": "which river runs through arvania", "references": ["dorn"]}]
    monkeypatch.setitem(ITEMS, "triviaqa", items)
    use_model(Recorder())
    with pytest.raises(UserError, match="tiny_triviaqa: 2 of 2 items say the same.*silence"):
        run(tmp_path, task := str(write_task(tmp_path, "triviaqa")), "shuffle")
    with pytest.raises(UserError, match="2 of 2 items say the same"):
        estimate_costs(EvalRequest((task,), "scripted", out=tmp_path, audio="shuffle", trust=True))


def test_under_stock_lm_eval_clips_are_not_exchanged(use_model):
    lm = RbaSpeechLM("scripted", audio_control="shuffle", model=Recorder())
    with pytest.raises(UserError, match="rba-bench eval --audio shuffle"):
        lm.plan([])


def test_a_server_gets_the_same_as_a_local_model(tmp_path, task, use_model):
    """Servers get the whole test set at once, and read each clip when it is sent."""
    model = use_model(Recorder())
    model.streams = True
    _, samples = run(tmp_path, task, "silence")
    assert len(samples) == 6 and len(model.waves) == 6 and not any(wave.any() for _, wave in model.waves)


def test_from_python_it_is_an_option_of_evaluate(tmp_path, task, use_model):
    use_model(Recorder())
    shuffled = rba.evaluate("scripted", task, audio="shuffle", out=tmp_path / "eval", trust=True)
    assert "(control without the speech: shuffle)" in shuffled.summary() and not shuffled.partial
    assert shuffled.record("tiny_triviaqa")["protocol_spec"]["audio"]["text"] == "shuffle"
    assert all(sample["played_sha256"] not in ("", sample["audio_sha256"]) for sample in shuffled.samples)
    full = rba.evaluate("scripted", task, out=tmp_path / "eval", trust=True)
    table = rba.compare(shuffled, full, across=True).to_pandas().set_index("metric")
    assert table["retained"].isna().all(), "the transcript is no answer, so the full score is 0"

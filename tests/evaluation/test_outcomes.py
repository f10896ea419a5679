"""Nothing answered is not a zero: no record, one line with the commonest reason, and what came is kept."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from rba_bench.cli.main import main
from rba_bench.errors import MissingPrerequisite, RbaError, UserError
from rba_bench.evaluation import outcomes
from rba_bench.evaluation.records import Sample, read_record, read_samples
from rba_bench.files import sha256_bytes
from rba_bench.textlm.text_model import Generation
from tests.evaluation.conftest import ScriptedModel, write_task
from tests.textlm.misbehaving_server import answer, body, failure, serving


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "1")
    monkeypatch.setenv("RBA_API_KEY", "sk-0123456789")


def ran(*words) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["eval", *map(str, words)])
    return int(ended.value.code or 0)


def asked(task: Path, server, out: Path, *more) -> int:
    return ran(
        "--task", task, "--model", server.spec, "--track", "micro", "--out", out, "--device", "cpu", *more
    )


def complaint(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == "", "a run without a record prints no score"
    assert "Traceback" not in captured.err
    [line] = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("reaction", "code", "reason"),
    [
        (failure(400, "content blocks are expected to be text"), 2, "400: content blocks"),
        (failure(422, "temperature must be 1"), 2, "422: temperature must be 1"),
        (failure(401, "no"), 3, "refuses the API key"),
        (failure(403, "no"), 3, "refuses the API key"),
        (failure(404, "no"), 2, "serves no model 'm'"),
        (failure(502, "bad gateway"), 1, "502: bad gateway"),
        (failure(503, "loading"), 1, "503: loading"),
        (body("<html>login</html>"), 1, "the answer is not JSON"),
    ],
)
def test_a_server_that_answers_nothing_leaves_no_record(tmp_path, capsys, reaction, code, reason):
    task = write_task(tmp_path, "triviaqa")
    with serving(lambda _: reaction) as server:
        assert asked(task, server, tmp_path / "out") == code
    assert reason in complaint(capsys)
    assert not list(tmp_path.rglob("run.json"))


def test_answers_that_came_are_kept_and_the_same_command_asks_for_the_rest(tmp_path, capsys):
    task, out = write_task(tmp_path, "triviaqa"), tmp_path / "out"
    up = {"for": 2}

    def react(seen):
        sound = seen.body["messages"][-1]["content"][0]["input_audio"]["data"]
        if sound in heard or len(heard) < up["for"]:
            heard.add(sound)
            return answer("castle")
        return failure(503, "overloaded")

    heard: set[str] = set()
    with serving(react) as server:
        assert asked(task, server, out) == 1
        line = complaint(capsys)
        assert (
            "4 of 6 items cannot be scored" in line and "503: overloaded" in line and "same command" in line
        )
        [folder] = [file.parent for file in out.rglob("samples.jsonl")]
        assert [s.status for s in read_samples(folder)].count("ok") == 2 and not list(out.rglob("run.json"))
        up["for"], before = 6, len(server.seen)
        assert asked(task, server, out) == 0
        assert len(server.seen) == before + 4, "what was answered is not asked again"
    assert read_record(folder).statuses["ok"] == 6


def test_a_run_mended_by_half_keeps_its_record_out_until_it_is_whole(tmp_path, use_model, capsys):
    """Asking again takes the old record away: were it to stay, it would count items that its samples no longer show."""
    task, out = write_task(tmp_path, "triviaqa"), tmp_path / "out"
    line = ("--task", task, "--model", "x", "--track", "micro", "--out", out)
    use_model(
        ScriptedModel(lambda r: Generation("", 0, "no_reply", "503") if "river" in r.transcript else "a")
    )
    assert ran(*line) == 0
    assert "no_reply 2 of 6" in capsys.readouterr().err

    def cut_off(request):
        raise RuntimeError("power cut")

    use_model(ScriptedModel(cut_off))
    with pytest.raises(RuntimeError, match="power cut"):
        main(["eval", *map(str, line), "--retry-errors"])
    assert not list(out.rglob("run.json"))
    model = use_model(ScriptedModel(lambda r: "the dorn"))
    assert ran(*line) == 0 and len(model.asked) == 2
    [file] = out.rglob("run.json")
    assert read_record(file).statuses["ok"] == 6


def test_a_local_model_that_fails_on_every_item_has_no_score(tmp_path, use_model, capsys):
    use_model(ScriptedModel(lambda r: Generation("", 0, "error", f"out of memory: {len(r.audio)} bytes")))
    line = ("--task", write_task(tmp_path, "triviaqa"), "--model", "x", "--track", "micro")
    assert ran(*line, "--out", tmp_path / "out") == 1
    found = complaint(capsys)
    assert "none of 6 items was answered (6 times: out of memory" in found
    assert not list(tmp_path.rglob("run.json"))


def test_failures_of_the_model_count_against_it_and_others_do_not(tmp_path, use_model):
    """Two items each: right, failed by the model, not answered by the server."""
    outcome = {
        "painted": "irene castle",
        "composed": Generation("", 0, "error", "refused by the content filter"),
        "river": Generation("", 0, "no_reply", "502"),
    }
    use_model(ScriptedModel(lambda r: next(said for word, said in outcome.items() if word in r.transcript)))
    line = ("--task", write_task(tmp_path, "triviaqa"), "--model", "x", "--track", "micro")
    assert ran(*line, "--out", tmp_path / "out") == 0
    [file] = tmp_path.rglob("run.json")
    found = read_record(file).metrics["alias_match"]
    assert (found.value, found.n, found.n_missing) == (0.5, 4, 2)


# Clips


def encoded(seconds: float, hz: float) -> bytes:
    t = np.arange(int(16_000 * seconds)) / 16_000
    buffer = io.BytesIO()
    sf.write(buffer, 0.2 * np.sin(2 * np.pi * hz * t), 16_000, format="WAV")
    return buffer.getvalue()


def data_set(root: Path, audio: list[dict | None]) -> Path:
    """Llama Questions as it is published, with these clips."""
    folder = root / "data" / "TwinkStart" / "llama-questions" / "data"
    folder.mkdir(parents=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = {
        "Questions": [f"what is {i}?" for i in range(len(audio))],
        "Answer": [f"answer{i}" for i in range(len(audio))],
        "audio": pa.array(audio, type=kind),
    }
    pq.write_table(pa.table(table), folder / "test-00000-of-00001.parquet")
    return root / "data"


def spoken(root: Path, audio: list[dict | None], server, monkeypatch) -> int:
    monkeypatch.setenv("RBA_CACHE", str(root / "cache"))
    words = ("--task", "llama_questions_twinkstart", "--data-dir", data_set(root, audio), "--judge", "none")
    return ran(*words, "--model", server.spec, "--out", root / "out", "--device", "cpu")


def stored(number: int) -> dict:
    return {"bytes": encoded(0.5 + 0.1 * number, 200 + 30 * number), "path": f"{number}.wav"}


@pytest.mark.parametrize("absolute", [False, True])
def test_clips_that_lie_beside_the_set_are_heard(tmp_path, monkeypatch, absolute):
    folder = tmp_path / "data" / "TwinkStart" / "llama-questions" / "data"
    names = [str(folder / "clips" / f"{i}.wav") if absolute else f"clips/{i}.wav" for i in range(3)]
    clips = [{"bytes": None, "path": name} for name in names]
    real_data_set = data_set

    def with_files(root, audio):
        made = real_data_set(root, audio)
        (folder / "clips").mkdir()
        for number in range(3):
            (folder / "clips" / f"{number}.wav").write_bytes(stored(number)["bytes"])
        return made

    monkeypatch.setitem(globals(), "data_set", with_files)
    with serving(lambda _: answer("answer1")) as server:
        assert spoken(tmp_path, clips, server, monkeypatch) == 0
    [file] = (tmp_path / "out").rglob("run.json")
    assert read_record(file).statuses["ok"] == 3 and len(server.seen) == 3
    assert str(tmp_path) not in file.with_name("samples.jsonl").read_text()
    hashes = {sample.audio_sha256 for sample in read_samples(file.parent)}
    assert hashes == {sha256_bytes(stored(number)["bytes"]) for number in range(3)}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"bytes": b"<html>not found</html>", "path": "a.wav"}, "not audio"),
        ({"bytes": b"", "path": "a.wav"}, "not audio"),
        ({"bytes": None, "path": None}, "no audio bytes"),
        ({"bytes": None, "path": "gone.wav"}, "the file 'gone.wav' is not beside it"),
        ({"bytes": None, "path": "/gone/away.wav"}, "the file 'away.wav' is not beside it"),
        ({"bytes": None, "path": "hf://datasets/x/a.wav"}, "the file 'a.wav' is not beside it"),
        ({"bytes": None, "path": "x" * 5000}, "is not beside it"),
        ({"bytes": None, "path": "nul\x00"}, "is not beside it"),
        ({"bytes": None, "path": "."}, "is not beside it"),
        (None, "no audio bytes"),
    ],
)
def test_a_set_that_cannot_be_heard_is_refused_and_nothing_is_sent(
    tmp_path, capsys, monkeypatch, broken, reason
):
    with serving(lambda _: answer("answer1")) as server:
        assert spoken(tmp_path, [broken] * 4, server, monkeypatch) == 3
    found = complaint(capsys)
    assert reason in found and "none of 4 items was answered" in found and str(tmp_path) not in found
    assert not server.seen and not list(tmp_path.rglob("run.json"))


def test_a_share_of_unheard_clips_is_counted_apart_and_said(tmp_path, capsys, monkeypatch):
    clips = [stored(0), {"bytes": b"junk", "path": "b.wav"}, stored(2), stored(3)]
    with serving(lambda _: answer("answer0")) as server:
        assert spoken(tmp_path, clips, server, monkeypatch) == 0
    captured = capsys.readouterr()
    assert "1 (not_heard 1)" in captured.out and "of 4 items (not_heard 1)" in captured.out
    assert "not_heard 1 of 4: the clip cannot be decoded" in captured.err and "not audio" in captured.err
    [file] = (tmp_path / "out").rglob("run.json")
    record = read_record(file)
    found = record.metrics["exact_match"]
    assert (record.statuses["not_heard"], found.n, found.n_missing) == (1, 3, 1)
    assert found.value == pytest.approx(1 / 3)
    assert len(server.seen) == 3


def test_most_clips_unheard_is_no_score_of_the_test_set(tmp_path, capsys, monkeypatch):
    with serving(lambda _: answer("answer0")) as server:
        code = spoken(tmp_path, [stored(0), *[{"bytes": b"junk", "path": "b.wav"}] * 3], server, monkeypatch)
    assert code == 3 and "3 of 4 items cannot be scored" in complaint(capsys)


# The rule itself


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ([], None),
        ([("ok", "")] * 4, None),
        ([("ok", ""), ("error", "x"), ("error", "x"), ("error", "x")], None),
        ([("ok", ""), ("ok", ""), ("no_reply", "503"), ("not_heard", "x")], None),
        ([("ok", ""), ("no_reply", "503"), ("no_reply", "503"), ("not_heard", "x")], RbaError),
        ([("error", "x")] * 4, RbaError),
        ([("no_reply", "400: no"), ("no_reply", "422: no")], UserError),
        ([("no_reply", "429: slow down")] * 2, RbaError),
        ([("not_heard", "x"), ("not_heard", "x"), ("no_reply", "503")], MissingPrerequisite),
        ([("empty", "")] * 4, None),
        ([("truncated", "")] * 4, None),
        ([("empty", ""), ("error", "x")], None),
    ],
)
def test_where_a_record_may_be_written(found, error):
    if error is None:
        outcomes.check_answers("t", found)
        return
    with pytest.raises(RbaError) as caught:
        outcomes.check_answers("t", found)
    assert type(caught.value) is error and "\n" not in str(caught.value)


def test_the_commonest_reason_is_named_though_items_differ_in_their_numbers(capsys):
    reasons = ["row 1 of a.parquet: not audio", "row 7 of a.parquet: not audio", "503"]
    outcomes.check_answers("t", [("not_heard", reason) for reason in reasons] + [("ok", "")] * 9)
    assert "not_heard 3 of 12" in (said := capsys.readouterr().err)
    assert "2 times: row 1 of a.parquet: not audio" in said


@pytest.mark.parametrize(
    ("status", "text", "found"),
    [
        ("ok", "yes", "ok"),
        ("truncated", "ye", "truncated"),
        ("truncated", " ", "empty"),
        ("no_reply", "", "no_reply"),
    ],
)
def test_a_reply_without_text_to_score_counts_as_empty(status, text, found):
    assert outcomes.item_outcome(status, text, "why") == (found, "why")


@pytest.mark.parametrize("more", [{"scores": {"exact_match": 0.0}}, {"response": "an answer"}])
def test_an_unheard_item_with_an_answer_or_a_score_is_no_sample(tmp_path, use_model, more):
    use_model(ScriptedModel())
    line = ("--task", write_task(tmp_path, "triviaqa"), "--model", "x", "--track", "micro")
    assert ran(*line, "--out", tmp_path / "out") == 0
    [file] = tmp_path.rglob("samples.jsonl")
    good = read_samples(file)[0].model_dump()
    unheard = {**good, "status": "not_heard", "response": "", "scores": {}}
    Sample.model_validate(unheard)
    with pytest.raises(ValueError, match="yet has a response or scores"):
        Sample.model_validate({**unheard, **more})


@pytest.mark.parametrize("reply", [answer(""), answer("<think>hm, let me see", finish="length")])
def test_a_model_that_says_nothing_to_anything_scores_what_silence_scores_and_is_pointed_at(
    tmp_path, capsys, reply
):
    with serving(lambda _: reply) as server:
        assert asked(write_task(tmp_path, "triviaqa"), server, tmp_path / "out") == 0
    assert "all 6 replies are empty or end within the model's thinking" in capsys.readouterr().err
    [file] = tmp_path.rglob("run.json")
    assert read_record(file).metrics["alias_match"].value == 0

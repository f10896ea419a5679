"""Replies with thinking and leaked marks through whole runs: what is scored, what is kept, which status."""

import json

import pytest

from rba_bench.evaluation import scoring
from rba_bench.evaluation.harness import RbaSpeechLM
from rba_bench.evaluation.model_input import scored_part
from rba_bench.evaluation.records import read_samples
from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.speechlm.model_names import load_speech_model
from rba_bench.textlm.replies import RULE
from tests.evaluation.conftest import write_task
from tests.evaluation.test_harness import stock
from tests.programs import Program
from tests.textlm.misbehaving_server import answer, serving

NAMES_ALL = "irene castle, porter or the dorn?"


def run(tmp_path, react, benchmark="triviaqa", model="{}", **more):
    task = write_task(tmp_path, benchmark)
    with serving(react) as server:
        request = EvalRequest(
            (str(task),), model.format(server.spec), out=tmp_path / "out", device="cpu", judge="none", **more
        )
        [record] = evaluate(request)
    [folder] = {file.parent for file in (tmp_path / "out").glob("*/*/run.json")}
    return record, read_samples(folder), server


def test_a_block_that_names_every_candidate_scores_nothing(tmp_path):
    reply = f"<think>{NAMES_ALL}</think>\n\nno idea"
    record, samples, _ = run(tmp_path, lambda _: answer(reply))
    assert record.metrics["alias_match"].value == 0.0 and record.statuses["ok"] == 6
    assert {(s.response, s.extracted) for s in samples} == {(reply, "no idea")}
    assert record.protocol_spec["answer"] == RULE


def test_what_follows_the_block_is_scored(tmp_path):
    reply = "[THINK]porter?[/THINK]The Dorn<|im_end|>\n<|im_start|>user porter"
    record, samples, _ = run(tmp_path, lambda _: answer(reply))
    assert record.metrics["alias_match"].value == pytest.approx(1 / 3)
    assert {s.extracted for s in samples} == {"The Dorn"}


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_an_unclosed_block_is_truncated_whatever_the_server_says(tmp_path, finish):
    record, samples, _ = run(tmp_path, lambda _: answer(f"<think>{NAMES_ALL}", finish))
    assert record.statuses["truncated"] == 6 and record.metrics["alias_match"].value == 0.0
    assert {s.extracted for s in samples} == {""} and samples[0].response == f"<think>{NAMES_ALL}"


def test_a_block_with_nothing_behind_it_is_empty(tmp_path):
    record, _, _ = run(tmp_path, lambda _: answer(f"<think>{NAMES_ALL}</think>"))
    assert record.statuses["empty"] == 6 and record.metrics["alias_match"].value == 0.0


def test_thinking_does_not_count_in_translations(tmp_path):
    right = "the big cat paints the red ball in the garden"
    plain, _, _ = run(tmp_path / "a", lambda _: answer(right), "covost2")
    thought, _, _ = run(tmp_path / "b", lambda _: answer(f"ein ball ...\n</think>\n\n{right}"), "covost2")
    assert {n: m.value for n, m in thought.metrics.items()} == {n: m.value for n, m in plain.metrics.items()}


ANSWER = {"type": "text", "text": "no idea"}


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": NAMES_ALL},
        {"reasoning": NAMES_ALL},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": NAMES_ALL}]}, ANSWER]},
        {"content": [{"type": "reasoning", "text": NAMES_ALL}, ANSWER]},
    ],
    ids=["reasoning_content", "reasoning", "thinking part", "reasoning part"],
)
def test_reasoning_that_a_server_sends_apart_is_kept_apart_and_never_scored(tmp_path, message):
    record, samples, server = run(tmp_path, lambda _: answer("no idea", message=message))
    assert record.metrics["alias_match"].value == 0.0 and record.statuses["ok"] == 6
    assert {(s.response, s.extracted, s.reasoning) for s in samples} == {("no idea", "no idea", NAMES_ALL)}
    # another run of the same model finds it in the cache
    task = write_task(tmp_path / "other", "triviaqa", metadata={"version": 9})
    [again] = evaluate(
        EvalRequest((str(task),), server.spec, out=tmp_path / "out", device="cpu", judge="none")
    )
    found = read_samples(tmp_path / "out" / "m" / again.run_id)
    assert {s.reasoning for s in found} == {NAMES_ALL} and again.run_id != record.run_id


@pytest.mark.parametrize(("finish", "status"), [("length", "truncated"), ("stop", "empty")])
def test_reasoning_without_an_answer(tmp_path, finish, status):
    react = lambda _: answer("", finish, message={"content": None, "reasoning_content": NAMES_ALL})  # noqa: E731
    record, samples, _ = run(tmp_path, react)
    assert record.statuses[status] == 6 and {s.extracted for s in samples} == {""}


def test_a_text_llm_in_front_of_a_transcript_is_treated_alike(tmp_path):
    record, samples, _ = run(tmp_path, lambda _: answer(f"{NAMES_ALL}</think>no idea"), model="text:{}")
    assert record.metrics["alias_match"].value == 0.0 and {s.extracted for s in samples} == {"no idea"}


def test_stop_strings_are_looked_for_behind_the_block():
    assert scored_part("<think>a\nb</think>\nParis\nRome", ["\n"]).answer == "Paris"


def test_stock_lm_eval_gives_the_same_scores(tmp_path):
    task = write_task(tmp_path, "triviaqa")
    river = "<think>porter, castle</think>The Dorn</s>castle"
    with serving(lambda seen: answer(river if "river" in seen.text else "<think>porter, castle")) as server:
        spec = f"text:{server.spec}"
        [record] = evaluate(EvalRequest((str(task),), spec, out=tmp_path / "out", device="cpu", judge="none"))
        theirs = stock(RbaSpeechLM(spec, device="cpu"), task)["results"]["tiny_triviaqa"]
    ours = {name: metric.value for name, metric in record.metrics.items()}
    assert ours["alias_match"] == pytest.approx(1 / 3)
    assert {name: theirs[f"{name},none"] for name in ours} == pytest.approx(ours)


def test_process_results_reads_replies_of_other_models_in_the_same_way():
    from rba_bench.evaluation import hooks

    doc = {
        "id": "a",
        "kind": "qa",
        "group": "g",
        "cluster": "c",
        "references": ["porter"],
        "target_lang": "en",
    }
    found = hooks.score({**doc, "finish": "[]"}, ["<think>porter</think>no idea"])
    assert found["alias_match"] == 0.0
    assert (
        json.loads(json.dumps(found))["alias_match"]
        == scoring.score_item(doc, "no idea").scores["alias_match"]
    )


@pytest.mark.parametrize("model", ["{}", "text:{}"])
def test_runs_with_other_template_variables_share_nothing(tmp_path, model):
    task = write_task(tmp_path, "triviaqa")

    def react(seen):
        quiet = seen.body.get("chat_template_kwargs") == {"enable_thinking": False}
        return answer("castle" if quiet else "<think>castle")

    with serving(react) as server:
        records = []
        for given in ({}, {"enable_thinking": False}, {"enable_thinking": False}):
            request = EvalRequest(
                (str(task),), model.format(server.spec), out=tmp_path / "out", device="cpu", judge="none",
                model_options={"template": given},
            )  # fmt: skip
            records += evaluate(request)
        assert len(server.seen) == 12, "the third run is the second one's"
    plain, told, again = records
    assert plain.run_id != told.run_id == again.run_id and plain.protocol_hash == told.protocol_hash
    assert plain.statuses["truncated"] == 6 and told.statuses["ok"] == 6
    assert told.model["template"] == {"enable_thinking": False}
    assert told.model["name"] == f"{plain.model['name']}+enable_thinking=false"


def test_the_command_refuses_what_is_no_variable(tmp_path):
    line = ("-m", "rba_bench", "eval", "--model", "constant", "--out", str(tmp_path / "out"))
    code, out, said = Program(*line, "--template", "enable_thinking").ended()
    assert code == 2 and "write key=value" in said and "Traceback" not in said and not out


def test_a_model_without_a_template_says_that_nothing_changes(capsys):
    model = load_speech_model("constant", template={"enable_thinking": False})
    assert "constant: its chat template does not read enable_thinking" in capsys.readouterr().err
    assert model.name == "constant"

"""A real server with real weights (llama.cpp, SmolLM2): what the fakes of other tests only claim.

Fakes misbehave on purpose; here a server behaves as servers do. `make assets` fetches the weights.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import RbaError
from rba_bench.evaluation.records import Sample, read_record, read_samples
from rba_bench.evaluation.runner import EvalRequest, evaluate
from rba_bench.evaluation.scorers import pairwise, rating, yesno
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.textlm.endpoints.address import EndpointOptions
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.judging import Message, Question
from rba_bench.textlm.text_model import Decoding
from tests.evaluation.conftest import write_task, write_test_set
from tests.evaluation.test_endpoint_runs import kept_lines
from tests.programs import Program
from tests.textlm.misbehaving_server import free_port
from tests.textlm.real_server import NAME, SLOTS, RealServer, missing, real_serving

pytestmark = [
    pytest.mark.assets,
    pytest.mark.skipif(bool(missing()), reason=missing() or "all there"),
]
PATIENT = EndpointOptions(timeout_s=120, backoff_s=0.1, retries=2, start_concurrency=SLOTS)


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    with real_serving(free_port()) as running:
        yield running


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RBA_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("RBA_ENDPOINT_RETRIES", "1")


def asked(text: str, **values: Any) -> Question:
    return Question((Message("user", text),), **{"max_tokens": 4, **values})


def sample(
    number: int, instruction: str, response: str, baseline: str, references: tuple[str, ...] = ()
) -> Sample:
    values = {
        "doc_id": number, "id": f"item{number}", "kind": "chat", "group": "all", "cluster": str(number),
        "audio_sha256": "0" * 64, "duration": 1.0, "prompt": "", "instruction": instruction, "source_lang": "en",
        "target_lang": "en", "response": response, "extracted": response, "references": list(references),
        "baseline": baseline, "scores": {}, "status": "ok", "n_tokens": 1, "seed": 0,
    }  # fmt: skip
    return Sample.model_validate(values)


def test_sixteen_questions_at_once_are_answered_and_greedy_answers_come_again(server: RealServer) -> None:
    lm = EndpointLM.from_spec(server.spec, PATIENT)
    questions = [asked(f"What is {n} plus one?", max_tokens=6) for n in range(SLOTS)]
    first = dict(lm.ask(questions))
    assert sorted(first) == list(range(SLOTS))
    assert all(reply.status == "ok" and reply.text and reply.latency_s > 0 for reply in first.values())
    assert all(0 < reply.completion_tokens <= 6 and reply.prompt_tokens > 5 for reply in first.values())
    assert lm.observed()["model"] == [NAME] and "asked" not in lm.observed()
    alone = EndpointLM.from_spec(server.spec, EndpointOptions(max_concurrency=1, start_concurrency=1))
    again = [next(alone.ask([question]))[1].text for question in questions[:3]]
    assert again == [next(alone.ask([question]))[1].text for question in questions[:3]]


def test_the_odds_are_those_of_the_first_token(server: RealServer) -> None:
    lm = EndpointLM.from_spec(server.spec, PATIENT)
    [(_, reply)] = lm.ask([asked("Is Paris a city? Reply with yes or no.", max_tokens=3, top_logprobs=5)])
    tokens = [token for token, _ in reply.top_logprobs]
    values = [value for _, value in reply.top_logprobs]
    assert len(tokens) == 5 and values == sorted(values, reverse=True)
    assert 0.2 < sum(map(math.exp, values)) <= 1.0
    assert reply.text.startswith(tokens[0].strip()), "greedy: the likeliest token was written"


def test_a_limit_cuts_and_a_seed_decides_what_is_drawn(server: RealServer) -> None:
    lm = EndpointLM.from_spec(server.spec, PATIENT)
    text = "Tell me a long story about the sea."
    [cut] = lm.chat([text], Decoding(5), [0])
    assert cut.status == "truncated" and cut.n_tokens == 5 and cut.text
    warm = Decoding(8, temperature=1.5)
    one, same, other = lm.chat([text] * 3, warm, [1, 1, 2])
    assert one.text == same.text != other.text
    [raw] = lm.complete(["The capital of France is"], Decoding(3), [0])
    assert raw.text.startswith("Paris")


def test_answers_in_pieces_are_the_answers(server: RealServer) -> None:
    question = asked("Name a colour.", max_tokens=8)
    whole = EndpointLM.from_spec(server.spec, EndpointOptions(max_concurrency=1, start_concurrency=1))
    pieces = EndpointLM.from_spec(
        server.spec, EndpointOptions(max_concurrency=1, start_concurrency=1, stream=True)
    )
    [(_, one)], [(_, other)] = whole.ask([question]), pieces.ask([question])
    assert other.status == "ok" and other.text == one.text
    assert other.completion_tokens == one.completion_tokens
    assert pieces.observed()["asked"] == ["streamed"]


def test_variables_of_the_chat_template_reach_it(server: RealServer) -> None:
    """SmolLM2's template knows none, so the answer stays; a server that took no such field would refuse."""
    lm = EndpointLM.from_spec(server.spec, PATIENT, template={"enable_thinking": False})
    [(_, reply)] = lm.ask([asked("Name a colour.")])
    assert reply.status == "ok" and reply.text


def test_a_request_that_does_not_fit_is_its_items_failure(server: RealServer) -> None:
    lm = EndpointLM.from_spec(server.spec, PATIENT)
    long, short = lm.chat(["word " * 3_000, "Name a colour."], Decoding(3), [0, 0])
    assert long.status == "error" and "context" in long.error
    assert short.status in ("ok", "truncated")


def test_judges_read_a_real_model(server: RealServer, tmp_path: Path) -> None:
    lm = EndpointLM.from_spec(server.spec, PATIENT)
    options = ScorerOptions(cache=tmp_path)
    good = sample(0, "Name the capital of France.", "Paris.", "I like boats.", ("Paris",))
    wrong = sample(1, "Which animal says meow?", "A stone.", "A cat does.", ("cat",))

    # so small a judge has many first words beside the two that it was asked for
    pair = pairwise.PairwiseJudge.from_config({"lc": "none", "top_logprobs": 20}, options, judge_model=lm)
    additions = pair.score([good, wrong])
    for addition in additions:
        assert 0.0 <= addition.scores["win_rate"] <= 1.0 and addition.judge is not None
        assert addition.judge["pairwise"]["weighted"] is True
    assert pair.report()["n_judged"] == 2 and pair.report()["weighted_share"] == 1.0
    assert pair.report()["answered_by"]["model"] == [NAME]

    verdicts = yesno.YesNoJudge.from_config({"weighted": True}, options, judge_model=lm)
    assert all(0.0 <= one.scores["judge_accuracy"] <= 1.0 for one in verdicts.score([good, wrong]))
    assert verdicts.report()["weighted_share"] == 1.0

    grades = rating.RatingJudge.from_config({"votes": 2, "max_tokens": 4}, options, judge_model=lm)
    try:
        for addition in grades.score([good]):
            assert addition.failure or 1.0 <= addition.scores["rating"] <= 5.0
    except RbaError as error:  # so small a judge may find no digit in any attempt
        assert "no usable vote" in str(error)
    calls = pair.report()["calls"]
    assert calls == 4 and pair.score([good, wrong]) == additions and pair.report()["calls"] == 0


def test_a_model_that_cannot_hear_fails_at_once_in_one_line(server: RealServer, tmp_path: Path) -> None:
    task = write_task(tmp_path, "triviaqa")
    with pytest.raises(RbaError, match="audio input is not supported") as caught:
        evaluate(EvalRequest((str(task),), server.spec, out=tmp_path / "out", device="cpu"))
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("out/*/*/run.json"))


def test_a_served_text_model_is_a_ceiling_whose_answers_are_kept(server: RealServer, tmp_path: Path) -> None:
    task = write_task(tmp_path, "triviaqa", generation_kwargs={"max_gen_toks": 8, "do_sample": False})
    request = EvalRequest((str(task),), f"text:{server.spec}", out=tmp_path / "out", device="cpu")
    [record] = evaluate(request)
    assert record.n == 6 and record.statuses.get("no_reply", 0) == record.statuses.get("error", 0) == 0
    samples = read_samples(next(tmp_path.glob("out/*/*/samples.jsonl")))
    assert all(one.response for one in samples) and record.model["observed"]["model"] == [NAME]
    texts = {one.instruction: one.response for one in samples}
    assert all(texts[one.instruction] == one.response for one in samples), "voices do not matter to a reader"


@pytest.mark.slow
def test_a_server_that_dies_is_a_stop_and_the_same_command_goes_on(tmp_path: Path) -> None:
    task = write_task(tmp_path, "triviaqa", generation_kwargs={"max_gen_toks": 8, "do_sample": False})
    write_test_set(tmp_path / "data" / "triviaqa", "triviaqa", voices=6)
    port, out = free_port(), tmp_path / "out"
    line = ("-m", "rba_bench", "eval", "--task", str(task), "--track", "micro", "--out", str(out))
    slow = {"RBA_ENDPOINT_CONCURRENCY": "1", "RBA_ENDPOINT_RETRIES": "1"}
    with real_serving(port) as running:
        process = Program(*line, "--model", f"text:{running.spec}", **slow)
        process.wait_for(lambda: kept_lines(out) >= 3)
        running.kill()
        code, said, error = process.ended(within_s=300)
        assert code == 1 and said == "", error[-500:]
        assert "run the same command again" in error.strip().splitlines()[-1]
        assert "Traceback" not in error and not list(out.glob("*/*/run.json"))
        [file] = out.glob("*/*/samples.jsonl")
        kept = {one.doc_id: one.response for one in read_samples(file)}
        assert 0 < len(kept) < 18 and all(kept.values())
        running.start()
        Program(*line, "--model", f"text:{running.spec}", **slow).output()
    [folder] = {found.parent for found in out.glob("*/*/run.json")}
    assert read_record(folder).n == 18 and not read_record(folder).statuses.get("no_reply")
    assert kept.items() <= {one.doc_id: one.response for one in read_samples(folder)}.items()

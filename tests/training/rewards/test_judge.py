"""An LLM judge behind a server that answers properly, and one that does not."""

import math
from pathlib import Path
from typing import Any

import pytest

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import MissingPrerequisite, RbaError
from rba_bench.textlm.endpoints.address import EndpointOptions
from rba_bench.textlm.endpoints.text_llm import EndpointLM
from rba_bench.textlm.judging import Reply
from rba_bench.training.options.nested_options import RewardOptions
from rba_bench.training.rewards import JudgeReward, build_reward
from rba_bench.training.rewards.judge import read_grade
from tests.textlm.misbehaving_server import Reaction, Seen, Server, answer, failure, serving

QUICK = EndpointOptions(timeout_s=5, backoff_s=0.01, retries=1)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RBA_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def graded(text: str, **odds: float) -> Reaction:
    """A reply and the probabilities of its first token (`g7=0.5` for the token "7")."""
    top = [{"token": token[1:], "logprob": math.log(value)} for token, value in odds.items()]
    first = {"token": text, "logprob": 0.0, "top_logprobs": top}
    return answer(text, choice={"logprobs": {"content": [first]}} if odds else {})


def judge(server: Server, folder: Path, **options: Any) -> JudgeReward:
    return JudgeReward(EndpointLM.from_spec(server.spec, QUICK), folder, **options)


def test_the_grade_is_weighted_by_the_odds_and_asked_for_once(
    rows: list[AlignmentRow], tmp_path: Path
) -> None:
    def react(seen: Seen) -> Reaction:
        return graded("8", g8=0.5, g6=0.25, gx=0.25) if '"pack a map"' in seen.text else graded("3")

    with serving(react) as server:
        values = judge(server, tmp_path)([rows[0]] * 4, ["pack a map", "sleep", "pack a map", "  "])
        assert values == pytest.approx([(8 * 0.5 + 6 * 0.25) / 0.75, 3.0, (8 * 0.5 + 6 * 0.25) / 0.75, 1.0])
        assert len(server.seen) == 2  # equal answers are one question, and silence needs no judge
        sent = server.seen[0].body
        assert sent["temperature"] == 0 and sent["logprobs"] is True and sent["top_logprobs"] == 20
        again = judge(server, tmp_path)(
            [rows[1]] * 2, ["sleep", "pack a map"]
        )  # another voice, a new process
        assert again == pytest.approx([values[1], values[0]]) and len(server.seen) == 2


def test_the_teachers_answer_is_shown_only_if_wished(rows: list[AlignmentRow], tmp_path: Path) -> None:
    with serving(lambda _: graded("5")) as server:
        judge(server, tmp_path)([rows[0]], ['say "nine"'])
        judge(server, tmp_path, reference=True)([rows[0]], ['say "nine"'])
    plain, shown = (seen.text for seen in server.seen)
    for text in (plain, shown):
        assert '"give me a plan for a trip to the lake"' in text and r'"say \"nine\""' in text
    assert rows[0].response not in plain and f'"{rows[0].response}"' in shown


def test_what_cannot_be_graded_is_nan_and_counted(
    rows: list[AlignmentRow], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def react(seen: Seen) -> Reaction:
        if "sleep" in seen.text:
            return graded("I would rather not say.")
        return answer("", finish="content_filter") if "swim" in seen.text else graded("Grade: 7")

    with serving(react) as server:
        reward = judge(server, tmp_path)
        values = reward([rows[0]] * 3, ["sleep", "go", "swim"])
        assert math.isnan(values[0]) and values[1] == 7.0 and math.isnan(values[2])
        assert reward.counts() == {"judge_failed": 2}
        assert sum("sleep" in seen.text for seen in server.seen) == 3  # two more attempts, with other seeds
    assert capsys.readouterr().err.count("an answer is left out") == 1


def test_too_many_failures_in_a_row_end_the_run(rows: list[AlignmentRow], tmp_path: Path) -> None:
    with serving(lambda seen: graded("6" if "good" in seen.text.split("Answer:")[1][:9] else "no")) as server:
        reward = judge(server, tmp_path, patience=3)
        reward([rows[0]] * 2, ["bad", "worse"])
        reward([rows[0]], ["good"])  # one grade, and patience begins anew
        reward([rows[0]] * 2, ["bad", "worse"])
        with pytest.raises(RbaError, match=r"graded none of 3 answers in a row.*malformed.*reward\.judge"):
            reward([rows[0]], ["worst"])


def test_a_server_that_does_not_work_ends_the_run(rows: list[AlignmentRow], tmp_path: Path) -> None:
    with serving(lambda _: failure(401)) as server, pytest.raises(RbaError):
        judge(server, tmp_path)([rows[0]], ["go"])


@pytest.mark.parametrize(
    ("text", "odds", "grade"),
    [
        ("7", {}, 7.0),
        (" 7/9.", {}, 7.0),
        ("Rating: **8**", {}, 8.0),
        ("10", {}, None),
        ("0", {}, None),
        ("7 because 3", {}, None),
        ("7", {"7": 0.3, "the": 0.7}, 7.0),  # its odds are about how to begin, not about the grade
        ("The", {"7": 0.3, "The": 0.7}, None),
        ("9", {" 9": 0.6, "9": 0.2, "5": 0.2}, 0.8 * 9 + 0.2 * 5),
    ],
)
def test_reading_a_grade(text: str, odds: dict[str, float], grade: float | None) -> None:
    reply = Reply(text, tuple((token, math.log(value)) for token, value in odds.items()))
    assert read_grade(reply) == (None if grade is None else pytest.approx(grade))


def test_the_recipe_names_the_judge(
    rows: list[AlignmentRow], tmp_path: Path, tiny_textlm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingPrerequisite, match=r"^reward\.judge: name a judge"):
        build_reward(RewardOptions(instruct="judge"), ["instruct"])
    with pytest.raises(MissingPrerequisite, match=r"^reward\.judge: no judge at"):
        build_reward(RewardOptions(instruct="judge", judge=str(tmp_path / "absent")), ["instruct"])
    with serving(lambda _: graded("4")) as server:
        options = RewardOptions(instruct="judge", judge=server.spec)
        assert build_reward(options, ["instruct"], folder=tmp_path / "run")([rows[0]], ["go"]) == [4.0]
        monkeypatch.setenv("RBA_CACHE", str(tmp_path / "cache"))
        assert build_reward(options, ["instruct"])([rows[0]], ["go"]) == [4.0]
    assert len(server.seen) == 2 and (tmp_path / "run/votes/votes.sqlite").is_file()
    assert (tmp_path / "cache/votes/votes.sqlite").is_file()


def test_a_local_judge_that_says_no_grade_judges_nothing(
    rows: list[AlignmentRow], tmp_path: Path, tiny_textlm_dir: Path
) -> None:
    options = RewardOptions(instruct="judge", judge=str(tiny_textlm_dir))
    reward = build_reward(options, ["instruct"], folder=tmp_path)
    assert math.isnan(reward([rows[0]], ["go"])[0])  # its weights are random
    assert reward.counts() == {"unjudged": 1, "judge_failed": 1}


def test_a_judge_that_thinks_grades_by_what_follows(rows: list[AlignmentRow], tmp_path: Path) -> None:
    def react(seen: Seen) -> Reaction:  # by what is asked: requests come in any order
        return answer(
            "9 is too much\n</think>Grade: 4" if "pack a map" in seen.text else "<think>a 9? no</think>\n\n3"
        )

    with serving(react) as server:
        assert judge(server, tmp_path)([rows[0]] * 2, ["sleep", "pack a map"]) == [3.0, 4.0]


def test_odds_of_a_thought_that_the_server_sends_apart_are_no_grade(
    rows: list[AlignmentRow], tmp_path: Path
) -> None:
    def react(_: Seen) -> Reaction:
        first = {"token": "9", "logprob": 0.0, "top_logprobs": [{"token": "9", "logprob": 0.0}]}
        message = {"reasoning_content": "9 points is the most"}
        return answer("2", message=message, choice={"logprobs": {"content": [first]}})

    with serving(react) as server:
        assert judge(server, tmp_path)([rows[0]], ["sleep"]) == [2.0]

"""Votes: kept the moment they come, never asked for twice, the same whether asked now or long ago."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rba_bench.errors import RbaError, UserError
from rba_bench.evaluation.scorers import pairwise, rating
from rba_bench.evaluation.scorers.pairwise import PairVote, read_pair_vote
from rba_bench.evaluation.scorers.scorer import ScorerOptions
from rba_bench.textlm.judging import (
    IN_MEMORY,
    Message,
    Question,
    Reply,
    VoteCache,
    judge_facts,
    open_votes,
    readable,
    vote_key,
)
from rba_bench.textlm.polling import GIVE_UP, Poll, Vote, verdict_of


def questions(count: int, start: int = 0) -> list[Question]:
    return [
        Question((Message("user", f"question {i}"),), 4, 0.0, seed=0) for i in range(start, start + count)
    ]


def number(reply: Reply) -> int | None:
    return int(reply.text) if reply.text.isdigit() else None


def last_word(question: Question) -> Reply:
    return Reply(question.messages[-1].content.split()[-1], (("m", -0.1), ("M", -2.5)), prompt_tokens=7)


@pytest.fixture
def votes(tmp_path: Path) -> Any:
    with VoteCache(tmp_path / "votes") as cache:
        yield cache


def test_the_second_time_nothing_is_asked(scripted: Any, votes: VoteCache) -> None:
    first, second = scripted(last_word), scripted(last_word)
    found = Poll(first, votes).collect(questions(40), number, "judge")
    assert [vote.value for vote in found] == list(range(40))
    poll = Poll(second, votes)
    assert poll.collect(questions(40), number, "judge") == found
    assert second.asked == [] and (poll.account.calls, poll.account.cached) == (0, 40)
    assert found[3].reply == Reply("3", (("m", -0.1), ("M", -2.5)), prompt_tokens=7)


def test_more_votes_than_one_query_of_the_cache_can_name(scripted: Any, votes: VoteCache) -> None:
    asker = scripted(last_word)
    Poll(asker, votes).collect(questions(1_300), number, "judge")
    Poll(asker, votes).collect(questions(1_301), number, "judge")
    assert len(asker.asked) == 1_301


def test_equal_questions_are_asked_once(scripted: Any, votes: VoteCache) -> None:
    asker = scripted(last_word)
    found = Poll(asker, votes).collect([*questions(3), *questions(3)], number, "judge")
    assert [vote.value for vote in found] == [0, 1, 2, 0, 1, 2] and len(asker.asked) == 3


def test_what_holds_no_vote_is_not_kept_and_asked_again_next_time(scripted: Any, votes: VoteCache) -> None:
    broken = {
        "0": Reply("", status="error", error="timed out"),
        "1": Reply("", status="refused"),
        "2": Reply("hm"),
    }
    poll = Poll(scripted(lambda q: broken[last_word(q).text]), votes, retries=1)
    found = poll.collect(questions(3), number, "judge")
    assert [vote.failures[-1] for vote in found] == ["error: timed out", "refused: ", "malformed: 'hm'"]
    assert all(vote.value is None and vote.reply is None for vote in found)
    well = scripted(last_word)
    again = Poll(well, votes, retries=1).collect(questions(3), number, "judge")
    assert [vote.value for vote in again] == [0, 1, 2]
    assert len(well.asked) == 3


@pytest.mark.parametrize(
    "odd",
    [
        Reply("half \ud83d", (("1", -0.1),)),
        Reply("1", (("1", 1000.0),)),
        Reply("1", (("1", math.nan),)),
        Reply("1", (("1", math.inf),)),
    ],
)
def test_a_reply_that_no_file_can_hold_is_no_vote(scripted: Any, votes: VoteCache, odd: Reply) -> None:
    found = Poll(scripted(lambda q: odd if "1" in q.messages[0].content else last_word(q)), votes).collect(
        questions(3), lambda _: 1, "judge"
    )
    assert [vote.value for vote in found] == [1, None, 1]
    well = scripted(last_word)
    assert [v.value for v in Poll(well, votes).collect(questions(3), number, "judge")] == [0, 1, 2]
    assert [q.messages[0].content for q in well.asked] == ["question 1"]


KEPT_BY_OTHERS = {
    "broken off": "{",
    "a list": "[]",
    "a number": 5,
    "bytes": b"\xff\xfe",
    "no odds": '{"text": "3", "status": "ok"}',
    "odds of 1000": '{"text": "3", "status": "ok", "top_logprobs": [["m", 1000.0]]}',
    "odds of 400 digits": '{"text": "3", "status": "ok", "top_logprobs": [["m", %s]]}' % ("9" * 400),
    "odds that are none": '{"text": "3", "status": "ok", "top_logprobs": [["m", NaN]]}',
    "a count of 5,000 digits": '{"text": "3", "status": "ok", "top_logprobs": [], "prompt_tokens": %s}'
    % ("9" * 5000),
    "a text that is none": '{"text": 3, "status": "ok", "top_logprobs": []}',
    "a field of a later version": '{"text": "3", "status": "ok", "top_logprobs": [], "mood": "fine"}',
    "another status": '{"text": "3", "status": "fine", "top_logprobs": []}',
    "nested without end": "[" * 100_000,
    "no number": '{"text": "hm", "status": "ok", "top_logprobs": []}',
    "refused": '{"text": "3", "status": "refused", "top_logprobs": []}',
}


@pytest.mark.parametrize("kept", KEPT_BY_OTHERS.values(), ids=KEPT_BY_OTHERS)
def test_a_kept_reply_that_is_no_vote_is_asked_again_and_gives_way(
    scripted: Any, tmp_path: Path, kept: object
) -> None:
    with VoteCache(tmp_path) as votes:
        Poll(scripted(last_word), votes, retries=0).collect(questions(2), number, "judge")
        with sqlite3.connect(tmp_path / "votes.sqlite") as raw:
            raw.execute("UPDATE votes SET reply = ? WHERE reply LIKE '%\"1\"%'", (kept,))
        raw.close()
        for calls in (1, 0):
            asker = scripted(last_word)
            found = Poll(asker, votes, retries=0).collect(questions(2), number, "judge")
            assert [vote.value for vote in found] == [0, 1] and len(asker.asked) == calls


def test_a_judge_without_a_vote_is_given_up_after_some_dozens(scripted: Any, votes: VoteCache) -> None:
    asker = scripted(
        lambda q: Reply("", status="refused") if q.seed % 7 == 3 else Reply("As an AI\x1b[2J <b>" * 30)
    )
    with pytest.raises(
        RbaError, match=r"36 replies in a row; 36 times no verdict, such as 'As an AI"
    ) as caught:
        Poll(asker, votes).collect(questions(2_000), number, "judge")
    assert len(asker.asked) == GIVE_UP and caught.value.exit_code == 1
    message = str(caught.value)
    assert "\n" not in message and "\x1b" not in message and "<b>" not in message and len(message) < 400


def test_a_small_set_ends_too_once_every_attempt_failed(scripted: Any, votes: VoteCache) -> None:
    asker = scripted(lambda _: Reply("hm"))
    with pytest.raises(RbaError, match="no usable vote"):
        Poll(asker, votes).collect(questions(15), number, "judge")
    assert len(asker.asked) == GIVE_UP


def test_the_votes_of_a_judge_that_is_given_up_stay(scripted: Any, votes: VoteCache) -> None:
    lucky = scripted(lambda q: last_word(q) if last_word(q).text in ("3", "799") else Reply("hm"))
    with pytest.raises(RbaError, match="no usable vote"):
        Poll(lucky, votes).collect(questions(800), number, "judge")
    assert Poll(lucky, votes).open_questions(questions(800), number)[1] == 1


def test_a_judge_that_judges_most_is_not_given_up_over_the_rest(scripted: Any, votes: VoteCache) -> None:
    """The last 80 of 400 questions are beyond it: long, or in another language."""
    asker = scripted(lambda q: last_word(q) if int(last_word(q).text) >= 80 else Reply("hm"))
    found = Poll(asker, votes).collect(questions(400), number, "judge")
    assert sum(vote.value is None for vote in found) == 80
    again = scripted(asker.script)
    assert Poll(again, votes).collect(questions(400), number, "judge") == found
    assert {last_word(q).text for q in again.asked} == {str(i) for i in range(80)}


def test_a_vote_does_not_depend_on_when_it_was_asked(scripted: Any, votes: VoteCache) -> None:
    """The first attempt met a server that was down; what the second said stays the vote."""
    down = scripted(lambda q: Reply("", status="error", error="503") if q.seed == 0 else last_word(q))
    first = Poll(down, votes).collect(questions(2), number, "judge")
    up = scripted(lambda q: Reply("9"))
    assert Poll(up, votes).collect(questions(2), number, "judge") == first and up.asked == []
    assert all(vote.seed != 0 for vote in first)
    assert first[0].facts() == {
        "reply": "0",
        "seed": first[0].seed,
        "top_logprobs": [["m", -0.1], ["M", -2.5]],
    }


def test_retries_have_other_seeds_and_are_never_greedy(scripted: Any, votes: VoteCache) -> None:
    asker = scripted(lambda _: Reply("no number"))
    (vote,) = Poll(asker, votes, retries=3).collect(questions(1), number, "judge")
    assert vote == Vote(None, failures=("malformed: 'no number'",) * 4)
    assert len({q.seed for q in asker.asked}) == 4
    assert [q.temperature for q in asker.asked] == [0.0, 0.5, 0.5, 0.5]


def test_open_questions_count_without_asking(scripted: Any, votes: VoteCache) -> None:
    asker = scripted(last_word)
    Poll(asker, votes).collect(questions(4), number, "judge")
    missing, cached = Poll(asker, votes).open_questions([*questions(6), *questions(2)], number)
    assert [q.messages[0].content for q in missing] == ["question 4", "question 5"] and cached == 4
    assert len(asker.asked) == 4


def test_everything_that_is_asked_is_in_the_key() -> None:
    base = Question((Message("user", "a"),), 1, 0.0, 0, 5)
    judge = {"kind": "endpoint", "model": "m"}
    others = [
        vote_key({**judge, "model": "n"}, base),
        vote_key(judge, Question((Message("user", "b"),), 1, 0.0, 0, 5)),
        vote_key(judge, Question((Message("system", "a"),), 1, 0.0, 0, 5)),
        vote_key(judge, Question((Message("user", "a"),), 2, 0.0, 0, 5)),
        vote_key(judge, Question((Message("user", "a"),), 1, 0.1, 0, 5)),
        vote_key(judge, Question((Message("user", "a"),), 1, 0.0, 1, 5)),
        vote_key(judge, Question((Message("user", "a"),), 1, 0.0, 0, 0)),
    ]
    assert len({vote_key(judge, base), *others}) == 8
    assert vote_key(judge, base) == vote_key({"model": "m", "kind": "endpoint"}, base)


def test_what_identifies_a_judge() -> None:
    local = {"kind": "text", "path": "/a/b", "weights_sha256": "1", "n_parameters": 5, "dtype": "float32"}
    assert judge_facts(local) == {"kind": "text", "weights_sha256": "1", "dtype": "float32"}
    server = {"kind": "endpoint", "url": "u", "model": "m", "weights_sha256": "2", "weights_known": False}
    assert judge_facts(server) == {"kind": "endpoint", "model": "m"}
    assert judge_facts(server, with_address=True) == {"kind": "endpoint", "model": "m", "url": "u"}


def test_the_first_reply_stays(tmp_path: Path) -> None:
    """Two processes that ask at once go on with the same vote."""
    with VoteCache(tmp_path) as one, VoteCache(tmp_path) as other:
        assert one.put("key", Reply("3")) == Reply("3")
        assert other.put("key", Reply("4")) == Reply("3") == one.get(["key", "absent"])["key"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "votes.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match=r"votes\.sqlite is damaged .* move it away"):
        VoteCache(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use"):
        VoteCache(tmp_path / "file")


WRITER = """
import sys
from pathlib import Path
from rba_bench.textlm.judging import VoteCache
from rba_bench.textlm.judging import Reply

with VoteCache(Path(sys.argv[1])) as cache:
    for number in range(int(sys.argv[3]), int(sys.argv[4])):
        cache.put(f"{sys.argv[2]}{number}", Reply(str(number)))
        print(number, flush=True)
"""


def writer(folder: Path, prefix: str, start: int, stop: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), prefix, str(start), str(stop)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    running = [writer(tmp_path, "shared", 0, 150), writer(tmp_path, "shared", 100, 250)]
    assert [process.communicate(timeout=120) and process.returncode for process in running] == [0, 0]
    with VoteCache(tmp_path) as cache:
        found = cache.get(f"shared{number}" for number in range(250))
    assert {key: reply.text for key, reply in found.items()} == {f"shared{n}": str(n) for n in range(250)}


def test_a_kill_loses_no_vote_that_had_come(tmp_path: Path) -> None:
    process = writer(tmp_path, "vote", 0, 1_000_000)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(50)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    told += process.stdout.readlines()
    process.stdout.close()
    came = [line.strip() for line in told if line.endswith("\n")]
    with VoteCache(tmp_path) as cache:
        found = cache.get(f"vote{number}" for number in came)
        assert len(found) == len(came) >= 50
        assert cache.put("after", Reply("x")) == Reply("x")


class Dies(Exception):
    """The process ends in the middle of the votes."""


def test_after_a_break_only_the_missing_votes_are_asked(
    scripted: Any, sample: Any, options: ScorerOptions
) -> None:
    samples = [sample(i, f"answer {i}") for i in range(10)]
    whole = ScorerOptions(cache=options.cache / "whole")

    def said(question: Question) -> Reply:
        return Reply("", (("m", -0.2), ("M", -float(len(question.messages[-1].content) % 7 + 1))))

    def script(question: Question) -> Reply:
        if len(broken.asked) > 7:
            raise Dies
        return said(question)

    broken = scripted(script)
    with pytest.raises(Dies):
        pairwise.PairwiseJudge.from_config({}, options, broken).score(samples)
    kept = broken.asked[:-1]
    resumed, fresh = scripted(said), scripted(said)
    assert pairwise.PairwiseJudge.from_config({}, options, resumed).cost(samples).calls == 20 - len(kept)
    assert pairwise.PairwiseJudge.from_config({}, options, resumed).score(
        samples
    ) == pairwise.PairwiseJudge.from_config({}, whole, fresh).score(samples)
    assert len(resumed.asked) == 20 - len(kept) and len(fresh.asked) == 20
    assert not set(resumed.asked) & set(kept)


def test_cost_before_any_call(scripted: Any, sample: Any, options: ScorerOptions) -> None:
    samples = [sample(i, f"answer {i}") for i in range(5)] + [sample(9, "", status="empty")]
    asker = scripted(lambda _: Reply("4"), kind="endpoint", model="gpt-4o-mini-2024-07-18", url="u")
    judge = rating.RatingJudge.from_config({}, options, asker)
    before = judge.cost(samples)
    text = sum(len(q.messages[0].content.encode()) for s in samples[:5] for q in judge.questions(s))
    assert before.calls == 15 and before.cached == 0 and asker.asked == []
    assert before.prompt_tokens == pytest.approx(text / 4 + 4 * 15, abs=15)
    assert before.completion_tokens == 15 * 8
    assert before.dollars == pytest.approx((before.prompt_tokens * 0.15 + 120 * 0.60) / 1e6)
    judge.score(samples)
    after = judge.cost(samples)
    assert (after.calls, after.cached, after.dollars) == (0, 15, 0.0)


def test_prices(scripted: Any, sample: Any, options: ScorerOptions) -> None:
    def dollars(config: dict[str, Any], **identity: Any) -> float | None:
        return (
            rating.RatingJudge.from_config(config, options, scripted(last_word, **identity))
            .cost([sample(0)])
            .dollars
        )

    assert dollars({}) == 0.0
    assert dollars({}, kind="endpoint", model="some-new-model") is None
    priced = dollars({"price": [10, 20]}, kind="endpoint", model="some-new-model")
    assert priced is not None and priced > 0


@pytest.mark.parametrize(
    ("said", "odds", "vote"),
    [
        ("<think>m or M? M.</think>m", (), PairVote(1.0, False)),
        ("M is better?</think>\n\n**m**", (), PairVote(1.0, False)),
        ("<think>m", (), None),
        ("m<|im_end|>", (("m", -0.1), ("M", -2.4)), PairVote(1 / (1 + math.exp(-2.3)), True)),
        # the first token of a thought says nothing of the verdict
        ("<think>hm</think>M", (("<think>", -0.001), ("m", -7.0)), PairVote(0.0, False)),
        ("<think>", (("<think>", -0.001), ("m", -7.0)), None),
    ],
)
def test_a_judge_that_thinks_votes_by_what_follows(said: str, odds: Any, vote: PairVote | None) -> None:
    found = read_pair_vote(verdict_of(Reply(said, odds)))
    assert (found is None) == (vote is None)
    if found is not None and vote is not None:
        assert (found.first, found.weighted) == (pytest.approx(vote.first), vote.weighted)


def test_the_raw_reply_of_a_judge_that_thinks_is_kept(scripted: Any, votes: VoteCache) -> None:
    raw = "<think>4? No.</think>5"
    asker = scripted(lambda _: Reply(raw))
    [vote] = Poll(asker, votes).collect([Question((Message("user", "how good?"),))], number, None)
    assert vote.value == 5 and vote.facts()["reply"] == raw


def test_a_judge_sees_what_is_scored_and_not_the_thinking(
    scripted: Any, sample: Any, options: ScorerOptions
) -> None:
    asker = scripted(lambda _: Reply("4"))
    one = sample(0, "<think>secret</think>the answer").model_copy(update={"extracted": "the answer"})
    still = sample(1, "<think>secret").model_copy(update={"extracted": "", "status": "truncated"})
    scores = [
        a.scores["rating"]
        for a in rating.RatingJudge.from_config({"votes": 1}, options, asker).score([one, still])
    ]
    assert scores == [4.0, 1.0]
    assert asker.asked and all("secret" not in q.messages[0].content for q in asker.asked)


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (Reply("m", (("m", -0.1), ("M", -math.inf))), True),
        (Reply("m", (("m", 0.0009),)), True),  # rounding of a server
        (Reply("m", (("m", 0.002),)), False),
        (Reply("m", (("m", math.nan),)), False),
        (Reply("m", (("m", math.inf),)), False),
        (Reply("\ud800"), False),
        (Reply("m", (("\udfff", -1.0),)), False),
        (Reply("m", model="\ud800"), False),
        (Reply("\U0001f600\0", prompt_tokens=3, completion_tokens=1), True),
    ],
)
def test_a_reply_counts_only_if_a_file_gives_it_back(tmp_path: Path, reply: Reply, kept: bool) -> None:
    """Also where it is kept in no file, as when votes of a record are counted."""
    assert readable(reply) == kept
    if kept:
        with VoteCache(tmp_path) as cache:
            cache.put("key", reply)
        with VoteCache(tmp_path) as cache:
            assert cache.get(["key"]) == {"key": reply}


def test_votes_in_memory_are_found_by_what_was_asked(tmp_path: Path) -> None:
    first, second = (Question((Message("user", text),), 1, 0.0, 0, 5) for text in "ab")
    for cache in (open_votes(IN_MEMORY), VoteCache(tmp_path)):
        with cache:
            keys = [cache.key({"model": "n"}, question) for question in (first, second)]
            cache.put(keys[0], Reply("m"))
            assert cache.get(keys) == {keys[0]: Reply("m")}
            assert cache.get([cache.key({"model": "n"}, Question(first.messages, 1, 0.0, 0, 5))])
            assert not cache.get([cache.key({"model": "n"}, Question(first.messages, 1, 0.0, 1, 5))])

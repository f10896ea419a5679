"""Votes of a text LLM: from the cache, else by asking; a reply that cannot be read is asked for again.

A poll stops with an error where hardly any reply holds a vote (`GIVE_UP` in a row). Votes that could be read are kept.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

from rba_bench.errors import RbaError
from rba_bench.progress import bar
from rba_bench.seeding import stable_seed
from rba_bench.textlm.judging import JudgeModel, Question, Reply, VoteCache, judge_facts, readable
from rba_bench.textlm.replies import split_reply
from rba_bench.untrusted import plain

Value = TypeVar("Value")
Read = Callable[[Reply], Value | None]

RETRIES = 2
RETRY_TEMPERATURE = 0.5  # at least: a greedy judge would say the same thing again
SEEDS = 2**31  # servers take 32 bits
GIVE_UP = 36  # replies in a row that hold no vote
GIVE_UP_ERRORS = 300  # the same where none came: the server may fail on just these, and watches itself
USELESS = 0.05  # share of votes among what was asked, below which such a row ends the poll
_SHOWN = 100  # characters of a reply in a message


@dataclass(frozen=True)
class Vote(Generic[Value]):
    """What a judge answered to one question, or why there is no usable answer.

    Attributes:
        value: What was read out of the reply; None if no attempt gave one.
        reply: The reply that was read, None if none could be.
        seed: Of that reply.
        failures: What went wrong with the attempts before, and with all of them where there is no value.
    """

    value: Value | None
    reply: Reply | None = None
    seed: int = 0
    failures: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """JSON form for the record: nothing in it depends on when, where or how often was asked."""
        if self.reply is None:
            return {"failures": list(self.failures)}
        logprobs = {"top_logprobs": [[token, value] for token, value in self.reply.top_logprobs]}
        return {"reply": self.reply.text, "seed": self.seed, **(logprobs if self.reply.top_logprobs else {})}


@dataclass
class Account:
    """Calls, cached votes and tokens so far."""

    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    models: dict[str, list[str]] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """JSON form for the report."""
        counts = {key: value for key, value in vars(self).items() if key != "models"}
        return {**counts, **({"answered_by": self.models} if self.models else {})}


class Poll:
    """Asks a judge and keeps every vote.

    A reply is read before it is kept, and kept only if it holds a vote: what failed, was refused or malformed is asked
    for again by the next run.

    Args:
        model: The judge model.
        cache: Of the votes.
        retries: Attempts after the first that failed.
        give_up: Unusable replies in a row that end the poll; None where the caller watches.
    """

    def __init__(
        self, model: JudgeModel, cache: VoteCache, retries: int = RETRIES, give_up: int | None = GIVE_UP
    ) -> None:
        self.model = model
        self.cache = cache
        self.retries = retries
        self.give_up = give_up
        self.account = Account()
        self._judge = judge_facts(model.identity(), with_address=True)

    def _key(self, question: Question) -> Hashable:
        return self.cache.key(self._judge, question)

    def open_questions(self, questions: Sequence[Question], read: Read[Any]) -> tuple[list[Question], int]:
        """The different questions without a usable reply, and how many have one."""
        rows = {row.key: row for row in self._rows(questions, read)}
        unanswered = [row for row in rows.values() if row.vote(self.retries) is None]
        return [row.question for row in unanswered], len(rows) - len(unanswered)

    def collect(
        self, questions: Sequence[Question], read: Read[Value], label: str | None
    ) -> list[Vote[Value]]:
        """One vote for each question, in order; equal questions are asked once.

        Args:
            questions: First attempts; further ones have other seeds.
            read: The value in a reply of status `ok`, None if it is malformed.
            label: Of the progress bar; None for no bar, where the caller shows one of its own.

        Raises:
            RbaError: Hardly any reply holds a vote.
        """
        asked = self._rows(questions, read)
        rows = {row.key: row for row in asked}
        waiting = [row for row in rows.values() if row.vote(self.retries) is None]
        n_cached = len(rows) - len(waiting)
        self.account.cached += n_cached
        watch = _Watch(self.model.name, self.give_up, n_cached)
        no_bar: AbstractContextManager[Callable[[int], None]] = nullcontext(lambda _: None)
        with no_bar if label is None else bar(label, len(rows), n_cached, "votes") as advance:
            for attempt in range(self.retries + 1):
                unasked = [row for row in waiting if attempt not in row.replies]
                for row in self._ask(unasked, attempt, read):
                    is_vote = row.vote(attempt) is not None
                    watch.note(row.replies[attempt], is_vote)
                    advance(int(is_vote))
                waiting = [row for row in waiting if row.vote(attempt) is None]
            if waiting:
                advance(len(waiting))
        votes = {key: row.vote(self.retries) or row.failure() for key, row in rows.items()}
        given_by = {
            vote.reply.model for vote in votes.values() if vote.reply is not None and vote.reply.model
        }
        by_model = {"model": sorted(given_by)} if given_by else {}  # votes of earlier days, too
        self.account.models = {**self.model.observed(), **by_model}
        return [votes[row.key] for row in asked]

    def _rows(self, questions: Sequence[Question], read: Read[Any]) -> list["_Row"]:
        """A row for each question, the same for equal ones, with its votes; what older versions kept may hold none."""
        rows: dict[Hashable, _Row] = {}
        asked = []
        for question in questions:
            key = self._key(question)
            if key not in rows:
                rows[key] = _Row(question, key, self._key, self.retries)
            asked.append(rows[key])
        cached = self.cache.get(key for row in rows.values() for key in row.keys)
        for row in rows.values() if cached else ():
            for number, key in enumerate(row.keys):
                if key in cached and (value := _value(cached[key], read)) is not None:
                    row.note(number, cached[key], value)
        return asked

    def _ask(self, rows: Sequence["_Row"], attempt: int, read: Read[Any]) -> Iterator["_Row"]:
        """Ask, and yield each row when its reply has come and, if it is a vote, is kept."""
        for position, reply in self.model.ask([row.attempt(attempt) for row in rows]) if rows else ():
            self.account.calls += 1
            self.account.prompt_tokens += reply.prompt_tokens
            self.account.completion_tokens += reply.completion_tokens
            row, value = rows[position], _value(reply, read)
            if value is not None:
                key = row.keys[attempt] if attempt else row.key
                kept = self.cache.put(key, reply, usable=lambda stored: _value(stored, read) is not None)
                if kept is not reply:  # perhaps another process's
                    reply, value = kept, _value(kept, read)
            row.note(attempt, reply, value)
            yield row


def verdict_of(reply: Reply) -> Reply:
    """A judge's reply without its thinking and leaked marks, as votes are read from it.

    The log-probabilities are those of the first token written. Where that is not the verdict's (the judge thought
    first, or was still thinking at the end), they say nothing about the verdict and are dropped.
    """
    parts = split_reply(reply.text)
    direct = parts.complete and reply.text.startswith(parts.answer)
    if direct and parts.answer == reply.text:  # nearly always
        return reply
    return replace(reply, text=parts.answer, top_logprobs=reply.top_logprobs if direct else ())


def _value(reply: Reply, read: Read[Value]) -> Value | None:
    """The vote in a reply, None if it holds none or could not be read again from a file."""
    return read(verdict_of(reply)) if reply.status == "ok" and readable(reply) else None


class _Watch:
    """Ends a poll whose judge gives hardly any usable vote.

    Args:
        name: Of the judge, for messages.
        limit: Replies in a row without a vote that end it; None for never.
        votes: How many there are already.
    """

    def __init__(self, name: str, limit: int | None, votes: int) -> None:
        self.name = name
        self.limit = limit
        self.votes = votes
        self.failed = 0
        self.row: list[Reply] = []

    def note(self, reply: Reply, is_vote: bool) -> None:
        """A reply came. Raises RbaError where that was enough."""
        if is_vote:
            self.votes += 1
            self.row = []
            return
        self.failed += 1
        self.row.append(reply)
        came = sum(reply.status != "error" for reply in self.row)
        patient = self.limit is None or (came < self.limit and len(self.row) < GIVE_UP_ERRORS)
        if patient or self.votes >= USELESS * (self.votes + self.failed):
            return
        kinds = {"ok": "no verdict", "refused": "refused", "error": "no reply"}
        [(status, count)] = Counter(reply.status for reply in self.row).most_common(1)
        example = next(reply for reply in self.row if reply.status == status)
        words = plain(example.text if status == "ok" else example.error or example.text)
        shown = words if len(words) <= _SHOWN else words[: _SHOWN - 3] + "..."
        raise RbaError(
            f"judge {self.name} gave no usable vote in {len(self.row)} replies in a row; {count} times "
            f"{kinds[status]}, such as {shown!r}: votes that could be read are kept; choose another judge, or leave it "
            "out with --judge none"
        )


class _Row:
    """One question with its further attempts, and the replies so far.

    Attributes:
        question: The first attempt.
        key: Of the first attempt.
        replies: By attempt.
    """

    def __init__(
        self, question: Question, key: Hashable, key_of: Callable[[Question], Hashable], retries: int
    ) -> None:
        self.question = question
        self.key = key
        self.replies: dict[int, Reply] = {}
        self._key_of, self._retries = key_of, retries
        self._values: dict[int, Any] = {}  # of replies that hold a vote, each read once

    @cached_property
    def attempts(self) -> list[Question]:
        """All of them; nearly all questions are answered by the first."""
        warmer = max(self.question.temperature, RETRY_TEMPERATURE)
        seeds = (stable_seed("retry", self.question.seed, n) % SEEDS for n in range(1, self._retries + 1))
        return [self.question, *(replace(self.question, seed=seed, temperature=warmer) for seed in seeds)]

    @cached_property
    def keys(self) -> list[Hashable]:
        """Of all attempts."""
        return [self.key, *map(self._key_of, self.attempts[1:])]

    def attempt(self, number: int) -> Question:
        """One of them."""
        return self.attempts[number] if number else self.question

    def note(self, attempt: int, reply: Reply, value: Any) -> None:
        """A reply, and the vote in it or None."""
        self.replies[attempt] = reply
        if value is not None:
            self._values[attempt] = value

    def vote(self, upto: int) -> Vote[Any] | None:
        """The first attempt that can be read: the same one whether it was asked now or long ago."""
        for attempt in sorted(self._values):
            if attempt <= upto:
                return Vote(self._values[attempt], self.replies[attempt], self.attempt(attempt).seed)
        return None

    def failure(self) -> Vote[Any]:
        """Why there is no vote."""
        reasons = tuple(
            f"malformed: {reply.text[:200]!r}"
            if reply.status == "ok"
            else f"{reply.status}: {(reply.error or reply.text)[:200]}"
            for _, reply in sorted(self.replies.items())
        )
        return Vote(None, failures=reasons or ("the judge did not reply",))

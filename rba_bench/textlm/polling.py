"""Getting votes out of a judge: from the cache, else by asking; a vote that cannot be read is asked for again.

A judge of which hardly a reply can be read is not asked about everything: after `GIVE_UP` replies of no use in a row
the poll ends. Votes that could be read are kept.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from rba_bench.errors import RbaError
from rba_bench.plain import plain
from rba_bench.progress import bar
from rba_bench.seeding import stable_seed
from rba_bench.textlm.asking import JudgeModel, Question, Reply
from rba_bench.textlm.replies import split
from rba_bench.textlm.votes import VoteCache, judge_facts, readable, vote_key

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
    """What a judge said to one question, or why it said nothing of use.

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
        odds = {"top_logprobs": [[token, value] for token, value in self.reply.top_logprobs]}
        return {"reply": self.reply.text, "seed": self.seed, **(odds if self.reply.top_logprobs else {})}


@dataclass
class Account:
    """What was asked and used so far."""

    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    models: dict[str, list[str]] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """JSON form for the report."""
        counts = {
            key: getattr(self, key) for key in ("calls", "cached", "prompt_tokens", "completion_tokens")
        }
        return {**counts, **({"answered_by": self.models} if self.models else {})}


class Poll:
    """Asks a judge and keeps every vote.

    A reply is read before it is kept, and kept only if it holds a vote: what failed, was refused or malformed is asked
    for again by the next run.

    Args:
        asker: The judge.
        cache: Of the votes.
        retries: Attempts after the first that failed.
        give_up: Replies of no use in a row that end the poll; None where the caller watches.
    """

    def __init__(
        self, asker: JudgeModel, cache: VoteCache, retries: int = RETRIES, give_up: int | None = GIVE_UP
    ) -> None:
        self.asker = asker
        self.cache = cache
        self.retries = retries
        self.give_up = give_up
        self.account = Account()
        self._judge = judge_facts(asker.identity(), with_address=True)

    def open_questions(self, questions: Sequence[Question], read: Read[Any]) -> tuple[list[Question], int]:
        """The different questions without a usable reply, and how many have one."""
        rows = self._rows(questions, read)
        unanswered = [row for row in rows.values() if row.vote(read, self.retries) is None]
        return [row.attempts[0] for row in unanswered], len(rows) - len(unanswered)

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
        rows = self._rows(questions, read)
        waiting = [row for row in rows.values() if row.vote(read, self.retries) is None]
        self.account.cached += len(rows) - len(waiting)
        watch = _Watch(self.asker.name, self.give_up, len(rows) - len(waiting))
        with _votes_bar(label, len(rows), len(rows) - len(waiting)) as advance:
            for attempt in range(self.retries + 1):
                unasked = [row for row in waiting if attempt not in row.replies]
                for row in self._ask(unasked, attempt, read):
                    found = row.vote(read, attempt) is not None
                    watch.note(row.replies[attempt], found)
                    advance(int(found))
                waiting = [row for row in waiting if row.vote(read, attempt) is None]
            if waiting:
                advance(len(waiting))
        self._note_models()
        votes = {key: row.vote(read, self.retries) or row.failure(read) for key, row in rows.items()}
        return [votes[vote_key(self._judge, question)] for question in questions]

    def _rows(self, questions: Sequence[Question], read: Read[Any]) -> dict[str, "_Row"]:
        """Attempts and kept votes by the key of the first attempt; what older versions kept may hold none."""
        rows: dict[str, _Row] = {}
        for question in questions:
            attempts = list(self._attempts(question))
            keys = [vote_key(self._judge, attempt) for attempt in attempts]
            rows.setdefault(keys[0], _Row(attempts, keys))
        kept = self.cache.get(key for row in rows.values() for key in row.keys)
        for row in rows.values():
            found = {number: kept[key] for number, key in enumerate(row.keys) if key in kept}
            row.replies = {number: reply for number, reply in found.items() if _usable(reply, read)}
        return rows

    def _attempts(self, question: Question) -> Iterator[Question]:
        yield question
        warmer = max(question.temperature, RETRY_TEMPERATURE)
        for number in range(1, self.retries + 1):
            seed = stable_seed("retry", question.seed, number) % SEEDS
            yield replace(question, seed=seed, temperature=warmer)

    def _ask(self, rows: Sequence["_Row"], attempt: int, read: Read[Any]) -> Iterator["_Row"]:
        """Ask, and yield each row when its reply has come and, if it is a vote, is kept."""
        for position, reply in self.asker.ask([row.attempts[attempt] for row in rows]) if rows else ():
            self.account.calls += 1
            self.account.prompt_tokens += reply.prompt_tokens
            self.account.completion_tokens += reply.completion_tokens
            row = rows[position]
            if _usable(reply, read):
                reply = self.cache.put(row.keys[attempt], reply, lambda kept: _usable(kept, read))
            row.replies[attempt] = reply
            yield row

    def _note_models(self) -> None:
        observed = getattr(self.asker, "observed", None)  # a server says which model answered
        if callable(observed):
            self.account.models = dict(observed())


def verdict_of(reply: Reply) -> Reply:
    """A judge's reply without its thinking and leaked marks, as votes are read from it.

    The odds are those of the first token that was written. Where that is not the verdict's (the judge thought first, or
    was still thinking at the end), they say nothing of the verdict and go.
    """
    parts = split(reply.text)
    direct = parts.complete and reply.text.startswith(parts.answer)
    return replace(reply, text=parts.answer, top_logprobs=reply.top_logprobs if direct else ())


def _value(reply: Reply, read: Read[Value]) -> Value | None:
    """The vote in a reply, None if it holds none or could not be read again from a file."""
    return read(verdict_of(reply)) if reply.status == "ok" and readable(reply) else None


def _usable(reply: Reply, read: Read[Any]) -> bool:
    return _value(reply, read) is not None


class _Watch:
    """Ends a poll of a judge that is of no use.

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
        if self.limit is None:
            return
        came = sum(reply.status != "error" for reply in self.row)
        if came < self.limit and len(self.row) < GIVE_UP_ERRORS:
            return
        if self.votes < USELESS * (self.votes + self.failed):
            raise RbaError(self._message())

    def _message(self) -> str:
        kinds = Counter(_kind(reply) for reply in self.row)
        [(kind, count)] = kinds.most_common(1)
        example = next(reply for reply in self.row if _kind(reply) == kind)
        return (
            f"judge {self.name} gave no usable vote in {len(self.row)} replies in a row; {count} times {kind}, such as "
            f"{_shown(example)}: votes that could be read are kept; choose another judge, or leave it out with "
            "--judge none"
        )


def _kind(reply: Reply) -> str:
    return {"ok": "no verdict", "refused": "refused", "error": "no reply"}[reply.status]


def _shown(reply: Reply) -> str:
    said = plain(reply.text if reply.status == "ok" else reply.error or reply.text)
    return repr(said if len(said) <= _SHOWN else said[: _SHOWN - 3] + "...")


@dataclass
class _Row:
    """One question with its attempts, their keys and the replies so far, by attempt."""

    attempts: list[Question]
    keys: list[str]
    replies: dict[int, Reply] = field(default_factory=dict)

    def vote(self, read: Read[Value], upto: int) -> Vote[Value] | None:
        """The first attempt that can be read: the same one whether it was asked now or long ago."""
        for attempt in sorted(self.replies):
            reply = self.replies[attempt]
            if attempt <= upto and (value := _value(reply, read)) is not None:
                return Vote(value, reply, self.attempts[attempt].seed)
        return None

    def failure(self, read: Read[Value]) -> Vote[Value]:
        """Why there is no vote."""
        reasons = tuple(_reason(self.replies[attempt]) for attempt in sorted(self.replies))
        return Vote(None, failures=reasons or ("the judge did not reply",))


def _votes_bar(label: str | None, total: int, done: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda _: None) if label is None else bar(label, total, done, "votes")


def _reason(reply: Reply) -> str:
    if reply.status == "ok":
        return f"malformed: {reply.text[:200]!r}"
    return f"{reply.status}: {(reply.error or reply.text)[:200]}"

"""Text LLMs as judges: questions and replies, replies kept in a file, and votes collected from them.

`Question`, `Reply` and `JudgeModel` give full control of the messages and the log-probabilities of the first token.
`VoteCache` keeps replies by what was asked, in one SQLite file. A reply is committed the moment it arrives, so
`kill -9` loses at most the call under way; several processes may share the file. It uses the classic rollback journal
and not write-ahead logging, which demands shared memory and breaks on the network folders of clusters.

`Poll` collects votes: from the cache, else by asking; a reply that cannot be read is asked for again. It stops with an
error where hardly any reply holds a vote (`GIVE_UP` in a row). Votes that could be read are kept.
"""

import json
import math
import sqlite3
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from rba_bench.errors import RbaError
from rba_bench.faults import database_error, explain_fault
from rba_bench.files import sha256_json
from rba_bench.progress import bar
from rba_bench.seeding import stable_seed
from rba_bench.textlm.replies import split_reply
from rba_bench.untrusted import plain

ReplyStatus = Literal["ok", "refused", "error"]


@dataclass(frozen=True)
class Message:
    """One turn: `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True)
class Question:
    """One request to a text LLM.

    Attributes:
        messages: The conversation so far, ending with a user turn.
        max_tokens: Longest reply, in tokens.
        temperature: 0 is greedy.
        seed: Of sampling; local models obey it, endpoints may.
        top_logprobs: How many of the likeliest first tokens to report; 0 = none.
    """

    messages: tuple[Message, ...]
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    top_logprobs: int = 0


@dataclass(frozen=True)
class Reply:
    """One reply.

    Attributes:
        text: As written, without surrounding spaces.
        top_logprobs: `(token, natural-log probability)` of the first token, likeliest first; empty if not asked for.
        status: `ok`; `refused` (content filter, refusal); `error` (no reply after all retries).
        error: What went wrong, in one line, without secrets.
        prompt_tokens: As counted by the model, 0 if it does not say.
        completion_tokens: As counted by the model, 0 if it does not say.
        latency_s: Wall time from sending to reply, in seconds, retries included.
        model: What the server said that answered, "" if it does not say. A name such as `gpt-4o` may stand for other
            weights tomorrow; kept votes still tell who gave them.
    """

    text: str
    top_logprobs: tuple[tuple[str, float], ...] = ()
    status: ReplyStatus = "ok"
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latency_s: float = 0.0
    model: str = ""

    def token_probability(self, token: str, any_case: bool = False) -> float:
        """Probability of `token` as the first token of the reply, surrounding spaces (and case) ignored."""
        return math.fsum(
            math.exp(value)
            for text, value in self.top_logprobs
            if (text.strip().casefold() if any_case else text.strip()) == token
        )


def quote_json(text: str) -> str:
    """`text` as a JSON string, the form in which judges are shown what others wrote."""
    return json.dumps(text, ensure_ascii=False)


class JudgeModel(ABC):
    """A text LLM that answers the questions of a judge, many at a time.

    Attributes:
        name: Short name for tables.
    """

    name: str

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What identifies the model in records; never a key."""

    @abstractmethod
    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        """`(position, reply)` as they complete, each position exactly once. One that fails never ends the rest."""

    def observed(self) -> dict[str, list[str]]:
        """What the replies so far said of the model behind a server; {} by default."""
        return {}


FILE = "votes.sqlite"
IN_MEMORY = Path(":memory:")  # in place of a folder: see `MemoryCache`
WAIT_S = 60.0  # for another process that is writing
_KEYS_AT_ONCE = 500  # SQLite binds at most 999 values in old versions
_ROUNDING = 1e-3  # by which a log-probability may exceed 0
# What a judge says of itself that does not change its votes: where it lies, how large it is.
_VOLATILE = ("path", "n_parameters", "weights_known")


def judge_facts(identity: Mapping[str, Any], with_address: bool = False) -> dict[str, Any]:
    """What identifies a judge, wherever it lies.

    Args:
        identity: Of the judge model.
        with_address: Tell servers apart: two of them may call different weights by one name. Votes are kept with the
            address; a protocol goes by the name alone, or nobody else's numbers could be compared with.
    """
    facts = {key: value for key, value in identity.items() if key not in _VOLATILE}
    if identity.get("kind") == "endpoint":
        facts.pop("weights_sha256", None)  # a stand-in made of address and name
        if not with_address:
            facts.pop("url", None)
    return facts


def vote_key(judge: Mapping[str, Any], question: Question) -> str:
    """Hex SHA-256 of judge and question: messages (and so prompt and answers), decoding and seed."""
    messages = [[message.role, message.content] for message in question.messages]
    decoding = [question.max_tokens, question.temperature, question.seed, question.top_logprobs]
    return sha256_json([dict(judge), messages, decoding])


class VoteCache:
    """Replies by key.

    Args:
        folder: Where the file lies; made if absent.

    Raises:
        UserError: The file is damaged, or cannot be written.
        RbaError: The disk is full, or another process does not let go of the file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS votes (key TEXT PRIMARY KEY, reply TEXT NOT NULL)"
            )
        except OSError as error:
            raise explain_fault(error) or error from error
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def key(self, judge: Mapping[str, Any], question: Question) -> Hashable:
        """Of a question to a judge."""
        return vote_key(judge, question)

    def get(self, keys: Iterable[Hashable]) -> dict[Hashable, Reply]:
        """The replies that are there; one that cannot be read, whoever wrote it, is not."""
        distinct = list(dict.fromkeys(keys))
        replies: dict[Hashable, Reply] = {}
        try:
            for start in range(0, len(distinct), _KEYS_AT_ONCE):
                batch = distinct[start : start + _KEYS_AT_ONCE]
                query = f"SELECT key, reply FROM votes WHERE key IN ({','.join('?' * len(batch))})"
                rows = ((key, _reply_from_json(text)) for key, text in self._database.execute(query, batch))
                replies.update((key, reply) for key, reply in rows if reply is not None)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return replies

    def put(self, key: Hashable, reply: Reply, usable: Callable[[Reply], bool] = lambda _: True) -> Reply:
        """Keep a reply; the first usable one stays.

        Args:
            key: See `key`.
            reply: One that can be read again, see `readable`.
            usable: Whether a reply that was kept before is of use; one that is not gives way.

        Returns:
            The reply that is kept: another process may have been faster, and then all must use its reply.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                stored = self.get([key]).get(key)
                if stored is None or not usable(stored):
                    row = (key, _reply_to_json(reply))
                    self._database.execute("INSERT OR REPLACE INTO votes VALUES (?, ?)", row)
                    stored = replace(reply, latency_s=0.0)  # as it is read again
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return stored

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> "VoteCache":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _unusable(self, error: sqlite3.Error) -> RbaError:
        return database_error(error, self.path, "move it away, its votes will be asked for again")


class MemoryCache(VoteCache):
    """Replies of one judge that nobody else sees, and that are gone when the cache is closed; no file is made."""

    def __init__(self) -> None:
        self._replies: dict[Hashable, Reply] = {}

    def key(self, judge: Mapping[str, Any], question: Question) -> Hashable:
        """The question itself: no hash of texts is needed that no file holds."""
        return question

    def get(self, keys: Iterable[Hashable]) -> dict[Hashable, Reply]:
        """The replies that are there; no key is computed where there are none."""
        return {key: self._replies[key] for key in keys if key in self._replies} if self._replies else {}

    def put(self, key: Hashable, reply: Reply, usable: Callable[[Reply], bool] = lambda _: True) -> Reply:
        """See `VoteCache.put`."""
        stored = self._replies.get(key)
        if stored is None or not usable(stored):
            stored = self._replies[key] = replace(reply, latency_s=0.0) if reply.latency_s else reply
        return stored

    def close(self) -> None:
        """Forget all."""
        self._replies = {}


def open_votes(folder: Path) -> VoteCache:
    """The cache in a folder, or one in memory for `IN_MEMORY`."""
    return MemoryCache() if folder == IN_MEMORY else VoteCache(folder)


def _reply_to_json(reply: Reply) -> str:
    kept = {name: value for name, value in vars(reply).items() if name != "latency_s"}
    return json.dumps(kept, ensure_ascii=False)


def readable(reply: Reply) -> bool:
    """Whether a reply can be kept and read again: text without half characters, log-probabilities that are numbers."""
    texts = (reply.text, reply.error, reply.model, *(token for token, _ in reply.top_logprobs))
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        return False
    return not any(_impossible(value) for _, value in reply.top_logprobs)


def _reply_from_json(text: object) -> Reply | None:
    """The reply in a row of the file, None if it holds none."""
    try:
        values: Any = json.loads(text) if isinstance(text, str) else None
        if not isinstance(values, dict) or values.get("status") not in get_args(ReplyStatus):
            return None
        counts = (values.get(key, 0) for key in ("prompt_tokens", "completion_tokens"))
        texts = (values.get("text"), values.get("error", ""), values.get("model", ""))
        if not all(isinstance(n, int) for n in counts) or not all(isinstance(t, str) for t in texts):
            return None
        logprobs = tuple((str(token), float(value)) for token, value in values["top_logprobs"])
        if any(_impossible(value) for _, value in logprobs):
            return None
        return Reply(**{**values, "top_logprobs": logprobs})
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _impossible(logprob: float) -> bool:
    """Whether it is of a probability above 1, or of none."""
    return math.isnan(logprob) or logprob > _ROUNDING


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

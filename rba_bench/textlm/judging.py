"""Text LLMs as judges: questions and replies, and replies kept in a file.

`Question`, `Reply` and `JudgeModel` give full control of the messages and the log-probabilities of the first token.
`VoteCache` keeps replies by what was asked, in one SQLite file. A reply is committed the moment it arrives, so
`kill -9` loses at most the call under way; several processes may share the file. It uses the classic rollback journal
and not write-ahead logging, which demands shared memory and breaks on the network folders of clusters.
"""

import json
import math
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rba_bench.errors import RbaError
from rba_bench.faults import database_error, explain_fault
from rba_bench.files import sha256_json

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

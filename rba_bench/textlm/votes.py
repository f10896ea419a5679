"""Replies of judges, kept by what was asked.

One SQLite file. A reply is committed the moment it arrives, so `kill -9` loses at most the call under way; several
processes may share the file. The classic rollback journal is used and not write-ahead logging, for that one demands
shared memory and breaks on the network folders of clusters.
"""

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from rba_bench.errors import RbaError
from rba_bench.faults import database_error, explained
from rba_bench.files import sha256_json
from rba_bench.textlm.asking import Question, Reply, ReplyStatus

FILE = "votes.sqlite"
WAIT_S = 60.0  # for another process that is writing
_REMEDY = "move it away, its votes will be asked for again"
_AT_ONCE = 500  # SQLite binds at most 999 values in old versions
_ROUNDING = 1e-3  # by which a log-probability may exceed 0
# What a judge says of itself that does not change its votes: where it lies, how large it is.
_VOLATILE = ("path", "n_parameters", "weights_known")


def judge_facts(identity: Mapping[str, Any], with_address: bool = False) -> dict[str, Any]:
    """What identifies a judge, wherever it lies.

    Args:
        identity: What the asker says.
        with_address: Tell servers apart: two of them may call different weights by one name. Votes are kept with the
            address; a protocol goes by the name alone, or nobody else's numbers could be compared with.
    """
    kept = {key: value for key, value in identity.items() if key not in _VOLATILE}
    if identity.get("kind") == "endpoint":
        kept.pop("weights_sha256", None)  # a stand-in made of address and name
        if not with_address:
            kept.pop("url", None)
    return kept


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
            raise explained(error) or error from error
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def get(self, keys: Iterable[str]) -> dict[str, Reply]:
        """The replies that are there; one that cannot be read, whoever wrote it, is not."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Reply] = {}
        try:
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, reply FROM votes WHERE key IN ({marks})"
                rows = ((key, _read(text)) for key, text in self._database.execute(query, some))
                found.update((key, reply) for key, reply in rows if reply is not None)
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return found

    def put(self, key: str, reply: Reply, usable: Callable[[Reply], bool] = lambda _: True) -> Reply:
        """Keep a reply; the first usable one stays.

        Args:
            key: See `vote_key`.
            reply: One that can be read again, see `readable`.
            usable: Whether a reply that was kept before is of use; one that is not gives way.

        Returns:
            The reply that is kept: another process may have been faster, and then all must use its reply.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                kept = self.get([key]).get(key)
                if kept is None or not usable(kept):
                    self._database.execute(
                        "INSERT OR REPLACE INTO votes VALUES (?, ?)", (key, _written(reply))
                    )
                    kept = replace(reply, latency_s=0.0)  # as it is read again
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return kept

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> "VoteCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unusable(self, error: sqlite3.Error) -> RbaError:
        return database_error(error, self.path, _REMEDY)


def _written(reply: Reply) -> str:
    return json.dumps(
        {
            "text": reply.text,
            "top_logprobs": reply.top_logprobs,
            "status": reply.status,
            "error": reply.error,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
        },
        ensure_ascii=False,
    )


def readable(reply: Reply) -> bool:
    """Whether a reply can be kept and read again: text without half characters, log-probabilities that are any."""
    try:
        return _read(_written(reply).encode().decode()) is not None
    except UnicodeEncodeError:
        return False


def _read(text: object) -> Reply | None:
    """The reply in a row of the file, None if it holds none."""
    try:
        values: Any = json.loads(text) if isinstance(text, str) else None
        return Reply(**{**values, "top_logprobs": _odds(values["top_logprobs"])}) if _sound(values) else None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _sound(values: object) -> bool:
    """Whether each field has its type."""
    if not isinstance(values, dict) or values.get("status") not in get_args(ReplyStatus):
        return False
    counts = (values.get(key, 0) for key in ("prompt_tokens", "completion_tokens"))
    texts = (values.get("text"), values.get("error", ""))
    return all(isinstance(one, int) for one in counts) and all(isinstance(one, str) for one in texts)


def _odds(rows: list[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Raises ValueError or TypeError for what are no log-probabilities."""
    odds = tuple((str(token), float(value)) for token, value in rows)
    if any(math.isnan(value) or value > _ROUNDING for _, value in odds):
        raise ValueError("a probability above 1")
    return odds

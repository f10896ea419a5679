"""Answers kept across runs, by everything that decides them: model, clip as heard, prompt, decoding and seed.

A change of metric, judge or task version makes another run, but not another answer. What was not answered is not
kept: it is asked again. One SQLite file; several processes may use it at once, and a kill loses nothing that was
written.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rba_bench.errors import RbaError, UserError
from rba_bench.evaluation.records import UNANSWERED
from rba_bench.faults import database_error
from rba_bench.files import sha256_json
from rba_bench.textlm.base import Decoding, Generation

FILE = "answers.sqlite"
WAIT_S = 60.0  # for another process to finish writing


def answer_key(
    model: Mapping[str, Any], clip: str, transcript: str, prompt: str, decoding: Decoding, seed: int
) -> str:
    """Hash of all that decides an answer; the seed counts only where something is drawn.

    Args:
        model: Identity of the model, without names and paths.
        clip: Content key of the clip as heard.
        transcript: What is spoken: text oracles read it.
        prompt: Text beside the audio.
        decoding: Length, temperature, top-p.
        seed: Of this request.
    """
    drawn = None if decoding.greedy else seed
    return sha256_json([dict(model), clip, transcript, prompt, asdict(decoding), drawn])


class AnswerCache:
    """Answers by key in one SQLite file.

    Raises:
        UserError: the file is not such a cache, or cannot be written.
        RbaError: the disk is full, or another process does not let go of the file. All methods raise these.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file = file
        try:
            self._connection = sqlite3.connect(file, timeout=WAIT_S)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT)")
            columns = [row[1] for row in self._connection.execute("PRAGMA table_info(answers)")]
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        if columns != ["key", "answer"]:
            self.close()
            raise UserError(f"{file} is another kind of file (its table has other columns): move it away")

    def find(self, keys: Iterable[str]) -> dict[str, Generation]:
        """The answers that are known."""
        query = "SELECT answer FROM answers WHERE key = ?"
        try:
            found = {key: self._connection.execute(query, (key,)).fetchone() for key in keys}
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        read = {key: _answer(row[0]) for key, row in found.items() if row is not None}
        return {key: answer for key, answer in read.items() if answer is not None}

    def keep(self, answers: Mapping[str, Generation]) -> None:
        """Keep what was answered; durable when this returns."""
        rows = [
            (key, json.dumps(asdict(answer), ensure_ascii=False))
            for key, answer in answers.items()
            if answer.status not in UNANSWERED
        ]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.Error) -> RbaError:
        return database_error(error, self.file, "remove it; answers in run folders stay")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _answer(stored: object) -> Generation | None:
    """An answer as it was kept; None for what is none: it is asked again, and kept in its place."""
    try:
        answer = Generation(**json.loads(stored)) if isinstance(stored, str | bytes) else None
    except (ValueError, TypeError, RecursionError):  # no JSON, or other fields
        return None
    return answer if answer is not None and isinstance(answer.text, str) else None

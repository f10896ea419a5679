"""Training sets in which the model's own LLM is the author (AudioChatLlama, BLSP).

    answer     the LLM answers the transcript; the student learns to give that answer to the clip    AudioChatLlama
    continue   the LLM continues the transcript; the student learns to continue the clip            BLSP

One answer an instruction, whatever the number of its voices. Answers lie on disk and are read when they are wanted:

    RUN/own_answers/WAY/part-000000.jsonl        the groups of a block, in the order of the set
    RUN/own_answers/WAY/part-000000.open.jsonl   a block that is being written, one batch after the other
    RUN/own_answers/WAY/index.npy                of every group: whether its answer can be used, and where it lies

Processes take whole blocks. What is answered together depends on the set alone, so the answers are the same however
many processes there are, and a killed run goes on behind its last batch. Nobody waits in a barrier, which would time
out: whoever is done looks for the others' files.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import RbaError
from rba_bench.files import JsonlAppender, read_jsonl, replacing, sha256_json, write_atomic
from rba_bench.progress import bar, say
from rba_bench.seeding import stable_seed
from rba_bench.textlm.replies import ReplyParts, split_reply
from rba_bench.textlm.text_model import Decoding, Generation, TextLM
from rba_bench.training.data.groups import Groups
from rba_bench.training.options.nested_options import CONTINUE

AuthorMode = Literal["answer", "continue"]
FOLDER = "own_answers"
INDEX = "index.npy"
BLOCK_BATCHES = 4  # batches of a block: its texts are sorted by length, so that little padding is read
POLL_S = 1.0  # between two looks for what other processes write
STATUSES = ("ok", "empty", "truncated", "error")  # a number in the index
_ENTRY = np.dtype([("status", "u1"), ("offset", "u4")])  # of one group: place in STATUSES, byte in its part


@dataclass(frozen=True)
class AnswerSettings:
    """How an author is asked; what decides the answers to a set beside its texts.

    Attributes:
        mode: see the module.
        prompt: what `continue` asks; it becomes the rows' prompt, beside the clip.
        decoding: how answers are drawn.
        seed: of sampling.
        batch_size: transcripts answered together; what a kill costs.
    """

    mode: AuthorMode
    prompt: str = CONTINUE
    decoding: Decoding = Decoding(128)
    seed: int = 1
    batch_size: int = 64

    def name(self, author: Mapping[str, Any], set_sha256: str) -> str:
        """Of the folder of the answers of an author to a set."""
        who = {name: value for name, value in author.items() if name != "path"}
        prompt = self.prompt if self.mode == "continue" else ""
        seed = 0 if self.decoding.greedy else self.seed
        how = [self.mode, prompt, self.decoding.name, self.decoding.max_new_tokens, seed, self.batch_size]
        return sha256_json([who, set_sha256, how])[:16]

    def asked(self, row: AlignmentRow) -> AlignmentRow:
        """The row as author and student are asked it."""
        return replace(row, prompt=self.prompt) if self.mode == "continue" else row


class OwnAnswers(Mapping[str, list[AlignmentRow]]):
    """Groups with the own LLM's answers, of those that got a usable one; made by `own_answers`.

    Args:
        groups: what was answered.
        folder: of the answers.
        way: how.
    """

    def __init__(self, groups: Groups, folder: Path, way: AnswerSettings) -> None:
        self._groups = groups
        self._folder = folder
        self._way = way
        self._entries = np.load(folder / INDEX, mmap_mode="r")
        if len(self._entries) != len(groups):
            raise RbaError(f"{folder} holds answers to another set: remove it and start again")
        self._usable = np.flatnonzero(self._entries["status"] == 0).astype(np.uint32)
        self.ids: Sequence[str] = _Some(groups.ids, self._usable)

    def __len__(self) -> int:
        return len(self._usable)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __getitem__(self, group_id: str) -> list[AlignmentRow]:
        place = self._groups.place(group_id)
        entry = self._entries[place]
        if entry["status"] != 0:
            raise KeyError(group_id)
        with open(_part(self._folder, place // _block_size(self._way)), "rb") as file:
            file.seek(int(entry["offset"]))
            record = json.loads(file.readline())
        if record["group_id"] != group_id:
            raise RbaError(f"{self._folder} was changed while in use: remove it and start again")
        rows = self._groups[group_id]
        return [replace(self._way.asked(row), response=record["response"]) for row in rows]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Groups by the status of their answer."""
        codes = np.bincount(self._entries["status"], minlength=len(STATUSES)).tolist()
        return dict(zip(STATUSES, codes, strict=True))


class WithOwnAnswers(Mapping[str, list[AlignmentRow]]):
    """Groups to train on with own answers, and those held out as they are."""

    def __init__(self, own: OwnAnswers, held_out: Mapping[str, list[AlignmentRow]]) -> None:
        self._own = own
        self._held_out = held_out

    def __len__(self) -> int:
        return len(self._own) + len(self._held_out)

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from self._held_out

    def __getitem__(self, group_id: str) -> list[AlignmentRow]:
        return self._held_out[group_id] if group_id in self._held_out else self._own[group_id]


class _Some(Sequence[str]):
    """Some of the ids of a sequence, by their places in it."""

    def __init__(self, ids: Sequence[str], places: np.ndarray) -> None:
        self._ids = ids
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [self._ids[int(one)] for one in self._places[place]]
        return self._ids[int(self._places[place])]


def own_answers(
    groups: Groups,
    set_sha256: str,
    own: TextLM,
    way: AnswerSettings,
    run: Path,
    process: tuple[int, int] = (0, 1),
    pause: Callable[[float], None] = time.sleep,
) -> OwnAnswers:
    """Let the own LLM answer every group; what is written already is not asked again.

    Args:
        groups: whose clips are learnt from; their own responses are not used.
        set_sha256: identity of the set.
        own: the LLM (see `own.PolicyTextLM`), on its device.
        way: how it is asked.
        run: folder of the run, which all processes see.
        process: which of the processes this is, and how many there are.
        pause: waits so many seconds.

    Returns:
        The groups, those left out whose answer is empty, cut off at `max_new_tokens` or failed (counted on stderr): a
        cut answer would teach the student not to end.

    Raises:
        RbaError: not one usable answer.
    """
    folder, (index, size) = run / FOLDER / way.name(own.identity(), set_sha256), process
    per_block = _block_size(way)
    blocks = range(-(-len(groups) // per_block))
    if not (folder / INDEX).is_file():
        share = [number for number in blocks if number % size == index]
        done = [number for number in share if _part(folder, number).is_file()]
        total, finished = (sum(len(groups.ids[n * per_block : (n + 1) * per_block]) for n in some)
                        for some in (share, done))  # fmt: skip
        with bar(
            "own answers" if size == 1 else "own answers (this process)", total, finished, "answers"
        ) as advance:
            for number in share:
                if number not in done:
                    ids = groups.ids[number * per_block : (number + 1) * per_block]
                    _Block(folder, number, ids, own, way).write(groups, advance if index == 0 else _nothing)
        if index == 0:
            _wait(lambda: all(_part(folder, number).is_file() for number in blocks), pause)
            _write_index(folder, blocks)
        _wait((folder / INDEX).is_file, pause)
    answers = OwnAnswers(groups, folder, way)
    _report(answers.counts, way.mode, folder, tell=index == 0)
    return answers


def _nothing(count: int) -> None:
    """A bar that nobody sees."""


def _wait(ready: Callable[[], bool], pause: Callable[[float], None]) -> None:
    while not ready():
        pause(POLL_S)


def _block_size(way: AnswerSettings) -> int:
    return BLOCK_BATCHES * way.batch_size


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.jsonl"


@dataclass(frozen=True)
class _Ask:
    """What one group is asked: `text` is the user turn."""

    group: str
    text: str
    seed: int


class _Block:
    """Some groups that lie together, answered batch by batch."""

    def __init__(
        self, folder: Path, number: int, ids: Sequence[str], own: TextLM, way: AnswerSettings
    ) -> None:
        self.ids = list(ids)
        self.own = own
        self.way = way
        self.path = _part(folder, number)
        self.open = self.path.with_suffix(".open.jsonl")

    def write(self, groups: Groups, advance: Callable[[int], None]) -> None:
        """Ask what has not been asked, then write the block as a whole."""
        asks = [self._ask(groups[group]) for group in self.ids]
        asks.sort(key=lambda ask: (-len(ask.text), ask.group))
        known = {record["group_id"]: record for record in read_jsonl(self.open)}
        with JsonlAppender(self.open) as file:
            for start in range(0, len(asks), self.way.batch_size):
                # whole batches, also where a torn one is repeated: what is answered together never changes
                batch = asks[start : start + self.way.batch_size]
                if not all(ask.group in known for ask in batch):
                    records = self._written(batch)
                    file.write(*records)
                    known |= {record["group_id"]: record for record in records}
                advance(len(batch))
        lines = (json.dumps(known[group], ensure_ascii=False) + "\n" for group in self.ids)
        write_atomic(self.path, lines)
        self.open.unlink(missing_ok=True)

    def _ask(self, rows: Sequence[AlignmentRow]) -> _Ask:
        row, greedy = self.way.asked(rows[0]), self.way.decoding.greedy
        # the group in the seed: two groups with the same words may get two answers
        seed = 0 if greedy else stable_seed("own-answers", self.way.seed, row.group_id)
        return _Ask(row.group_id, row.user_text, seed)

    def _written(self, batch: Sequence[_Ask]) -> list[dict[str, Any]]:
        texts, seeds = [ask.text for ask in batch], [ask.seed for ask in batch]
        answers = self.own.chat(texts, self.way.decoding, seeds)
        # what the own LLM thinks is not what the student shall say
        replies = [split_reply(answer.text) for answer in answers]
        return [
            {
                "group_id": ask.group,
                "mode": self.way.mode,
                "text": ask.text,
                "response": parts.answer,
                "status": _status(answer, parts),
                "n_tokens": answer.n_tokens,
                "error": answer.error,
            }
            for ask, answer, parts in zip(batch, answers, replies, strict=True)
        ]


def _status(answer: Generation, parts: ReplyParts) -> str:
    if not parts.complete:
        return "truncated"
    return "empty" if answer.status == "ok" and not parts.answer.strip() else answer.status


def _write_index(folder: Path, blocks: Sequence[int]) -> None:
    """Where each answer lies, once all parts are there; its being there says that they are."""
    entries = [_entries(_part(folder, number)) for number in blocks]
    with replacing(folder / INDEX) as temporary, open(temporary, "wb") as file:
        np.save(file, np.concatenate(entries))


def _entries(part: Path) -> np.ndarray:
    entries, offset = [], 0
    with open(part, "rb") as file:
        for line in file:
            status = json.loads(line)["status"]
            entries.append((STATUSES.index(status if status in STATUSES else "error"), offset))
            offset += len(line)
    return np.array(entries, dtype=_ENTRY)


def _report(counts: Mapping[str, int], mode: AuthorMode, folder: Path, tell: bool) -> None:
    total = sum(counts.values())
    left_out = ", ".join(f"{counts[status]} {status}" for status in STATUSES[1:] if counts[status])
    if counts["ok"] == 0:
        raise RbaError(
            f"the own LLM gave no usable answer to {total} transcripts ({left_out}): raise "
            "teacher.answers.max_new_tokens, or use a base model that answers text"
        )
    if tell and counts["ok"] < total:
        say(
            f"own answers ({mode}): {counts['ok']} of {total} instructions used, left out: {left_out}; see {folder}"
        )

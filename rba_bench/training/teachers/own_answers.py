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
from rba_bench.textlm.replies import split_reply
from rba_bench.textlm.text_model import Decoding, TextLM
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
        title = "own answers" if size == 1 else "own answers (this process)"
        with bar(title, total, finished, "answers") as advance:
            for number in share:
                if number not in done:
                    ids = groups.ids[number * per_block : (number + 1) * per_block]
                    rows = [way.asked(groups[group_id][0]) for group_id in ids]
                    tell = advance if index == 0 else lambda count: None
                    _write_block(_part(folder, number), rows, own, way, tell)
        if index == 0:
            _wait(lambda: all(_part(folder, number).is_file() for number in blocks), pause)
            _write_index(folder, blocks)
        _wait((folder / INDEX).is_file, pause)
    answers = OwnAnswers(groups, folder, way)
    _report(answers.counts, way.mode, folder, tell=index == 0)
    return answers


def _wait(ready: Callable[[], bool], pause: Callable[[float], None]) -> None:
    while not ready():
        pause(POLL_S)


def _block_size(way: AnswerSettings) -> int:
    return BLOCK_BATCHES * way.batch_size


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.jsonl"


def _write_block(
    path: Path, rows: Sequence[AlignmentRow], own: TextLM, way: AnswerSettings, advance: Callable[[int], None]
) -> None:
    """Let the LLM answer one row of each group of a block, batch by batch, then write the block as a whole."""
    open_path = path.with_suffix(".open.jsonl")
    by_length = sorted(rows, key=lambda row: (-len(row.user_text), row.group_id))
    records = {record["group_id"]: record for record in read_jsonl(open_path)}
    with JsonlAppender(open_path) as file:
        for start in range(0, len(by_length), way.batch_size):
            # whole batches, also where a torn one is repeated: what is answered together never changes
            batch = by_length[start : start + way.batch_size]
            if not all(row.group_id in records for row in batch):
                batch_records = _answer_batch(batch, own, way)
                file.write(*batch_records)
                records |= {record["group_id"]: record for record in batch_records}
            advance(len(batch))
    write_atomic(path, (json.dumps(records[row.group_id], ensure_ascii=False) + "\n" for row in rows))
    open_path.unlink(missing_ok=True)


def _answer_batch(batch: Sequence[AlignmentRow], own: TextLM, way: AnswerSettings) -> list[dict[str, Any]]:
    # the group in the seed: two groups with the same words may get two answers
    seeds = [
        0 if way.decoding.greedy else stable_seed("own-answers", way.seed, row.group_id) for row in batch
    ]
    records = []
    answers = own.chat([row.user_text for row in batch], way.decoding, seeds)
    for row, answer in zip(batch, answers, strict=True):
        reply = split_reply(answer.text)  # what the LLM thinks is not what the student shall say
        status = answer.status if reply.complete else "truncated"
        records.append(
            {
                "group_id": row.group_id,
                "mode": way.mode,
                "text": row.user_text,
                "response": reply.answer,
                "status": "empty" if status == "ok" and not reply.answer.strip() else status,
                "n_tokens": answer.n_tokens,
                "error": answer.error,
            }
        )
    return records


def _write_index(folder: Path, blocks: Sequence[int]) -> None:
    """Where each answer lies, once all parts are there; its being there says that they are."""
    parts = []
    for number in blocks:
        entries, offset = [], 0
        with open(_part(folder, number), "rb") as file:
            for line in file:
                status = json.loads(line)["status"]
                entries.append((STATUSES.index(status if status in STATUSES else "error"), offset))
                offset += len(line)
        parts.append(np.array(entries, dtype=_ENTRY))  # a part at a time: a list of tuples is large
    with replacing(folder / INDEX) as temporary, open(temporary, "wb") as index:
        np.save(index, np.concatenate(parts))


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

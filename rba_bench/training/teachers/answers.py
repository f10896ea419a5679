"""Training sets in which the model's own LLM is the author (AudioChatLlama, BLSP).

    answer     the LLM answers the transcript; the student learns to give that answer to the clip    AudioChatLlama
    continue   the LLM continues the transcript; the student learns to continue the clip            BLSP

One answer an instruction, whatever the number of its voices. Answers are written down one batch at a time, so that a
killed run goes on where it stopped; a record is used again only by who asks the same LLM the same in the same way.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rba_bench.audio.alignment_set import AlignmentRow
from rba_bench.errors import RbaError
from rba_bench.files import JsonlAppender, read_jsonl, sha256_json
from rba_bench.progress import bar, say
from rba_bench.seeding import stable_seed
from rba_bench.textlm.base import Decoding, Generation, TextLM
from rba_bench.textlm.replies import ReplyParts, split
from rba_bench.training.teacher_options import CONTINUE

AuthorMode = Literal["answer", "continue"]
FILE = "own_answers.jsonl"


@dataclass(frozen=True)
class _Ask:
    """What one group is asked: `key` names the record, `text` is the user turn."""

    group: str
    key: str
    text: str
    seed: int


def own_answers(
    rows: Sequence[AlignmentRow],
    own: TextLM,
    mode: AuthorMode,
    folder: Path,
    *,
    prompt: str = CONTINUE,
    decoding: Decoding | None = None,
    seed: int = 1,
    batch_size: int = 64,
) -> list[AlignmentRow]:
    """Rows whose response is the own LLM's.

    Args:
        rows: clips; their own responses are not used.
        own: the LLM (see `own.PolicyTextLM`).
        mode: see the module.
        folder: where `own_answers.jsonl` is kept: the run's.
        prompt: what `continue` asks; it becomes the rows' prompt, beside the clip.
        decoding: greedy, 128 tokens at most by default.
        seed: of sampling.
        batch_size: answers between two writes; what a kill costs.

    Returns:
        The rows in order, those left out whose answer is empty, cut off at `max_new_tokens` or failed (counted on
        stderr): a cut answer would teach the student not to end.

    Raises:
        RbaError: not one usable answer.
    """
    decoding = Decoding(128) if decoding is None else decoding
    asked = [replace(row, prompt=prompt) if mode == "continue" else row for row in rows]
    asks = _asks(asked, own.identity(), mode, decoding, seed)
    path = folder / FILE
    known = {record["key"]: record for record in read_jsonl(path)}
    missing = [ask for ask in asks.values() if ask.key not in known]
    # like lengths together, so that little padding is read
    missing.sort(key=lambda ask: (-len(ask.text), ask.group))
    if missing:
        with JsonlAppender(path) as file, bar("own answers", len(missing), unit="answers") as advance:
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                records = _written(batch, own, mode, decoding)
                file.write(*records)
                known |= {record["key"]: record for record in records}
                advance(len(batch))
    found = {group: known[ask.key] for group, ask in asks.items()}
    _report(found, mode, folder)
    return [
        replace(row, response=found[row.group_id]["response"])
        for row in asked
        if found[row.group_id]["status"] == "ok"
    ]


def _asks(
    rows: Sequence[AlignmentRow], identity: dict[str, Any], mode: AuthorMode, decoding: Decoding, seed: int
) -> dict[str, _Ask]:
    """One a group, in the order of their first rows."""
    author = {name: value for name, value in identity.items() if name != "path"}
    way = [author, mode, decoding.name, decoding.max_new_tokens]
    asks: dict[str, _Ask] = {}
    for row in rows:
        if row.group_id not in asks:
            # the group in the seed: two groups with the same words may get two answers
            drawn = 0 if decoding.greedy else stable_seed("own-answers", seed, row.group_id)
            key = sha256_json([*way, row.group_id, row.user_text, drawn])
            asks[row.group_id] = _Ask(row.group_id, key, row.user_text, drawn)
    return asks


def _written(
    batch: Sequence[_Ask], own: TextLM, mode: AuthorMode, decoding: Decoding
) -> list[dict[str, Any]]:
    answers = own.chat([ask.text for ask in batch], decoding, [ask.seed for ask in batch])
    read = [
        split(answer.text) for answer in answers
    ]  # what the own LLM thinks is not what the student shall say
    return [
        {
            "key": ask.key,
            "group_id": ask.group,
            "mode": mode,
            "text": ask.text,
            "response": parts.answer,
            "status": _status(answer, parts),
            "n_tokens": answer.n_tokens,
            "error": answer.error,
        }
        for ask, answer, parts in zip(batch, answers, read, strict=True)
    ]


def _status(answer: Generation, parts: ReplyParts) -> str:
    if not parts.complete:
        return "truncated"
    return "empty" if answer.status == "ok" and not parts.answer.strip() else answer.status


def _report(found: dict[str, dict[str, Any]], mode: AuthorMode, folder: Path) -> None:
    counts = Counter(record["status"] for record in found.values())
    if not found or counts["ok"] == 0:
        raise RbaError(
            f"the own LLM gave no usable answer to {len(found)} transcripts ({_shown(counts)}): raise "
            "teacher.answers.max_new_tokens, or use a base model that answers text"
        )
    if counts["ok"] < len(found):
        say(
            f"own answers ({mode}): {counts['ok']} of {len(found)} instructions used, left out: {_shown(counts)}; "
            f"see {folder / FILE}"
        )


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()) if status != "ok")

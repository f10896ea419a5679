"""Answers kept across runs, by everything that decides them: model, clip as heard, prompt, decoding and seed.

A change of metric, judge or task version makes another run, but not another answer. What was not answered is not
kept: it is asked again. One SQLite file; several processes may use it at once, and a kill loses nothing that was
written.

Answers every item of a plan once, and keeps each answer the moment it exists.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rba_bench.errors import RbaError, UserError
from rba_bench.evaluation import harness, model_input, scoring
from rba_bench.evaluation.metric import ItemScore
from rba_bench.evaluation.model_input import Answer, AnswerBatch, PlannedRequest
from rba_bench.evaluation.plan import EvalRequest, RunPlan, identifying_facts
from rba_bench.evaluation.records import (
    RUN_FILE,
    SAMPLES_FILE,
    TIMING_FILE,
    UNANSWERED,
    UNSCORED,
    Sample,
    Status,
    Timing,
    read_samples,
)
from rba_bench.faults import database_error
from rba_bench.files import JsonlAppender, read_jsonl, sha256_json, write_atomic
from rba_bench.metrics.text import is_blank
from rba_bench.progress import bar, say
from rba_bench.textlm.text_model import Decoding, Generation

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


RECALLED_AT_ONCE = 500
_COPIED = (
    "id", "kind", "group", "cluster", "duration", "instruction", "source_lang", "target_lang", "references",
    "baseline", "extra",
)  # fmt: skip


def answer_all(plan: RunPlan, request: EvalRequest, lm: harness.RbaSpeechLM) -> None:
    """Answer what no earlier attempt has answered; this process's share of it under data parallelism."""
    requests = harness.build_requests(plan.task, request.limit, lm)
    lm.barrier()  # every process has looked for the record
    if lm.rank == 0:
        forget_unanswered(plan.folder)
    lm.barrier()
    answered = {sample.doc_id for file in sample_files(plan.folder) for sample in read_samples(file)}
    done = {one.index for one in requests if one.doc_id in answered}
    if done:
        say(f"{plan.spec.name}: resuming, {len(done)} of {len(requests)} items are answered")
    rank = "" if lm.world_size == 1 else f".rank-{lm.rank}"
    with (
        JsonlAppender(plan.folder / _ranked(SAMPLES_FILE, rank)) as samples,
        JsonlAppender(plan.folder / _ranked(TIMING_FILE, rank)) as clock,
        AnswerCache(request.out / FILE) as cache,
        bar(plan.spec.name, len(requests), len(done), "items") as advance,
    ):
        keeper = _Keeper(plan, requests, cache, samples)
        if request.use_cache:
            found = keeper.recall([one for one in requests if one.index not in done])
            done |= found
            advance(len(found))
        said: dict[str, list[str]] = {}
        for together in lm.stream(requests, done):
            keeper.keep(together.answers)
            cost, said, before = _cost(requests, together), lm.model.observed(), said
            clock.write(cost | {"observed": said} if said != before else cost)
            advance(len(together.answers))
    lm.barrier()


class _Keeper:
    """Puts answers where they are found again: in the cache of all runs, and as scored samples of this one."""

    def __init__(
        self, plan: RunPlan, requests: Sequence[PlannedRequest], cache: AnswerCache, samples: JsonlAppender
    ) -> None:
        self.model = identifying_facts(plan.model)
        self.docs = plan.task.eval_docs
        self.name = plan.spec.name
        self.requests = requests
        self.cache = cache
        self.samples = samples

    def keep(self, answers: Sequence[Answer]) -> None:
        """New answers."""
        self.cache.keep({self._key(self.requests[a.index]): a.generation for a in answers})
        self._write(answers)

    def recall(self, open_: Sequence[PlannedRequest]) -> set[int]:
        """Write the samples whose answers other runs have left; their positions."""
        found: set[int] = set()
        for start in range(0, len(open_), RECALLED_AT_ONCE):
            keys = {self._key(one): one for one in open_[start : start + RECALLED_AT_ONCE]}
            known = [keys[key].answer(answer) for key, answer in self.cache.find(keys).items()]
            self._write(known)
            found |= {answer.index for answer in known}
        if found:
            say(f"{self.name}: {len(found)} answers are known from other runs")
        return found

    def _key(self, one: PlannedRequest) -> str:
        spoken = model_input.spoken_text(one.audio)
        return answer_key(self.model, one.key, spoken, one.prompt, one.settings.decoding, one.seed)

    def _write(self, answers: Sequence[Answer]) -> None:
        lines = []
        for answer in answers:
            one = self.requests[answer.index]
            lines.append(_sample(self.docs[one.doc_id], one, answer).values())
        if lines:
            self.samples.write(*lines)


def sample_files(folder: Path) -> list[Path]:
    """The samples of a run, of all processes."""
    return sorted(folder.glob("samples*.jsonl"))


def forget_unanswered(folder: Path) -> None:
    """Drop the items that were not answered, so that they are asked again, and the record that counts them.

    Answers on which a judge gave no verdict stay, and wait for one.
    """
    (folder / RUN_FILE).unlink(missing_ok=True)
    for file in sample_files(folder):
        samples = read_samples(file)
        kept = [_unjudged(sample) for sample in samples if sample.status not in UNANSWERED]
        if kept != samples:
            write_atomic(file, (sample.line() for sample in kept))


def _unjudged(sample: Sample) -> Sample:
    """The same without the failure of a judge."""
    votes = [vote for said in (sample.judge or {}).values() for vote in (said or {}).get("votes") or ()]
    if sample.status != "judge_failed" or not any("failures" in vote for vote in votes):
        return sample
    return sample.model_copy(update={"status": "ok", "error": "", "judge": None})


def write_samples(folder: Path, samples: Sequence[Sample]) -> None:
    """All samples of a finished run in one file, in the order of the test set; files of single processes go."""
    write_atomic(folder / SAMPLES_FILE, (sample.line() for sample in samples))
    for file in sample_files(folder):
        if file.name != SAMPLES_FILE:
            os.remove(file)


def read_all_samples(folder: Path) -> list[Sample]:
    """What has been answered so far by all processes, in the order of the test set."""
    found = {sample.doc_id: sample for file in sample_files(folder) for sample in read_samples(file)}
    return [found[doc_id] for doc_id in sorted(found)]


def summarise_timing(folder: Path, judge_s: float) -> Timing:
    """What answering cost, from the timing files of all processes; they worked side by side, so the slowest counts."""
    per_process = [list(read_jsonl(file)) for file in sorted(folder.glob("timing*.jsonl"))]
    batches = [batch for process in per_process for batch in process]
    wall = max((sum(batch["wall_s"] for batch in process) for process in per_process), default=0.0)
    audio, n = sum(batch["audio_s"] for batch in batches), sum(len(batch["doc_ids"]) for batch in batches)
    seconds = {name: 0.0 for batch in batches for name in batch["stages"]}
    for batch in batches:
        for name, spent in batch["stages"].items():
            seconds[name] += spent
    seconds["io"] = sum(batch["io_s"] for batch in batches)
    seconds["other"] = max(0.0, sum(batch["wall_s"] for batch in batches) - sum(seconds.values()))
    seconds["judge"] = judge_s
    whole = max(sum(seconds.values()), 1e-9)
    return Timing(
        generation_s=round(wall, 3),
        audio_s=round(audio, 3),
        rtfx=round(audio / max(wall, 1e-9), 3),
        samples_per_s=round(n / max(wall, 1e-9), 3),
        seconds={name: round(spent, 3) for name, spent in seconds.items()},
        shares={name: round(spent / whole, 4) for name, spent in seconds.items()},
    )


def observed_facts(folder: Path) -> dict[str, list[str]]:
    """What a server has said of the model behind it, over all attempts and processes; {} for other models."""
    found: dict[str, dict[str, None]] = {}
    for file in sorted(folder.glob("timing*.jsonl")):
        for batch in read_jsonl(file):
            for key, values in (batch.get("observed") or {}).items():
                found.setdefault(key, {}).update(dict.fromkeys(values))
    return {key: sorted(values) for key, values in sorted(found.items())}


def unscored_sample(index: int, doc: Mapping[str, Any], response: str, prompt: str) -> Sample:
    """A sample of an answer that came some other way than from a run: nothing scored, nothing timed."""
    return Sample(
        **{name: doc[name] for name in _COPIED},
        doc_id=index,
        audio_sha256=doc["audio"]["sha256"],
        prompt=prompt,
        response=response,
        extracted=response,
        scores={},
        status="empty" if is_blank(response) else "ok",
        n_tokens=0,
        seed=0,
    )


def _ranked(name: str, rank: str) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{stem}{rank}.{ending}"


def _sample(doc: Mapping[str, Any], one: PlannedRequest, answer: Answer) -> Sample:
    unscored = answer.generation.status in UNSCORED
    scored = ItemScore() if unscored else scoring.score_item(doc, answer.text)
    return Sample(
        **{name: doc[name] for name in _COPIED},
        doc_id=one.doc_id,
        audio_sha256=doc["audio"]["sha256"],
        prompt=one.prompt,
        response=answer.generation.text,
        extracted=answer.text,
        heard=answer.generation.heard,
        reasoning=answer.generation.reasoning,
        scores=scored.scores,
        judge=scored.judge,
        status=_status(answer, scored),
        error=answer.generation.error or scored.failure,
        n_tokens=answer.generation.n_tokens,
        seed=answer.seed,
    )


def _status(answer: Answer, scored: ItemScore) -> Status:
    if answer.status != "ok":
        return answer.status
    if is_blank(answer.text):
        return "empty"
    return "judge_failed" if scored.failure else "ok"


def _cost(requests: Sequence[PlannedRequest], together: AnswerBatch) -> dict[str, Any]:
    answered = [requests[a.index] for a in together.answers if a.generation.status not in UNANSWERED]
    return {
        "doc_ids": [one.doc_id for one in answered],
        "audio_s": round(sum(one.duration for one in answered), 4),
        "wall_s": round(together.wall_s, 6),
        "io_s": round(together.io_s, 6),
        "stages": {name: round(spent, 6) for name, spent in together.stages.items()},
    }

"""Answering every item of a run once, and keeping each answer the moment it exists.

Answers are kept twice. `samples.jsonl` in the run folder makes a run resumable. `answers.sqlite` beside all runs keeps
them by everything that decides an answer: model, clip as the model gets it, prompt, decoding and seed. So a change of
metric, judge or task version makes another run, but asks for no answer again. Failures are not kept: those items are
asked again. Several processes may use the cache at once, and a kill loses nothing that was written.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rba_bench.errors import RbaError, UserError
from rba_bench.evaluation import harness, records, scoring
from rba_bench.evaluation.documents import Document
from rba_bench.evaluation.metric import ItemScore
from rba_bench.evaluation.model_input import Answer, PlannedRequest, spoken_text
from rba_bench.evaluation.plan import EvalRequest, RunPlan, identifying_facts
from rba_bench.evaluation.records import SAMPLES_FILE, UNANSWERED, Sample, read_samples
from rba_bench.faults import database_error
from rba_bench.files import JsonlAppender, read_jsonl, sha256_json, write_atomic
from rba_bench.metrics.text import is_blank
from rba_bench.progress import bar, say
from rba_bench.textlm.text_model import Decoding, Generation

FILE = "answers.sqlite"
WAIT_S = 60.0  # for another process to finish writing
LOOKUPS_AT_ONCE = 500
_SHARED = tuple(n for n in Document.__annotations__ if n in Sample.model_fields and n != "prompt")


def answer_key(
    model: Mapping[str, Any], clip: str, transcript: str, prompt: str, decoding: Decoding, seed: int
) -> str:
    """Hash of all that decides an answer; the seed counts only where something is sampled.

    Args:
        model: Identity of the model, without names and paths.
        clip: Content key of the clip, perturbations and controls included.
        transcript: What is spoken: text oracles read it.
        prompt: Text beside the audio.
        decoding: Length, temperature, top-p.
        seed: Of this request.
    """
    counted = None if decoding.greedy else seed
    return sha256_json([dict(model), clip, transcript, prompt, asdict(decoding), counted])


class AnswerCache:
    """Answers by key in one SQLite file.

    Raises:
        UserError: the file is not such a cache, or cannot be written.
        RbaError: the disk is full, or another process does not release the file. All methods raise these.
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
        """The answers that are in the cache; what cannot be read as an answer is asked again and overwritten."""
        query = "SELECT answer FROM answers WHERE key = ?"
        try:
            rows = {key: self._connection.execute(query, (key,)).fetchone() for key in keys}
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        answers = {}
        for key, row in rows.items():
            try:
                answer = Generation(**json.loads(row[0])) if row and isinstance(row[0], str | bytes) else None
            except (ValueError, TypeError, RecursionError):  # no JSON, or other fields
                answer = None
            if answer is not None and isinstance(answer.text, str):
                answers[key] = answer
        return answers

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

    def __exit__(self, *_: object) -> None:
        self.close()


def answer_all(plan: RunPlan, request: EvalRequest, lm: harness.RbaSpeechLM) -> None:
    """Answer what no earlier attempt has answered; this process's share of it under data parallelism."""
    requests = harness.build_requests(plan.task, request.limit, lm)
    lm.barrier()  # every process has looked for the record
    if lm.rank == 0:
        forget_unanswered(plan.folder)
    lm.barrier()
    answered = {sample.doc_id for file in sample_files(plan.folder) for sample in read_samples(file)}
    done = {planned.index for planned in requests if planned.doc_id in answered}
    if done:
        say(f"{plan.spec.name}: resuming, {len(done)} of {len(requests)} items are answered")

    def path(name: str) -> Path:
        stem, _, suffix = name.rpartition(".")
        return plan.folder / (name if lm.world_size == 1 else f"{stem}.rank-{lm.rank}.{suffix}")

    with (
        JsonlAppender(path(SAMPLES_FILE)) as samples,
        JsonlAppender(path(records.TIMING_FILE)) as timing,
        AnswerCache(request.out / FILE) as cache,
        bar(plan.spec.name, len(requests), len(done), "items") as advance,
    ):
        writer = _AnswerWriter(plan, requests, cache, samples)
        if request.use_cache:
            recalled = writer.recall([planned for planned in requests if planned.index not in done])
            done |= recalled
            advance(len(recalled))
        observed: dict[str, list[str]] = {}
        for batch in lm.stream(requests, done):
            writer.keep(batch.answers)
            answers = [requests[a.index] for a in batch.answers if a.generation.status not in UNANSWERED]
            cost: dict[str, Any] = {
                "doc_ids": [planned.doc_id for planned in answers],
                "audio_s": round(sum(planned.duration for planned in answers), 4),
                "wall_s": round(batch.wall_s, 6),
                "io_s": round(batch.io_s, 6),
                "stages": {name: round(spent, 6) for name, spent in batch.stages.items()},
            }
            before, observed = observed, lm.model.observed()
            timing.write(cost | {"observed": observed} if observed != before else cost)
            advance(len(batch.answers))
    lm.barrier()


class _AnswerWriter:
    """Writes answers to the cache of all runs, and as scored samples of this run."""

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
        self._write_samples(answers)

    def recall(self, waiting: Sequence[PlannedRequest]) -> set[int]:
        """Write the samples whose answers other runs have left; returns their positions."""
        recalled: set[int] = set()
        for start in range(0, len(waiting), LOOKUPS_AT_ONCE):
            keys = {self._key(planned): planned for planned in waiting[start : start + LOOKUPS_AT_ONCE]}
            answers = [keys[key].answer(generation) for key, generation in self.cache.find(keys).items()]
            self._write_samples(answers)
            recalled |= {answer.index for answer in answers}
        if recalled:
            say(f"{self.name}: {len(recalled)} answers are known from other runs")
        return recalled

    def _key(self, planned: PlannedRequest) -> str:
        decoding, transcript = planned.settings.decoding, spoken_text(planned.audio)
        return answer_key(self.model, planned.key, transcript, planned.prompt, decoding, planned.seed)

    def _write_samples(self, answers: Sequence[Answer]) -> None:
        planned = [self.requests[answer.index] for answer in answers]
        lines = [
            _sample(self.docs[request.doc_id], request, answer).values()
            for request, answer in zip(planned, answers, strict=True)
        ]
        if lines:
            self.samples.write(*lines)


def _sample(doc: Mapping[str, Any], planned: PlannedRequest, answer: Answer) -> Sample:
    unscored = answer.generation.status in records.UNSCORED
    score = ItemScore() if unscored else scoring.score_item(doc, answer.text)
    status: records.Status = answer.status
    if status == "ok" and is_blank(answer.text):
        status = "empty"
    elif status == "ok" and score.failure:
        status = "judge_failed"
    own = doc["audio"]["sha256"]
    played = planned.audio.get("sha256", own) if isinstance(planned.audio, Mapping) else own
    return Sample(
        **{name: doc[name] for name in _SHARED},
        doc_id=planned.doc_id,
        audio_sha256=own,
        played_sha256="" if played == own else played,
        prompt=planned.prompt,
        response=answer.generation.text,
        extracted=answer.text,
        heard=answer.generation.heard,
        reasoning=answer.generation.reasoning,
        scores=score.scores,
        judge=score.judge,
        status=status,
        error=answer.generation.error or score.failure,
        n_tokens=answer.generation.n_tokens,
        seed=answer.seed,
    )


def unscored_sample(index: int, doc: Mapping[str, Any], response: str, prompt: str) -> Sample:
    """A sample of an answer that does not come from a run: nothing scored, nothing timed."""
    return Sample(
        **{name: doc[name] for name in _SHARED},
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


def sample_files(folder: Path) -> list[Path]:
    """The samples of a run, of all processes."""
    return sorted(folder.glob("samples*.jsonl"))


def forget_unanswered(folder: Path) -> None:
    """Drop the items that were not answered, so that they are asked again, and the record that counts them.

    Answers on which a judge gave no verdict stay, without the failure of the judge, which is asked again.
    """
    (folder / records.RUN_FILE).unlink(missing_ok=True)
    (folder / records.ATTESTATION_FILE).unlink(missing_ok=True)  # it was of that record
    for file in sample_files(folder):
        samples = read_samples(file)
        answered = [sample for sample in samples if sample.status not in UNANSWERED]
        for place, sample in enumerate(answered):
            entries = [entry or {} for entry in (sample.judge or {}).values()]
            failed = any("failures" in vote for entry in entries for vote in entry.get("votes") or ())
            if sample.status == "judge_failed" and failed:
                answered[place] = sample.model_copy(update={"status": "ok", "error": "", "judge": None})
        if answered != samples:
            write_atomic(file, (sample.line() for sample in answered))


def write_samples(folder: Path, samples: Sequence[Sample]) -> None:
    """All samples of a finished run in one file, in the order of the test set; files of single processes go."""
    write_atomic(folder / SAMPLES_FILE, (sample.line() for sample in samples))
    for file in sample_files(folder):
        if file.name != SAMPLES_FILE:
            os.remove(file)


def read_all_samples(folder: Path) -> list[Sample]:
    """What has been answered so far by all processes, in the order of the test set."""
    by_doc = {sample.doc_id: sample for file in sample_files(folder) for sample in read_samples(file)}
    return [by_doc[doc_id] for doc_id in sorted(by_doc)]


def summarise_timing(folder: Path, judge_s: float) -> records.Timing:
    """Cost of answering, from the timing files of all processes; they ran side by side, so the slowest counts."""
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
    total = max(sum(seconds.values()), 1e-9)
    return records.Timing(
        generation_s=round(wall, 3),
        audio_s=round(audio, 3),
        rtfx=round(audio / max(wall, 1e-9), 3),
        samples_per_s=round(n / max(wall, 1e-9), 3),
        seconds={name: round(spent, 3) for name, spent in seconds.items()},
        shares={name: round(spent / total, 4) for name, spent in seconds.items()},
    )


def observed_facts(folder: Path) -> dict[str, list[str]]:
    """What a server has said of the model behind it, over all attempts and processes; {} for other models."""
    facts: dict[str, set[str]] = {}
    for file in sorted(folder.glob("timing*.jsonl")):
        for batch in read_jsonl(file):
            for key, values in (batch.get("observed") or {}).items():
                facts.setdefault(key, set()).update(values)
    return {key: sorted(values) for key, values in sorted(facts.items())}

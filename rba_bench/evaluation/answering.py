"""Answers every item of a plan once, and keeps each answer the moment it exists."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.evaluation import clip_input, harness, scoring
from rba_bench.evaluation.answer_cache import FILE as CACHE_FILE
from rba_bench.evaluation.answer_cache import AnswerCache, answer_key
from rba_bench.evaluation.asking import Answer, Answered, Planned
from rba_bench.evaluation.plan import Plan, identifying
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
from rba_bench.evaluation.request import EvalRequest
from rba_bench.files import JsonlAppender, read_jsonl, write_atomic
from rba_bench.metrics.text import is_blank
from rba_bench.progress import bar, say

RECALLED_AT_ONCE = 500
_COPIED = (
    "id", "kind", "group", "cluster", "duration", "instruction", "source_lang", "target_lang", "references",
    "baseline", "extra",
)  # fmt: skip


def answer_all(plan: Plan, request: EvalRequest, lm: harness.RbaSpeechLM) -> None:
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
        AnswerCache(request.out / CACHE_FILE) as cache,
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
            cost, said, before = _cost(requests, together), _observed(lm), said
            clock.write(cost | {"observed": said} if said != before else cost)
            advance(len(together.answers))
    lm.barrier()


class _Keeper:
    """Puts answers where they are found again: in the cache of all runs, and as scored samples of this one."""

    def __init__(
        self, plan: Plan, requests: Sequence[Planned], cache: AnswerCache, samples: JsonlAppender
    ) -> None:
        self.model = identifying(plan.model)
        self.docs = plan.task.eval_docs
        self.name = plan.spec.name
        self.requests = requests
        self.cache = cache
        self.samples = samples

    def keep(self, answers: Sequence[Answer]) -> None:
        """New answers."""
        self.cache.keep({self._key(self.requests[a.index]): a.generation for a in answers})
        self._write(answers)

    def recall(self, open_: Sequence[Planned]) -> set[int]:
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

    def _key(self, one: Planned) -> str:
        spoken = clip_input.transcript(one.audio)
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


def kept_samples(folder: Path) -> list[Sample]:
    """What has been answered so far by all processes, in the order of the test set."""
    found = {sample.doc_id: sample for file in sample_files(folder) for sample in read_samples(file)}
    return [found[doc_id] for doc_id in sorted(found)]


def timing(folder: Path, judge_s: float) -> Timing:
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


def observed(folder: Path) -> dict[str, list[str]]:
    """What a server has said of the model behind it, over all attempts and processes; {} for other models."""
    found: dict[str, dict[str, None]] = {}
    for file in sorted(folder.glob("timing*.jsonl")):
        for batch in read_jsonl(file):
            for key, values in (batch.get("observed") or {}).items():
                found.setdefault(key, {}).update(dict.fromkeys(values))
    return {key: sorted(values) for key, values in sorted(found.items())}


def _observed(lm: harness.RbaSpeechLM) -> dict[str, list[str]]:
    """What only a server's answers tell of the model behind it, so far in this process."""
    said: dict[str, list[str]] = getattr(lm.model, "observed", dict)()
    return said


def unscored(index: int, doc: Mapping[str, Any], response: str, prompt: str) -> Sample:
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


def _sample(doc: Mapping[str, Any], one: Planned, answer: Answer) -> Sample:
    unscored = answer.generation.status in UNSCORED
    scored = scoring.ItemScore({}) if unscored else scoring.score_item(doc, answer.text)
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
        error=answer.generation.error or scored.judge_failed,
        n_tokens=answer.generation.n_tokens,
        seed=answer.seed,
    )


def _status(answer: Answer, scored: scoring.ItemScore) -> Status:
    if answer.status != "ok":
        return answer.status
    if is_blank(answer.text):
        return "empty"
    return "judge_failed" if scored.judge_failed else "ok"


def _cost(requests: Sequence[Planned], together: Answered) -> dict[str, Any]:
    answered = [requests[a.index] for a in together.answers if a.generation.status not in UNANSWERED]
    return {
        "doc_ids": [one.doc_id for one in answered],
        "audio_s": round(sum(one.duration for one in answered), 4),
        "wall_s": round(together.wall_s, 6),
        "io_s": round(together.io_s, 6),
        "stages": {name: round(spent, 6) for name, spent in together.stages.items()},
    }

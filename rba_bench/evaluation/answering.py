"""Answers every item of a plan once, and keeps each answer the moment it exists."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rba_bench.evaluation import harness, scoring
from rba_bench.evaluation.answer_cache import FILE as CACHE_FILE
from rba_bench.evaluation.answer_cache import AnswerCache, answer_key
from rba_bench.evaluation.plan import Plan, identifying
from rba_bench.evaluation.records import SAMPLES_FILE, TIMING_FILE, Sample, Status, Timing, read_samples
from rba_bench.evaluation.request import EvalRequest
from rba_bench.files import JsonlAppender, read_jsonl, write_atomic
from rba_bench.progress import bar, say

_COPIED = (
    "id", "kind", "group", "cluster", "duration", "instruction", "source_lang", "target_lang", "references",
    "baseline", "extra",
)  # fmt: skip


def answer_all(plan: Plan, request: EvalRequest, lm: harness.RbaSpeechLM) -> None:
    """Answer what no earlier attempt has answered; this process's share of it under data parallelism."""
    requests = harness.build_requests(plan.task, request.limit, lm)
    if request.retry_errors and lm.rank == 0:
        forget_errors(plan.folder)
    lm.barrier()
    answered = {sample.doc_id for file in sample_files(plan.folder) for sample in read_samples(file)}
    done = {index for index, one in enumerate(requests) if one.doc_id in answered}
    if done:
        say(f"{plan.spec.name}: resuming, {len(done)} of {len(requests)} items are answered")
    rank = "" if lm.world_size == 1 else f".rank-{lm.rank}"
    with (
        JsonlAppender(plan.folder / _ranked(SAMPLES_FILE, rank)) as out,
        JsonlAppender(plan.folder / _ranked(TIMING_FILE, rank)) as clock,
        AnswerCache(request.out / CACHE_FILE) as cache,
        bar(plan.spec.name, len(requests), len(done), "items") as advance,
    ):
        keys = _keys(plan, requests, lm)
        if request.use_cache:
            done |= _from_cache(plan, requests, lm, done, keys, cache, out)
            advance(len(done) - len(answered & {one.doc_id for one in requests}))
        for together in lm.stream(requests, frozenset(done)):
            cache.keep({keys[answer.index]: answer.generation for answer in together.answers})
            out.write(*(_sample(requests[answer.index], answer).values() for answer in together.answers))
            clock.write(_cost(requests, together))
            advance(len(together.answers))
    lm.barrier()


def sample_files(folder: Path) -> list[Path]:
    """The samples of a run, of all processes."""
    return sorted(folder.glob("samples*.jsonl"))


def forget_errors(folder: Path) -> None:
    """Drop the samples that could not be answered, so that they are asked again."""
    for file in sample_files(folder):
        kept = [sample for sample in read_samples(file) if sample.status != "error"]
        write_atomic(file, "".join(sample.line() for sample in kept))


def write_samples(folder: Path, samples: Sequence[Sample]) -> None:
    """All samples of a finished run in one file, in the order of the test set; files of single processes go."""
    write_atomic(folder / SAMPLES_FILE, "".join(sample.line() for sample in samples))
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
        status="ok" if response.strip() else "empty",
        n_tokens=0,
        seed=0,
    )


def _ranked(name: str, rank: str) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{stem}{rank}.{ending}"


def _keys(plan: Plan, requests: Sequence[Any], lm: harness.RbaSpeechLM) -> list[str]:
    model = identifying(plan.model)
    return [
        answer_key(
            model,
            planned.key,
            one.doc["instruction"],
            planned.prompt,
            planned.settings.decoding,
            planned.seed,
        )
        for planned, one in zip(lm.plan(requests), requests, strict=True)
    ]


def _from_cache(
    plan: Plan,
    requests: Sequence[Any],
    lm: harness.RbaSpeechLM,
    done: set[int],
    keys: Sequence[str],
    cache: AnswerCache,
    out: JsonlAppender,
) -> set[int]:
    """Write the samples whose answers other runs have left; their positions."""
    open_ = [index for index in range(len(requests)) if index not in done]
    known = cache.find(keys[index] for index in open_)
    planned = {plan.index: plan for plan in lm.plan(requests)} if known else {}
    found = [index for index in open_ if keys[index] in known]
    samples = [_sample(requests[i], planned[i].answer(known[keys[i]])) for i in found]
    if samples:
        out.write(*(sample.values() for sample in samples))
        say(f"{plan.spec.name}: {len(samples)} answers are known from other runs")
    return set(found)


def _sample(request: Any, answer: harness.Answer) -> Sample:
    doc: Mapping[str, Any] = request.doc
    scored = scoring.score_item(doc, answer.text)
    return Sample(
        **{name: doc[name] for name in _COPIED},
        doc_id=request.doc_id,
        audio_sha256=doc["audio"]["sha256"],
        prompt=request.args[0],
        response=answer.generation.text,
        extracted=answer.text,
        heard=answer.generation.heard,
        scores=scored.scores,
        judge=scored.judge,
        status=_status(answer, scored),
        error=answer.generation.error or scored.judge_failed,
        n_tokens=answer.generation.n_tokens,
        seed=answer.seed,
    )


def _status(answer: harness.Answer, scored: scoring.ItemScore) -> Status:
    if answer.generation.status != "ok":
        return answer.generation.status
    if not answer.text.strip():
        return "empty"
    return "judge_failed" if scored.judge_failed else "ok"


def _cost(requests: Sequence[Any], together: harness.Answered) -> dict[str, Any]:
    docs = [requests[answer.index] for answer in together.answers]
    return {
        "doc_ids": [one.doc_id for one in docs],
        "audio_s": round(sum(one.doc["duration"] for one in docs), 4),
        "wall_s": round(together.wall_s, 6),
        "io_s": round(together.io_s, 6),
        "stages": {name: round(spent, 6) for name, spent in together.stages.items()},
    }

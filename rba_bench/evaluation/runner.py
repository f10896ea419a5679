"""`rba-bench eval`: answer every item once, keep each answer the moment it exists, score from what was kept.

A run lives in `<out>/<model>/<run id>/`. The run id hashes task, protocol, model weights, data, seed and limit, so
the same command finds its half-finished run again and goes on, and a change of anything starts another one beside it.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rba_bench.errors import UserError
from rba_bench.evaluation import environment, harness, registry, scoring
from rba_bench.evaluation.checkpoints import training_note
from rba_bench.evaluation.decoding import DEFAULT_SEED, Settings, settings
from rba_bench.evaluation.documents import fingerprint
from rba_bench.evaluation.protocol import protocol_hash, protocol_spec
from rba_bench.evaluation.records import (
    RUN_FILE,
    SAMPLES_FILE,
    STATUSES,
    RunRecord,
    Sample,
    Status,
    Timing,
    read_record,
    read_samples,
)
from rba_bench.files import JsonlAppender, sha256_file, sha256_json, write_atomic, write_json
from rba_bench.metrics.bootstrap import SEED as BOOTSTRAP_SEED
from rba_bench.progress import bar, say

UNIDENTIFYING = (
    "spec",
    "run",
    "training",
)  # of a model: what it is called and how it came about, not what it is
SCORER = "rba_bench.evaluation.hooks.score"


@dataclass(frozen=True)
class EvalRequest:
    """What to evaluate.

    Attributes:
        tasks: Task names, benchmark names or YAML paths; see `registry.resolve`.
        model: Checkpoint folder, or `base`, `text`, `cascade`, `constant`.
        track: `micro` or `full`.
        out: Folder of the run records.
        limit: Only the first items of each task; marks the records as partial.
        decodings: Protocols to run for benchmarks given by short name.
        seed: Base seed of sampled decoding.
        batch_size: Clips per batch.
        device: Torch device; by default a GPU if there is one.
    """

    tasks: tuple[str, ...]
    model: str
    track: str = "micro"
    out: Path = Path("runs/eval")
    limit: int | None = None
    decodings: tuple[str, ...] = registry.DECODINGS
    seed: int = DEFAULT_SEED
    batch_size: int = harness.BATCH_SIZE
    device: str | None = None


@dataclass(frozen=True)
class _Plan:
    """One task of a request with all that its run id is made from."""

    spec: registry.TaskSpec
    settings: Settings
    protocol: dict[str, Any]
    data: dict[str, Any]
    model: dict[str, Any]
    limit: int | None
    run_id: str
    folder: Path


def evaluate(request: EvalRequest) -> list[RunRecord]:
    """Run every task of a request, resuming what is half done and returning what is finished.

    Raises:
        UserError: unknown task, bad limit, a damaged file.
        MissingPrerequisite: model or data absent.
    """
    if request.limit is not None and request.limit <= 0:
        raise UserError(f"--limit must be at least 1, not {request.limit}")
    specs = registry.resolve(request.tasks, request.track, request.decodings)
    lm = harness.RbaSpeechLM(request.model, request.batch_size, request.device)
    identity = model_identity(lm, request.model)
    return [_evaluate_task(spec, request, lm, identity) for spec in specs]


def _evaluate_task(
    spec: registry.TaskSpec, request: EvalRequest, lm: harness.RbaSpeechLM, identity: dict[str, Any]
) -> RunRecord:
    task = harness.load_task(spec.path, request.seed)
    if spec.config.get("process_results") != SCORER:
        raise UserError(
            f"{spec.path} is not scored by {SCORER}: run it with `lm_eval --model {harness.MODEL_NAME}`"
        )
    plan = _plan(spec, task, request, identity)
    if (plan.folder / RUN_FILE).is_file():
        say(f"{spec.name}: already done, {plan.folder}")
        return read_record(plan.folder)
    requests = harness.build_requests(task, request.limit, lm)
    _answer_all(plan, requests, lm)
    if lm.rank == 0:
        _join_parts(plan.folder)
        record = _record(plan, lm, read_samples(plan.folder))
        write_json(plan.folder / RUN_FILE, record.model_dump(mode="json"))
    lm.barrier()
    return read_record(plan.folder)


def _plan(spec: registry.TaskSpec, task: Any, request: EvalRequest, identity: dict[str, Any]) -> _Plan:
    docs = list(task.eval_docs)
    chosen = settings(task.get_config("generation_kwargs"))
    protocol = protocol_spec(spec, chosen, docs)
    data = fingerprint(docs, str((spec.config.get("dataset_kwargs") or {}).get("testset") or "local"))
    limit = request.limit if request.limit is not None and request.limit < len(docs) else None
    key = {
        "protocol": protocol_hash(protocol),
        "model": {name: value for name, value in identity.items() if name not in UNIDENTIFYING},
        "data": [data["items_sha256"], data["audio_set_sha256"]],
        "limit": limit,
        "seed": None if chosen.decoding.temperature == 0 else chosen.seed,
    }
    run_id = f"{spec.name}-{sha256_json(key)[:12]}"
    folder = request.out / _file_name(str(identity["name"])) / run_id
    return _Plan(spec, chosen, protocol, data, identity, limit, run_id, folder)


def model_identity(lm: harness.RbaSpeechLM, spec: str) -> dict[str, Any]:
    """Who answered: the model's own identity, what the user called it, and how it was trained. No absolute paths."""
    found = _without_paths(lm.model.identity())
    training = training_note(spec) if Path(spec).is_dir() else None
    return {**found, "name": lm.model.name, "spec": _relative(spec), "training": training}


def _without_paths(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_paths(value) if isinstance(value, Mapping) else value
        for key, value in identity.items()
        if key != "path"
    }


def _relative(spec: str) -> str:
    if not Path(spec).is_absolute():
        return spec
    inside = Path(spec).is_relative_to(Path.cwd())
    return str(Path(spec).relative_to(Path.cwd())) if inside else Path(spec).name


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", text).strip("-.") or "model"


def _answer_all(plan: _Plan, requests: Sequence[Any], lm: harness.RbaSpeechLM) -> None:
    """Answer what no earlier attempt has answered, appending every batch to the samples of this rank."""
    answered = {sample["doc_id"] for sample in _kept(plan.folder)}
    done = frozenset(index for index, request in enumerate(requests) if request.doc_id in answered)
    if done:
        say(f"{plan.spec.name}: resuming, {len(done)} of {len(requests)} items are answered")
    file = plan.folder / (SAMPLES_FILE if lm.world_size == 1 else f"samples.rank-{lm.rank}.jsonl")
    with bar(plan.spec.name, len(requests), len(done), "items") as advance, JsonlAppender(file) as out:
        for batch in lm.stream(requests, done):
            samples = [_sample(requests[answer.index], answer) for answer in batch]
            out.write(*(sample.model_dump(mode="json") for sample in samples))
            advance(len(batch))
    lm.barrier()


def _kept(folder: Path) -> list[dict[str, Any]]:
    return [sample.model_dump() for file in _sample_files(folder) for sample in read_samples(file)]


def _sample_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("samples*.jsonl"))


def _join_parts(folder: Path) -> None:
    """After a data-parallel run: one `samples.jsonl` from the files of all ranks."""
    files = _sample_files(folder)
    if files == [folder / SAMPLES_FILE]:
        return
    samples = {sample.doc_id: sample for file in files for sample in read_samples(file)}
    lines = (samples[doc_id].model_dump_json() + "\n" for doc_id in sorted(samples))
    write_atomic(folder / SAMPLES_FILE, "".join(lines))
    for file in files:
        if file.name != SAMPLES_FILE:
            os.remove(file)


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
        scores=scored.scores,
        judge=scored.judge,
        status=_status(answer, scored),
        error=answer.generation.error or scored.judge_failed,
        n_tokens=answer.generation.n_tokens,
        seed=answer.seed,
        latency_s=round(answer.latency_s, 6),
    )


_COPIED = (
    "id", "kind", "group", "cluster", "duration", "instruction", "source_lang", "target_lang", "references", "baseline",
)  # fmt: skip


def _status(answer: harness.Answer, scored: scoring.ItemScore) -> Status:
    if answer.generation.status != "ok":
        return answer.generation.status
    if not answer.text.strip():
        return "empty"
    return "judge_failed" if scored.judge_failed else "ok"


def _record(plan: _Plan, lm: harness.RbaSpeechLM, samples: Sequence[Sample]) -> RunRecord:
    expected = plan.limit or plan.data["n_items"]
    if len(samples) != expected:
        raise UserError(
            f"{plan.folder} holds {len(samples)} samples, expected {expected}: remove it and run again"
        )
    return RunRecord(
        run_id=plan.run_id,
        task=plan.spec.name,
        task_version=plan.spec.version,
        benchmark=plan.spec.benchmark,
        track=plan.spec.track,
        protocol=plan.settings.protocol,
        protocol_hash=protocol_hash(plan.protocol),
        protocol_spec=plan.protocol,
        decoding=asdict(plan.settings.decoding),
        judge=plan.protocol["judge"],
        data=plan.data,
        model=plan.model,
        seeds={"generation": plan.settings.seed, "bootstrap": BOOTSTRAP_SEED},
        n=len(samples),
        limit=plan.limit,
        partial=plan.limit is not None,
        metrics=scoring.summarise(samples),
        statuses=status_counts(samples),
        timing=_timing(samples),
        hardware=environment.hardware(lm.device_name),
        versions=environment.versions(),
        samples_sha256=sha256_file(plan.folder / SAMPLES_FILE),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def status_counts(samples: Sequence[Sample]) -> dict[str, int]:
    """Number of samples of every status, zeros included."""
    counts = Counter(sample.status for sample in samples)
    return {status: counts[status] for status in STATUSES}


def _timing(samples: Sequence[Sample]) -> Timing:
    wall = max(sum(sample.latency_s for sample in samples), 1e-9)
    audio = sum(sample.duration for sample in samples)
    return Timing(
        generation_s=round(wall, 3),
        audio_s=round(audio, 3),
        rtfx=round(audio / wall, 3),
        samples_per_s=round(len(samples) / wall, 3),
    )

"""How a record says that it came about: its model, its dates, its speed. What of it cannot be is a fault.

Most of this nobody can know. Some of it contradicts itself, or the weights and the clips that everybody has.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from rba_bench.errors import MissingPrerequisite
from rba_bench.evaluation.records import UNANSWERED, RunRecord, Timing, check_hash
from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.leaderboard.load import Run
from rba_bench.leaderboard.references import CEILING, MODEL, REFERENCES, kind_of
from rba_bench.plain import plain
from rba_bench.speechlm.load import BUILT_IN, shipped_weights
from rba_bench.textlm.weights import weights_sha256

IDENTIFIED = {
    "text-oracle": CEILING,
    "cascade": "cascade",
    "constant": "constant",
}  # kind of an identity: of a row
FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
AHEAD = timedelta(days=366)  # a clock may be wrong, but not by that much
ROUNDING = 0.0005  # of seconds in a record
_SHOWN = 3


def of_model(run: Run) -> Iterator[str]:
    """What the model says of itself: whether it may be ranked, what it is called, and whether its hashes fit."""
    model = run.record.model
    try:
        check_hash(model.get("weights_sha256"), "model.weights_sha256")
    except ValueError as error:
        yield str(error)
    kind, spec = model.get("kind"), str(model["spec"])
    if not isinstance(kind, str) or kind_of(run) != IDENTIFIED.get(kind, MODEL):
        yield f"model.spec {plain(spec)} is not that of a model of kind {plain(kind)}"
    if served(model) and not _asks_server(spec):
        yield f"model.spec {plain(spec)} names no server, yet the model's identity does"
    yield from _name(run)
    yield from _training(model)
    yield from _weights(model)
    if kind == "constant":
        odd = [s.id for s in run.samples if s.status not in UNANSWERED and s.response != model.get("answer")]
        if odd:
            yield f"{len(odd)} answers are not the constant one (first: {plain(odd[0])})"


def served(model: Mapping[str, Any]) -> bool:
    """Whether a server has a part in the model."""
    text = model.get("text")
    through = isinstance(text, Mapping) and text.get("kind") == "endpoint"
    reads = model.get("kind") == "text-oracle" and "url" in model
    return model.get("kind") == "endpoint" or reads or through


def of_dates(record: RunRecord) -> Iterator[str]:
    """When it was made and scored again, in this order, and not in times to come."""
    try:
        made = datetime.fromisoformat(record.created)
        scored = [datetime.fromisoformat(each.at) for each in record.rescored]
    except ValueError:
        yield f"created {record.created}, or a date of rescored, is no date"
        return
    latest = datetime.now(UTC) + AHEAD
    if not FIRST_DAY <= made <= latest:
        yield f"created {record.created} cannot be"
    if scored and (sorted([made, *scored]) != [made, *scored] or scored[-1] > latest):
        yield "rescored has dates that are out of order, before the answers, or in times to come"
    versions = [
        _number(version) for version in (*(r.from_version for r in record.rescored), record.task_version)
    ]
    if versions != sorted(versions):
        yield "rescored goes from a later version of the task to an earlier one"


def of_timing(run: Run, clips_in_pairs: bool) -> Iterator[str]:
    """Times that contradict each other, or the length of the clips."""
    timing = run.record.timing
    numbers = [
        timing.generation_s,
        timing.audio_s,
        timing.rtfx,
        timing.samples_per_s,
        *timing.seconds.values(),
    ]
    if min(numbers) < 0:
        yield "timing holds negative numbers"
        return
    wall = (max(timing.generation_s - ROUNDING, 1e-9), timing.generation_s + ROUNDING)
    low, high = (timing.audio_s - ROUNDING) / wall[1], (timing.audio_s + ROUNDING) / wall[0]
    if not low - ROUNDING <= timing.rtfx <= high + ROUNDING:
        yield f"rtfx {timing.rtfx} is not {timing.audio_s} s of audio in {timing.generation_s} s"
    answers = (timing.samples_per_s + ROUNDING) * wall[1]
    if timing.samples_per_s * wall[0] > 2 * run.record.n + 1:
        yield "samples_per_s counts more answers than there are items"
    durations = [sample.duration for sample in run.samples]
    again = max(0.0, answers - run.record.n)  # items asked twice, after a failure
    longest = sum(durations) + again * max(durations, default=0.0)
    if not clips_in_pairs and timing.audio_s > 1.01 * longest + 1:
        yield f"audio_s {timing.audio_s} is more than the {sum(durations):.1f} s of its clips"
    yield from _stages(timing)


def _stages(timing: Timing) -> Iterator[str]:
    """Stages are parts of the wall time: of one process they make it up, of several they are more."""
    whole = sum(timing.seconds.values())
    slack = ROUNDING * (len(timing.seconds) + 1)
    if timing.seconds and whole - timing.seconds.get("judge", 0.0) < timing.generation_s - slack:
        yield f"its stages take less time than the {timing.generation_s} s that answering took"
    if whole <= 0:
        return
    parts = {name: spent / whole for name, spent in timing.seconds.items()}
    close = 0.001 + slack / whole
    if parts.keys() != timing.shares.keys() or not all(
        math.isclose(timing.shares[name], part, abs_tol=close) for name, part in parts.items()
    ):
        yield "shares of time are not those of its seconds"


def _asks_server(spec: str) -> bool:
    """Whether a spec names a server: as the model, or as the text LLM of a reference."""
    head, _, rest = spec.partition(":")
    llm = rest.partition("+")[2] if head == "cascade" else rest if head == "text" else spec
    return llm.startswith("openai:")


def _name(run: Run) -> Iterator[str]:
    """No model may be called what a reference is called; a built-in one is called by its own name."""
    model, spec = run.record.model, str(run.record.model["spec"])
    stem = str(model["name"]).partition("+")[0]  # behind it: variables of the chat template
    if spec in BUILT_IN and stem != spec:
        yield f"the model {spec} is called {run.name}"
    elif kind_of(run) == MODEL and plain(model["name"]).strip().casefold() in REFERENCES:
        yield f"a model is called {run.name}, as a reference is"


def _training(model: Mapping[str, Any]) -> Iterator[str]:
    """The note of a checkpoint, its copy in the identity, and the recipe in it must agree."""
    training, trained = (model.get(key) or {} for key in ("training", "run"))
    recipe = training.get("recipe") or {}
    odd = {key for key in training.keys() & trained.keys() if training[key] != trained[key]}
    if odd:
        yield f"model.training and model.run differ in {plain(', '.join(sorted(odd)[:_SHOWN]))}"
    named = ("method", "track", "base", "seed")
    if odd := {key for key in named if key in training and key in recipe and training[key] != recipe[key]}:
        yield f"model.training and its recipe differ in {plain(', '.join(sorted(odd)))}"


def _weights(model: Mapping[str, Any]) -> Iterator[str]:
    """Hashes that follow from the rest of the identity, or that everybody has."""
    weights, kind = model.get("weights_sha256"), model.get("kind")
    parts = [part for part in (model, model.get("text")) if isinstance(part, Mapping) and "url" in part]
    for part in parts:
        if part.get("weights_sha256") != sha256_json([part["url"], part.get("model")]) or part.get(
            "weights_known", True
        ):
            yield "the hash that stands for a server's weights is not that of its address and model"
    wanted = weights
    if kind == "constant":
        wanted = sha256_bytes(str(model.get("answer")).encode())
    elif kind == "cascade":
        wanted = sha256_json([model.get("asr_sha256"), (model.get("text") or {}).get("weights_sha256")])
    if weights != wanted:
        yield f"weights_sha256 is not that of this {kind}"
    reader = model.get("text") if kind == "cascade" else model
    built_in = model["spec"] in ("text", "cascade") and isinstance(reader, Mapping)
    if built_in and (known := teacher_sha256()) and reader.get("weights_sha256") != known:  # type: ignore[union-attr]
        yield f"the text LLM in {plain(model['spec'])} is not the one that is shipped"


@lru_cache(maxsize=1)
def teacher_sha256() -> str:
    """Hash of the shipped teacher, which reads in `text` and `cascade`; "" where it is not on this machine."""
    try:
        return weights_sha256(shipped_weights() / "teacher")
    except MissingPrerequisite:
        return ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())

"""Checks of one record: against itself, against the task of its name, and against the test set where it is at hand.

A record states how it was made: its model, dates, speed, seeds, items. Most of this nobody can verify, but some of it
can contradict itself, or the weights and clips that everybody has. Faults are sentences; the scores are checked in
`recompute`.
"""

import math
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from rba_bench.assets import weights_folder
from rba_bench.errors import MissingPrerequisite
from rba_bench.evaluation import outcomes
from rba_bench.evaluation.model_input import read_generation_settings, scored_part
from rba_bench.evaluation.plan import protocol_hash, protocol_spec, recorded_run_id
from rba_bench.evaluation.records import UNANSWERED, UNSCORED, RunRecord, check_hash
from rba_bench.evaluation.task_registry import TaskSpec
from rba_bench.files import sha256_bytes, sha256_json
from rba_bench.leaderboard import item_facts
from rba_bench.leaderboard.loaded_runs import CEILING, MODEL, REFERENCES, LoadedRun, kind_of_run
from rba_bench.leaderboard.played_checks import as_written_now, check_played, items_of_other_seeds
from rba_bench.leaderboard.recompute import SHOWN, items_fault
from rba_bench.leaderboard.test_sets import LocalTestSet, has_paired_clips
from rba_bench.metrics.bootstrap import SEED as BOOTSTRAP_SEED
from rba_bench.speechlm.model_names import BUILT_IN
from rba_bench.textlm.weights import weights_sha256
from rba_bench.untrusted import MARK, plain, printable

KINDS = {"text-oracle": CEILING, "cascade": "cascade", "constant": "constant"}  # of an identity: of a row
FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
CLOCK_ERROR = timedelta(days=366)  # a clock may be wrong, but not by that much
ROUNDING = 0.0005  # of seconds in a record
WITHOUT_TRANSCRIPT = ("composite", "transformers", "text-oracle", "constant", "endpoint")  # kinds of a model


def version_fault(record: RunRecord, spec: TaskSpec | None, folder: object) -> str:
    """Why a record cannot be compared with the task as it is now, "" if it can."""
    if spec is None or record.task_version == spec.version:
        return ""
    is_older = _version_numbers(record.task_version) < _version_numbers(spec.version)
    fix = f"rba-bench rescore {folder}" if is_older else "update rba-bench to verify it"
    return f"made by task version {record.task_version}, this is version {spec.version}: {fix}"


def _version_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def check_shape(run: LoadedRun) -> Iterator[str]:
    """Counts, positions, hashes, run id and seeds that must agree within the record."""
    record = run.record
    if [sample.doc_id for sample in run.samples] != list(range(record.n)):
        yield f"its samples are not items 0 to {record.n - 1} of the test set, each once"
    n_items, limit = record.data["n_items"], record.limit
    if record.partial != (limit is not None) or record.n != (limit or n_items) or record.n > n_items:
        yield f"{record.n} of {n_items} items with limit {limit} and partial {record.partial}"
    if limit is not None and limit >= n_items:
        yield f"limit {limit} cuts nothing off {n_items} items"
    if len({sample.id for sample in run.samples}) < len(run.samples):
        yield "two items have one id"
    if protocol_hash(record.protocol_spec) != record.protocol_hash:
        yield "protocol_hash is not the hash of protocol_spec"
    # a rescored record keeps the id that its first protocol gave it
    first_protocol = record.rescored[0].from_protocol if record.rescored else record.protocol_hash
    if record.run_id != recorded_run_id(record, first_protocol):
        yield "run_id does not follow from task, protocol, model, test set, limit and seed"
    if record.seeds.get("bootstrap") != BOOTSTRAP_SEED or "generation" not in record.seeds:
        yield f"seeds are {record.seeds}; intervals are drawn with {BOOTSTRAP_SEED}"


def check_content(run: LoadedRun, spec: TaskSpec | None, test_set: LocalTestSet | None) -> Iterator[str]:
    """Everything but shape and scores: model, dates, timing, protocol, items, answers."""
    paired = has_paired_clips(spec)
    yield from _check_model(run)
    yield from _check_dates(run.record)
    yield from _check_timing(run, paired)
    yield from _check_protocol(run, spec, test_set)
    yield from _check_items(run, test_set, paired)
    yield from _check_answers(run, test_set)


def _check_model(run: LoadedRun) -> Iterator[str]:
    """Whether the model may be ranked, may have its name, and whether its hashes fit."""
    model = run.record.model
    try:
        check_hash(model.get("weights_sha256"), "model.weights_sha256")
    except ValueError as error:
        yield str(error)
    kind, spec = model.get("kind"), str(model["spec"])
    if not isinstance(kind, str) or kind_of_run(run) != KINDS.get(kind, MODEL):
        yield f"model.spec {plain(spec)} is not that of a model of kind {plain(kind)}"
    head, _, rest = spec.partition(":")
    llm = rest.partition("+")[2] if head == "cascade" else rest if head == "text" else spec
    if _uses_server(model) and not llm.startswith("openai:"):
        yield f"model.spec {plain(spec)} names no server, yet the model's identity does"
    if llm.startswith("openai:") and not _uses_server(model):
        yield f"model.spec {plain(spec)} names a server, yet the model's identity does not"
    stem = str(model["name"]).partition("+")[0]  # behind it: variables of the chat template
    if spec in BUILT_IN and stem != spec:
        yield f"the model {spec} is called {run.name}"
    elif kind_of_run(run) == MODEL and _bare(str(model["name"])) in REFERENCES:
        yield f"a model is called {run.name}, as a reference is"
    training, run_note = (model.get(key) or {} for key in ("training", "run"))
    if differing := {key for key in training.keys() & run_note.keys() if training[key] != run_note[key]}:
        yield f"model.training and model.run differ in {plain(', '.join(sorted(differing)[:SHOWN]))}"
    recipe = training.get("recipe") or {}
    keys = {"method", "track", "base", "seed"} & training.keys() & recipe.keys()
    if differing := {key for key in keys if training[key] != recipe[key]}:
        yield f"model.training and its recipe differ in {plain(', '.join(sorted(differing)))}"
    yield from _check_weights(model)
    if kind == "constant":
        answered = [s for s in run.samples if s.status not in UNANSWERED]
        if others := [s.id for s in answered if s.response != model.get("answer")]:
            yield f"{len(others)} answers are not the constant one (first: {plain(others[0])})"


def _bare(name: str) -> str:
    """A name without case, without signs that cannot be seen, and with the usual form of each letter."""
    shown = printable(unicodedata.normalize("NFKC", name)).replace(MARK, "")
    return shown.strip().casefold()


def _uses_server(model: Mapping[str, Any]) -> bool:
    """Whether a server has a part in the model."""
    text = model.get("text")
    return (
        model.get("kind") == "endpoint"
        or (model.get("kind") == "text-oracle" and "url" in model)
        or (isinstance(text, Mapping) and text.get("kind") == "endpoint")
    )


def _check_weights(model: Mapping[str, Any]) -> Iterator[str]:
    """Hashes that follow from the rest of the identity, or that everybody has."""
    kind = model.get("kind")
    for part in (model, model.get("text")):
        if not isinstance(part, Mapping) or "url" not in part:
            continue
        expected = sha256_json([part["url"], part.get("model")])
        if part.get("weights_sha256") != expected or part.get("weights_known", True):
            yield "the hash that stands for a server's weights is not that of its address and model"
    weights = own_hash = model.get("weights_sha256")
    if kind == "constant":
        own_hash = sha256_bytes(str(model.get("answer")).encode())
    elif kind == "cascade":
        own_hash = sha256_json([model.get("asr_sha256"), (model.get("text") or {}).get("weights_sha256")])
    if weights != own_hash:
        yield f"weights_sha256 is not that of this {kind}"
    if model["spec"] in ("text", "cascade"):
        llm, teacher = model.get("text") if kind == "cascade" else model, teacher_sha256()
        if teacher and isinstance(llm, Mapping) and llm.get("weights_sha256") != teacher:
            yield f"the text LLM in {plain(model['spec'])} is not the one that is shipped"


@lru_cache(maxsize=1)
def teacher_sha256() -> str:
    """Hash of the shipped teacher, the LLM of `text` and `cascade`; "" where it is not on this machine."""
    try:
        return weights_sha256(weights_folder() / "teacher")
    except MissingPrerequisite:
        return ""


def _check_dates(record: RunRecord) -> Iterator[str]:
    """The record was made and scored again in this order, and not in the future."""
    try:
        created = datetime.fromisoformat(record.created)
        rescored = [datetime.fromisoformat(each.at) for each in record.rescored]
    except ValueError:
        yield f"created {record.created}, or a date of rescored, is no date"
        return
    latest = datetime.now(UTC) + CLOCK_ERROR
    if not FIRST_DAY <= created <= latest:
        yield f"created {record.created} cannot be"
    if rescored and (sorted([created, *rescored]) != [created, *rescored] or rescored[-1] > latest):
        yield "the dates of rescored are out of order, before the answers, or in the future"
    versions = [*(each.from_version for each in record.rescored), record.task_version]
    if versions != sorted(versions, key=_version_numbers):
        yield "rescored goes from a later version of the task to an earlier one"


def _check_timing(run: LoadedRun, paired_clips: bool) -> Iterator[str]:
    """Times that contradict each other, or the length of the clips."""
    timing, n = run.record.timing, run.record.n
    speed = (timing.generation_s, timing.audio_s, timing.rtfx, timing.samples_per_s)
    if min(*speed, *timing.seconds.values()) < 0:
        yield "timing holds negative numbers"
        return
    shortest, longest = max(timing.generation_s - ROUNDING, 1e-9), timing.generation_s + ROUNDING
    low, high = (timing.audio_s - ROUNDING) / longest, (timing.audio_s + ROUNDING) / shortest
    if not low - ROUNDING <= timing.rtfx <= high + ROUNDING:
        yield f"rtfx {timing.rtfx} is not {timing.audio_s} s of audio in {timing.generation_s} s"
    if timing.samples_per_s * shortest > 2 * n + 1:
        yield "samples_per_s counts more answers than there are items"
    durations = [sample.duration for sample in run.samples]
    # items answered again, after a failure
    repeated = max(0.0, (timing.samples_per_s + ROUNDING) * longest - n)
    most_audio = sum(durations) + repeated * max(durations, default=0.0)
    all_audio_known = not paired_clips and not any(sample.played_sha256 for sample in run.samples)
    if all_audio_known and timing.audio_s > 1.01 * most_audio + 1:
        yield f"audio_s {timing.audio_s} is more than the {sum(durations):.1f} s of its clips"
    # Stages are parts of the wall time: of one process they make it up, of several they are more.
    total = sum(timing.seconds.values())
    slack = ROUNDING * (len(timing.seconds) + 1)
    if timing.seconds and total - timing.seconds.get("judge", 0.0) < timing.generation_s - slack:
        yield f"its stages take less time than the {timing.generation_s} s of answering"
    if total > 0:
        shares = {name: seconds / total for name, seconds in timing.seconds.items()}
        close = 0.001 + slack / total
        if shares.keys() != timing.shares.keys() or not all(
            math.isclose(timing.shares[name], share, abs_tol=close) for name, share in shares.items()
        ):
            yield "shares of time are not those of its seconds"


def _check_protocol(run: LoadedRun, spec: TaskSpec | None, test_set: LocalTestSet | None) -> Iterator[str]:
    """The protocol against the task of this name, as its code would write it down now."""
    record, recorded = run.record, run.record.protocol_spec
    for key, value in (("task", record.task), ("version", record.task_version), ("judge", record.judge)):
        if recorded.get(key) != value:
            yield f"{key} {plain(value)} is not the one in protocol_spec"
    decoding = dict(recorded.get("decoding") or {})
    options = {key: value for key, value in decoding.items() if key not in ("name", "until")}
    if options != record.decoding or decoding.get("name") != record.protocol:
        yield "decoding and protocol are not those in protocol_spec"
    if spec is None:
        return
    for key in ("benchmark", "track", "protocol"):
        if getattr(record, key) != getattr(spec, key):
            yield f"{key} is {getattr(record, key)}, of the task it is {getattr(spec, key)}"
    kwargs = spec.config.get("dataset_kwargs") or {}
    if record.data.get("source") != (kwargs.get("source") or kwargs.get("testset") or "local"):
        yield f"data.source is {plain(record.data.get('source'))}, not that of the task"
    if "testset" in kwargs and record.data.keys() - {"source", "n_items", "items_sha256", "audio_set_sha256"}:
        yield "data says more than is known of the test set"
    generation = read_generation_settings(spec.config.get("generation_kwargs") or {})
    if record.decoding != asdict(generation.decoding):
        yield "decoding is not the task's"
    items = test_set.documents if test_set else item_facts.as_documents(run.item_facts)
    finish, baseline = recorded.get("finish") or (), recorded.get("baseline")
    expected = protocol_spec(spec, generation, items, finish, baseline=baseline, **as_written_now(recorded))
    unknown = {"prompts", "metrics"} if record.partial and not test_set else set()
    for key in sorted((expected.keys() | recorded.keys()) - unknown):
        a, b = expected.get(key), recorded.get(key)
        if a != b:
            parts = ""
            if isinstance(a, Mapping) and isinstance(b, Mapping):
                names = sorted(str(name) for name in a.keys() | b.keys() if a.get(name) != b.get(name))
                parts = f" ({plain(', '.join(names))})"
            yield f"protocol_spec.{plain(key)} is not what the task says{parts}"


def _check_items(run: LoadedRun, test_set: LocalTestSet | None, paired_clips: bool) -> Iterator[str]:
    """The hashes of the whole test set, and item by item the test set where it is on this machine."""
    record, samples = run.record, run.samples
    if not record.partial:
        fingerprint = item_facts.fingerprint(run.item_facts)
        for name in ("n_items", "items_sha256", *(() if paired_clips else ("audio_set_sha256",))):
            if fingerprint[name] != record.data[name]:
                yield f"data.{name} does not follow from its items"
    if test_set is not None:
        yield from test_set.differences(run)
    if split := item_facts.split_text(run.item_facts):
        yield f"items of one text ({split}) lie in different clusters, which narrows intervals"
    silent = [s.id for s in samples if s.duration <= 0 and s.status != "not_heard"]
    yield from items_fault("has no duration", silent)
    yield from items_fault("has fewer than no tokens", [s.id for s in samples if s.n_tokens < 0])
    faults = list(check_played(run, test_set))
    yield from faults
    if not faults and (not paired_clips or test_set is not None):
        yield from items_fault("has a seed that is not the run's", items_of_other_seeds(run, test_set))


def _check_answers(run: LoadedRun, test_set: LocalTestSet | None) -> Iterator[str]:
    """Statuses that the answers contradict."""
    samples, model = run.samples, run.record.model
    unexplained = [s.id for s in samples if s.status in UNANSWERED and not s.error.strip()]
    yield from items_fault("is not ok and gives no reason", unexplained)
    answered = [s.id for s in samples if s.status == "error" and s.response]
    yield from items_fault("is an error with an answer", answered)
    if not _uses_server(model):
        no_reply = [s.id for s in samples if s.status == "no_reply"]
        yield from items_fault("is no_reply, though the model uses no server", no_reply)
    unscored = sum(sample.status in UNSCORED for sample in samples)
    if unscored > outcomes.UNSCORED_SHARE * len(samples):
        yield f"{unscored} of {len(samples)} items were not answered, too many for a record"
    if test_set is not None:
        yield from items_fault("is not_heard, yet its clip can be decoded", test_set.decodable(run))
    if model.get("kind") in WITHOUT_TRANSCRIPT:
        transcribed = [s.id for s in samples if s.heard]
        yield from items_fault("has a transcript, which only a cascade makes", transcribed)
    if not _uses_server(model):
        yield from _check_tokens(run)


def _check_tokens(run: LoadedRun) -> Iterator[str]:
    """Counts of a model that counts its own tokens, and what only servers do."""
    samples, longest = run.samples, run.record.decoding.get("max_new_tokens")
    reasoning = [s.id for s in samples if s.reasoning]
    yield from items_fault("has separate reasoning, though the model uses no server", reasoning)
    no_tokens = [s.id for s in samples if s.extracted.strip() and s.n_tokens < 1]
    yield from items_fault("has an answer of no tokens", no_tokens)
    if not isinstance(longest, int):
        return
    stops = (run.record.protocol_spec.get("decoding") or {}).get("until") or []
    short = [s for s in samples if s.status == "truncated" and s.n_tokens < longest]
    too_short = [s.id for s in short if scored_part(s.response, stops).complete]
    yield from items_fault(f"has more than {longest} tokens", [s.id for s in samples if s.n_tokens > longest])
    yield from items_fault(f"is truncated, though it has fewer than {longest} tokens", too_short)

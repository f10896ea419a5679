"""How a record says that it came about: its model, its dates, its speed. What of it cannot be is a fault.

Most of this nobody can know. Some of it contradicts itself, or the weights and the clips that everybody has.

One record against itself, against the task of its name, and against what its samples give. Faults are sentences.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from rba_bench.assets import weights_folder
from rba_bench.errors import MissingPrerequisite
from rba_bench.evaluation import documents, outcomes
from rba_bench.evaluation.model_input import scored_part, settings
from rba_bench.evaluation.plan import identifying, protocol_hash, protocol_spec
from rba_bench.evaluation.records import UNANSWERED, UNSCORED, RunRecord, Sample, Timing, check_hash
from rba_bench.evaluation.scoring import exploits
from rba_bench.evaluation.task_registry import TaskSpec
from rba_bench.files import canonical_json, sha256_bytes, sha256_json
from rba_bench.leaderboard.loaded_runs import CEILING, MODEL, REFERENCES, Run, kind_of
from rba_bench.leaderboard.recompute import Recomputed
from rba_bench.leaderboard.test_sets import Docs, clip_key
from rba_bench.metrics.bootstrap import SEED as BOOTSTRAP_SEED
from rba_bench.seeding import stable_seed
from rba_bench.speechlm.model_names import BUILT_IN
from rba_bench.textlm.weights import weights_sha256
from rba_bench.untrusted import plain

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
        return weights_sha256(weights_folder() / "teacher")
    except MissingPrerequisite:
        return ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


TOLERANCE = 1e-6  # of scores: in units of their scale; other processors differ in the last digits
VOLATILE = ("calls", "cached", "prompt_tokens", "completion_tokens", "answered_by")
HEARS_NO_WORDS = ("composite", "transformers", "text-oracle", "constant", "endpoint")  # kinds of a model
_LISTED = 3


def of_version(record: RunRecord, spec: TaskSpec | None, place: object) -> str:
    """Why a record cannot be compared with the task as it is now, "" if it can."""
    if spec is None or record.task_version == spec.version:
        return ""
    made = f"made by task version {record.task_version}, this is version {spec.version}"
    older = _number(record.task_version) < _number(spec.version)
    return f"{made}: " + (f"rba-bench rescore {place}" if older else "update rba-bench to verify it")


def of_shape(run: Run) -> Iterator[str]:
    """Counts, positions and hashes that must agree within the record."""
    record = run.record
    if [sample.doc_id for sample in run.samples] != list(range(record.n)):
        yield f"its samples are not items 0 to {record.n - 1} of the test set, each once"
    whole = record.data["n_items"]
    if (
        record.partial != (record.limit is not None)
        or record.n != (record.limit or whole)
        or record.n > whole
    ):
        yield f"{record.n} of {whole} items with limit {record.limit} and partial {record.partial}"
    if record.limit is not None and record.limit >= whole:
        yield f"limit {record.limit} cuts nothing off {whole} items"
    ids = [sample.id for sample in run.samples]
    if len(set(ids)) < len(ids):
        yield "two items have one id"
    if protocol_hash(record.protocol_spec) != record.protocol_hash:
        yield "protocol_hash is not the hash of protocol_spec"
    yield from _run_id(record)
    if record.seeds.get("bootstrap") != BOOTSTRAP_SEED or "generation" not in record.seeds:
        yield f"seeds are {record.seeds}; intervals are drawn with {BOOTSTRAP_SEED}"


def of_protocol(run: Run, spec: TaskSpec | None, docs: Docs | None) -> Iterator[str]:
    """The protocol against the task of this name, as its code would write it down now."""
    record, stated = run.record, run.record.protocol_spec
    for key, value in (("task", record.task), ("version", record.task_version), ("judge", record.judge)):
        if stated.get(key) != value:
            yield f"{key} {plain(value)} is not the one in protocol_spec"
    decoding = {k: v for k, v in (stated.get("decoding") or {}).items() if k not in ("name", "until")}
    if decoding != record.decoding or (stated.get("decoding") or {}).get("name") != record.protocol:
        yield "decoding and protocol are not those in protocol_spec"
    if spec is None:
        return
    for key in ("benchmark", "track", "protocol"):
        if getattr(record, key) != getattr(spec, key):
            yield f"{key} is {getattr(record, key)}, of the task it is {getattr(spec, key)}"
    said = spec.config.get("dataset_kwargs") or {}
    if record.data.get("source") != (said.get("source") or said.get("testset") or "local"):
        yield f"data.source is {plain(record.data.get('source'))}, not that of the task"
    if "testset" in said and record.data.keys() - {"source", "n_items", "items_sha256", "audio_set_sha256"}:
        yield "data says more than is known of the test set"
    chosen = settings(spec.config.get("generation_kwargs") or {})
    if record.decoding != asdict(chosen.decoding):
        yield "decoding is not the task's"
    items = docs.documents if docs else [_as_document(sample) for sample in run.samples]
    perturb, baseline = stated.get("perturb"), stated.get("baseline")
    wanted = protocol_spec(spec, chosen, items, stated.get("finish") or (), _perturbation(perturb), baseline)
    unknown = {"prompts", "metrics"} if record.partial and not docs else set()
    for key in sorted((wanted.keys() | stated.keys()) - unknown):
        if wanted.get(key) != stated.get(key):
            yield f"protocol_spec.{plain(key)} is not what the task says{_parts(wanted.get(key), stated.get(key))}"


def of_items(run: Run, docs: Docs | None, clips_in_pairs: bool) -> Iterator[str]:
    """What was asked: the hashes of the whole test set, and item by item the test set where it is at hand."""
    record, samples = run.record, run.samples
    if not record.partial:
        found = documents.fingerprint([_as_document(sample) for sample in samples])
        names = ["n_items", "items_sha256"] + ([] if clips_in_pairs else ["audio_set_sha256"])
        yield from (
            f"data.{name} does not follow from its items"
            for name in names
            if found[name] != record.data[name]
        )
    if docs is not None:
        yield from docs.differences(run)
    texts: dict[tuple[str, ...], str] = {}
    for sample in samples:
        text = (sample.source_lang, sample.target_lang, sample.prompt, sample.instruction)
        if sample.instruction and texts.setdefault(text, sample.cluster) != sample.cluster:
            yield f"items of one text ({sample.id}) lie in different clusters, which narrows intervals"
            break
    yield from _listed(
        "has no duration", [s.id for s in samples if s.duration <= 0 and s.status != "not_heard"]
    )
    yield from _listed("has fewer than no tokens", [s.id for s in samples if s.n_tokens < 0])
    yield from _seeds(run, docs, clips_in_pairs)


def of_answers(run: Run, docs: Docs | None) -> Iterator[str]:
    """Statuses that the answers contradict."""
    samples = run.samples
    yield from _listed(
        "is not ok and gives no reason",
        [s.id for s in samples if s.status in UNANSWERED and not s.error.strip()],
    )
    yield from _listed(
        "is an error with an answer", [s.id for s in samples if s.status == "error" and s.response]
    )
    if not served(run.record.model):
        yield from _listed(
            "is no_reply, though no server was asked", [s.id for s in samples if s.status == "no_reply"]
        )
    unscored = sum(sample.status in UNSCORED for sample in samples)
    if unscored > outcomes.UNSCORED_SHARE * len(samples):
        yield f"{unscored} of {len(samples)} items were not answered, too many for a record"
    if docs is not None:
        yield from _listed("is not_heard, yet its clip can be heard", docs.audible(run))
    if run.record.model.get("kind") in HEARS_NO_WORDS:
        yield from _listed("has words that only a cascade hears", [s.id for s in samples if s.heard])
    if not served(run.record.model):
        yield from _tokens(run)


def _tokens(run: Run) -> Iterator[str]:
    """Counts of a model that counts its own tokens, and what only servers do."""
    samples, longest = run.samples, run.record.decoding.get("max_new_tokens")
    yield from _listed(
        "has thinking apart, though no server was asked", [s.id for s in samples if s.reasoning]
    )
    yield from _listed(
        "has an answer of no tokens", [s.id for s in samples if s.extracted.strip() and s.n_tokens < 1]
    )
    if isinstance(longest, int):
        short = [
            s.id for s in samples if s.status == "truncated" and s.n_tokens < longest and _complete(run, s)
        ]
        yield from _listed(f"has more than {longest} tokens", [s.id for s in samples if s.n_tokens > longest])
        yield from _listed(f"is truncated, though it has fewer than {longest} tokens", short)


def _complete(run: Run, sample: Sample) -> bool:
    stops = (run.record.protocol_spec.get("decoding") or {}).get("until") or []
    return scored_part(sample.response, stops).complete


def of_scores(run: Run, again: Recomputed) -> Iterator[str]:
    """Samples, metrics and reports against what was computed again."""
    yield from again.faults
    if not again.samples:
        return
    for what, differs in _SAMPLE_PARTS.items():
        odd = [own.id for own, new in zip(run.samples, again.samples, strict=True) if differs(own, new)]
        yield from _listed(what, odd)
    own, new = run.record.metrics, again.metrics
    if list(own) != list(new):
        yield f"its metrics are {', '.join(own)}; the task has {', '.join(new)}"
    for name in (name for name in own if name in new):
        yield from _metric_faults(name, own[name].model_dump(), new[name].model_dump())
    yield from _reports(run.record.finish, again.reports)
    yield from exploit_faults(run)


def exploit_faults(run: Run) -> Iterator[str]:
    """What answers that know nothing would score, against the questions."""
    stated, found = run.record.exploits, exploits(run.samples)
    if not alike(stated and stated.model_dump(), found and found.model_dump()):
        yield "its exploit table is not what its questions give"


def alike(own: Any, new: Any, scale: float = 1.0) -> bool:
    """Equal JSON values, numbers but for their last digits."""
    if isinstance(own, bool) or isinstance(new, bool) or own is None or new is None:
        return own is new
    if isinstance(own, int | float) and isinstance(new, int | float):
        return math.isclose(own, new, rel_tol=TOLERANCE, abs_tol=TOLERANCE * scale)
    if isinstance(own, Mapping) and isinstance(new, Mapping):
        return own.keys() == new.keys() and all(alike(own[key], new[key], scale) for key in own)
    if isinstance(own, list | tuple) and isinstance(new, list | tuple):
        return len(own) == len(new) and all(alike(a, b, scale) for a, b in zip(own, new, strict=True))
    return bool(own == new)


def _metric_faults(name: str, own: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    scale = float(new["scale"])
    for key in new:
        if alike(own[key], new[key], scale):
            continue
        if key == "breakdown":
            odd = sorted(
                g
                for g in own[key].keys() | new[key].keys()
                if not alike(own[key].get(g), new[key].get(g), scale)
            )
            yield f"{name}.breakdown of {plain(', '.join(odd[:_LISTED]))} does not follow from the samples"
        else:
            yield f"{name}.{key} is recorded as {_shown(own[key])}, its samples give {_shown(new[key])}"


def _reports(own: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if own.keys() != new.keys():
        yield f"finish reports of {sorted(own)}, the protocol names {sorted(new)}"
    for name in own.keys() & new.keys():
        said = {key: value for key, value in own[name].items() if key not in VOLATILE}
        found = {key: value for key, value in new[name].items() if key not in VOLATILE}
        odd = sorted(key for key in said.keys() | found.keys() if not alike(said.get(key), found.get(key)))
        if odd:
            yield f"finish.{plain(name)}: {plain(', '.join(odd))} does not follow from the votes"


def _same_scores(own: Sample, new: Sample) -> bool:
    return own.scores.keys() == new.scores.keys() and all(
        alike(own.scores[k], new.scores[k]) for k in own.scores
    )


def _same_votes(own: Any, new: Any) -> bool:
    """Votes, but for the words in which a failure is told."""
    if isinstance(own, Mapping) and isinstance(new, Mapping):
        if "failures" in own and "failures" in new:
            return bool(own["failures"])
        return own.keys() == new.keys() and all(_same_votes(own[key], new[key]) for key in own)
    if isinstance(own, list) and isinstance(new, list):
        return len(own) == len(new) and all(map(_same_votes, own, new))
    return alike(own, new)


_SAMPLE_PARTS: dict[str, Callable[[Sample, Sample], bool]] = {
    "has an extracted answer that is not its response's": lambda own, new: own.extracted != new.extracted,
    "has scores that do not follow from its response": lambda own, new: not _same_scores(own, new),
    "has a status that does not follow from its response": lambda own, new: own.status != new.status,
    "has votes that do not add up": lambda own, new: not _same_votes(own.judge, new.judge),
    "gives no reason": lambda own, new: bool(new.error.strip()) and not own.error.strip(),
}


def _listed(what: str, ids: Sequence[str]) -> Iterator[str]:
    if ids:
        shown = plain(", ".join(ids[:_LISTED]))
        yield (
            f"{len(ids)} item{'s' if len(ids) > 1 else ''}, each of which {what} ({shown})"
            if len(ids) > 1
            else f"item {shown} {what}"
        )


def _run_id(record: RunRecord) -> Iterator[str]:
    """A rescored record keeps the id that its first protocol gave it."""
    model = {key: value for key, value in identifying(record.model).items() if key != "observed"}
    key = {
        "protocol": record.rescored[0].from_protocol if record.rescored else record.protocol_hash,
        "model": model,
        "data": [record.data["items_sha256"], record.data["audio_set_sha256"]],
        "limit": record.limit,
        "seed": None if record.decoding.get("temperature") == 0 else record.seeds.get("generation"),
    }
    if record.run_id != f"{record.task}-{sha256_json(key)[:12]}":
        yield "run_id does not follow from task, protocol, model, test set, limit and seed"


def _seeds(run: Run, docs: Docs | None, clips_in_pairs: bool) -> Iterator[str]:
    """An item's seed follows from the run's, its prompt and its clip."""
    if clips_in_pairs and docs is None:
        return
    perturb = run.record.protocol_spec.get("perturb")
    damage = "|" + canonical_json(perturb).decode() if perturb else ""
    asked: dict[tuple[str, str], int] = {}
    odd = []
    for place, sample in enumerate(run.samples):
        key = (
            clip_key(sample, docs.documents[place] if docs and place < len(docs.documents) else None) + damage
        )
        count = asked.get((sample.prompt, key), 0)
        asked[sample.prompt, key] = count + 1
        if sample.seed != stable_seed("eval", run.record.seeds.get("generation"), sample.prompt, key, count):
            odd.append(sample.id)
    yield from _listed("has a seed that is not the run's", odd)


def _as_document(sample: Sample) -> dict[str, Any]:
    return {**sample.model_dump(), "audio": {"sha256": sample.audio_sha256}}


def _perturbation(stated: Any) -> dict[str, Any] | None:
    if not stated:
        return None
    from rba_bench.audio import perturbations
    from rba_bench.errors import UserError

    try:
        return perturbations.parse_perturbation(str(stated.get("text"))).identity()
    except (UserError, AttributeError):
        return None


def _parts(wanted: Any, stated: Any) -> str:
    if not isinstance(wanted, Mapping) or not isinstance(stated, Mapping):
        return ""
    odd = sorted(str(key) for key in wanted.keys() | stated.keys() if wanted.get(key) != stated.get(key))
    return f" ({plain(', '.join(odd))})"


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else plain(value)

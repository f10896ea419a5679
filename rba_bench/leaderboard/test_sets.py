"""The test set of a record: its task, its items where this machine has them, and other records on the same items."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from rba_bench.audio.clips import AudioError
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import documents, model_input, task_registry
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.sources import source as sources
from rba_bench.evaluation.sources.small import small_texts
from rba_bench.evaluation.task_registry import TaskSpec
from rba_bench.installing import extra
from rba_bench.leaderboard.board_groups import data_hash
from rba_bench.leaderboard.item_facts import ItemFacts
from rba_bench.leaderboard.loaded_runs import LoadedRun

TEXTS = (
    "id", "kind", "group", "cluster", "prompt", "instruction", "references", "source_lang", "target_lang", "baseline",
    "extra",
)  # fmt: skip
NOT_OPTIONS = ("source", "testset", "data")


@lru_cache(maxsize=1024)
def shipped_task(name: str) -> TaskSpec | None:
    """The task of a name that comes with rba-bench, or that can be made of one; None for other tasks."""
    return _shipped_tasks().get(name) or next(iter(task_registry.generated_task(name)), None)


@lru_cache(maxsize=1)
def _shipped_tasks() -> dict[str, TaskSpec]:
    return {spec.name: spec for spec in task_registry.list_tasks()}


@dataclass(frozen=True)
class LocalTestSet:
    """A test set on this machine.

    Attributes:
        documents: All of it, in order.
        has_audio: Whether its clips are there; else only its texts can be compared.
    """

    documents: list[documents.Document]
    has_audio: bool

    def differences(self, run: LoadedRun) -> Iterator[str]:
        """In what the items of a run differ from this test set."""
        fingerprint = self._fingerprint
        names = ["n_items", "items_sha256"] + (["audio_set_sha256"] if self.has_audio else [])
        if differing := [name for name in names if run.record.data[name] != fingerprint[name]]:
            yield f"data.{' and '.join(differing)} is not that of the test set on this machine"
        counts: Counter[str] = Counter()
        first: dict[str, str] = {}
        facts: Sequence[Mapping[str, Any]] = self.documents
        for sample, document in zip(run.samples, facts, strict=False):
            fields = [name for name in TEXTS if getattr(sample, name) != document[name]]
            if self.has_audio and sample.audio_sha256 != document["audio"]["sha256"]:
                fields.append("audio_sha256")
            if self.has_audio and abs(sample.duration - document["duration"]) > 1e-6:
                fields.append("duration")
            for field in fields:
                counts[field] += 1
                first.setdefault(field, sample.id)
        for field, count in counts.items():
            yield f"{field} of {count} items is not that of the test set on this machine (first: {first[field]})"

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        return documents.set_fingerprint(self.documents)

    def decodable(self, run: LoadedRun) -> list[str]:
        """Items that the run records as `not_heard`, although their clips can be decoded here."""
        if not self.has_audio:
            return []
        ids = []
        for sample in run.samples:
            if sample.status != "not_heard" or sample.doc_id >= len(self.documents):
                continue
            try:
                decoded = len(model_input.load_wave(self._played(sample))) > 0
            except (AudioError, UserError):
                decoded = False
            ids += [sample.id] if decoded else []
        return ids

    def _played(self, sample: Sample) -> Mapping[str, Any]:
        own = self.documents[sample.doc_id]["audio"]
        clips = (document["audio"] for document in self.documents if sample.played_sha256)
        return next((clip for clip in clips if clip["sha256"] == sample.played_sha256), own)


def sample_clip_key(sample: Sample, document: Mapping[str, Any] | None) -> str:
    """Content of the clip as the model gets it, with the clip before it where the test set is on this machine.

    Args:
        sample: The item.
        document: The one whose clip is played, None where it is not here.
    """
    audio, played = document and document["audio"], sample.played_sha256 or sample.audio_sha256
    is_same = audio and audio["sha256"] == played
    return model_input.clip_key(audio) if is_same else played


def load_test_set(spec: TaskSpec, data_dir: Path | None) -> tuple[LocalTestSet | None, str]:
    """The test set of a task, and why it is not on this machine, or not all of it.

    Args:
        spec: The task.
        data_dir: Folder with local copies of public data sets; without it these are not looked at.
    """
    kwargs = dict(spec.config.get("dataset_kwargs") or {})
    if "testset" in kwargs:
        return _micro_test_set(str(kwargs["testset"]))
    if kwargs.get("source") == "small":
        texts = small_texts({name: value for name, value in kwargs.items() if name not in NOT_OPTIONS})
        return LocalTestSet(
            texts.documents, False
        ), "its clips are spoken on first use: only its texts were compared"
    if data_dir is None or "source" not in kwargs:
        return None, "its test set is not on this machine (--data-dir names a local copy)"
    return _public_test_set(json.dumps(kwargs, sort_keys=True), data_dir)


def load_clips(spec: TaskSpec, data_dir: Path | None) -> tuple[LocalTestSet | None, str]:
    """As `load_test_set`, but with the clips of sets that this package speaks, which may be done now."""
    kwargs = dict(spec.config.get("dataset_kwargs") or {})
    if kwargs.get("source") == "small":
        return _public_test_set(json.dumps(kwargs, sort_keys=True), None)
    return load_test_set(spec, data_dir)


@lru_cache(maxsize=4)
def _public_test_set(kwargs_json: str, data_dir: Path | None) -> tuple[LocalTestSet | None, str]:
    kwargs = json.loads(kwargs_json)
    options = {key: value for key, value in kwargs.items() if key not in NOT_OPTIONS}
    try:
        loaded = sources.load_source(str(kwargs["source"]), options, sources.Place.of(data_dir))
    except (MissingPrerequisite, UserError) as error:
        return None, f"its test set is not on this machine: {error}"
    return LocalTestSet(loaded.documents, True), ""


@lru_cache(maxsize=16)
def _micro_test_set(testset: str) -> tuple[LocalTestSet | None, str]:
    try:
        return LocalTestSet(documents.load_documents(testset), True), ""
    except MissingPrerequisite:
        note = f"its clips cannot be synthesised here ({extra('tts')}): only its texts were compared"
        return LocalTestSet(documents.documents_without_clips(testset), False), note


def has_paired_clips(spec: TaskSpec | None) -> bool:
    """Whether each clip comes after another clip, so that samples do not tell all audio that the model got."""
    kwargs = (spec.config.get("dataset_kwargs") or {}) if spec else {}
    return kwargs.get("source") == "dowis" and kwargs.get("form") != "written"


def shared_test_set_faults(
    runs: Sequence[LoadedRun], items: Sequence[str] | None = None
) -> dict[int, list[str]]:
    """Faults by position in `runs`: items in which a run differs from most others on the same test set.

    Args:
        runs: All runs.
        items: `item_facts.items_sha256` of each run, where it is known; runs of equal hashes need not be read.
    """
    test_sets: dict[tuple[str, str], list[int]] = {}
    for position, run in enumerate(runs):
        test_sets.setdefault((run.record.benchmark, data_hash(run.record)), []).append(position)
    differing: dict[int, list[str]] = {}
    for positions in test_sets.values():
        if items is not None and len({items[i] for i in positions}) == 1:
            continue
        longest = max(len(runs[i].samples) for i in positions) if len(positions) > 1 else 0
        for item in range(longest):
            facts = {i: ItemFacts.of(runs[i].samples[item]) for i in positions if item < len(runs[i].samples)}
            [(common, count), *_] = Counter(facts.values()).most_common(1)
            for i, own in facts.items():
                if count < len(facts) and (own != common or 2 * count <= len(facts)):
                    differing.setdefault(i, []).append(runs[i].samples[item].id)
    return {
        i: [f"{len(ids)} items differ from other records on the same test set (first: {ids[0]})"]
        for i, ids in differing.items()
    }

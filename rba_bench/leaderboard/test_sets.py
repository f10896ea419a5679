"""The test set of a task where it can be had on this machine, and the test sets that records share."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rba_bench.audio.clips import AudioError
from rba_bench.errors import MissingPrerequisite, UserError
from rba_bench.evaluation import documents, model_input
from rba_bench.evaluation.records import Sample
from rba_bench.evaluation.sources import source as sources
from rba_bench.evaluation.task_registry import TaskSpec
from rba_bench.installing import extra
from rba_bench.leaderboard.board_groups import data_hash
from rba_bench.leaderboard.loaded_runs import Run

TEXTS = (
    "id", "kind", "group", "cluster", "prompt", "instruction", "references", "source_lang", "target_lang", "baseline",
    "extra",
)  # fmt: skip
NOT_OPTIONS = ("source", "testset", "data")


@dataclass(frozen=True)
class Docs:
    """A test set at hand.

    Attributes:
        documents: All of it, in order.
        heard: Whether its clips are there; else only its texts can be compared.
    """

    documents: list[dict[str, Any]]
    heard: bool

    def differences(self, run: Run) -> Iterator[str]:
        """What a run asked that is not in this test set."""
        found = documents.fingerprint(self.documents)
        names = ["n_items", "items_sha256"] + (["audio_set_sha256"] if self.heard else [])
        if odd := [name for name in names if run.record.data[name] != found[name]]:
            yield f"data.{' and '.join(odd)} is not that of the test set on this machine"
        fields: Counter[str] = Counter()
        first: dict[str, str] = {}
        for sample, doc in zip(run.samples, self.documents, strict=False):
            for name in self._odd(sample, doc):
                fields[name] += 1
                first.setdefault(name, sample.id)
        for name, count in fields.items():
            yield f"{name} of {count} items is not that of the test set on this machine (first: {first[name]})"

    def _odd(self, sample: Sample, doc: Mapping[str, Any]) -> list[str]:
        odd = [name for name in TEXTS if getattr(sample, name) != doc[name]]
        if self.heard:
            odd += ["audio_sha256"] if sample.audio_sha256 != doc["audio"]["sha256"] else []
            odd += ["duration"] if abs(sample.duration - doc["duration"]) > 1e-6 else []
        return odd

    def audible(self, run: Run) -> list[str]:
        """Items that a run could not hear, though their clips can be heard here."""
        if not self.heard:
            return []
        missed = [s for s in run.samples if s.status == "not_heard" and s.doc_id < len(self.documents)]
        return [sample.id for sample in missed if _can_be_heard(self.documents[sample.doc_id]["audio"])]


def clip_key(sample: Sample, doc: Mapping[str, Any] | None) -> str:
    """Content of the clip as it is heard, what is spoken before it included where the test set is at hand."""
    audio = None if doc is None else doc["audio"]
    return (
        model_input.content_key(audio)
        if audio and audio["sha256"] == sample.audio_sha256
        else sample.audio_sha256
    )


def of_task(spec: TaskSpec, data_dir: Path | None) -> tuple[Docs | None, str]:
    """The test set of a task, and why it is not at hand, or not all of it.

    Args:
        spec: The task.
        data_dir: Folder with local copies of public data sets; without it these are not looked at.
    """
    said = dict(spec.config.get("dataset_kwargs") or {})
    if "testset" in said:
        return _micro(str(said["testset"]))
    if data_dir is None or "source" not in said:
        return None, "its test set is not at hand (--data-dir names a local copy)"
    return _public(json.dumps(said, sort_keys=True), data_dir)


@lru_cache(maxsize=4)
def _public(kwargs: str, data_dir: Path) -> tuple[Docs | None, str]:
    said = json.loads(kwargs)
    options = {key: value for key, value in said.items() if key not in NOT_OPTIONS}
    try:
        loaded = sources.load(str(said["source"]), options, sources.Place.of(data_dir))
    except (MissingPrerequisite, UserError) as error:
        return None, f"its test set is not at hand: {error}"
    return Docs(loaded.documents, True), ""


def clips_in_pairs(spec: TaskSpec | None) -> bool:
    """Whether a clip is heard before each clip, so that samples do not tell all that was heard."""
    said = (spec.config.get("dataset_kwargs") or {}) if spec else {}
    return said.get("source") == "dowis" and said.get("form") != "written"


def shared(runs: Sequence[Run]) -> dict[int, list[str]]:
    """Faults by position: items in which a run differs from most others on the same test set."""
    faults: dict[int, list[str]] = {}
    groups: dict[tuple[str, str], list[int]] = {}
    for place, run in enumerate(runs):
        groups.setdefault((run.record.benchmark, data_hash(run.record)), []).append(place)
    for places in groups.values():
        longest = max(len(runs[place].samples) for place in places) if len(places) > 1 else 0
        for item in range(longest):
            asked = {p: _asked(runs[p].samples[item]) for p in places if item < len(runs[p].samples)}
            [(most, count), *_] = Counter(asked.values()).most_common(1)
            for place, mine in asked.items():
                if count < len(asked) and (mine != most or 2 * count <= len(asked)):
                    faults.setdefault(place, []).append(runs[place].samples[item].id)
    return {
        place: [f"{len(ids)} items differ from other records on the same test set (first: {ids[0]})"]
        for place, ids in faults.items()
    }


def _asked(sample: Sample) -> tuple[Any, ...]:
    texts = tuple(getattr(sample, name) for name in TEXTS if name != "references")
    return (*texts, tuple(sample.references), sample.doc_id, sample.audio_sha256, round(sample.duration, 6))


@lru_cache(maxsize=16)
def _micro(testset: str) -> tuple[Docs | None, str]:
    try:
        return Docs(documents.load(testset), True), ""
    except MissingPrerequisite:
        note = f"its clips cannot be spoken here ({extra('tts')}): only its texts were compared"
        return Docs(documents.without_clips(testset), False), note


def _can_be_heard(audio: Any) -> bool:
    try:
        return bool(len(model_input.wave(audio)))
    except (AudioError, UserError):
        return False

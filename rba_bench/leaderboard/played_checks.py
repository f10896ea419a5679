"""Checks of what was played to a model: perturbation, control, the clips of `shuffle`, and the seeds that follow."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from rba_bench.audio import perturbations
from rba_bench.errors import UserError
from rba_bench.evaluation.audio_control import (
    ClipFacts,
    exchange_clips,
    facts_of,
    recorded_control,
    refuse_reader,
    requested_control,
)
from rba_bench.files import canonical_json
from rba_bench.leaderboard.loaded_runs import CEILING, LoadedRun, kind_of_run
from rba_bench.leaderboard.recompute import items_fault
from rba_bench.leaderboard.test_sets import LocalTestSet, sample_clip_key
from rba_bench.seeding import stable_seed


def as_written_now(protocol: Mapping[str, Any]) -> dict[str, dict[str, Any] | None]:
    """`perturb` and `audio` of a protocol as the code would write them; None where there is none, or it is unknown."""
    perturb, audio = None, None
    try:
        text = (protocol.get("perturb") or {}).get("text", "")
        perturb = perturbations.parse_perturbation(str(text)).identity() if text else None
        control = recorded_control(protocol)
        audio = control.identity() if control else None
    except (UserError, AttributeError):
        pass
    return {"perturb": perturb, "audio": audio}


def check_played(run: LoadedRun, test_set: LocalTestSet | None) -> Iterator[str]:
    """A control that cannot be, and clips that `shuffle` would not have given to their items."""
    protocol = run.record.protocol_spec
    try:
        control = recorded_control(protocol)
        if control is not None:
            requested_control(control.text, str((protocol.get("perturb") or {}).get("text", "")))
            if kind_of_run(run) == CEILING:
                refuse_reader(control, run.name)
        donors = _donors(run, test_set) if control is not None and control.exchanges else []
    except UserError as error:
        yield str(error)
        return
    if control is None or not control.exchanges:
        played = [sample.id for sample in run.samples if sample.played_sha256]
        yield from items_fault("names another clip that was played, though no clips were exchanged", played)
        return
    if donors is None:  # a part of a test set that is not here
        kept = [s.id for s in run.samples if s.played_sha256 in ("", s.audio_sha256)]
        yield from items_fault("kept its clip, though clips were exchanged", kept)
        return
    clips = _clips(run, test_set)
    pairs = zip(run.samples, donors, strict=False)
    others = [sample.id for sample, donor in pairs if sample.played_sha256 != clips[donor]]
    yield from items_fault("was not played the clip that shuffle gives to it", others)


def items_of_other_seeds(run: LoadedRun, test_set: LocalTestSet | None) -> list[str]:
    """Items whose seed does not follow from the run's, their prompt and what was played."""
    protocol = run.record.protocol_spec
    perturbation, control = protocol.get("perturb"), recorded_control(protocol)
    suffix = "|" + canonical_json(perturbation).decode() if perturbation else ""
    suffix += control.key_suffix() if control else ""
    documents = test_set.documents if test_set else []
    donors = _donors(run, test_set) if control is not None and control.exchanges else None
    counts: Counter[tuple[str, str]] = Counter()
    ids = []
    for place, sample in enumerate(run.samples):
        source = place if donors is None or test_set is None else donors[place]
        document = documents[source] if source < len(documents) else None
        key = sample_clip_key(sample, document) + suffix
        count = counts[sample.prompt, key]
        counts[sample.prompt, key] += 1
        if sample.seed != _item_seed(run.record.seeds.get("generation"), sample.prompt, key, count):
            ids.append(sample.id)
    return ids


@lru_cache(maxsize=2**14)  # records on one test set have the same
def _item_seed(generation: int | None, prompt: str, key: str, count: int) -> int:
    return stable_seed("eval", generation, prompt, key, count)


def _donors(run: LoadedRun, test_set: LocalTestSet | None) -> Sequence[int] | None:
    """What `exchange_clips` gives for the whole test set, None where not all of it is known."""
    if test_set is not None and test_set.has_audio:
        return exchange_clips(facts_of(test_set.documents), run.record.task)
    if run.record.partial:
        return None
    facts = [ClipFacts.of(s.audio_sha256, s.cluster, s.instruction, s.source_lang) for s in run.samples]
    return exchange_clips(facts, run.record.task)


def _clips(run: LoadedRun, test_set: LocalTestSet | None) -> list[str]:
    if test_set is not None and test_set.has_audio:
        return [document["audio"]["sha256"] for document in test_set.documents]
    return [sample.audio_sha256 for sample in run.samples]

"""The test sets of the track `small`, which this package writes and speaks itself (see `rba_bench.small`)."""

import json
from collections.abc import Mapping
from typing import Any

from rba_bench.assets import load_world
from rba_bench.evaluation import documents
from rba_bench.evaluation.sources import baselines
from rba_bench.evaluation.sources.source import LoadedSet, Place, check_options
from rba_bench.evaluation.sources.tables import Clip, read_columns

COLUMNS = (
    "id", "group_id", "kind", "instruction", "references", "level", "subject", "open_ended", "constraints",
    "voice", "sampling_rate", "duration", "audio_sha256",
)  # fmt: skip
KINDS = {"qa": "qa", "instruct": "ifeval", "asr": "asr"}
_NO_CLIP = {"sampling_rate": 0, "duration": 0.0, "audio_sha256": ""}


def load_small(options: Mapping[str, Any], place: Place) -> LoadedSet:
    """Items of one set; its clips are spoken now if they are not in the cache.

    Args:
        options: `set`, such as `small_qa`; `split` (`test`); `judged`: true for the open-ended instructions alone,
            which a judge compares with the answers of a baseline; `bank`: voice bank instead of the split's own voices;
            `every`: N for each N-th text alone.
        place: `options["baseline"]` replaces the stored answers.

    Raises:
        UserError: Unknown set or split.
        MissingPrerequisite: It cannot be spoken here.
    """
    chosen = _choose(options)
    world = load_world("testsets", "small")
    file = world.load_testset(chosen["set"], chosen["split"], bank=chosen["bank"]) / "test.parquet"
    return _make_set(chosen, read_columns(file, COLUMNS), place, str(file.resolve()))


def small_texts(options: Mapping[str, Any]) -> LoadedSet:
    """The items of a set without their clips: hash "" and duration 0. Arguments and errors as of `load_small`."""
    chosen = _choose(options)
    rows = load_world("testsets", "small").testset_texts(chosen["set"], chosen["split"], chosen["bank"])
    return _make_set(chosen, [row | _NO_CLIP for row in rows], Place())


def _choose(options: Mapping[str, Any]) -> dict[str, Any]:
    return check_options(options, set=..., split="test", judged=False, bank="", every=1)


def _make_set(
    chosen: Mapping[str, Any], rows: list[dict[str, Any]], place: Place, file: str = ""
) -> LoadedSet:
    judged = bool(chosen["judged"])
    texts = list(dict.fromkeys(row["group_id"] for row in rows))
    kept = set(texts[:: int(chosen["every"])])
    items = [
        _document(row, Clip(row["audio_sha256"], row["sampling_rate"], row["duration"], file, number), judged)
        for number, row in enumerate(rows)
        if row["group_id"] in kept and (row["open_ended"] or not judged)
    ]
    origin = {"set": chosen["set"], "split": chosen["split"]}
    origin |= {key: chosen[key] for key, usual in (("bank", ""), ("every", 1)) if chosen[key] != usual}
    return (
        baselines.with_baseline(items, origin, place, _stored_answers) if judged else LoadedSet(items, origin)
    )


def _stored_answers(_place: Place) -> baselines.Baseline:
    """What the text model answers when it reads the instructions."""
    return baselines.read_baseline(load_world("testsets", "small").BASELINE)


def _document(row: Mapping[str, Any], clip: Clip, judged: bool) -> documents.Document:
    """A judged item is of the kind `chat`, which no rule scores. Parts of the instructions are `closed` and `open`."""
    kind = KINDS[row["kind"]]
    constraints = json.loads(row["constraints"]) if row["constraints"] else {}
    checks = [check["name"] for check in constraints.get("instructions", ())]
    part = ("open" if row["open_ended"] else "closed") if kind == "ifeval" else row["level"]
    return documents.make_document(
        id=row["id"],
        kind="chat" if judged else kind,
        clip=clip,
        instruction=row["instruction"],
        prompt=load_world("testsets", "small").PROMPTS.get(row["kind"], ""),
        references=row["references"],
        topic=checks[0] if checks else row["subject"],
        voice=row["voice"],
        group=part,
        cluster=row["group_id"],
        extra=None if judged else constraints or None,
    )
